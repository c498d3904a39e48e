"""Random plans: trees of every operator that bind, and whose result does not depend on chance.

`Made` is a plan with the kinds of its columns, so that the next operator can be drawn to fit. `STEPS` is the table of
how to draw each; the tests hold it against `operators.ALL`, so that no operator is forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from hypothesis import strategies as st
from sqlglot import exp

from properties.tables import Kind
from velaria_core.contract.modes import Metric
from velaria_core.execution.state import Feed
from velaria_core.logical import operators as op
from velaria_core.logical.event_time import Late, TimeKind
from velaria_core.logical.expr import Column, col, fn, lit, when
from velaria_core.logical.node import Node
from velaria_core.logical.operators.hybrid_search import CONSTANTS, SCORES, Fusion
from velaria_core.logical.operators.keyword_search import SCORE as KEYWORD_SCORE
from velaria_core.logical.operators.opaque import marker
from velaria_core.logical.operators.vector_search import SCORE
from velaria_core.logical.relation import Relation
from velaria_core.types import quoted

Draw = st.DrawFn
NUMBERS = (Kind.INT, Kind.FLOAT, Kind.DECIMAL)


@dataclass(frozen=True)
class Made:
    """A plan, what its columns hold, and whether its rows have a promised order."""

    node: Node
    kinds: dict[str, Kind]
    ordered: bool = False

    def of(self, *kinds: Kind) -> list[str]:
        """The columns of these kinds."""
        return [name for name, kind in self.kinds.items() if kind in kinds]

    def fresh(self, stem: str) -> str:
        """A column name such that no taken one begins with it."""
        taken = [name.lower() for name in self.kinds]
        names = (f"{stem}{at}_" for at in range(1000))
        return next(name for name in names if not any(old.startswith(name) for old in taken))


def scan(table: pa.Table | Feed, kinds: dict[str, Kind], name: str) -> Made:
    """A scan of Arrow data under a name of the engine."""
    relation = Relation(f"arrow {name}", table.schema, quoted(name), "arrow", feed=table)
    return Made(op.Scan(relation), dict(kinds))


# --- expressions --------------------------------------------------------------------------------------------

_TEXTS = ["", "a", "é", "it's", "数", "%"]


def expression(draw: Draw, made: Made, kind: Kind, depth: int = 2) -> Column:
    """A row-wise expression of a kind that raises no error on any row."""
    columns = made.of(kind)
    if columns and (depth == 0 or draw(st.integers(0, 2)) == 0):
        return col(draw(st.sampled_from(columns)))
    if depth == 0:
        return _literal(draw, kind)

    def inner(wanted: Kind = kind) -> Column:
        return expression(draw, made, wanted, depth - 1)

    choices: list[Callable[[], Column]] = [
        lambda: _literal(draw, kind),
        lambda: when(inner(Kind.BOOL), inner()).otherwise(inner()),
        lambda: fn.coalesce(inner(), inner()),
    ]
    match kind:
        case Kind.INT:
            choices += [
                lambda: inner() + inner(),
                lambda: inner() - lit(draw(st.integers(-2, 9))),
                lambda: -inner(),
                lambda: inner() * 2,
                lambda: inner() % 3,
                lambda: fn.length(inner(Kind.TEXT)),
                lambda: fn.abs(inner()),
            ]
        case Kind.FLOAT:
            choices += [
                lambda: inner() + inner(),
                lambda: inner() * 0.5,
                lambda: inner(Kind.INT).cast("float64"),
            ]
        case Kind.DECIMAL:
            choices += [lambda: fn.abs(inner())]
        case Kind.TEXT:
            choices += [
                lambda: fn.upper(inner()),
                lambda: fn.concat(inner(), inner()),
                lambda: fn.substr(inner(), 1, 1),
                lambda: inner(Kind.INT).cast("string"),
            ]
        case Kind.BOOL:
            choices = [
                lambda: _comparison(draw, inner),
                lambda: _comparison(draw, inner),
                lambda: inner(draw(st.sampled_from(Kind))).is_null(),
                lambda: ~inner(),
                lambda: inner() & inner(),
                lambda: inner() | inner(),
                lambda: inner(Kind.INT).is_in([draw(st.integers(-3, 5)), None, 2]),
                lambda: inner(Kind.INT).between(draw(st.integers(-3, 1)), inner(Kind.INT)),
                lambda: inner(Kind.TEXT).like(draw(st.sampled_from(["%", "a%", "_", "%数%"]))),
                lambda: _literal(draw, Kind.BOOL),
            ]
    return draw(st.sampled_from(choices))()


def _literal(draw: Draw, kind: Kind) -> Column:
    match kind:
        case Kind.INT:
            return lit(draw(st.sampled_from([0, 1, 2, -1])))
        case Kind.FLOAT:
            return lit(draw(st.sampled_from([0.5, 2.0])))
        case Kind.DECIMAL:
            return lit(1).cast("DECIMAL(8, 2)")
        case Kind.TEXT:
            return lit(draw(st.sampled_from(_TEXTS)))
        case Kind.TIME:
            return lit("2024-02-29 12:30:00").cast("timestamp")
        case Kind.BOOL:
            return lit(draw(st.sampled_from([True, False, None]))).cast("bool")
        case Kind.LIST:
            return fn.list_value(lit(7).cast("int64"), lit(None))


def _comparison(draw: Draw, inner: Callable[[Kind], Column]) -> Column:
    kind = draw(st.sampled_from([Kind.INT, Kind.FLOAT, Kind.DECIMAL, Kind.TEXT, Kind.TIME]))
    left, right = inner(kind), inner(kind)
    return draw(st.sampled_from([left == right, left != right, left < right, left >= right]))


def named(draw: Draw, made: Made, name: str) -> tuple[tuple[str, exp.Expr], Kind]:
    """A named expression and its kind."""
    kind = draw(st.sampled_from(Kind))
    return (name, expression(draw, made, kind).tree), kind


def total_order(draw: Draw, made: Made) -> tuple[exp.Ordered, ...]:
    """Sort keys over every column, so that only equal rows tie."""
    names = draw(st.permutations(list(made.kinds)))
    return tuple(
        exp.Ordered(this=col(name).tree, desc=draw(st.booleans()), nulls_first=draw(st.booleans())) for name in names
    )


_METRICS: dict[str, tuple[Callable[[str], Column], Kind | None, tuple[Kind, ...]]] = {
    "rows": (lambda _: fn.count(), Kind.INT, tuple(Kind)),
    "count": (lambda name: fn.count(name), Kind.INT, tuple(Kind)),
    "distinct": (lambda name: fn.count(name, distinct=True), Kind.INT, tuple(Kind)),
    "min": (lambda name: fn.min(name), None, tuple(Kind)),
    "max": (lambda name: fn.max(name), None, tuple(Kind)),
    "sum": (lambda name: fn.sum(name), None, NUMBERS),
    "some": (lambda name: fn.bool_or(name), Kind.BOOL, (Kind.BOOL,)),
    "sum_if": (lambda name: fn.sum(name).filter(col(name) > 0), None, NUMBERS),
}


def metric(draw: Draw, made: Made, name: str) -> tuple[tuple[str, exp.Expr], Kind]:
    """An aggregate call over one column, and the kind of its result."""
    usable = [key for key, (_, _, kinds) in _METRICS.items() if made.of(*kinds)]
    build, kind, kinds = _METRICS[draw(st.sampled_from(usable))]
    column = draw(st.sampled_from(made.of(*kinds)))
    return (name, build(column).tree), kind or made.kinds[column]


# --- operators ----------------------------------------------------------------------------------------------

Other = Callable[[], Made]


def _project(draw: Draw, made: Made, _other: Other) -> Made:
    # Old names for new values, and columns that change places, are what folding can get wrong.
    pool = [*made.kinds, "y1", "y2", "y3"]
    names = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=5, unique=True))
    chosen = [named(draw, made, name) for name in names]
    node = op.Project(made.node, tuple(item for item, _ in chosen))
    return Made(node, {name: kind for (name, _), kind in chosen}, made.ordered)


def _with_column(draw: Draw, made: Made, _other: Other) -> Made:
    pool = [*made.kinds, made.fresh("w")]
    names = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3, unique=True))
    chosen = [named(draw, made, name) for name in names]
    kinds = made.kinds | {name: kind for (name, _), kind in chosen}
    return Made(op.WithColumn(made.node, tuple(item for item, _ in chosen)), kinds, made.ordered)


def _filter(draw: Draw, made: Made, _other: Other) -> Made:
    return replace(made, node=op.Filter(made.node, expression(draw, made, Kind.BOOL).tree))


def _drop(draw: Draw, made: Made, _other: Other) -> Made:
    names = draw(st.lists(st.sampled_from(list(made.kinds)), max_size=len(made.kinds) - 1, unique=True))
    kinds = {name: kind for name, kind in made.kinds.items() if name not in names}
    return Made(op.Drop(made.node, tuple(names)), kinds, made.ordered)


def _refresh(draw: Draw, made: Made, _other: Other) -> Made:
    return replace(made, node=op.Refresh(made.node, draw(st.sampled_from([0, 1_000]))))


def _rename(draw: Draw, made: Made, _other: Other) -> Made:
    old = draw(st.lists(st.sampled_from(list(made.kinds)), min_size=1, max_size=3, unique=True))
    # A permutation of their own names, or fresh ones.
    new = draw(st.permutations(old)) if draw(st.booleans()) else [f"{made.fresh('r')}{at}" for at in range(len(old))]
    pairs = dict(zip(old, new, strict=True))
    kinds = {pairs.get(name, name): kind for name, kind in made.kinds.items()}
    return Made(op.Rename(made.node, tuple(pairs.items())), kinds, made.ordered)


def _distinct(draw: Draw, made: Made, _other: Other) -> Made:
    if draw(st.booleans()):
        return replace(made, node=op.Distinct(made.node), ordered=False)
    keys = draw(st.lists(st.sampled_from(list(made.kinds)), min_size=1, max_size=2, unique=True))
    on = tuple(col(key).tree for key in keys)
    return replace(made, node=op.Distinct(made.node, on, total_order(draw, made)), ordered=False)


def _aggregate(draw: Draw, made: Made, _other: Other) -> Made:
    keys = draw(st.lists(st.sampled_from(list(made.kinds)), max_size=3, unique=True))
    stem = made.fresh("m")
    metrics = [metric(draw, made, f"{stem}{at}") for at in range(draw(st.integers(0 if keys else 1, 3)))]
    sets = None
    if len(keys) > 0 and draw(st.booleans()):
        one = st.lists(st.integers(0, len(keys) - 1), max_size=len(keys), unique=True).map(tuple)
        sets = tuple(draw(st.lists(one, min_size=1, max_size=3)))
        # Keys are the union of the sets.
        used = sorted({at for positions in sets for at in positions})
        keys = [keys[at] for at in used]
        sets = tuple(tuple(used.index(at) for at in positions) for positions in sets)
        if not keys and not metrics:
            sets, keys = None, list(made.kinds)[:1]
    node = op.Aggregate(
        made.node, tuple((key, col(key).tree) for key in keys), tuple(item for item, _ in metrics), sets
    )
    kinds = {key: made.kinds[key] for key in keys} | {name: kind for (name, _), kind in metrics}
    return Made(node, kinds)


def _apart(left: Made, right: Made) -> Made:
    """The right side with names that the left has not."""
    taken = {name.lower() for name in left.kinds}
    pairs: dict[str, str] = {}
    for name in right.kinds:
        new = name
        while new.lower() in taken:
            new += "_r"
        taken.add(new.lower())
        pairs[name] = new
    changed = tuple((old, new) for old, new in pairs.items() if old != new)
    node = op.Rename(right.node, changed) if changed else right.node
    return Made(node, {pairs[name]: kind for name, kind in right.kinds.items()})


def _join(draw: Draw, made: Made, other: Other) -> Made:
    right = _apart(made, other())
    kind = draw(st.sampled_from([k for k in op.JoinKind if k not in (op.JoinKind.ASOF, op.JoinKind.ASOF_LEFT)]))
    on: exp.Expr | None = None
    if kind is not op.JoinKind.CROSS:
        pairs = [(a, b) for a, x in made.kinds.items() for b, y in right.kinds.items() if x == y]
        if len(pairs) > 0 and draw(st.integers(0, 3)) > 0:
            one, two = draw(st.sampled_from(pairs))
            condition = col(one) == col(two)
        else:
            condition = lit(True).cast("bool")
        if draw(st.integers(0, 2)) == 0 and kind in (op.JoinKind.INNER, op.JoinKind.LEFT):
            both = Made(made.node, made.kinds | right.kinds)
            condition = condition & expression(draw, both, Kind.BOOL, 1)
        on = condition.tree
    kinds = made.kinds if kind in (op.JoinKind.SEMI, op.JoinKind.ANTI) else made.kinds | right.kinds
    return Made(op.Join(made.node, right.node, kind, on), kinds)


def _sort(draw: Draw, made: Made, _other: Other) -> Made:
    if draw(st.booleans()):
        return replace(made, node=op.Sort(made.node, total_order(draw, made)), ordered=True)
    key = expression(draw, made, draw(st.sampled_from(Kind)))
    return replace(made, node=op.Sort(made.node, (exp.Ordered(this=key.tree, desc=False),)), ordered=False)


def _limit(draw: Draw, made: Made, _other: Other) -> Made:
    rows = made if made.ordered else replace(made, node=op.Sort(made.node, total_order(draw, made)))
    count = draw(st.none() | st.integers(0, 4))
    return replace(rows, node=op.Limit(rows.node, count, draw(st.integers(0, 3))), ordered=True)


def _top_k(draw: Draw, made: Made, _other: Other) -> Made:
    order, count = total_order(draw, made), draw(st.integers(0, 4))
    if draw(st.booleans()):
        return replace(made, node=op.TopK(made.node, order, count, draw(st.integers(0, 2))), ordered=True)
    by = draw(st.lists(st.sampled_from(list(made.kinds)), min_size=1, max_size=2, unique=True))
    rank = draw(st.sampled_from(["row_number", "rank", "dense_rank"]))
    return replace(made, node=op.TopK(made.node, order, count, by=tuple(by), rank=rank), ordered=False)


def _like(draw: Draw, made: Made) -> Made:
    """Another plan with the same columns, which shares a node with this one."""
    return draw(st.sampled_from([_filter, _distinct, _limit]))(draw, made, lambda: made)


def _union(draw: Draw, made: Made, _other: Other) -> Made:
    right = _like(draw, made)
    by_name = draw(st.booleans())
    if by_name:
        right = _drop(draw, right, lambda: right)
        if draw(st.booleans()):
            added, kind = named(draw, right, right.fresh("u"))
            right = Made(op.WithColumn(right.node, (added,)), right.kinds | {added[0]: kind})
            if added[0] in made.kinds:
                return replace(made, ordered=False)
    kinds = made.kinds | (right.kinds if by_name else {})
    return Made(op.Union(made.node, right.node, by_name), kinds)


def _intersect(draw: Draw, made: Made, _other: Other) -> Made:
    return Made(op.Intersect(made.node, _like(draw, made).node, draw(st.booleans())), made.kinds)


def _except(draw: Draw, made: Made, _other: Other) -> Made:
    return Made(op.Except(made.node, _like(draw, made).node, draw(st.booleans())), made.kinds)


def _explode(draw: Draw, made: Made, other: Other) -> Made:
    if not (lists := made.of(Kind.LIST)):
        return _filter(draw, made, other)
    column = draw(st.sampled_from(lists))
    output = draw(st.sampled_from([column, made.fresh("e")]))
    kinds = {output if n == column else n: Kind.INT if n == column else k for n, k in made.kinds.items()}
    return Made(op.Explode(made.node, column, output, draw(st.booleans())), kinds)


def _unpivot(draw: Draw, made: Made, _other: Other) -> Made:
    kind = made.kinds[draw(st.sampled_from(list(made.kinds)))]
    on = draw(st.lists(st.sampled_from(made.of(kind)), min_size=1, max_size=3, unique=True))
    kept = {name: k for name, k in made.kinds.items() if name not in on}
    name, value = made.fresh("n"), made.fresh("v")
    node = op.Unpivot(made.node, tuple(on), name, value, draw(st.booleans()))
    return Made(node, kept | {name: Kind.TEXT, value: kind})


def _pivot(draw: Draw, made: Made, other: Other) -> Made:
    if not (texts := made.of(Kind.TEXT)):
        return _filter(draw, made, other)
    on = draw(st.sampled_from(texts))
    group = draw(st.lists(st.sampled_from(list(made.kinds)), max_size=2, unique=True))
    metrics = [metric(draw, made, f"p{at}") for at in range(draw(st.integers(1, 2)))]
    values = tuple((f"{made.fresh('v')}{at}", lit(text).tree) for at, text in enumerate(["a", None, "数据"]))
    node = op.Pivot(made.node, tuple(group), col(on).tree, values, tuple(item for item, _ in metrics))
    kinds = [kind for _ in values for _, kind in metrics]
    return Made(node, {g: made.kinds[g] for g in group} | dict(zip(node.columns[len(group) :], kinds, strict=True)))


def _sample(draw: Draw, made: Made, _other: Other) -> Made:
    # All rows or none: what a real sample holds depends on chance, that it is drawn from the right rows does not.
    size, percent = draw(st.sampled_from([(100.0, True), (0.0, True), (10_000.0, False)]))
    return replace(made, node=op.Sample(made.node, size, percent, draw(st.none() | st.just(7))), ordered=False)


def _window(draw: Draw, made: Made, _other: Other) -> Made:
    calls: list[tuple[str, exp.Expr]] = []
    kinds: dict[str, Kind] = {}
    for _ in range(draw(st.integers(1, 2))):
        column = draw(st.sampled_from(list(made.kinds)))
        partition = draw(st.lists(st.sampled_from(list(made.kinds)), max_size=2, unique=True))
        order = [Column(key, "key") for key in total_order(draw, made)]
        name = f"{made.fresh('o')}{len(calls)}"
        choices = [(fn.row_number(), Kind.INT), (fn.rank(), Kind.INT), (fn.lag(column), made.kinds[column])]
        choices += [(fn.count(), Kind.INT), (fn.first_value(column), made.kinds[column])]
        call, kinds[name] = draw(st.sampled_from(choices))
        calls.append((name, call.over(partition, order).tree))
    return Made(op.Window(made.node, tuple(calls)), made.kinds | kinds)


def _window_assign(draw: Draw, made: Made, other: Other) -> Made:
    if not (times := made.of(Kind.TIME, Kind.INT)):
        return _filter(draw, made, other)
    time = draw(st.sampled_from(times))
    kind = TimeKind.TIMESTAMP if made.kinds[time] is Kind.TIME else TimeKind.INTEGER
    unit = 60_000 if kind is TimeKind.TIMESTAMP else 1
    size = draw(st.sampled_from([4, 10, 15]))
    slide = draw(st.sampled_from([size, 2, 3]))
    start = made.fresh("s")
    end = draw(st.sampled_from([None, made.fresh("t")]))
    node = op.WindowAssign(made.node, time, kind, size * unit, slide * unit, start, end)
    added = {name: made.kinds[time] for name in (start, end) if name is not None}
    return Made(node, made.kinds | added)


def _time_of(draw: Draw, made: Made) -> tuple[str, TimeKind, int] | None:
    """A time column, how it holds time, and how many milliseconds its values lie apart."""
    if not (times := made.of(Kind.TIME, Kind.INT)):
        return None
    time = draw(st.sampled_from(times))
    return (time, TimeKind.TIMESTAMP, 60_000) if made.kinds[time] is Kind.TIME else (time, TimeKind.INTEGER, 1)


def _session_window(draw: Draw, made: Made, other: Other) -> Made:
    if (found := _time_of(draw, made)) is None:
        return _filter(draw, made, other)
    time, kind, unit = found
    keys = draw(st.lists(st.sampled_from(list(made.kinds)), max_size=2, unique=True))
    start, end = made.fresh("s"), made.fresh("t")
    gap_ms = unit * draw(st.sampled_from([1, 2, 10, 15]))
    node = op.SessionWindow(made.node, tuple(keys), time, kind, gap_ms, start, end)
    kinds = made.kinds | {start: made.kinds[time], end: made.kinds[time]}
    if draw(st.booleans()):
        return Made(node, kinds)
    # A row for each session, which is kept as one.
    stem = made.fresh("m")
    metrics = [metric(draw, made, f"{stem}{at}") for at in range(draw(st.integers(1, 3)))]
    names = draw(st.permutations([*keys, start, end]))
    sessions = op.Aggregate(node, tuple((name, col(name).tree) for name in names), tuple(item for item, _ in metrics))
    return Made(sessions, {name: kinds[name] for name in names} | {name: kind for (name, _), kind in metrics})


def _drop_duplicates(draw: Draw, made: Made, other: Other) -> Made:
    if (found := _time_of(draw, made)) is None:
        return _filter(draw, made, other)
    time, kind, unit = found
    keys = draw(st.lists(st.sampled_from(list(made.kinds)), min_size=1, max_size=2, unique=True))
    within_ms = unit * draw(st.sampled_from([1, 2, 15]))
    return replace(made, node=op.DropDuplicates(made.node, tuple(keys), time, kind, within_ms), ordered=False)


def _processing_time(draw: Draw, made: Made, other: Other) -> Made:
    # Over rows that only come; and what the clock says is not to be compared.
    rows = _values(draw, made, other)
    timed = op.ProcessingTime(rows.node, rows.fresh("p"))
    return replace(rows, node=op.Drop(timed, (timed.name,)))


def _watermark(draw: Draw, made: Made, other: Other) -> Made:
    # Late rows are folded in: else the stream's answer is less those that came too late.
    if (found := _time_of(draw, made)) is None:
        return _filter(draw, made, other)
    time, kind, _ = found
    delay_ms, ahead_ms = draw(st.sampled_from([0, 2, 600_000])), draw(st.sampled_from([1, 10**9]))
    return replace(made, node=op.Watermark(made.node, time, kind, delay_ms, Late.FOLD, ahead_ms), ordered=False)


def _opaque(_draw: Draw, made: Made, other: Other) -> Made:
    right = other()
    name = made.fresh("q")
    template = f"SELECT q.*, (SELECT count(*) FROM {marker(1)} AS r) AS {quoted(name)} FROM {marker(0)} AS q"
    node = op.Opaque(template, (made.node, right.node), (*made.node.columns, name), "a test")
    return Made(node, made.kinds | {name: Kind.INT})


def _values(draw: Draw, _made: Made, _other: Other) -> Made:
    rows = [[lit(draw(st.integers(-1, 2))).tree, lit(draw(st.sampled_from(_TEXTS))).tree]]
    rows += [[lit(5).tree, lit(None).tree]] * draw(st.integers(0, 2))
    return Made(op.Values(("k", "s"), tuple(map(tuple, rows))), {"k": Kind.INT, "s": Kind.TEXT})


def _with_vector(draw: Draw, made: Made, name: str) -> Node:
    """The plan with a column of vectors, some of them NULL, of zeros, or not finite."""
    ints = [fn.coalesce(expression(draw, made, Kind.INT, 1), lit(0)).cast("DOUBLE") for _ in range(2)]
    third = fn.coalesce(expression(draw, made, Kind.FLOAT, 1), lit(0.5))
    kind = draw(st.sampled_from(["FLOAT[3]", "DOUBLE[3]", "FLOAT[]"]))
    third = fn.nullif(third, lit(2.0)) if kind != "FLOAT[]" and draw(st.booleans()) else third
    vector = when(expression(draw, made, Kind.BOOL, 1), fn.list_value(*ints, third)).end().cast(kind)
    return op.WithColumn(made.node, ((name, vector.tree),))


def _vector_search(draw: Draw, made: Made, other: Other) -> Made:
    vector = made.fresh("v")
    metric = draw(st.sampled_from(Metric))
    threshold = draw(st.none() | st.sampled_from([0.0, 1.0, -2.5]))
    options = (metric, draw(st.integers(1, 5)), threshold)
    rows = _with_vector(draw, made, vector)
    score = SCORE
    if score in made.kinds:
        return _filter(draw, made, other)
    if draw(st.booleans()):
        searched = draw(st.sampled_from([(0.0, 0.0, 0.0), (1.0, -0.5, 2.0)]))
        node = op.Drop(op.VectorSearch(rows, vector, 3, searched, *options), (vector,))
        return Made(node, made.kinds | {score: Kind.FLOAT})
    queries = _apart(made, other())
    if score in queries.kinds:
        return _filter(draw, made, other)
    both = Made(made.node, queries.kinds | made.kinds)
    searched = both.fresh("s")
    node = op.VectorSearch(rows, vector, 3, None, *options, _with_vector(draw, queries, searched), searched)
    return Made(op.Drop(node, (vector, searched)), both.kinds | {score: Kind.FLOAT})


def _keyword_search(draw: Draw, made: Made, other: Other) -> Made:
    texts = made.of(Kind.TEXT)
    if not texts or KEYWORD_SCORE in made.kinds:
        return _filter(draw, made, other)
    names = draw(st.lists(st.sampled_from(texts), min_size=1, max_size=2, unique=True))
    fields = tuple((name, draw(st.sampled_from([1.0, 2.0]))) for name in names)
    query = draw(st.sampled_from(["a", "b 1", "+a -null", "数据", "s*", '"it s" OR é']))
    node = op.KeywordSearch(made.node, fields, query, draw(st.integers(1, 5)), "standard")
    return Made(node, made.kinds | {KEYWORD_SCORE: Kind.FLOAT})


def _hybrid_search(draw: Draw, made: Made, other: Other) -> Made:
    texts = made.of(Kind.TEXT)
    if not texts or set(SCORES) & set(made.kinds):
        return _filter(draw, made, other)
    vector = made.fresh("v")
    rows = _with_vector(draw, made, vector)
    fields = ((draw(st.sampled_from(texts)), 1.0),)
    query = draw(st.sampled_from(["a", "b 1", "-null 数据 é"]))
    searched, metric = draw(st.sampled_from([(0.0, 0.0, 0.0), (1.0, -0.5, 2.0)])), draw(st.sampled_from(Metric))
    threshold = draw(st.none() | st.sampled_from([1.0, -2.5]))
    fusion = draw(st.sampled_from(Fusion))
    counts = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    node = op.HybridSearch(
        rows, fields, query, vector, 3, searched, metric, *counts, threshold, fusion, CONSTANTS[fusion], "standard"
    )
    ranks = {name: Kind.INT if name.endswith("rank") else Kind.FLOAT for name in SCORES}
    return Made(op.Drop(node, (vector,)), made.kinds | ranks)


def _scan(_draw: Draw, _made: Made, other: Other) -> Made:
    return other()


_PAIR = pa.schema([("k", pa.string()), ("n", pa.int64())])


def pairs(rows: pa.Table, state: pa.Table) -> tuple[pa.Table, pa.Table]:
    """A row for every two rows of a key; the state is a row that is left. So it does not matter how they are cut."""
    seen = Counter(rows.column("k").to_pylist()) + Counter(dict.fromkeys(state.column("k").to_pylist(), 1))
    made = [(key, number) for key, rows_ in seen.items() for number in [2] * (rows_ // 2)]
    left = [(key, 1) for key, rows_ in seen.items() if rows_ % 2]
    return _pairs(made), _pairs(left)


def _pairs(rows: Sequence[tuple[str | None, int]]) -> pa.Table:
    return pa.table([[key for key, _ in rows], [number for _, number in rows]], schema=_PAIR)


def _apply_in_batches(draw: Draw, made: Made, _other: Other) -> Made:
    key = col(draw(st.sampled_from(list(made.kinds)))).cast("string")
    node = op.Project(made.node, (("k", key.tree),))
    applied = op.ApplyInBatches(node, ("k",), pairs, _PAIR, pa.schema([_PAIR.field("n")]))
    return Made(applied, {"k": Kind.TEXT, "n": Kind.INT})


Step = Callable[[Draw, Made, Other], Made]
STEPS: dict[type[Node], Step] = {
    op.Aggregate: _aggregate,
    op.ApplyInBatches: _apply_in_batches,
    op.Distinct: _distinct,
    op.Drop: _drop,
    op.DropDuplicates: _drop_duplicates,
    op.Except: _except,
    op.Explode: _explode,
    op.Filter: _filter,
    op.HybridSearch: _hybrid_search,
    op.Intersect: _intersect,
    op.Join: _join,
    op.KeywordSearch: _keyword_search,
    op.Limit: _limit,
    op.Opaque: _opaque,
    op.Pivot: _pivot,
    op.ProcessingTime: _processing_time,
    op.Project: _project,
    op.Refresh: _refresh,
    op.Rename: _rename,
    op.Sample: _sample,
    op.Scan: _scan,
    op.SessionWindow: _session_window,
    op.Sort: _sort,
    op.TopK: _top_k,
    op.Union: _union,
    op.Unpivot: _unpivot,
    op.Values: _values,
    op.VectorSearch: _vector_search,
    op.Watermark: _watermark,
    op.Window: _window,
    op.WindowAssign: _window_assign,
    op.WithColumn: _with_column,
}
_ROW_WISE: Sequence[Step] = (_project, _with_column, _filter, _rename, _drop)
_WIDTH_MAX = 16


@st.composite
def plans(draw: Draw, leaves: Sequence[Made], last: type[Node] | None = None, depth: int = 5) -> Made:
    """A plan over the leaves, with `last` as its topmost but for a few row-wise steps around it."""
    made = draw(st.sampled_from(leaves))

    def other() -> Made:
        # A leaf, this very plan (a shared node), or something made from a leaf.
        base = draw(st.sampled_from([*leaves, made]))
        return draw(st.sampled_from(_ROW_WISE))(draw, base, lambda: base) if draw(st.booleans()) else base

    steps: list[Step] = [
        STEPS[draw(st.sampled_from([kind for kind in STEPS if kind not in (op.Values, op.Scan)]))]
        for _ in range(draw(st.integers(0, depth - 1)))
    ]
    if last is not None:
        steps.append(STEPS[last])
        steps += [draw(st.sampled_from([*_ROW_WISE, _aggregate, _sort])) for _ in range(draw(st.integers(0, 2)))]
    for step in steps:
        if len(made.kinds) > _WIDTH_MAX:
            keep = list(made.kinds)[: _WIDTH_MAX // 2]
            node = op.Project(made.node, tuple((name, col(name).tree) for name in keep))
            made = Made(node, {name: made.kinds[name] for name in keep}, made.ordered)
        made = step(draw, made, other)
    return made
