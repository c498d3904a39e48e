"""Frame: a plan with the verbs that batch and streams share. `DataFrame` and `StreamingDataFrame` say how it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import pyarrow as pa
from sqlglot import exp

from velaria_core.errors import InputError, SqlSemanticError, did_you_mean
from velaria_core.execution import lower
from velaria_core.logical.analyzers import ANALYZER
from velaria_core.logical.event_time import Late, TimeKind
from velaria_core.logical.expr import (
    Column,
    ColumnLike,
    as_column,
    as_columns,
    col,
    expr,
    fn,
    ordered,
    reference,
)
from velaria_core.logical.extract import Extracted, aggregate_call, has, window_call
from velaria_core.logical.node import Node
from velaria_core.logical.operators import (
    Aggregate,
    ApplyInBatches,
    Distinct,
    Drop,
    DropDuplicates,
    Except,
    Explode,
    Filter,
    Intersect,
    Join,
    JoinKind,
    KeywordSearch,
    Limit,
    Pivot,
    ProcessingTime,
    Project,
    Rename,
    Sample,
    Scan,
    SessionWindow,
    Sort,
    Union,
    Unpivot,
    VectorSearch,
    Watermark,
    Window,
    WindowAssign,
    WithColumn,
)
from velaria_core.logical.operators.watermark import AHEAD_MS
from velaria_core.logical.query import Named
from velaria_core.logical.scope import Scope, distinct_names
from velaria_core.logical.searching import (
    TOP_K,
    Fused,
    Wanted,
    hybrid_search,
    keyword_search,
    vector_search,
    vector_search_each,
)
from velaria_core.logical.similarity import metric_named
from velaria_core.logical.sql.durations import NotADuration, milliseconds
from velaria_core.logical.sql.origin import pointing_into
from velaria_core.types import engine_schema

if TYPE_CHECKING:
    from velaria_core.session import DataflowSession


class Frame:
    """A plan with the verbs that batch and streams share. Immutable: every verb makes a new frame of the same kind.

    Columns are named by text or by expressions (`col("a") + 1`); a filter also takes SQL text.
    Attributes:
        node: the plan.
    """

    def __init__(self, session: DataflowSession, node: Node, *, text: str | None = None) -> None:
        self._session = session
        self.node = node
        self._text = text
        self._schema: pa.Schema | None = None

    @property
    def is_stream(self) -> bool:
        """Whether rows keep coming."""
        return any(isinstance(node, Scan) and node.relation.source is not None for node in self.node.walk())

    # --- shape ----------------------------------------------------------------------------------------------

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self.node.columns)

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types; asks the engine once, without running the plan."""
        if self._schema is None:
            with pointing_into(self._text):
                self._schema = lower.schema(self._session._engine, self.node)
        return self._schema

    def __getitem__(self, name: str) -> Column:
        """A column of this frame by name."""
        resolved = self._resolve(col(name))
        return Column(resolved, name)

    def _with(self, node: Node) -> Self:
        return type(self)(self._session, node, text=self._text)

    def _resolve(self, column: Column) -> exp.Expr:
        return Scope.of(self.node.columns).resolved(column.tree)

    def _name(self, name: str) -> str:
        """The exact name of a column that a user named, in whatever case."""
        resolved = self._resolve(col(name))
        assert isinstance(resolved, exp.Column)
        return resolved.name

    def _row_wise(self, columns: Sequence[Column], verb: str) -> tuple[Self, list[Named]]:
        """The columns over this frame, window functions computed below them; aggregates are refused."""
        trees = [self._resolve(column) for column in columns]
        for column, resolved in zip(columns, trees, strict=True):
            if has(resolved, aggregate_call):
                raise SqlSemanticError(
                    "frame.misplaced_aggregate",
                    f"{verb} works on single rows and cannot hold the aggregate {column.sql()}",
                    hint="use group_by(...).agg(...), agg(...), or .over(...)",
                )
        frame = self
        if any(has(resolved, window_call) for resolved in trees):
            calls = Extracted(window_call, "__window_")
            trees = [calls.rewrite(resolved) for resolved in trees]
            frame = self._with(Window(self.node, tuple(calls.calls)))
        return frame, [(column.name, resolved) for column, resolved in zip(columns, trees, strict=True)]

    # --- row by row -----------------------------------------------------------------------------------------

    def select(self, *columns: ColumnLike | Sequence[ColumnLike]) -> Self:
        """Exactly these columns; "*" stands for all."""
        chosen: list[Column] = []
        for item in _flattened(columns):
            chosen += (
                [col(name) for name in self.node.columns] if isinstance(item, str) and item == "*" else as_columns(item)
            )
        if not chosen:
            raise InputError("frame.no_columns", "a frame needs a column", hint='select("*") takes them all')
        frame, named = self._row_wise(chosen, "select")
        names = distinct_names(name for name, _ in named)
        return self._with(Project(frame.node, tuple((n, t) for n, (_, t) in zip(names, named, strict=True))))

    def select_by_indices(self, indices: Sequence[int], aliases: Sequence[str] = ()) -> Self:
        """Columns by position, counted from 0, with other names where given."""
        names = self.node.columns
        for index in indices:
            if not -len(names) <= index < len(names):
                raise InputError("frame.index", f"no column {index}; there are {len(names)}")
        chosen = [col(names[index]) for index in indices]
        return self.select([c.alias(a) for c, a in zip(chosen, aliases, strict=False)] + chosen[len(aliases) :])

    def with_column(self, name: str, value: ColumnLike | object) -> Self:
        """One more column, or another in place of one. Text names a column; `lit("x")` is a text value."""
        return self.with_columns({name: value})

    def with_columns(self, columns: Mapping[str, Any]) -> Self:
        """Several columns more; each sees the input's columns, not each other."""
        frame, named = self._row_wise([as_column(v).alias(n) for n, v in columns.items()], "with_columns")
        exact = {name.lower(): name for name in self.node.columns}
        added = tuple((exact.get(name.lower(), name), resolved) for name, resolved in named)
        _require_distinct([name for name, _ in added])
        made = self._with(WithColumn(frame.node, added))
        hidden = tuple(name for name in frame.node.columns if name not in self.node.columns)
        return made._with(Drop(made.node, hidden)) if hidden else made

    def filter(self, condition: Column | str, op: str | None = None, value: object = None) -> Self:
        """Rows for which the condition is true: `filter(col("a") > 1)`, `filter("a > 1 AND b LIKE 'x%'")`,
        or `filter("a", ">", 1)`."""
        if op is not None:
            if not isinstance(condition, str) or op not in _OPERATORS:
                raise InputError(
                    "frame.operator", f'no operator "{op}"', hint=did_you_mean(op, _OPERATORS, "operators")
                )
            condition = Column(
                _OPERATORS[op](this=reference(condition), expression=as_column(value, text_is_value=True).tree),
                "condition",
            )
        column = expr(condition) if isinstance(condition, str) else condition
        frame, ((_, predicate),) = self._row_wise([column], "filter")
        made = self._with(Filter(frame.node, predicate))
        return made.select(*self.node.columns) if frame is not self else made

    where = filter

    def filter_by_index(self, index: int, op: str, value: object) -> Self:
        """`filter(name, op, value)` with the column given by its position, counted from 0."""
        (name,) = self.select_by_indices([index]).columns
        return self.filter(name, op, value)

    def drop(self, *names: str | Sequence[str]) -> Self:
        """Every column but these."""
        dropped = tuple(self._name(str(name)) for name in _flattened(names))
        if len(set(dropped)) == len(self.node.columns):
            raise InputError("frame.no_columns", "a frame needs a column", hint="drop fewer of them")
        return self._with(Drop(self.node, dropped))

    def rename(self, names: Mapping[str, str]) -> Self:
        """The same rows under other column names: `rename({"old": "new"})`."""
        made = Rename(self.node, tuple((self._name(old), new) for old, new in names.items()))
        _require_distinct(made.columns)
        return self._with(made)

    def explode(self, column: str, output: str | None = None, *, outer: bool = False) -> Self:
        """One row for each element of a list column; `outer` keeps rows without elements, with NULL."""
        name = self._name(column)
        made = Explode(self.node, name, output or name, outer)
        _require_distinct(made.columns)
        return self._with(made)

    def unpivot(
        self, on: Sequence[str], name: str = "name", value: str = "value", *, include_nulls: bool = False
    ) -> Self:
        """The listed columns as rows of (name, value)."""
        if not on:
            raise InputError("frame.no_columns", "unpivot needs a column to turn into rows")
        made = Unpivot(self.node, tuple(self._name(column) for column in on), name, value, include_nulls)
        _require_distinct(made.columns)
        return self._with(made)

    def window(self, time_column: str, window_ms: int, output_column: str = "window_start", slide_ms: int = 0) -> Self:
        """Each row's event-time windows, by their start; `slide_ms` 0 is tumbling.

        Raises:
            InputError[frame.window]: a size or slide that is not positive, or a slide beyond the size.
        """
        slide = slide_ms or window_ms
        if window_ms <= 0 or slide <= 0 or slide > window_ms:
            raise InputError(
                "frame.window",
                f"no window of {window_ms} ms with slide {slide_ms} ms",
                hint="0 < slide <= window",
            )
        name, kind = self._time(time_column)
        made = WindowAssign(self.node, name, kind, window_ms, slide, output_column)
        _require_distinct(made.columns)
        return self._with(made)

    # --- time -----------------------------------------------------------------------------------------------

    def with_watermark(
        self,
        time_column: str,
        delay: int | str = 0,
        *,
        late: str = "drop",
        ahead: int | str = AHEAD_MS,
        idle: int | str | None = None,
    ) -> Self:
        """The same rows, whose event times move the watermark of a stream: the largest so far, less `delay`.

        The watermark closes windows: with output_mode="append" their rows come out then, once; state is forgotten,
        and rows that still come for them are late. Rows without a time are never late. At the end of all sources every
        window closes. Batch has no need of it.

        Args:
            time_column: a timestamp, date, integer of milliseconds, or ISO text.
            delay: how much rows may be out of order, in milliseconds or as text ("10 seconds").
            late: "drop" leaves out rows for windows that are closed, and counts them; "fold" never closes anything, so
                results are corrected for any row; "side" sends every row behind the watermark to the late sink of
                `write_stream`, and not into the result.
            ahead: a row dated so far ahead of all others is set aside until time comes near it, until 64 of them and
                few others have come, or until the stream ends. So a wrong date does not close all windows.
            idle: a stream that is silent for so long by the clock does not hold back the watermark of those it is
                joined or united with; without it, it does.

        Raises:
            InputError[frame.duration]: a length that is none.
            InputError[frame.late]: no such choice.
        """
        try:
            policy = Late(late)
        except ValueError:
            hint = did_you_mean(late, list(Late), "choices")
            raise InputError("frame.late", f'no choice late="{late}"', hint=hint) from None
        name, kind = self._time(time_column)
        idle_ms = None if idle is None else _milliseconds(idle, "idle")
        delay_ms, ahead_ms = _milliseconds(delay, "delay", least=0), _milliseconds(ahead, "ahead")
        return self._with(Watermark(self.node, name, kind, delay_ms, policy, ahead_ms, idle_ms))

    def with_processing_time(self, output_column: str = "processing_time") -> Self:
        """One more column: when the row was processed, a timestamp in UTC by the clock of the query.

        It has a watermark of its own, the clock, so windows over it close as time goes by. A query with event times too
        has one watermark, the lesser. In batch it is the time at which the query began.
        """
        made = ProcessingTime(self.node, output_column)
        _require_distinct(made.columns)
        return self._with(made)

    def session_window(
        self,
        time_column: str,
        gap: int | str,
        *keys: str | Sequence[str],
        start: str = "window_start",
        end: str = "window_end",
    ) -> Self:
        """Each row's session: two columns more, its start, and its end, which is `gap` after its last row.

        A session is a run of rows with the same `keys` in which each comes less than `gap` after the one before.

        Args:
            gap: milliseconds, or text such as "30 minutes".

        Raises:
            InputError[frame.duration]: a gap that is none.
        """
        name, kind = self._time(time_column)
        made = SessionWindow(
            self.node,
            tuple(self._name(key) for key in _flattened(keys)),
            name,
            kind,
            _milliseconds(gap, "gap"),
            start,
            end,
        )
        _require_distinct(made.columns)
        return self._with(made)

    def drop_duplicates(
        self, *keys: str | Sequence[str], within: int | str | None = None, time_column: str | None = None
    ) -> Self:
        """The first row for each value of `keys` (of all columns, by default), or any where there is no time.

        Args:
            within: only rows that come less than so long after another of their key are duplicates: so a stream with a
                watermark keeps the keys of so long, and not all it has ever seen.
            time_column: where rows stand in time; by default the column of the watermark.

        Raises:
            InputError[frame.time_column]: `within` without a time column.
        """
        names = [self._name(key) for key in _flattened(keys)]
        if within is None:
            return self.distinct(*names)
        if time_column is None:
            bounded = [one.time for one in self.node.walk() if isinstance(one, Watermark)]
            known = [one for one in bounded if one in self.node.columns]
            if len(known) != 1:
                raise InputError(
                    "frame.time_column",
                    "drop_duplicates within a time needs a time column",
                    hint='drop_duplicates("id", within="10 minutes", time_column="ts")',
                )
            time_column = known[0]
        name, kind = self._time(time_column)
        by = tuple(names or (column for column in self.node.columns if column != name))
        return self._with(DropDuplicates(self.node, by, name, kind, _milliseconds(within, "within")))

    def _time(self, column: str) -> tuple[str, TimeKind]:
        """A time column's exact name, and how it holds time."""
        name = self._name(column)
        return name, self._session._catalog.time_kind(self.node, name)

    # --- groups and order -----------------------------------------------------------------------------------

    def group_by(self, *keys: ColumnLike | Sequence[ColumnLike]) -> GroupedFrame[Self]:
        """Groups by these keys; NULL is a group of its own. Follow with `.agg(...)` or a shorthand."""
        return GroupedFrame(self, [as_column(key) for key in _flattened(keys)])

    def agg(self, *metrics: Column, **named: Column) -> Self:
        """One row over all rows; empty input has one row too."""
        return self.group_by().agg(*metrics, **named)

    def aggregate(self, keys: Sequence[str], metrics: Mapping[str, tuple[str, str]]) -> Self:
        """Metrics by name: `aggregate(["k"], {"total": ("sum", "v"), "n": ("count", "*")})`."""
        named = {
            output: getattr(fn, function)(*([] if column == "*" else [column]))
            for output, (function, column) in metrics.items()
        }
        return self.group_by(*keys).agg(**named)

    def distinct(self, *on: str) -> Self:
        """Each row once, or any one row for each value of `on`."""
        keys = tuple(reference(self._name(name)) for name in _flattened(on))
        return self._with(Distinct(self.node, keys))

    def order_by(self, *columns: ColumnLike | Sequence[ColumnLike], ascending: bool | Sequence[bool] = True) -> Self:
        """Rows in an order; NULL last. `col("a").desc()` or `ascending=False` turns it round."""
        keys = as_columns([as_column(item) for item in _flattened(columns)])
        rising = [ascending] * len(keys) if isinstance(ascending, bool) else list(ascending)
        if len(rising) != len(keys):
            raise InputError("frame.order", f"{len(keys)} columns and {len(rising)} directions")
        made = []
        for key, up in zip(keys, rising, strict=True):
            tree_ = ordered(Column(self._resolve(key), key.name))
            if not up:
                tree_.set("desc", True)
            made.append(tree_)
        return self._with(Sort(self.node, tuple(made)))

    sort = order_by

    def limit(self, count: int, offset: int = 0) -> Self:
        """At most `count` rows, after the first `offset`."""
        if count < 0 or offset < 0:
            raise InputError("frame.limit", "limit and offset are not negative")
        return self._with(Limit(self.node, count, offset))

    def head(self, count: int = 5) -> Self:
        """The first rows."""
        return self.limit(count)

    def sample(self, fraction: float | None = None, *, n: int | None = None, seed: int | None = None) -> Self:
        """A random part: each row with probability `fraction`, or exactly `n` rows."""
        if (fraction is None) == (n is None) or (fraction is not None and not 0 <= fraction <= 1):
            raise InputError("frame.sample", "give fraction between 0 and 1, or n")
        if n is not None and n < 0:
            raise InputError("frame.sample", "a sample has no negative number of rows")
        size = fraction * 100 if fraction is not None else float(n or 0)
        return self._with(Sample(self.node, size, fraction is not None, seed))

    # --- search ---------------------------------------------------------------------------------------------

    def vector_search(
        self,
        vector_column: str,
        query_vector: Any,
        top_k: int = TOP_K,
        metric: str = "cosine",
        *,
        score_threshold: float | None = None,
        query_column: str | None = None,
    ) -> Self:
        """The rows whose vectors are nearest, the best first, with their `vector_score`. Exact.

        Rows without a vector are not found. Those with one score come in the order of their other columns. As a
        stream it is the rows that are nearest so far: those that are no longer are taken back.

        Args:
            vector_column: numbers, as FLOAT[n] or as a list.
            query_vector: a list, NumPy or Arrow array, or text such as "[0.1 0.2]". Or a frame of queries: each of its
                rows searches for the vector in its `query_column`; its columns come first in the result, and `_query`
                is added to a name that both have.
            metric: "cosine" or "l2", distances of which the least is best, or "dot", of which the largest is. A vector
                of zeros has the cosine distance 1.0 to any.
            score_threshold: leaves out scores that are worse.

        Raises:
            SqlSemanticError[search.vector, search.dimension, search.not_a_vector, search.top_k, search.threshold,
                search.score_column, sql.metric].
        """
        column, type_of = self._name(vector_column), self._session._catalog.type_of
        wanted = Wanted(metric_named(metric), top_k, score_threshold)
        if not isinstance(query_vector, Frame):
            return self._with(vector_search(self.node, column, query_vector, type_of, wanted))
        if query_column is None:
            raise InputError("search.query_column", "which column of the queries holds vectors?", hint="query_column=")
        self._same_kind(query_vector, "search for")
        queries, searched = query_vector.node, query_vector._name(query_column)
        return self._with(vector_search_each(self.node, column, queries, searched, type_of, wanted))

    def keyword_search(
        self,
        columns: str | Sequence[str] | Mapping[str, float],
        text: str,
        top_k: int = TOP_K,
        *,
        analyzer: str = ANALYZER,
    ) -> Self:
        """The rows whose texts match best, the best first, with their `keyword_score`: BM25 over the frame's rows.

        As a stream it is the rows that match best so far. What a word is worth depends on all rows that came, so each
        epoch scores the matching rows anew.

        Args:
            columns: of text, several as if one followed the other; or with what a word in each weighs.
            text: words, of which the more and the rarer count; "a phrase", +must, -not, AND, OR, NOT, begin*.
            analyzer: how texts become words: "english", "standard" (no plurals), "builtin", or "jieba" with the package
                rjieba. All of them find Chinese, Japanese and Korean.

        Raises:
            SqlSemanticError[search.not_text, search.top_k, search.score_column].
            InputError[search.query, search.weight, search.analyzer, search.analyzer_missing].
        """
        given = columns if isinstance(columns, Mapping) else dict.fromkeys(_flattened((columns,)), 1.0)
        if not given:
            raise InputError("search.columns", "a keyword search needs a column of text")
        fields = {self._name(name): float(weight) for name, weight in given.items()}
        type_of = self._session._catalog.type_of
        return self._with(keyword_search(self.node, fields, text, type_of, top_k=top_k, analyzer=analyzer))

    def hybrid_search(
        self,
        vector_column: str,
        query_vector: Any,
        top_k: int = TOP_K,
        metric: str = "cosine",
        score_threshold: float | None = None,
        *,
        text: str | None = None,
        columns: str | Sequence[str] | Mapping[str, float] = (),
        fusion: str = "rrf",
        constant: float | None = None,
        candidates: int | None = None,
        analyzer: str = ANALYZER,
    ) -> Self:
        """A vector search over rows that a filter has left; with `text`, a keyword and a vector search, fused.

        Fused, a row has `vector_score` and `vector_rank`, `keyword_score` and `keyword_rank`, NULL where that search
        has not found it, and `hybrid_score`, by which the best come first.

        Args:
            vector_column, query_vector, metric, score_threshold: as `vector_search`.
            text, columns, analyzer: as `keyword_search`.
            fusion: "rrf", 1 / (k + rank) of both, or "weighted", alpha of the vector's score and the rest of the
                keywords', each from 0 for its worst candidate to 1 for its best.
            constant: k of rrf (60) or alpha of weighted (0.5).
            candidates: rows that each search gives; ten times `top_k` and at least 100, by default.

        Raises:
            SqlSemanticError, InputError: as both; search.fusion, search.constant.
        """
        vectors = self.vector_search(vector_column, query_vector, top_k, metric, score_threshold=score_threshold)
        if text is None:
            if columns:
                raise InputError("search.query", "columns without words to search them for", hint='text="night train"')
            return vectors
        words = self.keyword_search(columns, text, top_k, analyzer=analyzer)
        assert isinstance(vectors.node, VectorSearch)
        assert isinstance(words.node, KeywordSearch)
        return self._with(hybrid_search(words.node, vectors.node, Fused(fusion, constant, candidates)))

    # --- several frames -------------------------------------------------------------------------------------

    def join(
        self,
        other: Frame,
        on: str | Sequence[str] | Column | None = None,
        how: str = "inner",
        *,
        left_on: str | Sequence[str] | None = None,
        right_on: str | Sequence[str] | None = None,
        suffix: str = "_right",
    ) -> Self:
        """Pairs of rows that match; NULL matches nothing.

        Args:
            on: names both sides share (each appears once in the result), or a condition over the joined columns,
                in which columns of `other` that clash carry `suffix`.
            how: inner, left, right, full, semi, anti, cross, asof or asof_left (the last name of `on` is the
                order: the latest right row at or before the left one).
            left_on, right_on: names that differ on the two sides.

        Raises:
            InputError[frame.join]: no such kind, or a condition where there can be none.
        """
        try:
            kind = JoinKind({"outer": "full"}.get(how, how))
        except ValueError:
            hint = did_you_mean(how, [str(k) for k in JoinKind], "kinds")
            raise InputError("frame.join", f'no join "{how}"', hint=hint) from None
        if other._session is not self._session:
            raise InputError("frame.session", "the frames belong to two sessions", hint="move one by to_arrow()")
        self._same_kind(other, "join")
        taken = {name.lower() for name in self.node.columns}
        new_names: dict[str, str] = {}
        for name in other.node.columns:
            candidate = name
            while candidate.lower() in taken:
                candidate += suffix or "_right"
            taken.add(candidate.lower())
            new_names[name] = candidate
        changed = tuple((old, new) for old, new in new_names.items() if old != new)
        right = Rename(other.node, changed) if changed else other.node
        if isinstance(on, Column):
            if kind is JoinKind.CROSS:
                raise InputError("frame.join", "a cross join takes no condition")
            scope = Scope.of((*self.node.columns, *right.columns))
            return self._with(Join(self.node, right, kind, scope.resolved(on.tree)))
        left_keys = [self._name(name) for name in _names(left_on if left_on is not None else on)]
        right_keys = [other._name(name) for name in _names(right_on if right_on is not None else on)]
        if kind is JoinKind.CROSS:
            if left_keys or right_keys:
                raise InputError("frame.join", "a cross join takes no condition")
            return self._with(Join(self.node, right, kind, None))
        if not left_keys or len(left_keys) != len(right_keys):
            raise InputError("frame.join", f"a {how} join needs `on`, or `left_on` and `right_on` of one length")
        pairs = list(zip(left_keys, (new_names[name] for name in right_keys), strict=True))
        parts: list[exp.Expr] = []
        for at, (one, two) in enumerate(pairs):
            last_asof = kind in (JoinKind.ASOF, JoinKind.ASOF_LEFT) and at == len(pairs) - 1
            parts.append((exp.GTE if last_asof else exp.EQ)(this=reference(one), expression=reference(two)))
        node: Node = Join(self.node, right, kind, exp.and_(*parts, copy=False))
        if kind in (JoinKind.SEMI, JoinKind.ANTI) or on is None:
            return self._with(node)
        # Names that both sides share appear once: the left's value, the right's where the left has no row.
        if kind in (JoinKind.RIGHT, JoinKind.FULL):
            merged = tuple((one, exp.Coalesce(this=reference(one), expressions=[reference(two)])) for one, two in pairs)
            node = WithColumn(node, merged)
        keep_right = {two for _, two in pairs[-1:]} if kind in (JoinKind.ASOF, JoinKind.ASOF_LEFT) else set()
        return self._with(Drop(node, tuple(two for _, two in pairs if two not in keep_right)))

    def union(self, other: Frame, *, distinct: bool = False, by_name: bool = False) -> Self:
        """The rows of both; `distinct` keeps each once.

        Raises:
            InputError[frame.column_count]: by position, the frames differ in their number of columns.
        """
        if not by_name:
            self._same_width(other, "union")
        united = self._with(Union(self.node, other.node, by_name))
        return united.distinct() if distinct else united

    union_with = union

    def intersect(self, other: Frame, *, distinct: bool = True) -> Self:
        """Rows that both frames have: each once, or as often as in both."""
        self._same_width(other, "intersect")
        return self._with(Intersect(self.node, other.node, not distinct))

    def except_(self, other: Frame, *, distinct: bool = True) -> Self:
        """Rows of this frame that the other has not: each once, or as often as there are more of them here."""
        self._same_width(other, "except")
        return self._with(Except(self.node, other.node, not distinct))

    def _same_kind(self, other: Frame, verb: str) -> None:
        if other.is_stream and not self.is_stream:
            raise InputError(
                "frame.is_stream", f"a table does not {verb} a stream", hint=f"{verb} the table to the stream"
            )

    def _same_width(self, other: Frame, verb: str) -> None:
        self._same_kind(other, verb)
        if len(self.node.columns) != len(other.node.columns):
            raise InputError(
                "frame.column_count",
                f"{verb} takes as many columns on both sides, not {len(self.columns)} and {len(other.columns)}",
                hint="select the same columns, or union by_name=True",
            )


F = TypeVar("F", bound=Frame)


class GroupedFrame(Generic[F]):
    """Groups of a frame, waiting for their aggregates."""

    def __init__(self, frame: F, keys: Sequence[Column]) -> None:
        self._frame = frame
        self._keys = keys

    def agg(self, *metrics: Column, **named: Column) -> F:
        """One row a group: the keys, then each metric (`fn.sum("x")`, or `total=fn.sum("x") / fn.count()`)."""
        columns = [*metrics, *(metric.alias(name) for name, metric in named.items())]
        if not columns:
            raise InputError("frame.no_metrics", "agg needs a metric", hint='agg(n=fn.count(), total=fn.sum("x"))')
        frame, keys = self._frame._row_wise(self._keys, "group_by")
        for column in columns:
            if not has(column.tree, aggregate_call):
                raise SqlSemanticError("frame.not_grouped", f"{column.sql()} is no aggregate")
        # A computed key gets a name of its own: a metric may read the column whose name the key is given.
        inner: list[Named] = []
        for _, tree in keys:
            if all(tree != known for _, known in inner):
                inner.append((tree.name if isinstance(tree, exp.Column) else f"__key_{len(inner) + 1}", tree))
        computed = tuple((name, tree) for name, tree in inner if not isinstance(tree, exp.Column))
        node = WithColumn(frame.node, computed) if computed else frame.node
        calls = Extracted(aggregate_call, "__agg_", keys=tuple(inner))
        shown = [(column.name, calls.rewrite(self._frame._resolve(column))) for column in columns]
        made = Aggregate(node, tuple((name, reference(name)) for name, _ in inner), tuple(calls.calls))
        for column, (_, tree) in zip(columns, shown, strict=True):
            for read in tree.find_all(exp.Column):
                if read.name not in made.columns:
                    raise SqlSemanticError(
                        "frame.not_grouped",
                        f'{column.sql()} reads "{read.name}", which is no key',
                        hint=f"group by it too, or take any_value({read.name})",
                    )
        outputs = [*((name, calls.rewrite(tree)) for name, tree in keys), *shown]
        names = distinct_names(name for name, _ in outputs)
        trees = [tree for _, tree in outputs]
        return self._frame._with(Project(made, tuple(zip(names, trees, strict=True))))

    def count(self, output: str = "count") -> F:
        """Rows of each group."""
        return self.agg(fn.count().alias(output))

    def sum(self, column: str, output: str = "sum") -> F:
        return self.agg(fn.sum(column).alias(output))

    def min(self, column: str, output: str = "min") -> F:
        return self.agg(fn.min(column).alias(output))

    def max(self, column: str, output: str = "max") -> F:
        return self.agg(fn.max(column).alias(output))

    def avg(self, column: str, output: str = "avg") -> F:
        return self.agg(fn.avg(column).alias(output))

    def apply_in_batches(
        self,
        function: Callable[..., Any],
        output_schema: pa.Schema,
        state_schema: pa.Schema | None = None,
        *,
        order_by: str | Sequence[str] = (),
        expires: str | None = None,
    ) -> F:
        """The rows that `function` gives for those of each key: `function(rows, state) -> (output, state)`.

        It is called once an epoch, for all keys that have new rows at once, with Arrow tables:

        - `rows`: the new rows, all columns, a key's rows together, sorted by `order_by`, then as they arrived;
        - `state`: for each of these keys that has one, its row of state: the keys, then `state_schema`.

        It returns the rows that come out, and the state rows of these keys, which take the place of those it was
        given: a key without one is forgotten. States are part of the checkpoint: an epoch that fails takes them back,
        and a restart finds them. Without `state_schema` it is `function(rows) -> output`. In batch it is called once,
        with all rows. The answer is the same where it does not matter how a key's rows are cut into calls.

        Where the input's rows also go (an aggregate, a changelog), the touched keys are computed anew from all
        their rows, with no state before, and what changed goes on.

        Args:
            output_schema: columns of the output, of which nothing that came out is taken back.
            order_by: columns that sort a key's rows in one call.
            expires: a timestamp column of `state_schema`. Once the watermark has come to it the key is called even
                without rows. A function that has a parameter `watermark` is told it: a datetime in UTC, None before the
                first, `datetime.max` at the end and in batch.

        Raises:
            InputError[frame.apply]: a key that is computed, or columns that clash.
            DataError[function.failed, function.result, function.schema, function.state]: as it runs. Nothing of the
                epoch is kept.
        """
        frame = self._frame
        keys = [frame._resolve(key) for key in self._keys]
        if not keys or not all(isinstance(key, exp.Column) for key in keys):
            raise InputError("frame.apply", "apply_in_batches groups by columns", hint="add it with with_column first")
        names = tuple(key.name for key in keys)
        stated = [] if state_schema is None else list(state_schema.names)
        for columns in (output_schema.names, [*names, *stated]):
            _require_distinct(columns)
        if expires is not None and (
            expires not in stated or not pa.types.is_timestamp(pa.schema(state_schema).field(expires).type)
        ):
            raise InputError("frame.apply", f'expires="{expires}" is no timestamp of state_schema')
        order = tuple(frame._name(name) for name in _names(order_by))
        state = None if state_schema is None else engine_schema(state_schema)
        output = engine_schema(output_schema)
        return frame._with(ApplyInBatches(frame.node, names, function, output, state, order, expires))

    def pivot(self, on: str, values: Sequence[object], *metrics: Column) -> F:
        """One column for each value of `on`: `group_by("k").pivot("m", [1, 2], fn.sum("x"))`."""
        frame = self._frame
        if not values or not metrics:
            raise InputError(
                "frame.no_metrics", "pivot needs values and metrics", hint='pivot("m", [1, 2], fn.sum("x"))'
            )
        for key in self._keys:
            if not isinstance(frame._resolve(key), exp.Column):
                raise InputError(
                    "frame.pivot_key",
                    f"pivot groups by columns, not by {key.sql()}",
                    hint="add it with with_column first",
                )
        for metric in metrics:
            if not aggregate_call(metric.tree):
                raise SqlSemanticError("frame.not_grouped", f"{metric.sql()} is no aggregate")
        named: list[Named] = [(metric.name, frame._resolve(metric)) for metric in metrics]
        cells: list[Named] = [(str(value), as_column(value, text_is_value=True).tree) for value in values]
        group = tuple(frame._name(key.name) for key in self._keys)
        made = Pivot(frame.node, group, reference(frame._name(on)), tuple(cells), tuple(named))
        _require_distinct(made.columns)
        return frame._with(made)


_OPERATORS: dict[str, type[exp.Expr]] = {
    "=": exp.EQ,
    "==": exp.EQ,
    "!=": exp.NEQ,
    "<>": exp.NEQ,
    "<": exp.LT,
    "<=": exp.LTE,
    ">": exp.GT,
    ">=": exp.GTE,
}


def _flattened(items: Iterable[Any]) -> list[Any]:
    return [one for item in items for one in (item if isinstance(item, (list, tuple)) else [item])]


def _names(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _milliseconds(length: int | str, what: str, least: int = 1) -> int:
    """A length of time, given in milliseconds or as text."""
    try:
        found = length if isinstance(length, int) else milliseconds(length)
    except NotADuration as error:
        raise InputError("frame.duration", f"{what}: {error}", hint=f'{what}="10 seconds"') from error
    if found < least:
        raise InputError("frame.duration", f"{what} is {length}; it is {least} ms or more")
    return found


def _require_distinct(names: Sequence[str]) -> None:
    folded = [name.lower() for name in names]
    doubled = next((name for name in names if folded.count(name.lower()) > 1), None)
    if doubled is not None:
        raise InputError("frame.duplicate_column", f'two columns would be called "{doubled}"')
