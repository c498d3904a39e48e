"""Checkpoints that do not fit, and the mirror that people and tools read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime_support import PATIENCE_S, Gathered, Scripted, numbered, query_over

from velaria_core.contract import abi
from velaria_core.contract.codec import Checkpoint
from velaria_core.errors import InputError, StateError, VelariaError
from velaria_core.execution.clock import ManualClock
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.execution.sinks.csv_append import CsvAppendSink
from velaria_core.execution.sinks.file_set import FileSetSink
from velaria_core.execution.sinks.table import TableSink

TEN = [numbered(value) for value in range(10)]
SUM = "SELECT k, count(*) AS n FROM one GROUP BY k"


def run(folder: Path, batches: int, sql: str = SUM) -> None:
    """So many batches, an epoch each."""
    query = query_over(Scripted(TEN), sink=Gathered(), sql=sql, checkpoint_path=str(folder), epoch_rows_max=1)
    assert query.await_termination(PATIENCE_S, max_batches=batches)


def opened(folder: Path, sql: str = SUM, **options: Any) -> StreamingQuery:
    return query_over(Scripted(TEN), sink=Gathered(), sql=sql, checkpoint_path=str(folder), **options)


def refusal(folder: Path, sql: str = SUM) -> VelariaError:
    with pytest.raises(VelariaError) as caught:
        opened(folder, sql)
    assert caught.value.hint
    return caught.value


def change(folder: Path, sql: str) -> None:
    engine = Engine(Settings(path=str(folder / "state.duckdb")))
    with engine.cursor() as cursor:
        cursor.rows(sql)
    engine.close()


# --- the mirror


def test_the_mirror_is_the_last_durable_point(tmp_path: Path) -> None:
    run(tmp_path, 3)
    found = Checkpoint.from_json((tmp_path / "checkpoint.json").read_bytes())
    assert (found.epoch, found.batches_processed) == (3, 3)
    assert [(one.source, one.offset) for one in found.sources] == [("source-1", "3")]
    assert [(one.sink, one.epoch, one.ref) for one in found.staged] == [("output", 3, "ref-3")]
    assert found.states
    assert all(one.ref.startswith(one.step) for one in found.states)
    assert found.query_fingerprint
    assert not list(tmp_path.glob("*.partial"))


def test_the_mirror_is_written_once_a_second_at_most(tmp_path: Path) -> None:
    clock = ManualClock()
    mirror = tmp_path / "checkpoint.json"
    source = Scripted(TEN, bounded=False)
    query = query_over(source, sink=Gathered(), sql=SUM, clock=clock, checkpoint_path=str(tmp_path), epoch_rows_max=1)
    seen = []
    for _ in range(10):
        source.answers = TEN[: len(source.markers) + 1]
        query.process_available()
        seen.append(json.loads(mirror.read_text())["epoch"])
        clock.advance(400)
    assert seen == [1, 1, 1, 4, 4, 4, 7, 7, 7, 10]
    query.stop()


def test_without_the_mirror_the_query_goes_on(tmp_path: Path) -> None:
    run(tmp_path, 3)
    (tmp_path / "checkpoint.json").unlink()
    query = opened(tmp_path)
    assert query.process_available() == 7
    query.stop()


# --- what does not fit


def test_a_state_file_behind_the_mirror_has_lost_epochs(tmp_path: Path) -> None:
    """As when the write-ahead log was taken away: the engine itself does not notice."""
    run(tmp_path, 3)
    shutil.copy(tmp_path / "state.duckdb", tmp_path / "old")
    run(tmp_path, 3)
    shutil.copy(tmp_path / "old", tmp_path / "state.duckdb")
    error = refusal(tmp_path)
    assert error.code == "checkpoint.lost_epochs"
    assert "epoch 6" in error.message
    assert "of 3" in error.message
    (tmp_path / "checkpoint.json").unlink()
    query = opened(tmp_path)
    assert query.process_available() == 7
    query.stop()


def test_a_state_file_that_is_gone(tmp_path: Path) -> None:
    run(tmp_path, 3)
    (tmp_path / "state.duckdb").unlink()
    assert refusal(tmp_path).code == "checkpoint.lost_epochs"


def test_a_checkpoint_of_another_query(tmp_path: Path) -> None:
    run(tmp_path, 3)
    error = refusal(tmp_path, "SELECT k, max(v) AS m FROM one GROUP BY k")
    assert isinstance(error, StateError)
    assert error.code == "checkpoint.other_query"
    assert opened(tmp_path).process_available() == 7


def test_a_checkpoint_of_another_output_mode(tmp_path: Path) -> None:
    """A complete result, say, would lack what came before."""
    run(tmp_path, 3)
    with pytest.raises(StateError) as caught:
        opened(tmp_path, output_mode="complete")
    assert caught.value.code == "checkpoint.output_mode"
    assert opened(tmp_path).process_available() == 7


def test_a_checkpoint_of_a_query_that_never_ran_is_nobodys(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        opened(tmp_path, "SELECT k, max(v) AS m FROM one GROUP BY k", output_mode="append")
    opened(tmp_path, "SELECT k, median(v) AS m, min(k) AS n FROM one GROUP BY k").stop()
    assert opened(tmp_path).process_available() == 10


@pytest.mark.parametrize("version", [0, 99])
def test_a_checkpoint_of_another_version(version: int, tmp_path: Path) -> None:
    run(tmp_path, 3)
    change(tmp_path, f"UPDATE velaria_query SET version = {version}")
    error = refusal(tmp_path)
    assert error.code == "checkpoint.version"
    assert str(version) in error.message


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("harm", "codes"),
    [
        (lambda data: data[: len(data) // 2], {"database.corrupt", "database.invalid", "file.io"}),
        (lambda data: data[:100], {"database.corrupt", "database.invalid", "file.io"}),
        (lambda data: _flipped(data, 9), {"database.corrupt", "database.invalid", "file.io"}),
        (lambda data: _flipped(data, 4_200), {"database.corrupt", "database.invalid"}),
        (lambda data: _flipped(data, 12_400), {"database.corrupt", "database.invalid"}),
    ],
    ids=["half", "little", "magic", "header", "first block"],
)
def test_a_damaged_state_file(harm: Callable[[bytes], bytes], codes: set[str], tmp_path: Path) -> None:
    run(tmp_path, 3)
    path = tmp_path / "state.duckdb"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(VelariaError) as caught:
        opened(tmp_path).process_available()
    assert caught.value.code in codes, caught.value


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (lambda text: text[: len(text) // 2], "checkpoint.damaged"),
        (lambda _text: b"", "checkpoint.damaged"),
        (lambda text: text.replace(b'"batches_processed": 3', b'"batches_processed": 7'), "checkpoint.checksum"),
        (lambda text: _flipped(text, text.index(b"source-1")), "checkpoint.damaged"),
        (lambda text: text.replace(b'"version": 1', b'"version": 2'), "checkpoint.version"),
    ],
    ids=["half", "empty", "number", "byte", "version"],
)
def test_a_damaged_mirror(harm: Callable[[bytes], bytes], code: str, tmp_path: Path) -> None:
    """It is told, and how to go on: the state file is whole."""
    run(tmp_path, 3)
    path = tmp_path / "checkpoint.json"
    path.write_bytes(harm(path.read_bytes()))
    error = refusal(tmp_path)
    assert error.code == code
    assert error.hint is not None
    assert "without checkpoint.json the query goes on" in error.hint


def test_two_queries_of_one_process_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    """Those of two processes: crash/test_kill.py."""
    one = opened(tmp_path)
    assert refusal(tmp_path).code == "database.locked"
    one.stop()
    two = opened(tmp_path)
    assert two.process_available() == 10
    two.stop()


@pytest.mark.parametrize("make", ["csv", "files", "table"])
def test_durable_queries_write_to_one_place_in_turn(make: str, tmp_path: Path) -> None:
    """Their epochs have the same numbers; each goes on with its own, whoever wrote there meanwhile."""
    engine = Engine(Settings(threads=1))

    def sink() -> abi.Sink:
        match make:
            case "csv":
                return CsvAppendSink(engine, tmp_path / "out.csv")
            case "files":
                return FileSetSink(engine, tmp_path / "out", "csv")
            case _:
                return TableSink("out", engine=engine)

    for batches in (3, 1, 2):
        for name in ("one", "two"):
            query = query_over(
                Scripted(TEN),
                sink=sink(),
                sql=f"SELECT '{name}' AS k, v FROM one",
                checkpoint_path=str(tmp_path / name),
                epoch_rows_max=1,
            )
            assert query.await_termination(PATIENCE_S, max_batches=batches)
    with engine.cursor() as cursor:
        read = {
            "csv": f"read_csv('{tmp_path}/out.csv')",
            "files": f"read_csv('{tmp_path}/out/part-*.csv')",
            "table": "out",
        }[make]
        found = cursor.rows(f"SELECT k, v FROM {read} ORDER BY ALL")
    assert found == [(name, value) for name in ("one", "two") for value in range(6)]
    engine.close()


def test_a_state_has_an_identity_that_outlives_restarts(tmp_path: Path) -> None:
    told = []
    for folder in (tmp_path / "one", tmp_path / "one", tmp_path / "two", None):
        sink = Gathered()
        query_over(Scripted(TEN), sink=sink, checkpoint_path=str(folder) if folder else None).stop()
        told.append(sink.contexts[0].state_id)
    first, again, other, nothing = told
    assert first == again
    assert len({first, other, nothing}) == 3
    assert nothing == ""


def test_output_for_a_sink_that_is_not_there(tmp_path: Path) -> None:
    """Dead letters that were durable and not visible are not forgotten with their sink."""
    letters = Gathered(committing=_fail)
    cast = "SELECT CAST(k AS BIGINT) AS n FROM one"
    query = query_over(Scripted(TEN[:1]), sink=Gathered(), sql=cast, dead_letter=letters, checkpoint_path=str(tmp_path))
    with pytest.raises(VelariaError):
        query.process_available()
    error = refusal(tmp_path, cast)
    assert error.code == "checkpoint.sink"
    again = Gathered()
    again._staged = letters._staged
    query = query_over(Scripted(TEN[:1]), sink=Gathered(), sql=cast, dead_letter=again, checkpoint_path=str(tmp_path))
    query.stop()
    assert [row["v"] for row in again.rows] == [0]


def _fail(_epoch: int) -> None:
    raise RuntimeError("the sink is away")
