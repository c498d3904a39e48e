"""Scalar expressions: a small `Column` API over sqlglot trees, which print themselves in any dialect.

A `Column` names the columns of one table; the plan node that holds it says which. Every scalar, aggregate and
window function of the engine is there by name: `fn.regexp_replace("s", "a", "b")`, `fn.sum("x")`.
"""

from __future__ import annotations

import datetime as dt
import decimal
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError

from velaria_core.errors import InputError, SqlSyntaxError
from velaria_core.logical.functions import faithful, parsed
from velaria_core.types import resolve_type_name

DIALECT: Final = "duckdb"


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """An expression over the columns of a table, with the name its result will have.

    Comparisons and arithmetic build new columns: `(col("a") + 1 > col("b")) & col("c").is_not_null()`.
    Python's `and`, `or`, `not` cannot be overloaded: write `&`, `|`, `~`.
    """

    tree: exp.Expr
    name: str

    def sql(self) -> str:
        """The expression as SQL text."""
        return to_sql(self.tree)

    def __repr__(self) -> str:
        shown = self.sql()
        return f"Column({shown})" if shown == self.name else f"Column({shown} AS {self.name})"

    def __bool__(self) -> bool:
        raise InputError(
            "expr.truth",
            "a column has no truth value before it runs",
            hint="write & for and, | for or, ~ for not, and parenthesise comparisons",
        )

    def alias(self, name: str) -> Column:
        """The same expression under another name."""
        return Column(self.tree, name)

    def __eq__(self, other: object) -> Column:  # type: ignore[override]
        return self._binary(exp.EQ, other)

    def __ne__(self, other: object) -> Column:  # type: ignore[override]
        return self._binary(exp.NEQ, other)

    def __lt__(self, other: object) -> Column:
        return self._binary(exp.LT, other)

    def __le__(self, other: object) -> Column:
        return self._binary(exp.LTE, other)

    def __gt__(self, other: object) -> Column:
        return self._binary(exp.GT, other)

    def __ge__(self, other: object) -> Column:
        return self._binary(exp.GTE, other)

    def __add__(self, other: object) -> Column:
        return self._binary(exp.Add, other)

    def __radd__(self, other: object) -> Column:
        return lit(other)._binary(exp.Add, self)

    def __sub__(self, other: object) -> Column:
        return self._binary(exp.Sub, other)

    def __rsub__(self, other: object) -> Column:
        return lit(other)._binary(exp.Sub, self)

    def __mul__(self, other: object) -> Column:
        return self._binary(exp.Mul, other)

    def __rmul__(self, other: object) -> Column:
        return lit(other)._binary(exp.Mul, self)

    def __truediv__(self, other: object) -> Column:
        return self._binary(exp.Div, other)

    def __rtruediv__(self, other: object) -> Column:
        return lit(other)._binary(exp.Div, self)

    def __floordiv__(self, other: object) -> Column:
        return self._binary(exp.IntDiv, other)

    def __mod__(self, other: object) -> Column:
        return self._binary(exp.Mod, other)

    def __and__(self, other: object) -> Column:
        return self._binary(exp.And, other)

    def __rand__(self, other: object) -> Column:
        return lit(other)._binary(exp.And, self)

    def __or__(self, other: object) -> Column:
        return self._binary(exp.Or, other)

    def __ror__(self, other: object) -> Column:
        return lit(other)._binary(exp.Or, self)

    def __invert__(self) -> Column:
        return Column(exp.Not(this=grouped(self.tree)), self.name)

    def __neg__(self) -> Column:
        return Column(exp.Neg(this=grouped(self.tree)), self.name)

    def __getitem__(self, key: str | int) -> Column:
        """A field of a struct by name, or an element of a list by position, counted from 0, or from -1 at the end."""
        if isinstance(key, str):
            return Column(exp.Dot(this=grouped(self.tree), expression=exp.to_identifier(key, quoted=True)), key)
        position = key + 1 if key >= 0 else key  # the engine counts from 1, and from -1 at the end, too
        return Column(call("list_extract", grouped(self.tree), lit(position).tree), self.name)

    def _binary(self, kind: type[exp.Expr], other: object) -> Column:
        right = as_column(other, text_is_value=True)
        return Column(kind(this=grouped(self.tree), expression=grouped(right.tree)), self.name)

    def is_null(self) -> Column:
        return Column(exp.Is(this=grouped(self.tree), expression=exp.Null()), self.name)

    def is_not_null(self) -> Column:
        return ~self.is_null()

    def is_in(self, values: Iterable[object]) -> Column:
        """Whether the value is among `values` (literals or columns); NULL is in nothing."""
        members = [as_column(value, text_is_value=True).tree.copy() for value in values]
        if not members:
            return lit(False).alias(self.name)
        return Column(exp.In(this=grouped(self.tree), expressions=members), self.name)

    def between(self, low: object, high: object) -> Column:
        """Both ends belong to the range."""
        return Column(
            exp.Between(
                this=grouped(self.tree),
                low=grouped(as_column(low, text_is_value=True).tree),
                high=grouped(as_column(high, text_is_value=True).tree),
            ),
            self.name,
        )

    def like(self, pattern: str) -> Column:
        return self._binary(exp.Like, pattern)

    def cast(self, type_name: str) -> Column:
        """As another type, by a Velaria or SQL name; an unfit value is a DataError when it runs."""
        return Column(self._cast(exp.Cast, type_name), self.name)

    def try_cast(self, type_name: str) -> Column:
        """As another type; an unfit value becomes NULL."""
        return Column(self._cast(exp.TryCast, type_name), self.name)

    def _cast(self, kind: type[exp.Expr], type_name: str) -> exp.Expr:
        return kind(this=self.tree.copy(), to=exp.DataType.build(resolve_type_name(type_name), dialect=DIALECT))

    def asc(self, *, nulls_first: bool = False) -> Column:
        return Column(exp.Ordered(this=self.tree.copy(), desc=False, nulls_first=nulls_first), self.name)

    def desc(self, *, nulls_first: bool = False) -> Column:
        return Column(exp.Ordered(this=self.tree.copy(), desc=True, nulls_first=nulls_first), self.name)

    def over(
        self,
        partition_by: str | Column | Sequence[str | Column] = (),
        order_by: str | Column | Sequence[str | Column] = (),
        frame: str | None = None,
    ) -> Column:
        """The function over a window of rows, e.g. `fn.row_number().over("k", order_by=col("ts").desc())`.

        `frame` is SQL, e.g. "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW".
        """
        keys = as_columns(partition_by)
        order = [ordered(column) for column in as_columns(order_by)]
        window = exp.Window(this=self.tree.copy(), partition_by=[key.tree.copy() for key in keys], over="OVER")
        if order:
            window.set("order", exp.Order(expressions=order))
        if frame is not None:
            template = parse_expression(f"count(*) OVER ({'ORDER BY 1 ' if order else ''}{frame})")
            spec = template.find(exp.WindowSpec)
            if spec is None:
                raise InputError("expr.frame", f'"{frame}" is not a window frame')
            window.set("spec", spec.copy())
        return Column(window, self.name)

    def filter(self, condition: Column) -> Column:
        """An aggregate over the rows where `condition` holds."""
        where = exp.Where(this=condition.tree.copy())
        return Column(exp.Filter(this=self.tree.copy(), expression=where), self.name)


ColumnLike = str | Column


def col(name: str) -> Column:
    """A column by its exact name."""
    return Column(reference(name), name)


def lit(value: object) -> Column:
    """A literal of the type that the Python value has.

    Raises:
        InputError[expr.literal]: no SQL literal stands for the value.
    """
    if isinstance(value, Column):
        return value
    return Column(literal_tree(value), "literal")


def expr(text: str) -> Column:
    """A SQL expression: `expr("a + 1 AS b")`."""
    tree = parse_expression(text)
    if isinstance(tree, exp.Alias):
        return Column(tree.this, tree.alias)
    return Column(tree, default_name(tree))


class _Functions:
    """`fn.name(args...)`: any function of the engine. Text arguments name columns; `lit("x")` is a text value."""

    def __getattr__(self, name: str) -> Callable[..., Column]:
        if name.startswith("__"):
            raise AttributeError(name)

        def function(*arguments: object, distinct: bool = False) -> Column:
            trees = [as_column(argument).tree.copy() for argument in arguments]
            if name.lower() == "count" and not trees:
                trees = [exp.Star()]
            made = faithful(call(name, *([exp.Distinct(expressions=trees)] if distinct else trees)))
            return Column(made, default_name(made))

        return function


fn = _Functions()


@dataclass(frozen=True, slots=True)
class When:
    """`when(condition, value).when(...).otherwise(value)`; without `otherwise` the rest is NULL."""

    branches: tuple[tuple[Column, Column], ...]

    def when(self, condition: Column, value: object) -> When:
        return When((*self.branches, (condition, as_column(value, text_is_value=True))))

    def otherwise(self, value: object) -> Column:
        return self._build(as_column(value, text_is_value=True).tree.copy())

    def end(self) -> Column:
        return self._build(None)

    def _build(self, default: exp.Expr | None) -> Column:
        ifs = [exp.If(this=c.tree.copy(), true=v.tree.copy()) for c, v in self.branches]
        return Column(exp.Case(ifs=ifs, default=default), "case")


def when(condition: Column, value: object) -> When:
    """The first branch of a CASE."""
    return When(()).when(condition, value)


# --- trees --------------------------------------------------------------------------------------------------


def reference(name: str, table: str | None = None) -> exp.Column:
    """A column reference with quoted identifiers."""
    return exp.Column(
        this=exp.Identifier(this=name, quoted=True),
        table=exp.Identifier(this=table, quoted=True) if table is not None else None,
    )


def call(name: str, *arguments: exp.Expr) -> exp.Expr:
    """A function call by the engine's own name, printed as it stands."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def grouped(tree: exp.Expr) -> exp.Expr:
    """A copy of `tree` that can stand as an operand: compound expressions go in parentheses."""
    copied = tree.copy()
    if isinstance(copied, (exp.Binary, exp.Unary, exp.Between, exp.In, exp.Case, exp.Interval, exp.Lambda)) and (
        not isinstance(copied, (exp.Paren, exp.Dot))
    ):
        return exp.Paren(this=copied)
    return copied


def ordered(column: Column) -> exp.Ordered:
    """The sort key of a column; NULL comes last in either direction unless it says otherwise."""
    tree = column.tree.copy()
    return tree if isinstance(tree, exp.Ordered) else exp.Ordered(this=tree, desc=False, nulls_first=False)


def literal_tree(value: object) -> exp.Expr:
    """The literal of a Python value as a typed tree; values are never pasted into text."""
    match value:
        case None:
            return exp.Null()
        case bool():
            return exp.Boolean(this=value)
        case int():
            if -(2**63) <= value < 2**63:
                number: exp.Expr = exp.Literal.number(abs(value))
                return exp.Paren(this=exp.Neg(this=number)) if value < 0 else number
            return typed(str(value), "HUGEINT")
        case float():
            return typed(repr(value), "DOUBLE")
        case str():
            return exp.Literal.string(value)
        case decimal.Decimal():
            digits, exponent = value.as_tuple().digits, value.as_tuple().exponent
            scale = max(0, -exponent) if isinstance(exponent, int) else 0
            return typed(f"{value:f}", f"DECIMAL({max(len(digits), scale + 1)}, {scale})")
        case dt.datetime():
            return typed(value.isoformat(sep=" "), "TIMESTAMPTZ" if value.tzinfo else "TIMESTAMP")
        case dt.date():
            return typed(value.isoformat(), "DATE")
        case dt.time():
            return typed(value.isoformat(), "TIME")
        case dt.timedelta():
            microseconds = value // dt.timedelta(microseconds=1)
            return call("to_microseconds", exp.Literal.number(microseconds))
        case uuid.UUID():
            return typed(str(value), "UUID")
        case bytes() | bytearray():
            return call("unhex", exp.Literal.string(bytes(value).hex()))
        case Mapping():
            fields = [
                exp.PropertyEQ(this=exp.to_identifier(str(key), quoted=True), expression=literal_tree(item))
                for key, item in value.items()
            ]
            return exp.Struct(expressions=fields)
        case list() | tuple():
            return exp.Array(expressions=[literal_tree(item) for item in value])
    if hasattr(value, "item"):  # a NumPy scalar
        return literal_tree(value.item())
    if hasattr(value, "tolist"):  # a NumPy array
        return literal_tree(value.tolist())
    raise InputError(
        "expr.literal",
        f"no SQL literal stands for a {type(value).__name__}",
        hint="use None, bool, int, float, str, bytes, Decimal, date, datetime, timedelta, UUID, list or dict",
    )


def typed(text: str, type_name: str) -> exp.Expr:
    """A literal with its type spelt out."""
    return exp.Cast(this=exp.Literal.string(text), to=exp.DataType.build(type_name, dialect=DIALECT))


def as_column(value: object, *, text_is_value: bool = False) -> Column:
    """A column from what a user may write for one. Text names a column, or is a value where that is meant."""
    if isinstance(value, Column):
        return value
    if isinstance(value, When):
        return value.end()
    if isinstance(value, str) and not text_is_value:
        return col(value)
    return lit(value)


def as_columns(value: ColumnLike | Sequence[ColumnLike]) -> list[Column]:
    """One column or several, as columns."""
    return [as_column(item) for item in ([value] if isinstance(value, (str, Column)) else value)]


def parse_expression(text: str) -> exp.Expr:
    """A SQL scalar expression as a tree, with every name taken for a column.

    Raises:
        SqlSyntaxError[sql.syntax]: the text is not one expression.
    """
    whole = f"SELECT {text}"
    try:
        select = parsed(Dialect.get_or_raise(DIALECT).tokenize(whole), whole)
    except SqlglotError as error:
        raise SqlSyntaxError("sql.syntax", f"not an expression: {text}", cause=error) from error
    if not isinstance(select, exp.Select) or len(select.expressions) != 1 or select.args.get("from_"):
        raise SqlSyntaxError("sql.syntax", f"not one expression: {text}")
    tree: exp.Expr = select.expressions[0]
    return tree


def default_name(tree: exp.Expr) -> str:
    """The name of an unnamed result: `sum_x` for sum(x), `count` for count(*), else the text of the expression."""
    if isinstance(tree, exp.Column):
        return str(tree.name)
    if isinstance(tree, exp.Dot):
        return str(tree.expression.name)
    if isinstance(tree, (exp.Paren, exp.Filter, exp.Window)):
        return default_name(tree.this)
    name = tree.meta.get("written")
    if name is None and isinstance(tree, exp.Func) and not isinstance(tree, (exp.Case, exp.Cast, exp.Binary)):
        name = to_sql(tree).partition("(")[0].strip().lower()
    if name is not None and name.isidentifier():
        columns = [column.name for column in tree.find_all(exp.Column)]
        return f"{name}_{columns[0]}" if columns else name
    return to_sql(tree)


class _Printers(threading.local):
    """A printer keeps state while it prints, so each thread has its own; making one costs more than printing."""

    def __init__(self) -> None:
        self.by_dialect: dict[str, Any] = {}


_PRINTERS = _Printers()


def to_sql(tree: exp.Expr, dialect: str = DIALECT) -> str:
    """SQL text of a tree."""
    printer = _PRINTERS.by_dialect.get(dialect)
    if printer is None:
        printer = _PRINTERS.by_dialect[dialect] = Dialect.get_or_raise(dialect).generator()
    return str(printer.generate(tree, copy=True))


def columns_of(tree: exp.Expr) -> list[str]:
    """The names of the columns that an expression reads, in order, each once."""
    return list(dict.fromkeys(column.name for column in tree.find_all(exp.Column)))


def replaced(tree: exp.Expr, columns: Mapping[str, exp.Expr]) -> exp.Expr:
    """A copy of `tree` with each column reference replaced by its expression in `columns`."""
    if isinstance(tree, exp.Column):
        return columns[tree.name].copy()
    copied = tree.copy()
    for column in list(copied.find_all(exp.Column)):
        column.replace(grouped(columns[column.name]))
    return copied


def renamed(tree: exp.Expr, names: Mapping[str, str]) -> exp.Expr:
    """A copy of `tree` with column references renamed."""
    copied = tree.copy()
    for column in copied.find_all(exp.Column):
        if (name := names.get(column.name)) is not None:
            column.set("this", exp.Identifier(this=name, quoted=True))
    return copied
