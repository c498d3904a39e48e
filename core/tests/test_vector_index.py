"""The vector index: any history of changes, commits, crashes and merges gives the answer of exact search."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_support import clustered, reference

from velaria_core.errors import ExternalError, InputError, StateError
from velaria_core.execution.search import approximate
from velaria_core.execution.search import segment as segments
from velaria_core.execution.search import vector_index as indexes
from velaria_core.execution.search.nearest import Metric
from velaria_core.execution.search.vector_index import VectorIndex
from velaria_core.execution.search.vectors import Vectors, vectors_of

METRICS = list(Metric)


def check(index: VectorIndex, held: dict[int, np.ndarray], queries: np.ndarray, k: int = 5, **asked) -> None:
    """The index answers as float64 does over what it should hold."""
    assert len(index) == len(held)
    ids = np.array(sorted(held), np.int64)
    rows = np.array([held[key] for key in ids], np.float32).reshape(len(ids), index.dimension)
    usable = None if (allowed := asked.get("allowed")) is None else np.isin(ids, allowed)
    for metric in METRICS:
        found = index.search(queries, metric, k, **asked)
        for at, query in enumerate(np.atleast_2d(queries)):
            expected, scores = reference(rows, query, metric, k, usable=usable, threshold=asked.get("threshold"))
            assert found.rows[at].tolist() == ids[expected].tolist()
            np.testing.assert_array_equal(found.scores[at], scores)
        assert found.candidates == (len(ids) if usable is None else usable.sum())


def hashes_of(rows: np.ndarray) -> np.ndarray:
    """A hash of each small vector."""
    return (rows @ np.array([1, 100, 10_000]) + 1_000_000).astype(np.uint64)


def filled(folder: Path, count: int = 3000, d: int = 16) -> tuple[VectorIndex, dict[int, np.ndarray]]:
    """An index of three segments with removed rows, committed, and what it holds."""
    rows = clustered(count, d, seed=count)
    index = VectorIndex.create(folder, d)
    ids = np.random.default_rng(0).permutation(count) * 3
    thirds = np.split(np.arange(count), [count * 8 // 10, count * 95 // 100])
    for part in thirds:
        index.add(ids[part], Vectors.of(rows[part]))
    index.commit("rows")
    index.remove(ids[::10])
    index.commit("first")
    return index, {int(key): row for key, row in zip(ids, rows, strict=True) if key not in set(ids[::10].tolist())}


def test_what_is_added_and_removed_is_found_or_not(tmp_path):
    index, held = filled(tmp_path / "index")
    assert index.segments[0] > index.segments[1] > index.segments[2]
    queries = clustered(3, 16, seed=7)
    check(index, held, queries)
    check(index, held, queries[0], allowed=np.arange(0, 9000, 2))
    check(index, held, queries[0], threshold=0.5)
    opened = VectorIndex.open(tmp_path / "index")
    assert (opened.token, opened.segments) == ("first", index.segments)
    check(opened, held, queries)


def test_an_id_that_comes_again_replaces(tmp_path):
    _, held = filled(tmp_path / "index")
    opened = VectorIndex.open(tmp_path / "index")
    new = clustered(4, 16, seed=70)
    keys = [*list(held)[:3], next(iter(held))]
    opened.add(np.array(keys), Vectors.of(new))
    held |= dict(zip(keys, new, strict=True))
    check(opened, held, new[0])
    opened.commit("second")
    check(VectorIndex.open(tmp_path / "index"), held, new[0])


def test_null_and_not_finite_remove(tmp_path):
    index = VectorIndex.create(tmp_path / "index", 2)
    index.add(np.arange(4), Vectors.of(np.ones((4, 2))))
    index.add(np.arange(3), vectors_of(pa.array([None, [1.0, 5.0], [float("nan"), 1.0]], pa.list_(pa.float32(), 2))))
    check(index, {1: np.array([1, 5]), 3: np.array([1, 1])}, np.ones(2, np.float32))


def test_merging_keeps_what_is_left(tmp_path):
    index, held = filled(tmp_path / "index")
    assert index.merge_is_due
    index.merge()
    assert (index.segments, index.merge_is_due) == ((len(held),), False)
    check(index, held, clustered(2, 16, seed=1))
    opened = VectorIndex.open(tmp_path / "index")
    check(opened, held, clustered(2, 16, seed=1))
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == ["000004.segment", "manifest.json"]


def test_changes_and_searches_beside_a_merge(tmp_path, monkeypatch):
    index, held = filled(tmp_path / "index")
    index.add(np.array([100_000, 100_001]), Vectors.of(clustered(2, 16, seed=5)))  # in memory when the merge begins
    held |= {100_000 + at: row for at, row in enumerate(clustered(2, 16, seed=5))}
    reached, go_on = threading.Event(), threading.Event()
    merged = segments.Segment.merged

    def slow(before, file=None):
        made = merged(before, file)
        if threading.current_thread() is not threading.main_thread():
            reached.set()
            assert go_on.wait(60)
        return made

    monkeypatch.setattr(indexes.Segment, "merged", staticmethod(slow))
    thread = threading.Thread(target=index.merge)
    thread.start()
    assert reached.wait(60)
    gone = [*list(held)[:200], 100_000]
    assert index.remove(np.array(gone)) == 201
    new = clustered(50, 16, seed=9)
    index.add(np.arange(200_000, 200_050), Vectors.of(new))
    held = {key: row for key, row in held.items() if key not in gone}
    held |= dict(zip(range(200_000, 200_050), new, strict=True))
    check(index, held, new[:2])
    index.commit("during")
    check(VectorIndex.open(tmp_path / "index"), held, new[:2])
    go_on.set()
    thread.join()
    assert len(index.segments) == 2
    check(index, held, new[:2])
    opened = VectorIndex.open(tmp_path / "index")
    assert opened.token == "during"
    check(opened, held, new[:2])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_history(tmp_path_factory, data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    folder = tmp_path_factory.mktemp("index") / "index"
    index = VectorIndex.create(folder, 3)
    held: dict[int, np.ndarray] = {}
    durable: dict[int, np.ndarray] = {}
    for _ in range(data.draw(st.integers(1, 12))):
        action = data.draw(st.sampled_from(["add", "add", "remove", "commit", "reopen", "merge", "check"]))
        if action == "add":
            ids = random.integers(-20, 60, data.draw(st.integers(0, 40)))
            rows = random.integers(-2, 3, (len(ids), 3)).astype(np.float32)
            rows[random.random(len(ids)) < 0.1] = np.nan
            index.add(ids, Vectors.of(rows), hashes_of(np.nan_to_num(rows)))
            for key, row in zip(ids.tolist(), rows, strict=True):
                held.pop(key, None)
                if not np.isnan(row[0]):
                    held[key] = row
        elif action == "remove":
            ids = random.integers(-20, 60, data.draw(st.integers(0, 60)))
            assert index.remove(ids) == len(set(ids.tolist()) & set(held))
            held = {key: row for key, row in held.items() if key not in set(ids.tolist())}
        elif action == "commit":
            index.commit("x")
            durable = dict(held)
        elif action == "merge":
            index.merge()
            durable = dict(held) if held else durable
        elif action == "reopen":  # without a commit: as after a crash
            index, held = VectorIndex.open(folder), dict(durable)
        check(index, held, random.integers(-2, 3, (2, 3)).astype(np.float32), allowed=np.arange(-5, 50, 2))
        check(index, held, random.standard_normal(3).astype(np.float32))
        known = [part.tolist() for part in index.known()]
        assert known == [sorted(held), [int(hashes_of(held[key][None])[0]) for key in sorted(held)]]


# --- files ---------------------------------------------------------------------------------------------------------


def test_any_damaged_byte_is_found(tmp_path):
    filled(tmp_path / "index", count=60, d=2)
    random = np.random.default_rng(3)
    for path in sorted((tmp_path / "index").iterdir()):
        content = path.read_bytes()
        for at in {0, len(content) - 2, *random.integers(0, len(content) - 1, 12).tolist()}:
            changed = bytearray(content)
            changed[at] ^= 0x04
            path.write_bytes(changed)
            with pytest.raises(StateError) as error:
                VectorIndex.open(tmp_path / "index")
            assert error.value.code in ("vector_index.damaged", "vector_index.version")
            assert "built anew" in str(error.value)
        path.write_bytes(content[:-3])
        with pytest.raises(StateError, match="is damaged"):
            VectorIndex.open(tmp_path / "index", verify=False)
        path.unlink()
        with pytest.raises(StateError):
            VectorIndex.open(tmp_path / "index")
        path.write_bytes(content)
    VectorIndex.open(tmp_path / "index")


@pytest.mark.parametrize("version", [3, 5])
def test_another_version_is_refused(tmp_path, version):
    filled(tmp_path / "index", count=60, d=2)
    path = tmp_path / "index" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
    with pytest.raises(StateError, match=f"of version {version}, this Velaria reads version 4") as error:
        VectorIndex.open(tmp_path / "index")
    assert error.value.code == "vector_index.version"


def test_no_index_and_no_empty_folder(tmp_path):
    with pytest.raises(StateError) as missing:
        VectorIndex.open(tmp_path)
    assert missing.value.code == "vector_index.missing"
    (tmp_path / "x").touch()
    with pytest.raises(InputError) as exists:
        VectorIndex.create(tmp_path, 2)
    assert exists.value.code == "vector_index.exists"
    for dimension in (0, 10**6):
        with pytest.raises(InputError) as wrong:
            VectorIndex.create(tmp_path / "new", dimension)
        assert wrong.value.code == "search.dimension"


def test_wrong_dimensions_are_refused(tmp_path):
    index = VectorIndex.create(tmp_path / "index", 2)
    for call in (
        lambda: index.add(np.arange(2), Vectors.of(np.ones((2, 3)))),
        lambda: index.search([1.0], Metric.DOT, 3),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert error.value.code == "search.dimension"


def test_two_writers_do_not_mix(tmp_path):
    index, held = filled(tmp_path / "index")
    other = VectorIndex.open(tmp_path / "index")
    other.remove(np.array(list(held)[:1]))
    other.commit("other")
    index.add(np.array([1]), Vectors.of(np.ones((1, 16))))
    with pytest.raises(StateError) as error:
        index.commit("mine")
    assert error.value.code == "vector_index.other_writer"
    assert VectorIndex.open(tmp_path / "index").token == "other"


def test_a_reader_keeps_what_it_opened(tmp_path):
    index, held = filled(tmp_path / "index")
    reader = VectorIndex.open(tmp_path / "index")
    index.remove(np.array(list(held)))
    index.commit("empty")
    check(reader, held, clustered(1, 16, seed=2))
    check(VectorIndex.open(tmp_path / "index"), {}, clustered(1, 16, seed=2))


def test_a_commit_that_fails_leaves_what_was(tmp_path, monkeypatch):
    index, held = filled(tmp_path / "index")
    before = dict(held)
    index.add(np.array([1]), Vectors.of(np.ones((1, 16))))

    def full(*_args, **_rest):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(indexes, "replace_file", full)
        with pytest.raises(ExternalError) as error:
            index.commit("second")
        assert error.value.code == "disk.full"
    copy = shutil.copytree(tmp_path / "index", tmp_path / "copy")
    check(VectorIndex.open(copy), before, clustered(1, 16, seed=2))
    index.commit("second")
    check(VectorIndex.open(tmp_path / "index"), before | {1: np.ones(16)}, clustered(1, 16, seed=2))


def test_files_on_disk_are_what_the_docs_say(tmp_path):
    index = VectorIndex.create(tmp_path / "index", 2)
    index.add(
        np.array([7, 5]), Vectors.of(np.array([[3, 4], [127, 0]], np.float32)), np.array([1, 2**64 - 1], np.uint64)
    )
    index.commit("t")
    content = (tmp_path / "index" / "000001.segment").read_bytes()
    assert content[:24] == b"VELVECS\x04" + (2).to_bytes(8, "little") + (2).to_bytes(8, "little")
    assert len(content) == 8 * 64

    def section(number, kind, count):
        return np.frombuffer(content, kind, count, 64 * number).tolist()

    assert section(1, "<i8", 2) == [5, 7]
    assert section(2, "<u8", 2) == [2**64 - 1, 1]
    assert section(3, "<f8", 2) == [127.0, 5.0]
    assert section(4, "<f4", 2) == pytest.approx([1.0, 4 / 127])
    assert section(6, "<i1", 4) == [127, 0, 95, 127]
    assert section(7, "<f4", 4) == [127.0, 0.0, 3.0, 4.0]


# --- approximate ---------------------------------------------------------------------------------------------------


@pytest.fixture
def faiss():
    """Only what is built needs it."""
    return pytest.importorskip("faiss")


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("faiss")
def test_an_approximate_index_finds_what_it_says(tmp_path, kind, metric):
    index, held = filled(tmp_path / "index", count=2000)
    built = index.build_approximate(kind, metric, 0.95)
    assert (built.is_used, index.approximate, len(index.segments)) == (True, built, 1)
    ids = np.array(sorted(held))
    rows = np.array([held[key] for key in ids])
    queries = clustered(30, 16, seed=12)

    def recall(opened: VectorIndex, ids: np.ndarray, rows: np.ndarray) -> float:
        found = opened.search(queries, metric, 10, approximate=True)
        assert (found.backend, found.recall) == (f"faiss-{kind}", built.recall)
        same = 0
        for at, query in enumerate(queries):
            expected, _ = reference(rows, query, metric, 10)
            same += len(set(found.rows[at].tolist()) & set(ids[expected].tolist()))
            # What is found has its exact score.
            places = np.searchsorted(ids, found.rows[at])
            _, scores = reference(rows[places], query, metric, 10)
            assert found.scores[at].tolist() == scores.tolist()
        return same / (10 * len(queries))

    assert recall(index, ids, rows) > 0.9
    opened = VectorIndex.open(tmp_path / "index")
    assert recall(opened, ids, rows) > 0.9
    # What leaves is not found, what comes is, and a search among some rows is exact.
    gone, new = ids[::50], clustered(20, 16, seed=13)
    opened.remove(gone)
    opened.add(np.arange(100_000, 100_020), Vectors.of(new))
    opened.commit("changed")
    held = {key: row for key, row in held.items() if key not in set(gone.tolist())}
    held |= dict(zip(range(100_000, 100_020), new, strict=True))
    ids = np.array(sorted(held))
    rows = np.array([held[key] for key in ids])
    assert recall(VectorIndex.open(tmp_path / "index"), ids, rows) > 0.9
    check(opened, held, queries[:2])
    check(opened, held, queries[:2], allowed=ids[::2], approximate=True)
    check(opened, held, queries[:2], k=21, approximate=True)
    opened.merge()
    again = opened.approximate
    assert again is not None
    assert (again.kind, again.metric, again.target) == (kind, metric, 0.95)
    assert len([path for path in (tmp_path / "index").iterdir() if path.suffix == ".faiss"]) == 1


@pytest.mark.usefixtures("faiss")
def test_an_approximate_index_below_its_target_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(approximate, "_EFFORTS", {"ivf": (1, 1), "hnsw": (1, 1)})
    rows = np.random.default_rng(0).standard_normal((3000, 24)).astype(np.float32)
    index = VectorIndex.create(tmp_path / "index", 24)
    index.add(np.arange(3000), Vectors.of(rows))
    built = index.build_approximate("ivf", Metric.L2, 1.0)
    assert not built.is_used
    assert 0 < built.recall < 1
    check(index, dict(enumerate(rows)), rows[:2], approximate=True)


@pytest.mark.usefixtures("faiss")
def test_what_an_approximate_index_cannot_be(tmp_path):
    index = VectorIndex.create(tmp_path / "index", 2)
    for call, code in (
        (lambda: index.build_approximate("ivf", Metric.L2), "vector_index.empty"),
        (lambda: index.build_approximate("tree", Metric.L2), "vector_index.kind"),
        (lambda: index.build_approximate("ivf", Metric.L2, 1.5), "vector_index.recall"),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert error.value.code == code
        index.add(np.arange(3), Vectors.of(np.eye(3, 2)))


@pytest.mark.usefixtures("faiss")
def test_a_damaged_approximate_index_is_found(tmp_path):
    index, _ = filled(tmp_path / "index", count=300, d=2)
    index.build_approximate("ivf", Metric.L2)
    (path,) = (path for path in (tmp_path / "index").iterdir() if path.suffix == ".faiss")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StateError, match="is damaged"):
        VectorIndex.open(tmp_path / "index")
