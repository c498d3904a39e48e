"""Prepared parameters: `?` and `$1` by position, `$name` by name. They become typed literals, never text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from sqlglot import exp

from velaria_core.errors import InputError, Place, did_you_mean
from velaria_core.logical.expr import literal_tree
from velaria_core.logical.sql.statements import Parameter

Parameters = Sequence[Any] | Mapping[str, Any] | None
T = TypeVar("T")


def with_parameters(statements: Sequence[T], parameters: Parameters, text: str) -> tuple[T, ...]:
    """`statements` with a value in place of every parameter; each value is used by one of them at least.

    Raises:
        InputError[sql.parameters]: a value is missing or left over.
    """
    filler = _Filler(parameters, text)
    filled: tuple[T, ...] = tuple(filler.fill(statement) for statement in statements)
    filler.require_all_used()
    return filled


class _Filler:
    def __init__(self, parameters: Parameters, text: str) -> None:
        if isinstance(parameters, Mapping):
            self._values = {str(key): value for key, value in parameters.items()}
        else:
            self._values = {str(at): value for at, value in enumerate(parameters or (), start=1)}
        self._used: set[str] = set()
        self._text = text

    def fill(self, value: Any) -> Any:
        if isinstance(value, exp.Expr):
            return self._tree(value)
        if isinstance(value, Parameter):
            return self._value(str(value.key), Place.in_text(self._text, value.span.offset, value.span.length))
        if isinstance(value, Mapping):
            return {key: self.fill(item) for key, item in value.items()}
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            return tuple(self.fill(item) for item in value)
        if is_dataclass(value) and not isinstance(value, type):
            changed = {
                field.name: new
                for field in fields(value)
                if (new := self.fill(old := getattr(value, field.name))) is not old
            }
            return replace(value, **changed) if changed else value
        return value

    def _tree(self, tree: exp.Expr) -> exp.Expr:
        if tree.find(exp.Placeholder, exp.Parameter) is None:
            return tree
        copied = tree.copy()
        for hole in list(copied.find_all(exp.Placeholder, exp.Parameter)):
            key = hole.name or str(hole.this.name)
            start = hole.meta.get("start")
            place = Place.in_text(self._text, start, len(key) + 1) if isinstance(start, int) else None
            literal = literal_tree(self._value(key, place))
            if hole is copied:
                return literal
            hole.replace(literal)
        return copied

    def _value(self, key: str, place: Place | None) -> Any:
        if key not in self._values:
            given = did_you_mean(key, self._values, "parameters") if self._values else "pass parameters=[...]"
            raise InputError("sql.parameters", f"no value for parameter ${key}", hint=given, place=place)
        self._used.add(key)
        return self._values[key]

    def require_all_used(self) -> None:
        if left := sorted(set(self._values) - self._used):
            raise InputError("sql.parameters", f"parameters that the statement does not use: {', '.join(left)}")
