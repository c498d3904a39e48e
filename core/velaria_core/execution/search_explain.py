"""Explain of a search: how it is computed and over how many rows, as the contract's messages. The rows are counted."""

from __future__ import annotations

from dataclasses import dataclass

from velaria_core.contract.codec import HybridExplain, VectorExplain
from velaria_core.contract.modes import FilterExecution, Shape
from velaria_core.execution import batch
from velaria_core.execution.duck import Engine
from velaria_core.execution.explain import explain_batch, machine
from velaria_core.execution.searched import search_access
from velaria_core.logical.expr import call, reference
from velaria_core.logical.node import Node
from velaria_core.logical.operators import Aggregate, Filter, VectorSearch
from velaria_core.logical.operators.vector_search import compare

_BY_ENGINE = "engine-scan+top-n"
_IN_MEMORY = "float32-scan+float64-rescore"
_BY_INDEX = "int8-codes+float64-rescore"
_BY_FAISS = "{method}-candidates+float64-rescore"


def vector_explain(engine: Engine, node: VectorSearch) -> VectorExplain:
    """How a search for one vector runs."""
    assert node.vector is not None, "one vector is searched for"
    ran = _ran(engine, node)
    return VectorExplain(
        mode=ran.index or "exact-scan",
        metric=node.metric,
        dimension=len(node.vector),
        top_k=node.top_k,
        candidate_rows=ran.candidates,
        filter_pushdown=_reaches_scan(engine, node.input),
        acceleration=ran.acceleration,
        backend=ran.backend,
        recall=ran.recall,
    )


def hybrid_explain(engine: Engine, node: VectorSearch) -> HybridExplain:
    """How a search for one vector behind a column filter runs. The search is run."""
    ran = _ran(engine, node)
    below = node.input
    while isinstance(below, Filter):
        below = below.input
    filtering = FilterExecution.NONE
    if below is not node.input:
        filtering = FilterExecution.SOURCE_PUSHDOWN if _reaches_scan(engine, node.input) else FilterExecution.POST_LOAD
    return HybridExplain(
        mode=ran.index or "exact-scan-hybrid-search",
        metric=node.metric,
        top_k=node.top_k,
        score_threshold=node.threshold,
        score_threshold_compare=compare(node.metric),
        input_rows=batch.count(engine, below),
        candidate_rows=ran.candidates,
        returned_rows=batch.count(engine, node),
        column_filter_stage="before-vector",
        column_filter_execution=filtering,
        acceleration=ran.acceleration,
        backend=ran.backend,
        recall=ran.recall,
    )


@dataclass(frozen=True, slots=True)
class _Ran:
    """How a search ran: `index` is the one that answered, empty where none did."""

    index: str
    candidates: int
    acceleration: str
    backend: str
    recall: float


def _ran(engine: Engine, node: VectorSearch) -> _Ran:
    found = search_access(node)
    told = found.told(engine) if found is not None else None
    if found is None or told is None:
        return _Ran("", _candidates(engine, node), _BY_ENGINE, machine(engine).backend, 1.0)
    name, _, method = told.backend.partition("-")
    by_index = _BY_FAISS.format(method=method) if name == "faiss" else _BY_INDEX
    return _Ran(
        found.method if found.index is not None else "",
        told.candidates,
        _IN_MEMORY if found.index is None else by_index,
        told.backend,
        told.recall,
    )


def _candidates(engine: Engine, node: VectorSearch) -> int:
    """The rows that have a vector."""
    counted = Aggregate(node.input, (), (("n", call("count", reference(node.column))),))
    return int(batch.table(engine, counted).column("n")[0].as_py())


def _reaches_scan(engine: Engine, node: Node) -> bool:
    """Whether the engine hands a filter of the rows that are searched to their source."""
    return any(
        one.shape is Shape.SOURCE and "pushed_filters" in one.details
        for one in explain_batch(engine, node).physical.nodes
    )


def lines(message: VectorExplain | HybridExplain) -> str:
    """The fields of a message, one a line."""
    return "\n".join(f"{name}={_plain(value)}" for name, value in message.to_dict().items())


def _plain(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
    return str(value)
