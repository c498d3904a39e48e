"""The operators, one to a file. `ALL` is the list that the property tests and the documentation walk."""

from __future__ import annotations

from velaria_core.logical.node import Node
from velaria_core.logical.operators.aggregate import Aggregate
from velaria_core.logical.operators.apply_in_batches import ApplyInBatches
from velaria_core.logical.operators.distinct import Distinct
from velaria_core.logical.operators.drop import Drop
from velaria_core.logical.operators.drop_duplicates import DropDuplicates
from velaria_core.logical.operators.except_ import Except
from velaria_core.logical.operators.explode import Explode
from velaria_core.logical.operators.filter import Filter
from velaria_core.logical.operators.hybrid_search import HybridSearch
from velaria_core.logical.operators.intersect import Intersect
from velaria_core.logical.operators.join import Join, JoinKind
from velaria_core.logical.operators.keyword_search import KeywordSearch
from velaria_core.logical.operators.limit import Limit
from velaria_core.logical.operators.opaque import Opaque
from velaria_core.logical.operators.pivot import Pivot
from velaria_core.logical.operators.processing_time import ProcessingTime
from velaria_core.logical.operators.project import Project
from velaria_core.logical.operators.refresh import Refresh
from velaria_core.logical.operators.rename import Rename
from velaria_core.logical.operators.sample import Sample
from velaria_core.logical.operators.scan import Scan
from velaria_core.logical.operators.session_window import SessionWindow
from velaria_core.logical.operators.sort import Sort
from velaria_core.logical.operators.top_k import TopK
from velaria_core.logical.operators.union import Union
from velaria_core.logical.operators.unpivot import Unpivot
from velaria_core.logical.operators.values import Values
from velaria_core.logical.operators.vector_search import VectorSearch
from velaria_core.logical.operators.watermark import Watermark
from velaria_core.logical.operators.window import Window
from velaria_core.logical.operators.window_assign import WindowAssign
from velaria_core.logical.operators.with_column import WithColumn

ALL: tuple[type[Node], ...] = (
    Aggregate,
    ApplyInBatches,
    Distinct,
    Drop,
    DropDuplicates,
    Except,
    Explode,
    Filter,
    HybridSearch,
    Intersect,
    Join,
    KeywordSearch,
    Limit,
    Opaque,
    Pivot,
    ProcessingTime,
    Project,
    Refresh,
    Rename,
    Sample,
    Scan,
    SessionWindow,
    Sort,
    TopK,
    Union,
    Unpivot,
    Values,
    VectorSearch,
    Watermark,
    Window,
    WindowAssign,
    WithColumn,
)

__all__ = [
    "ALL",
    "Aggregate",
    "ApplyInBatches",
    "Distinct",
    "Drop",
    "DropDuplicates",
    "Except",
    "Explode",
    "Filter",
    "HybridSearch",
    "Intersect",
    "Join",
    "JoinKind",
    "KeywordSearch",
    "Limit",
    "Opaque",
    "Pivot",
    "ProcessingTime",
    "Project",
    "Refresh",
    "Rename",
    "Sample",
    "Scan",
    "SessionWindow",
    "Sort",
    "TopK",
    "Union",
    "Unpivot",
    "Values",
    "VectorSearch",
    "Watermark",
    "Window",
    "WindowAssign",
    "WithColumn",
]
