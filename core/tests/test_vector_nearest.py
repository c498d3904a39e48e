"""Exact vector search against float64, over every shape of a column and every kind of number."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_support import clustered, reference

from velaria_core.errors import DataError, InputError
from velaria_core.execution.search import codes as search_codes
from velaria_core.execution.search.codes import Codes, Errors, encoded, products
from velaria_core.execution.search.nearest import Metric, nearest
from velaria_core.execution.search.vectors import Vectors, vectors_of

METRICS = list(Metric)


def check(vectors, rows, queries, metric, k, *, usable=None, allowed=None, threshold=None, threads=None):
    asked = {"allowed": allowed, "threshold": threshold, "threads": threads}
    found = nearest(vectors, queries, metric, k, **asked)
    coded = nearest(vectors, queries, metric, k, codes=Codes.of(vectors), **asked)
    for one, other in zip(found.rows + found.scores, coded.rows + coded.scores, strict=True):
        assert one.tolist() == other.tolist()
    if allowed is not None:
        usable = np.isin(np.arange(len(rows)), allowed) & (True if usable is None else usable)
    for at, query in enumerate(np.atleast_2d(queries)):
        expected, scores = reference(rows, query.astype(np.float32), metric, k, usable=usable, threshold=threshold)
        assert found.rows[at].tolist() == expected.tolist()
        np.testing.assert_array_equal(found.scores[at], scores)
    return found


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [1, 3, 128, 257])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_answer_is_that_of_float64(metric, d, threads):
    """T-12: by both ways of computing it, which no setting chooses."""
    rows = clustered(9000, d, seed=d)
    if d != 128:  # where norms are all 1 they are not divided by
        rows *= np.random.default_rng(d).uniform(0.5, 2, (9000, 1)).astype(np.float32)
    queries = clustered(20, d, seed=1000 + d)
    vectors = Vectors.of(rows)
    check(vectors, rows, queries, metric, 10, threads=threads)
    for query in (queries[0], queries[:3]):
        check(vectors, rows, query, metric, 10, threads=threads)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.6, 1.0])
def test_only_allowed_rows_are_found(metric, share):
    rows = clustered(12000, 40, seed=5)
    allowed = np.flatnonzero(np.random.default_rng(3).random(len(rows)) < share)
    found = check(Vectors.of(rows), rows, clustered(3, 40, seed=6), metric, 7, allowed=allowed)
    assert found.candidates == len(allowed)
    check(Vectors.of(rows), rows, clustered(1, 40, seed=6), metric, 7, allowed=allowed, threads=2)


@pytest.mark.parametrize("metric", METRICS)
def test_a_threshold_includes_the_score_itself(metric):
    rows = clustered(5000, 16, seed=8)
    query = clustered(1, 16, seed=9)[0]
    _, scores = reference(rows, query, metric, 20)
    for threshold in (scores[4], scores[0], np.nextafter(scores[0], -9 if metric.is_distance else 9), 0.0, -1.0, 1.0):
        check(Vectors.of(rows), rows, query, metric, 20, threshold=float(threshold))
    for threshold in (float("inf"), float("-inf"), 1e300, -1e300):
        check(Vectors.of(rows), rows, query, metric, 20, threshold=threshold)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 50, 10**9])
def test_rows_of_equal_score_come_in_their_order(metric, k):
    rows = np.tile(clustered(5, 8, seed=1), (900, 1))
    check(Vectors.of(rows), rows, rows[:2], metric, k)
    check(Vectors.of(rows), rows, rows[1], metric, k, threads=2)


@pytest.mark.parametrize("metric", METRICS)
def test_numbers_at_the_ends_of_float32(metric):
    random = np.random.default_rng(11)
    scale = 10.0 ** random.integers(-44, 38, (3000, 1))
    rows = (random.standard_normal((3000, 6)) * scale).astype(np.float32)
    rows[::7] = 0
    rows[5] = np.float32(3.4e38)
    rows[6] = -np.float32(3.4e38)
    vectors = Vectors.of(rows)
    for size in (0.0, 1e-44, 1e-20, 1.0, 1e19, 3e38):
        query = np.clip(random.standard_normal(6) * size, -3.4e38, 3.4e38).astype(np.float32)
        check(vectors, rows, query, metric, 12)
        check(vectors, rows, np.stack([query, rows[9]]), metric, 12, allowed=np.arange(0, 3000, 2))


@pytest.mark.parametrize("metric", METRICS)
def test_vectors_that_are_not_finite_are_skipped_and_counted(metric):
    rows = clustered(4000, 12, seed=2)
    rows[3, 4], rows[70, 0], rows[700, 11] = np.nan, np.inf, -np.inf
    found = check(Vectors.of(rows), rows, rows[:3], metric, 5)
    assert (found.skipped, found.candidates) == (3, 3997)
    found = check(Vectors.of(rows), rows, rows[0], metric, 5, allowed=np.array([3, 4, 5, 70, 71]))
    assert found.candidates == 3


def test_a_zero_vector_is_at_cosine_distance_one():
    rows = np.array([[0, 0], [1, 0], [-1, 0], [0, 2]], np.float32)
    found = nearest(Vectors.of(rows), [1.0, 0.0], Metric.COSINE, 4)
    assert found.rows[0].tolist() == [1, 0, 3, 2]
    assert found.scores[0].tolist() == [0.0, 1.0, 1.0, 2.0]
    found = nearest(Vectors.of(rows), [0.0, 0.0], Metric.COSINE, 3)
    assert (found.rows[0].tolist(), found.scores[0].tolist()) == ([0, 1, 2], [1.0, 1.0, 1.0])


@pytest.mark.parametrize("metric", METRICS)
def test_no_rows_and_no_queries(metric):
    none = nearest(Vectors.of(np.empty((0, 4), np.float32)), np.ones((2, 4)), metric, 3)
    assert [len(rows) for rows in none.rows] == [0, 0]
    assert none.candidates == 0
    assert nearest(Vectors.of(np.ones((5, 4), np.float32)), np.empty((0, 4)), metric, 3).rows == []
    for empty in (pa.array([], pa.list_(pa.float32())), pa.array([[], None, []], pa.list_(pa.float32()))):
        assert len(nearest(vectors_of(empty), [1.0], metric, 3).rows[0]) == 0
    assert len(nearest(vectors_of(pa.array([None], pa.list_(pa.float32(), 2))), [1.0, 2.0], metric, 3).rows[0]) == 0


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"k": 0}, "search.top_k"),
        ({"k": -1}, "search.top_k"),
        ({"queries": [1.0, 2.0]}, "search.dimension"),
        ({"queries": [[1.0, 2.0, 3.0, 4.0]]}, "search.dimension"),
        ({"queries": [1.0, float("nan"), 3.0]}, "search.query"),
        ({"queries": [1.0, 1e39, 3.0]}, "search.query"),
        ({"queries": [[1.0, 2.0, 3.0], [1.0, float("inf"), 3.0]]}, "search.query"),
        ({"threshold": float("nan")}, "search.threshold"),
    ],
)
def test_what_cannot_be_asked_is_refused(call, code):
    asked = {"queries": [1.0, 2.0, 3.0], "metric": Metric.L2, "k": 2} | call
    with pytest.raises(InputError) as error:
        nearest(Vectors.of(np.ones((4, 3), np.float32)), **asked)
    assert error.value.code == code


def test_metrics_by_name():
    assert [Metric.named(name) for name in ("cosine", "cosin", "COSINE", "dot", "l2")] == [
        *[Metric.COSINE] * 3,
        Metric.DOT,
        Metric.L2,
    ]
    with pytest.raises(InputError, match=r"(?s)manhattan.*metrics: cosine, dot, l2") as error:
        Metric.named("manhattan")
    assert error.value.code == "search.metric"


# --- codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 63, 128, 1000])
def test_codes_lose_no_more_than_they_say(d):
    random = np.random.default_rng(d)
    rows = (random.standard_normal((500, d)) * 10.0 ** random.uniform(-12, 12, (500, 1))).astype(np.float32)
    rows[::5, 1:] = 0
    rows[7] = 0
    codes, scales, errors = encoded(rows, Vectors.of(rows).norms)
    lost = np.sqrt(((rows.astype(np.float64) - codes * scales.astype(np.float64)[:, None]) ** 2).sum(axis=1))
    assert (lost <= errors).all()
    assert (errors <= lost * 1.001 + 3e-7 * np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))).all()


@pytest.mark.parametrize("d", [1, 31, 32, 33, 64, 100, 128, 768, 5000])
def test_products_of_codes_are_exact(d):
    random = np.random.default_rng(d)
    codes = random.integers(-127, 128, (77, d), np.int8)
    codes[0], codes[1] = 127, -127
    queries = np.concatenate([codes[:2], random.integers(-127, 128, (2, d), np.int8)])
    expected = (queries.astype(np.int64) @ codes.astype(np.int64).T).astype(np.float32)
    for count in (1, 4):
        assert products(codes, queries[:count]).tolist() == expected[:count].tolist()


@pytest.mark.parametrize("wide", [False, True], ids=["pieces", "rows"])
@pytest.mark.parametrize("count", [1, 15, 17, 4096, 9001])
@pytest.mark.parametrize("d", [1, 100, 128, 129])
def test_products_of_codes_in_pieces_are_those_of_rows(monkeypatch, wide, count, d):
    monkeypatch.setattr(search_codes, "_has_wide_products", lambda: wide)
    random = np.random.default_rng(count * d)
    codes = Codes.of(Vectors.of(random.standard_normal((count, d), np.float32)))
    queries = random.integers(-127, 128, (3, d)).astype(np.int8)
    expected = (queries.astype(np.int64) @ codes.data.T.astype(np.int64)).astype(np.float32)
    step = codes.whole_pieces(2000)
    for _ in range(2):  # the second time from pieces that are there
        parts = [codes.products(queries, slice(start, min(start + step, count))) for start in range(0, count, step)]
        assert np.array_equal(np.concatenate(parts, axis=1), expected)


def test_the_worst_error_of_rows_is_known_by_pieces():
    errors = np.random.default_rng(0).random(9001, np.float32)
    told = Errors.of(errors)
    assert told.most(slice(4096, 8192)) == errors[4096:8192].max()
    for start, end in [(0, 9001), (1, 5000), (8999, 9001), (7, 7)]:
        assert told.most(slice(start, end)) >= errors[start:end].max(initial=0)
    assert Errors.of(errors[:0]).most(slice(0, 0)) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_codes_leave_few_rows_over(metric):
    rows = clustered(20000, 128, seed=4)
    vectors = Vectors.of(rows)
    found = nearest(vectors, rows[:4] + rows[100:104], metric, 10, codes=Codes.of(vectors))
    assert found.backend == "int8-numkong"
    assert 40 <= found.rescored < 4 * 1000


# --- columns -------------------------------------------------------------------------------------------------------

LISTS = [None, [1.0, 2.0], [3.0, 4.0], None, [5.0, None], [6.0, 7.0], [float("nan"), 1.0], [8.0, 9.0]]
TYPES = {
    "fixed": pa.list_(pa.float32(), 2),
    "fixed_double": pa.list_(pa.float64(), 2),
    "list": pa.list_(pa.float32()),
    "large_list": pa.large_list(pa.float32()),
    "list_double": pa.list_(pa.float64()),
}


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("slices", [[(0, 8)], [(0, 3), (3, 8)], [(1, 2), (2, 2), (3, 7)], [(3, 4), (0, 1), (5, 8)]])
def test_columns_in_chunks_and_slices(kind, slices):
    whole = pa.array(LISTS, TYPES[kind])
    column = pa.chunked_array([whole.slice(start, stop - start) for start, stop in slices], TYPES[kind])
    expected = [LISTS[at] for start, stop in slices for at in range(start, stop)]
    vectors = vectors_of(column)
    assert len(vectors) == len(expected)
    bad = [at for at, row in enumerate(expected) if row is None or None in row or row[0] != row[0]]
    assert vectors.apart.tolist() == bad
    good = np.array([at for at in range(len(expected)) if at not in bad])
    assert vectors.take(good).tolist() == [expected[at] for at in good]
    found = nearest(vectors, [1.0, 2.0], Metric.L2, 10)
    assert sorted(found.rows[0]) == good.tolist()
    assert found.skipped == len(bad)


def test_integers_are_vectors_too():
    vectors = vectors_of(pa.array([[1, 2], [3, 4]]))
    assert nearest(vectors, [3, 4], Metric.L2, 1).rows[0].tolist() == [1]


@pytest.mark.parametrize("kind", ["fixed", "list"])
def test_float32_is_read_where_it_is(kind):
    column = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], TYPES[kind]).slice(1)
    data = vectors_of(column).chunks[0].data
    numbers = np.frombuffer((column.values).buffers()[1], np.float32)
    assert np.shares_memory(data, numbers)
    assert data.tolist() == [[3.0, 4.0], [5.0, 6.0]]


def test_lists_of_several_lengths_are_refused():
    column = pa.chunked_array([pa.array([[1.0], None]), pa.array([[2.0], [3.0, 4.0]])])
    with pytest.raises(DataError, match="row 3 holds 2 numbers, those before it 1") as error:
        vectors_of(column)
    assert error.value.code == "search.dimension"


@pytest.mark.parametrize("column", [pa.array(["1 2 3"]), pa.array([1.0]), pa.array([["a"]])])
def test_other_columns_hold_no_vectors(column):
    with pytest.raises(InputError, match="holds no vectors") as error:
        vectors_of(column)
    assert error.value.code == "search.not_vectors"


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_any_column_any_question(data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, d = data.draw(st.integers(0, 400)), data.draw(st.integers(1, 9))
    # Few different numbers, so that many rows are equal.
    numbers = np.array([0, 1, -1, 0.5, 1e-20, 3e20, np.nan, np.inf], np.float32)
    usual = data.draw(st.sampled_from([3, 4, 8]))
    rows = numbers[random.integers(0, usual, (n, d))]
    if data.draw(st.booleans()):
        rows = rows + random.standard_normal((n, d)).astype(np.float32)
    valid = random.random(n) < data.draw(st.sampled_from([1.0, 0.8]))
    cuts = sorted(random.integers(0, n + 1, data.draw(st.integers(0, 3))).tolist())
    pieces = [
        pa.FixedSizeListArray.from_arrays(pa.array(rows[start:stop].reshape(-1)), d, mask=pa.array(~valid[start:stop]))
        for start, stop in zip([0, *cuts], [*cuts, n], strict=True)
    ]
    queries = random.standard_normal((data.draw(st.sampled_from([1, 2, 11])), d)).astype(np.float32)
    if n and data.draw(st.booleans()):
        queries[0] = np.nan_to_num(rows[0], posinf=1, neginf=1)
    allowed = np.flatnonzero(random.random(n) < 0.4) if data.draw(st.booleans()) else None
    check(
        vectors_of(pa.chunked_array(pieces)),
        rows,
        queries,
        data.draw(st.sampled_from(METRICS)),
        data.draw(st.sampled_from([1, 3, 50, 1000])),
        usable=valid,
        allowed=allowed,
        threshold=data.draw(st.sampled_from([None, 0.0, 0.5, 2.0])),
        threads=data.draw(st.integers(1, 3)),
    )
