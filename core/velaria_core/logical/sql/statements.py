"""Statements: what one SQL statement says, as values. The parser makes them, binder and session read them.

Every statement knows its `span` in the text it was parsed from. Names keep the case they were written in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from sqlglot import exp

from velaria_core.contract.modes import Metric
from velaria_core.logical.sql.tokens import Span
from velaria_core.types import quoted

OptionValue: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a table or view, with the schema before it where one is written: `s.t` is ("s", "t")."""

    parts: tuple[str, ...]
    span: Span

    def __str__(self) -> str:
        return ".".join(self.parts)

    def sql(self) -> str:
        """The name with every part quoted."""
        return ".".join(quoted(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A prepared parameter: its number from 1 (`?`, `$1`), or its name (`$name`)."""

    key: int | str
    span: Span


class Emit(Enum):
    """When a continuous query shows its rows."""

    ON_WINDOW_CLOSE = "on_window_close"
    CHANGES = "changes"


@dataclass(frozen=True, slots=True)
class WindowBy:
    """`WINDOW BY tree EVERY every_ms [SLIDE slide_ms] AS name`. Invariant: 0 < slide_ms <= every_ms."""

    tree: exp.Column
    every_ms: int
    slide_ms: int
    name: str
    span: Span

    @property
    def column(self) -> str:
        """The time column without the table before it."""
        return str(self.tree.name)


@dataclass(frozen=True, slots=True)
class KeywordSearch:
    """`KEYWORD SEARCH(column [^ weight], ...) QUERY query [TOP_K top_k] [ANALYZER name]`: the best rows by BM25.

    `top_k` and `analyzer` are None where they are not written.
    """

    columns: tuple[exp.Column, ...]
    query: str | Parameter
    query_span: Span
    top_k: int | Parameter | None
    span: Span
    weights: tuple[float, ...] = ()
    analyzer: str | None = None


@dataclass(frozen=True, slots=True)
class Fuse:
    """`FUSE RRF [k] | FUSE WEIGHTED [alpha]` and `CANDIDATES n` of a HYBRID SEARCH after a KEYWORD SEARCH.

    Both search the same rows then, and their rankings are fused.
    """

    fusion: str
    constant: float | None
    candidates: int | Parameter | None
    span: Span


@dataclass(frozen=True, slots=True)
class HybridSearch:
    """`HYBRID SEARCH column QUERY query [METRIC m] [TOP_K n] [SCORE_THRESHOLD x]`: rows of nearest vectors.

    `VECTOR SEARCH` is the same clause. `query` is the text of a vector, as `'[0.1, 0.2]'`, or a column of a table of
    queries, as `q.embedding`.
    """

    column: exp.Column
    query: str | Parameter | exp.Column
    query_span: Span
    metric: Metric
    top_k: int | Parameter
    score_threshold: float | Parameter | None
    span: Span
    fuse: Fuse | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """A query: SELECT with all that may stand around it, VALUES, FROM-first, PIVOT, or one in parentheses.

    Attributes:
        tree: the query without Velaria's clauses, as sqlglot reads it: exp.Query, exp.Values or exp.Pivot.
            Identifiers, functions and literals keep their place in the whole text in `meta`. `?` arrives
            numbered, as exp.Placeholder("1"). None where only the engine can read the text: an opaque query.
        text: the query's own text, of the length of `span`, with Velaria's clauses blanked.
        window_by, keyword_search, hybrid_search: the clauses of the outermost SELECT; they apply in this
            order, after its WHERE and before its GROUP BY.
        emit: how a continuous query shows its rows; it stands at the end, at `emit_span`.
        parts: queries that stand deeper (a CTE, a subquery, a branch of UNION) and have clauses of their own.
            In `tree` each is `FROM "name"`; the binder looks such a table up here before anywhere else.
    """

    tree: exp.Expr | None
    text: str
    span: Span
    window_by: WindowBy | None = None
    keyword_search: KeywordSearch | None = None
    hybrid_search: HybridSearch | None = None
    emit: Emit | None = None
    parts: Mapping[str, Select] = field(default_factory=dict)
    emit_span: Span | None = None

    @property
    def has_clauses(self) -> bool:
        """Whether anything here is Velaria's own, so that the engine alone cannot run the text."""
        return bool(self.window_by or self.keyword_search or self.hybrid_search or self.parts)


class TableKind(Enum):
    """What a table is for: TABLE both ways, SOURCE read only, SINK written only."""

    TABLE = "table"
    SOURCE = "source"
    SINK = "sink"


@dataclass(frozen=True, slots=True)
class ColumnDef:
    """A declared column; `type_text` is as written, at `type_span`; None where CREATE TABLE AS names columns only."""

    name: str
    type_text: str | None
    not_null: bool
    span: Span
    type_span: Span | None = None


@dataclass(frozen=True, slots=True)
class Watermark:
    """`WATERMARK FOR column AS column - INTERVAL ...`: events may come up to `delay_ms` late."""

    column: str
    delay_ms: int
    delay: exp.Expr
    span: Span


@dataclass(frozen=True, slots=True)
class CreateTable:
    """CREATE [OR REPLACE] [TEMP] [SOURCE | SINK] TABLE: declared, from files (USING, OPTIONS), or AS a query.

    Option keys are lower-case; `option_spans` says where each key stands, `using_span` where the word after USING.
    """

    name: Name
    kind: TableKind
    columns: tuple[ColumnDef, ...]
    watermark: Watermark | None
    using: str | None
    options: Mapping[str, OptionValue]
    as_select: Select | None
    or_replace: bool
    if_not_exists: bool
    temp: bool
    span: Span
    option_spans: Mapping[str, Span] = field(default_factory=dict)
    using_span: Span | None = None


@dataclass(frozen=True, slots=True)
class CreateView:
    """CREATE [OR REPLACE] [TEMP] [MATERIALIZED] VIEW name [(columns)] [OPTIONS(...)] AS select."""

    name: Name
    columns: tuple[str, ...]
    select: Select
    or_replace: bool
    temp: bool
    if_not_exists: bool
    materialized: bool
    span: Span
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    option_spans: Mapping[str, Span] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Insert:
    """INSERT INTO table [(columns)] [BY NAME] select; VALUES is a select too, its tree an exp.Values."""

    table: Name
    columns: tuple[str, ...] | None
    select: Select
    span: Span
    by_name: bool = False
    column_spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class CreateIndex:
    """CREATE [VECTOR | KEYWORD] INDEX [IF NOT EXISTS] name ON table (column, ...) [WITH (option = value, ...)].

    `kind` is "vector" or "keyword", None where it is not written.
    """

    name: str
    kind: str | None
    table: Name
    columns: tuple[str, ...]
    columns_span: Span
    options: Mapping[str, OptionValue]
    option_spans: Mapping[str, Span]
    if_not_exists: bool
    span: Span


class DropKind(Enum):
    TABLE = "table"
    SOURCE = "source"
    SINK = "sink"
    VIEW = "view"
    MATERIALIZED_VIEW = "materialized view"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Drop:
    """DROP kind [IF EXISTS] name."""

    kind: DropKind
    name: Name
    if_exists: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Refresh:
    """REFRESH MATERIALIZED VIEW name."""

    name: Name
    span: Span


@dataclass(frozen=True, slots=True)
class Describe:
    """DESCRIBE table, or DESCRIBE select: columns and types."""

    target: Name | Select
    span: Span


@dataclass(frozen=True, slots=True)
class Summarize:
    """SUMMARIZE table, or SUMMARIZE select: statistics of every column."""

    target: Name | Select
    span: Span


class ShowKind(Enum):
    TABLES = "tables"
    SOURCES = "sources"
    SINKS = "sinks"
    VIEWS = "views"
    MATERIALIZED_VIEWS = "materialized views"
    INDEXES = "indexes"
    STREAMS = "streams"
    FUNCTIONS = "functions"


@dataclass(frozen=True, slots=True)
class ShowTables:
    """SHOW TABLES | SOURCES | SINKS | VIEWS | MATERIALIZED VIEWS | INDEXES | STREAMS | FUNCTIONS [LIKE pattern]."""

    kind: ShowKind
    like: str | None
    span: Span


@dataclass(frozen=True, slots=True)
class ShowCreate:
    """SHOW CREATE [[SOURCE | SINK] TABLE | [MATERIALIZED] VIEW] name: the statement that makes it."""

    name: Name
    span: Span


@dataclass(frozen=True, slots=True)
class Explain:
    """EXPLAIN [ANALYZE] statement."""

    statement: Select | Insert | CreateTable | CreateView
    analyze: bool
    span: Span


Statement: TypeAlias = (
    Select
    | CreateIndex
    | CreateTable
    | CreateView
    | Insert
    | Drop
    | Refresh
    | Describe
    | Summarize
    | ShowTables
    | ShowCreate
    | Explain
)
