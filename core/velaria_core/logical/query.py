"""Query: a SELECT under construction. What a node's `batch` takes and gives.

Each verb folds into the SELECT at hand where SQL's order of clauses allows it, and otherwise wraps it as a
subquery. Folding keeps the text short and leaves the engine its freedom to reorder joins; it never changes what
a query means: an expression that is volatile, or more than a column, is not duplicated by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache

from sqlglot import exp

from velaria_core.logical.expr import DIALECT, columns_of, reference, replaced, to_sql
from velaria_core.types import quoted

Named = tuple[str, exp.Expr]
Sets = tuple[tuple[int, ...], ...]


class Stage(IntEnum):
    """How far the clauses of a SELECT are used up; a verb folds only at or before its own stage."""

    FROM = 0
    WHERE = 1
    GROUP = 2
    COMPUTED = 3
    DISTINCT = 4
    ORDER = 5
    LIMIT = 6


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of FROM: what it is in SQL, and how it joins what stands before it."""

    sql: str
    columns: tuple[str, ...]
    join: str = ""
    on: exp.Expr | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A SELECT: output columns as expressions over the FROM items, and its clauses.

    Invariant: the items' aliases are t1, t2, ... in their order, so that two queries can be put together by
    renaming the right one's alone.
    Invariant: a tree in a query is never changed, since queries share them; plain columns above all, of which
    wide tables have many and a query uses few.
    """

    items: tuple[Item, ...]
    columns: tuple[Named, ...]
    stage: Stage = Stage.FROM
    where: tuple[exp.Expr, ...] = ()
    group: tuple[exp.Expr, ...] = ()
    sets: Sets | None = None
    single: bool = False
    """One row over all rows, for an aggregate without keys. Invariant: every column then holds an aggregate, for
    without any the SELECT would give a row for each row."""
    distinct: str = ""
    order: tuple[exp.Ordered, ...] = ()
    limit: int | None = None
    offset: int = 0
    whole: str | None = None
    """A finished text (a set operation, an opaque query) that is more than one SELECT; nothing folds into it."""

    # --- making ---------------------------------------------------------------------------------------------

    @staticmethod
    def table(sql: str, columns: Iterable[str]) -> Query:
        """All columns of what may stand in FROM: a table name, a call, a query in parentheses."""
        made = tuple((name, _column(name, 0)) for name in columns)
        return Query((Item(sql, tuple(name for name, _ in made)),), made)

    @staticmethod
    def text(sql: str, columns: Iterable[str]) -> Query:
        """A finished query text whose columns are known."""
        return replace(Query.table("", columns), stage=Stage.LIMIT, whole=sql)

    # --- verbs ----------------------------------------------------------------------------------------------

    def filtered(self, predicate: exp.Expr) -> Query:
        """Rows for which `predicate` (over the output columns) is true."""
        if self.stage > Stage.WHERE or not self._plain(columns_of(predicate)):
            return self.wrapped().filtered(predicate)
        bound = _bound(predicate, dict(self.columns))
        return replace(self, stage=Stage.WHERE, where=(*self.where, bound))

    def projected(self, columns: Sequence[Named], *, windowed: bool = False) -> Query:
        """Exactly `columns`, computed from the output columns. `windowed` says that they hold window functions."""
        read = [name for _, tree in columns for name in _reads(tree)]
        repeated = {name for name in read if read.count(name) > 1}
        folds = self.whole is None and self.stage != Stage.DISTINCT and self._plain(repeated)
        if self.single and not all(columns_of(tree) for _, tree in columns):
            folds = False
        if self.sets is not None and all(dict(self.columns)[name] in self.group for name in read):
            folds = False  # without a call the engine gives one row of no rows, however many sets have no key
        if not folds or (windowed and self.stage > Stage.GROUP):
            return self.wrapped().projected(columns, windowed=windowed)
        by_name = dict(self.columns)
        made = tuple((name, _bound(tree, by_name)) for name, tree in columns)
        return replace(self, columns=made, stage=max(self.stage, Stage.COMPUTED) if windowed else self.stage)

    def aggregated(self, keys: Sequence[Named], metrics: Sequence[Named], sets: Sets | None = None) -> Query:
        """One row for each distinct `keys`, or for each of several choices among them, given by position."""
        read = [name for _, tree in (*keys, *metrics) for name in _reads(tree)]
        repeated = {name for name in read if read.count(name) > 1}
        folds = self.stage <= Stage.WHERE and self._plain(repeated)
        if sets is not None and not self._plain(name for _, tree in keys for name in _reads(tree)):
            # A set without the key `a + 1` has NULL for it, and so would any `a + 1` computed later from a key `a`.
            folds = False
        if not folds:
            return self.wrapped().aggregated(keys, metrics, sets)
        by_name = dict(self.columns)
        made = tuple((name, _bound(tree, by_name)) for name, tree in (*keys, *metrics))
        group = tuple(tree for _, tree in made[: len(keys)])
        single = not group and sets is None
        return replace(self, columns=made, stage=Stage.GROUP, group=group, sets=sets, single=single)

    def made_distinct(self) -> Query:
        """Each distinct row once; NULL equals NULL."""
        if self.stage > Stage.COMPUTED:
            return self.wrapped().made_distinct()
        return replace(self, stage=Stage.DISTINCT, distinct="DISTINCT ")

    def ordered(self, keys: Sequence[exp.Ordered]) -> Query:
        """Rows in the order of `keys`."""
        if self.stage >= Stage.DISTINCT:
            return self.wrapped().ordered(keys)
        by_name = dict(self.columns)
        bound = [_bound_key(key, by_name) for key in keys]
        # A literal orders nothing, and the engine takes a number for a position.
        order = tuple(key for key in bound if not _is_literal(key.this))
        return replace(self, stage=Stage.ORDER, order=order)

    def limited(self, count: int | None, offset: int = 0) -> Query:
        """At most `count` rows after the first `offset`."""
        if self.stage == Stage.LIMIT:
            return self.wrapped().limited(count, offset)
        return replace(self, stage=Stage.LIMIT, limit=count, offset=offset)

    def joined(self, right: Query, kind: str, on: exp.Expr | None, *, left_only: bool = False) -> Query:
        """Both sides' columns (their names are disjoint), or the left's only, by a join such as `LEFT JOIN`.

        Left-deep joins share one FROM, so that the engine orders the inner ones as it likes.
        """
        inner = kind in ("JOIN", "CROSS JOIN")
        left = self if self._joinable(keep_where=inner) else self.wrapped()
        if len(right.items) != 1 or not right._joinable(keep_where=inner):
            right = right.wrapped()
        at = len(left.items)
        moved = tuple((name, _moved(tree, at)) for name, tree in right.columns)
        columns = left.columns if left_only else (*left.columns, *moved)
        bound = _bound(on, dict((*left.columns, *moved))) if on is not None else None
        where = (*left.where, *(_moved(tree, at) for tree in right.where))
        item = replace(right.items[0], join=kind, on=bound)
        return Query((*left.items, item), columns, Stage.WHERE if where else Stage.FROM, where)

    def wrapped(self) -> Query:
        """This query as the only item of a new FROM."""
        return Query.table(f"({self.sql()})", [column for column, _ in self.columns])

    def as_item(self) -> str:
        """What stands for this query as a table: the bare table where it is one, else the query in parentheses."""
        bare = (
            self.stage == Stage.FROM
            and len(self.items) == 1
            and self.whole is None
            and tuple(name for name, _ in self.columns) == self.items[0].columns
            and all(isinstance(tree, exp.Column) and tree.name == name for name, tree in self.columns)
        )
        return self.items[0].sql if bare else f"({self.sql()})"

    # --- text -----------------------------------------------------------------------------------------------

    def sql(self, dialect: str = DIALECT) -> str:
        """The query as text."""
        if self.whole is not None:
            return self.whole
        parts = [f"SELECT {self.distinct}{self._select_list(dialect)}"]
        if self.items:
            parts.append("FROM " + self._from(dialect))
        if self.where:
            parts.append("WHERE " + " AND ".join(_operand(tree, dialect) for tree in self.where))
        if self.group or self.sets is not None:
            parts.append("GROUP BY " + self._group_by(dialect))
        if self.order:
            parts.append("ORDER BY " + ", ".join(to_sql(key, dialect) for key in self.order))
        if self.limit is not None:
            parts.append(f"LIMIT {self.limit}")
        if self.offset:
            parts.append(f"OFFSET {self.offset}")
        return " ".join(parts)

    def _select_list(self, dialect: str) -> str:
        shown = []
        for name, tree in self.columns:
            text = _text(tree, dialect)
            plain = isinstance(tree, exp.Column) and tree.name == name
            shown.append(text if plain else f"{text} AS {quoted(name)}")
        return ", ".join(shown)

    def _group_by(self, dialect: str) -> str:
        # A bare number would be a position in the select list, which later verbs may change.
        keys = [_text(tree, dialect) + (" + 0" if _is_number(tree) else "") for tree in self.group]
        if self.sets is None:
            return ", ".join(keys)
        return f"GROUPING SETS ({', '.join('(' + ', '.join(keys[at] for at in one) + ')' for one in self.sets)})"

    def _from(self, dialect: str) -> str:
        text = ""
        for at, item in enumerate(self.items):
            entry = f"{item.sql} AS {_alias(at)}"
            text += f" {item.join} {entry}" if at else entry
            if item.on is not None:
                text += " ON " + to_sql(item.on, dialect)
        return text

    # --- inside ---------------------------------------------------------------------------------------------

    def _plain(self, names: Iterable[str] | None = None) -> bool:
        """Whether these output columns (all, by default) are mere references, so that repeating them is free."""
        wanted = None if names is None else set(names)
        return all(isinstance(tree, exp.Column) for name, tree in self.columns if wanted is None or name in wanted)

    def _joinable(self, *, keep_where: bool) -> bool:
        allowed = Stage.WHERE if keep_where else Stage.FROM
        return self.whole is None and bool(self.items) and self.stage <= allowed and self._plain()


@lru_cache(8192)
def _column(name: str, at: int) -> exp.Column:
    """A column of the FROM item at a position; the same tree each time."""
    tree = reference(name)
    tree.set("table", exp.Identifier(this=_alias(at), quoted=False))
    return tree


def _alias(at: int) -> str:
    return f"t{at + 1}"


def _reads(tree: exp.Expr) -> list[str]:
    """The columns an expression reads, each as often as it does."""
    return [column.name for column in tree.find_all(exp.Column)]


def _bound(tree: exp.Expr, columns: Mapping[str, exp.Expr]) -> exp.Expr:
    """`tree` with each column reference replaced by its expression in `columns`, which is shared where it is all."""
    return columns[tree.name] if isinstance(tree, exp.Column) else replaced(tree, columns)


def _moved(tree: exp.Expr, at: int) -> exp.Expr:
    """An expression over the only FROM item of a query, for that item at another position."""
    if isinstance(tree, exp.Column):
        return _column(tree.name, at)
    copied = tree.copy()
    for column in list(copied.find_all(exp.Column)):
        column.replace(_column(column.name, at).copy())
    return copied


def _bound_key(key: exp.Ordered, columns: Mapping[str, exp.Expr]) -> exp.Ordered:
    bound = replaced(key, columns)
    assert isinstance(bound, exp.Ordered)
    return bound


def _is_literal(tree: exp.Expr) -> bool:
    return _is_number(tree) or isinstance(tree.unnest(), (exp.Literal, exp.Boolean, exp.Null))


def _is_number(tree: exp.Expr) -> bool:
    inner = tree.unnest()
    while isinstance(inner, exp.Neg):
        inner = inner.this.unnest()
    return isinstance(inner, exp.Literal) and not inner.is_string


def _operand(tree: exp.Expr, dialect: str) -> str:
    text = to_sql(tree, dialect)
    return f"({text})" if isinstance(tree, exp.Or) else text


def _text(tree: exp.Expr, dialect: str) -> str:
    """SQL text of a tree; that of a plain column is kept."""
    return _column_text(tree.name, tree.table, dialect) if isinstance(tree, exp.Column) else to_sql(tree, dialect)


@lru_cache(8192)
def _column_text(name: str, alias: str, dialect: str) -> str:
    tree = reference(name)
    tree.set("table", exp.Identifier(this=alias, quoted=False))
    return to_sql(tree, dialect)
