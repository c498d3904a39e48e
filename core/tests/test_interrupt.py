"""Interrupting an engine stops what runs on it now, and nothing that starts later."""

import threading
from collections.abc import Callable

import pytest

from velaria_core.errors import QueryCancelled, VelariaError
from velaria_core.execution.duck import Cursor, Engine, Settings

ENDLESS = "SELECT i, j FROM range(100000000) a(i), range(100000000) b(j) WHERE i * j % 1000003 = 7 AND i + j < 0"


@pytest.fixture
def engine() -> Engine:
    return Engine(Settings())


def interrupted(engine: Engine, work: Callable[[Cursor], object]) -> VelariaError | None:
    """What `work` raises on a thread of its own, while the engine is interrupted until it has ended."""
    raised: list[VelariaError] = []
    started = threading.Event()

    def run() -> None:
        try:
            with engine.cursor() as cursor:
                started.set()
                work(cursor)
        except VelariaError as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait()
    for _ in range(1000):
        engine.interrupt()
        thread.join(0.02)
        if not thread.is_alive():
            return raised[0] if raised else None
    raise AssertionError("the statement runs on")


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda cursor: cursor.table(ENDLESS), id="table"),
        pytest.param(lambda cursor: list(cursor.batches(cursor.reader(ENDLESS, 1000))), id="reader"),
        pytest.param(lambda cursor: cursor.execute(f"CREATE TABLE t AS {ENDLESS}"), id="statement"),
    ],
)
def test_a_running_statement_is_cancelled(engine: Engine, work: Callable[[Cursor], object]) -> None:
    assert isinstance(interrupted(engine, work), QueryCancelled)
    # The engine goes on.
    with engine.cursor() as cursor:
        assert cursor.rows("SELECT 1") == [(1,)]


def test_an_idle_engine_is_not_hurt(engine: Engine) -> None:
    with engine.cursor() as cursor:
        cursor.rows("SELECT 1")
    engine.interrupt()
    with engine.cursor() as cursor:
        assert cursor.rows("SELECT 2") == [(2,)]
