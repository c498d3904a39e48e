"""A search with a table of queries as a stream: of each query the best are kept, whichever side comes when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from properties.runs import Run, batch_rows

from velaria_core.contract.modes import Metric
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.state import Feed
from velaria_core.execution.steps import nearest
from velaria_core.execution.steps.nearest import NearestToEachStep
from velaria_core.logical import operators as op
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted

KINDS = {
    "FLOAT[2]": pa.list_(pa.float32(), 2),
    "DOUBLE[2]": pa.list_(pa.float64(), 2),
    "FLOAT[]": pa.list_(pa.float32()),
}


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


class Sides:
    """Rows and queries that only come, and the search of the ones for the others."""

    def __init__(self, kinds: tuple[str, str], metric: Metric, threshold: float | None) -> None:
        self.schemas = [
            pa.schema([(name, pa.int64()), (f"{name}_e", KINDS[kind])]) for name, kind in zip("rq", kinds, strict=True)
        ]
        self._feeds = [Feed(name, schema) for name, schema in zip("rq", self.schemas, strict=True)]
        scans = [
            op.Scan(Relation(feed.name, feed.schema, quoted(feed.name), "arrow", feed=feed)) for feed in self._feeds
        ]
        self.relations = [scan.relation for scan in scans]
        fixed = "FLOAT[]" not in kinds
        self.search = op.VectorSearch(
            scans[0], "r_e", 2 if fixed else None, None, metric, 3, threshold, scans[1], "q_e", fixed=fixed
        )

    def come(self, chance: np.random.Generator, rows: int, queries: int) -> list[pa.Table]:
        """Few different numbers, so that many tie, and some vectors are missing or have no direction."""
        made = []
        for feed, schema, count in zip(self._feeds, self.schemas, (rows, queries), strict=True):
            vectors = [None if chance.random() < 0.1 else chance.integers(-2, 3, 2).tolist() for _ in range(count)]
            came = pa.table([chance.integers(0, 3, count), pa.array(vectors, schema.types[1])], schema=schema)
            feed.table = pa.concat_tables([feed.table, came])
            made.append(came)
        return made


@pytest.mark.parametrize(
    ("metric", "kinds", "threshold"),
    [
        *((metric, ("FLOAT[2]", "FLOAT[2]"), None) for metric in Metric),
        (Metric.L2, ("FLOAT[2]", "FLOAT[2]"), 1.0),
        (Metric.DOT, ("DOUBLE[2]", "FLOAT[2]"), None),
        (Metric.COSINE, ("FLOAT[]", "FLOAT[]"), None),
    ],
)
def test_a_history_of_changes(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kinds: tuple[str, str],
    threshold: float | None,
    metric: Metric,
) -> None:
    """Rows and queries in any turn, epochs that fail, restarts: the output is the batch result."""
    monkeypatch.setattr(nearest, "_READ_ROWS", 4)
    chance = np.random.default_rng(1)
    sides = Sides(kinds, metric, threshold)
    run = Run(engine, sides.search, sides.relations, True, tmp_path / "state.duckdb")
    assert isinstance(run.flow.steps[-1], NearestToEachStep)
    for _ in range(12):
        event = chance.integers(0, 4)
        came = sides.come(chance, int(chance.integers(0, 9)), int(chance.integers(0, 3)))
        if event == 0:
            run.fail(came)
        run.epoch(came)
        assert run.output == batch_rows(engine, sides.search)
        if event == 1:
            run.restart()
    run.close()


def test_queries_that_do_not_change_keep_no_rows(engine: Engine) -> None:
    sides, chance = Sides(("FLOAT[2]", "FLOAT[2]"), Metric.L2, None), np.random.default_rng(2)
    sides.come(chance, 0, 5)
    run = Run(engine, sides.search, sides.relations[:1], True)
    for _ in range(5):
        came = sides.come(chance, 100, 0)[:1]
        run.epoch(came)
        assert run.output == batch_rows(engine, sides.search)
    assert run.flow.state_rows < 100
    run.close()
