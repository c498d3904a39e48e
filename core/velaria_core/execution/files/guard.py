"""Guards: casts that refuse what the engine's own would round, cut off or read as something else.

The engine reads `1.5` in a BIGINT column as 2, `2013-01-01 10:00` in a DATE column as the day, and drops the offset of
a timestamp, all without a word. Where a sample cannot prove that no such value follows, the column is read as a type
that keeps it, checked, and cast. A value that fails raises an error that `faults` turns into file, line and column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from velaria_core.execution.files.infer import EXACT_DOUBLE_MAX, VECTOR, Inferred
from velaria_core.types import literal, quoted

# Opens the text of an error that a guard raises; followed by source number, column number and value.
MARK = "velaria.bad_value"
SEPARATOR = "\x1f"

_INTEGER_BOUNDS = {
    "TINYINT": (-(2**7), 2**7 - 1),
    "SMALLINT": (-(2**15), 2**15 - 1),
    "INTEGER": (-(2**31), 2**31 - 1),
    "UTINYINT": (0, 2**8 - 1),
    "USMALLINT": (0, 2**16 - 1),
    "UINTEGER": (0, 2**32 - 1),
}
_WIDE_INTEGERS = ("BIGINT", "UBIGINT", "HUGEINT", "DECIMAL(38,0)")


@dataclass(frozen=True, slots=True)
class Guard:
    """A checked cast.

    Attributes:
        good: a condition over {x}, true for a value that the cast takes as it is.
        value: the cast of {x}.
        fits: the same condition over the text of a cell, or None where only the engine can tell.
        wrong: the opposite of `good`, not true for NULL; where it is given it is tested instead, being cheaper.
    """

    good: str
    value: str
    fits: Callable[[str], bool] | None = None
    wrong: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file: its name, its type, and as what the reader reads it.

    Attributes:
        missing: texts that are NULL in this column only.
    """

    name: str
    type: str
    raw: str
    guard: Guard | None = None
    missing: tuple[str, ...] = ()

    @property
    def cell(self) -> str:
        """The raw value in SQL."""
        cell = quoted(self.name)
        for mark in self.missing:
            cell = f"nullif({cell}, {literal(mark)})"
        return cell

    @property
    def plain(self) -> bool:
        """The reader's own value is the column's value."""
        return self.guard is None and not self.missing

    def value(self, source: str, number: int) -> str:
        """The checked value in SQL; a bad one stops the query."""
        if self.guard is None:
            return self.cell
        told = literal(f"{MARK}{SEPARATOR}{source}{SEPARATOR}{number}{SEPARATOR}")
        failure = f"CAST(error({told} || CAST({self.cell} AS VARCHAR)) AS {self.type})"
        if self.guard.wrong is not None:
            wrong, value = self.guard.wrong.format(x=self.cell), self.guard.value.format(x=self.cell)
            return f"CASE WHEN {wrong} THEN {failure} ELSE {value} END"
        return (
            f"CASE WHEN {self.guard.good.format(x=self.cell)} THEN {self.guard.value.format(x=self.cell)} "
            f"WHEN {self.cell} IS NULL THEN NULL ELSE {failure} END"
        )

    def value_or_null(self) -> str:
        """The checked value in SQL; a bad one is NULL."""
        if self.guard is None:
            return self.cell
        good, value = self.guard.good.format(x=self.cell), self.guard.value.format(x=self.cell)
        return f"CASE WHEN {good} THEN {value} END"

    def bad(self) -> str | None:
        """A condition in SQL: there is a value, and it is bad."""
        if self.guard is None:
            return None
        return f"({self.cell} IS NOT NULL AND NOT coalesce({self.guard.good.format(x=self.cell)}, false))"


def through_double(kind: str) -> Guard:
    """Integers read as doubles: exact below 2**53, and the cheapest way to see a fraction (3 ns a value)."""
    low, high = _INTEGER_BOUNDS.get(kind, (-EXACT_DOUBLE_MAX, EXACT_DOUBLE_MAX))

    def fits(text: str) -> bool:
        try:
            number = float(text)
        except ValueError:
            return True  # the reader itself refuses it
        return low <= number <= high and number.is_integer()

    outside = f"abs({{x}}) > {high}" if low == -high else f"{{x}} NOT BETWEEN {low} AND {high}"
    return Guard(
        good=f"{{x}} = trunc({{x}}) AND {{x}} BETWEEN {low} AND {high}",
        value=f"CAST({{x}} AS {kind})",
        fits=fits,
        wrong=f"{{x}} <> trunc({{x}}) OR {outside}",
    )


def integer_text(kind: str) -> Guard:
    """Integers read as text: exact in all 64 or 128 bits, at 20 ns a value."""
    cast = f"TRY_CAST({{x}} AS {kind})"
    # Spaces, signs and zeros in front are few; the regular expression sees only what is not written plainly.
    good = (
        f"CAST({cast} AS VARCHAR) = {{x}} OR ({cast} IS NOT NULL AND regexp_full_match({{x}}, '\\s*[+-]?[0-9]+\\s*'))"
    )
    return Guard(good, cast)


def cast_text(kind: str) -> Guard:
    """Text that the engine's cast takes."""
    cast = f"TRY_CAST({{x}} AS {kind})"
    return Guard(f"{cast} IS NOT NULL", cast)


def formatted(kind: str, formats: tuple[str, ...]) -> Guard:
    """Text in one of some strptime formats, whole."""
    listed = ", ".join(literal(item) for item in formats)
    parsed = f"try_strptime({{x}}, [{listed}])"
    return Guard(f"{parsed} IS NOT NULL", parsed if kind == "TIMESTAMP" else f"CAST({parsed} AS {kind})")


def vector(kind: str) -> Guard:
    """`[1, 2 3]`, with commas, spaces or both."""
    cells = "string_split_regex(trim({x}, '[] '), '[ ,]+')"
    cast = f"TRY_CAST({cells} AS {kind})"
    # Braces of the pattern would be fields of the template.
    pattern = literal(VECTOR.pattern).replace("{", "{{").replace("}", "}}")
    return Guard(f"regexp_full_match({{x}}, {pattern}) AND {cast} IS NOT NULL", cast)


def text_column(name: str, inferred: Inferred) -> Column:
    """A column whose cells arrive as text."""
    if inferred.is_text:
        return Column(name, "VARCHAR", "VARCHAR", None, inferred.missing)
    return Column(name, inferred.type, "VARCHAR", text_guard(inferred), inferred.missing)


def text_guard(inferred: Inferred) -> Guard:
    """The checked cast of text to a type."""
    if inferred.type in _INTEGER_BOUNDS or inferred.type in _WIDE_INTEGERS:
        return integer_text(inferred.type)
    if inferred.type in ("TIMESTAMP", "DATE") and inferred.formats:
        return formatted(inferred.type, inferred.formats)
    if inferred.type.startswith("FLOAT["):
        return vector(inferred.type)
    if inferred.type == "BOOLEAN" and not inferred.declared:
        # The engine's cast takes 1, t and yes too.
        return Guard("lower({x}) IN ('true', 'false')", "lower({x}) = 'true'")
    return cast_text(inferred.type)


def read_column(name: str, inferred: Inferred, *, proven: bool) -> Column:
    """A column of a reader that converts: CSV and the split lines that go through it.

    Args:
        proven: the sample was the whole file, so that the reader's own conversion cannot surprise.
    """
    kind = inferred.type
    if inferred.missing or inferred.spaced:
        return text_column(name, inferred)
    if (proven and not inferred.declared) or inferred.is_text:
        return Column(name, kind, kind)
    if kind in _INTEGER_BOUNDS or (kind == "BIGINT" and inferred.modest):
        return Column(name, kind, "DOUBLE", through_double(kind))
    if kind in _WIDE_INTEGERS or (kind == "BOOLEAN" and not inferred.declared):
        return text_column(name, inferred)
    return Column(name, kind, kind)
