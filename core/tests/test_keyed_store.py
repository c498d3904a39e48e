"""The keyed store: exact keys whatever their hashes are, epochs that are undone, keys that come and go, its log."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.profile import examples

from velaria_core.errors import DataError
from velaria_core.execution import keyed_log
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.keyed_log import KeyedLog
from velaria_core.execution.keyed_store import Folded, KeyedStore, KeyIndex, can_be_key, hashes_of
from velaria_core.execution.state import Store
from velaria_core.execution.vectors import (
    Array,
    Vector,
    add_128,
    array_of,
    floats_of,
    less_128,
    vector_of,
)
from velaria_core.logical.event_time import END
from velaria_core.logical.partials import Fold

Hash = Callable[[Any], int]
HASHES: dict[str, Hash] = {
    "spread": lambda key: hash((key, "salt")) & (2**64 - 1),
    "all equal": lambda _: 7 << 32,
    "few": lambda key: (hash((key, 1)) % 3) << 62,
    "last place": lambda _: 2**64 - 1,
}


def hashes(keys: Sequence[Any], of: Hash) -> Array:
    return np.array([of(key) for key in keys], np.uint64)


# --- the index ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", HASHES.values(), ids=HASHES)
def test_keys_are_told_apart_whatever_their_hashes_are(of: Hash) -> None:
    """A dict is the model; batches of distinct keys, some known and some not."""

    @examples(30)
    @given(st.lists(st.lists(st.none() | st.text(max_size=3), unique=True, min_size=1, max_size=40), max_size=6))
    def holds(batches: list[list[str | None]]) -> None:
        index, model = KeyIndex([pa.string()]), dict[str | None, int]()
        for batch in batches:
            given = pa.array(batch, pa.string())
            before = len(model)
            slots = index.intern(hashes(batch, of), [given])
            for key in batch:
                model.setdefault(key, len(model))
            assert slots.tolist() == [model[key] for key in batch]
            assert index.count == len(model) >= before
            index.committed()
        if model:
            kept = index.columns[0].take(np.arange(len(model)))
            assert kept.to_pylist() == list(model)
            assert kept.type == pa.string()

    holds()


@pytest.mark.parametrize("of", HASHES.values(), ids=HASHES)
def test_an_index_that_is_rolled_back_is_as_it_was(of: Hash) -> None:
    index = KeyIndex([pa.int64()])

    def intern(keys: Sequence[int]) -> list[int]:
        found: list[int] = index.intern(hashes(keys, of), [pa.array(keys, pa.int64())]).tolist()
        return found

    assert intern(range(5)) == [0, 1, 2, 3, 4]
    index.committed()
    assert intern([7, 3, 8]) == [5, 3, 6]
    assert intern([8, 9]) == [6, 7]
    index.rolled_back()
    assert index.count == 5
    assert intern([9, 4, 7]) == [5, 4, 6]
    if of is HASHES["spread"]:
        # So many that the table is another one when the epoch fails.
        index.committed()
        assert intern(range(5000)) != []
        index.rolled_back()
        assert index.count == 7
        assert intern([4, 7, 4999]) == [4, 6, 7]


KINDS: dict[pa.DataType, list[Any]] = {
    pa.bool_(): [True, False, None],
    pa.int8(): [-128, 0, 127, None],
    pa.int32(): [-(2**31), 5, None],
    pa.uint64(): [0, 2**64 - 1, 2**63, None],
    pa.float32(): [0.5, float("nan"), float("inf"), None],
    pa.float64(): [0.1, float("nan"), -float("inf"), 1e300, None],
    pa.decimal128(38, 2): [Decimal("-1.25"), Decimal("99999999999999999999999999999999999.99"), None],
    pa.date32(): [dt.date(1969, 12, 31), dt.date(2024, 2, 29), None],
    pa.timestamp("us"): [dt.datetime(1969, 1, 1), dt.datetime(2024, 2, 29, 1, 2, 3, 4), None],
    pa.string(): ["", "null", "é", "数据", "🙂", "a" * 300, None],
    pa.binary(): [b"", b"\x00", b"\x00\x00", b"\xff", None],
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_type_is_a_key_beside_another(kind: pa.DataType) -> None:
    """Alone and as the second of two, NULL and NaN equal to themselves, through a move and back."""
    values = KINDS[kind]
    index = KeyIndex([pa.int64(), kind])
    first = pa.array([1] * len(values) + [None] * len(values), pa.int64())
    second = pa.array(values * 2, kind)
    same_hash = np.zeros(len(first), np.uint64)
    assert index.intern(same_hash, [first, second]).tolist() == list(range(len(first)))
    assert index.intern(same_hash, [first, second]).tolist() == list(range(len(first)))
    # A slice, whose buffers begin elsewhere.
    assert index.intern(same_hash[2:], [first.slice(2), second.slice(2)]).tolist() == list(range(2, len(first)))
    index.committed()
    kept = np.arange(1, len(first), 2)
    index.move(kept)
    chosen = [first.take(pa.array(kept)), second.take(pa.array(kept))]
    assert [column.take(np.arange(len(kept))) for column in index.columns] == chosen or pa.types.is_floating(kind)
    assert index.intern(same_hash[kept], chosen).tolist() == list(range(len(kept)))


def test_what_has_no_exact_form_in_memory_is_no_key() -> None:
    assert not can_be_key(pa.list_(pa.int64()))
    assert not can_be_key(pa.month_day_nano_interval())
    assert can_be_key(pa.string())


# --- 128 bits -----------------------------------------------------------------------------------------------------


WHOLE = st.integers(-(2**125), 2**125) | st.sampled_from([0, -1, 2**64, -(2**64), 2**63, -(2**63), 2**64 - 1])


def words(numbers: Sequence[int]) -> Array:
    return np.array([[number % 2**64, (number >> 64) % 2**64] for number in numbers], np.uint64).reshape(-1, 2)


@examples(200)
@given(WHOLE, WHOLE)
def test_arithmetic_in_128_bits(one: int, other: int) -> None:
    assert add_128(words([one]), words([other])).tolist() == words([one + other]).tolist()
    assert less_128(words([one]), words([other])).tolist() == [one < other]


def test_a_sum_that_leaves_128_bits_is_an_error() -> None:
    with pytest.raises(DataError) as raised:
        add_128(words([2**127 - 1]), words([1]))
    assert raised.value.code == "value.overflow"
    with pytest.raises(DataError):
        add_128(words([-(2**127)]), words([-1]))
    assert add_128(words([2**127 - 1]), words([-(2**127)])).tolist() == words([-1]).tolist()


def test_wide_integers_become_floats_as_the_engine_has_it() -> None:
    numbers = [
        0,
        1,
        -1,
        -2,
        2**53 + 1,
        -(2**53) - 1,
        2**64,
        2**64 - 1,
        -(2**64),
        -(2**64) - 1,
        10**37,
        -(10**37),
        3**79,
    ]
    column = pa.array([Decimal(number) for number in numbers], pa.decimal128(38, 0))
    engine = Engine(Settings(threads=1))
    with engine.cursor({"t": pa.table({"x": column})}) as cursor:
        expected = cursor.table("SELECT CAST(CAST(x AS HUGEINT) AS DOUBLE) AS y FROM t").column("y").to_pylist()
    engine.close()
    assert floats_of(vector_of(column).data).tolist() == expected


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (pa.string(), pa.binary())], ids=str)
def test_a_column_comes_back_as_it_was(kind: pa.DataType) -> None:
    array = pa.array([*KINDS[kind] * 5], kind)
    for part in (array, array.slice(3), array.slice(9, 2), array.slice(2, 0)):
        assert repr(array_of(vector_of(part), kind).to_pylist()) == repr(part.to_pylist())


# --- the store ----------------------------------------------------------------------------------------------------


def counting(closes: bool = False) -> KeyedStore:
    return KeyedStore([pa.int64()], [(Fold.ADD, pa.int64()), (Fold.MAX, pa.float64())], closes)


def fold(kept: KeyedStore, rows: dict[int, tuple[int, float | None]], closes: Sequence[int] | None = None) -> Folded:
    keys = list(rows)
    maxima = pa.array([largest for _, largest in rows.values()], pa.float64())
    columns = [Vector(np.array([count for count, _ in rows.values()])), vector_of(maxima)]
    closed = None if closes is None else np.array(closes, np.int64)
    return kept.fold(hashes(keys, HASHES["spread"]), [pa.array(keys, pa.int64())], columns, closed)


def contents(kept: KeyedStore) -> dict[Any, tuple[int, float | None]]:
    slots = kept.alive(0, kept.count)
    counts, maxima = kept.values(slots)
    largest = array_of(maxima, pa.float64()).to_pylist()
    return dict(zip(kept.keys(slots)[0].to_pylist(), zip(counts.data.tolist(), largest, strict=True), strict=True))


def test_a_fold_tells_what_was_and_what_is() -> None:
    kept = counting()
    first = fold(kept, {1: (2, 5.0), 2: (1, None)})
    assert first.known.tolist() == [False, False]
    second = fold(kept, {2: (3, float("nan")), 1: (1, 4.0), 3: (1, -1.0)})
    assert second.known.tolist() == [True, True, False]
    assert second.old[0].data.tolist() == [1, 2, 0]
    assert second.new[0].data.tolist() == [4, 3, 1]
    assert str(contents(kept)) == str({1: (3, 5.0), 2: (4, float("nan")), 3: (1, -1.0)})
    assert kept.live == 3
    assert kept.nbytes > 0


def test_epochs_that_are_not_committed_are_undone_together() -> None:
    kept = counting(closes=True)
    fold(kept, {1: (1, 1.0), 2: (1, 2.0)}, [10, 20])
    kept.committed()
    before = contents(kept)
    fold(kept, {2: (5, 9.0), 3: (1, None)}, [20, 15])
    closed = kept.closed(15)
    assert kept.keys(closed)[0].to_pylist() == [1, 3]
    kept.forget(closed)
    fold(kept, {4: (1, 1.0)}, [30])
    kept.rolled_back()
    assert contents(kept) == before
    assert kept.live == 2
    assert kept.closes_by(10)
    assert kept.keys(kept.closed(END))[0].to_pylist() == [1, 2]


def test_keys_that_come_and_go_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velaria_core.execution.keyed_store._KEPT_FORGOTTEN", 8)
    kept = counting(closes=True)
    sizes = list[int]()
    for epoch in range(60):
        fold(kept, {epoch * 10 + at: (1, float(at)) for at in range(10)}, [epoch + 1] * 10)
        kept.forget(kept.closed(epoch))
        kept.committed()
        sizes.append(kept.nbytes)
        assert kept.live == 10
    assert kept.count <= 40
    assert max(sizes) < 64_000
    assert set(contents(kept)) == set(range(590, 600))


def test_a_forgotten_key_begins_anew() -> None:
    kept = counting()
    kept.forget(fold(kept, {1: (3, 9.0)}).slots)
    kept.committed()
    again = fold(kept, {1: (1, None)})
    assert again.known.tolist() == [False]
    assert contents(kept) == {1: (1, None)}
    assert kept.live == 1


# --- the log ------------------------------------------------------------------------------------------------------


class Durable:
    """A store with its log in a file, reopened at will."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self.engine = Engine(Settings(path=str(self._path), threads=1))
        self.store = Store(self.engine)
        self.kept = counting()
        self.log = KeyedLog(self.store, "log", self.kept, [pa.int64()], None)

    def epoch(self, rows: dict[int, tuple[int, float | None]], *, fails: bool = False) -> None:
        class Failure(Exception):
            pass

        keys = list(rows)
        column = pa.array(keys, pa.int64())
        maxima = pa.array([largest for _, largest in rows.values()], pa.float64())
        columns = [Vector(np.array([count for count, _ in rows.values()])), vector_of(maxima)]
        given = hashes_of([column], None)
        try:
            with self.store.cursor.transaction():
                self.log.append([column], self.kept.fold(given, [column], columns))
                if fails:
                    raise Failure
        except Failure:
            self.kept.rolled_back()
            self.log.rolled_back()
        else:
            self.log.committed(self.kept.committed())

    def rows(self) -> int:
        tables = [f"log_{what}_{at}" for what in ("keys", "values") for at in (0, 1)]
        return sum(self.store.cursor.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables)

    def close(self) -> None:
        self.store.close()
        self.engine.close()

    def reopen(self) -> None:
        self.close()
        self._open()


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Durable]:
    made = Durable(tmp_path / "state.duckdb")
    yield made
    made.close()


def test_a_restart_finds_the_values_of_the_last_commit(durable: Durable) -> None:
    durable.epoch({1: (1, 1.0), 2: (2, None)})
    durable.epoch({2: (2, 7.0), 3: (1, None)})
    durable.epoch({2: (9, 9.0), 5: (9, 9.0)}, fails=True)
    durable.epoch({4: (1, 4.0)})
    expected = {1: (1, 1.0), 2: (4, 7.0), 3: (1, None), 4: (1, 4.0)}
    assert contents(durable.kept) == expected
    durable.reopen()
    assert contents(durable.kept) == expected
    durable.epoch({4: (1, 5.0)})
    durable.reopen()
    assert contents(durable.kept) == {**expected, 4: (2, 5.0)}


def test_a_log_is_written_in_rounds_and_stays_small(durable: Durable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed_log, "ROWS_MIN", 10)
    monkeypatch.setattr(keyed_log, "_WRITE_ROWS_MIN", 3)
    model: dict[int, tuple[int, float | None]] = {}
    rng = np.random.default_rng(3)
    largest = 0
    for epoch in range(200):
        touched = rng.choice(40, 2, replace=False).tolist()
        fails = epoch % 7 == 3
        durable.epoch({key: (1, float(epoch)) for key in touched}, fails=fails)
        if not fails:
            model |= {key: (model.get(key, (0, None))[0] + 1, float(epoch)) for key in touched}
        if epoch % 50 == 29:
            durable.reopen()
        largest = max(largest, durable.rows())
        assert contents(durable.kept) == model
    # Keys once, and values a few times.
    assert largest < 40 + 10 + 6 * 40
