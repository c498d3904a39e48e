"""Scope: which names an expression may use, and the one column that each of them means.

Names are compared without case and keep the case they were given. DataFrame calls resolve against the columns of
one table, SQL against the tables of FROM.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlglot import exp

from velaria_core.errors import Place, SqlSemanticError, did_you_mean
from velaria_core.logical.expr import reference


@dataclass(frozen=True, slots=True)
class Entry:
    """A table in scope.

    Attributes:
        alias: the name before the dot, or None.
        columns: (shown name, column of the plan) in order; they differ where two tables share a name.
        hidden: shown names that `*` leaves out, since USING shows them once.
    """

    alias: str | None
    columns: tuple[tuple[str, str], ...]
    hidden: frozenset[str] = frozenset()
    _flat: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_flat", {shown.lower(): flat for shown, flat in reversed(self.columns)})

    def column(self, name: str) -> str | None:
        """The plan's column for a shown name, the first of that name."""
        return self._flat.get(name.lower())


@dataclass(frozen=True, slots=True)
class Scope:
    """The tables of FROM, and what USING merged. `text` is the SQL that positions refer to."""

    entries: tuple[Entry, ...] = ()
    merged: Mapping[str, exp.Expr] = field(default_factory=dict)
    text: str | None = None

    @staticmethod
    def of(columns: Iterable[str], text: str | None = None) -> Scope:
        """The columns of one nameless table."""
        return Scope((Entry(None, tuple((name, name) for name in columns)),), {}, text)

    def resolved(self, tree: exp.Expr, aliases: Mapping[str, exp.Expr] | None = None) -> exp.Expr:
        """A copy of `tree` in which every column is one of the plan's.

        `aliases` are names that may be used where no column has them, such as those of the select list.

        Raises:
            SqlSemanticError[sql.unknown_column, sql.unknown_table, sql.ambiguous_column].
        """
        if isinstance(tree, exp.Column):
            return self._column(tree, aliases or {})
        copied = tree.copy()
        for column in list(copied.find_all(exp.Column)):
            column.replace(self._column(column, aliases or {}))
        return copied

    def _column(self, column: exp.Column, aliases: Mapping[str, exp.Expr]) -> exp.Expr:
        parts = [part for part in column.parts if isinstance(part, exp.Identifier)]
        if len(parts) > 1:
            for entry in self.entries:
                if entry.alias is not None and entry.alias.lower() == parts[0].name.lower():
                    flat = entry.column(parts[1].name)
                    if flat is None:
                        raise self._unknown(parts[1], [shown for shown, _ in entry.columns], entry.alias)
                    return _fields(reference(flat), parts[2:])
        found = self._named(parts[0], aliases)
        if found is None and len(parts) > 1:
            tables = [entry.alias for entry in self.entries if entry.alias]
            raise SqlSemanticError(
                "sql.unknown_table",
                f'no table or column "{parts[0].name}" to take "{parts[1].name}" from',
                hint=did_you_mean(parts[0].name, tables, "tables"),
                place=self._place(parts[0]),
            )
        if found is None:
            raise self._unknown(parts[0], self.names(), None)
        return _fields(found, parts[1:])

    def _named(self, identifier: exp.Identifier, aliases: Mapping[str, exp.Expr]) -> exp.Expr | None:
        folded = identifier.name.lower()
        if (tree := self.merged.get(folded)) is not None:
            return exp.Paren(this=tree.copy()) if not isinstance(tree, exp.Column) else tree.copy()
        owners = [(entry, flat) for entry in self.entries if (flat := entry.column(folded)) is not None]
        if len(owners) > 1:
            choices = " or ".join(f"{entry.alias}.{identifier.name}" for entry, _ in owners)
            raise SqlSemanticError(
                "sql.ambiguous_column",
                f'"{identifier.name}" is a column of several tables',
                hint=f"write {choices}",
                place=self._place(identifier),
            )
        if owners:
            return reference(owners[0][1])
        if (tree := aliases.get(folded)) is not None:
            return exp.Paren(this=tree.copy()) if not isinstance(tree, exp.Column) else tree.copy()
        return None

    def knows(self, name: str) -> bool:
        """Whether a column of this name is in scope."""
        return name.lower() in self.merged or any(entry.column(name) is not None for entry in self.entries)

    def names(self) -> list[str]:
        """Every shown name, in order."""
        return [shown for entry in self.entries for shown, _ in entry.columns]

    def star(self, alias: str | None = None) -> list[tuple[str, exp.Expr]]:
        """What `*` or `alias.*` stands for: (shown name, column)."""
        found: list[tuple[str, exp.Expr]] = []
        for entry in self.entries:
            if alias is not None and (entry.alias or "").lower() != alias.lower():
                continue
            for shown, flat in entry.columns:
                folded = shown.lower()
                if alias is None and folded in entry.hidden:
                    continue
                merged = self.merged.get(folded) if alias is None else None
                found.append((shown, merged.copy() if merged is not None else reference(flat)))
        if not found:
            tables = [entry.alias for entry in self.entries if entry.alias]
            raise SqlSemanticError(
                "sql.unknown_table",
                f'no table "{alias}" to take columns from' if alias else "there is no table to take columns from",
                hint=did_you_mean(alias or "", tables, "tables"),
            )
        return found

    def _unknown(self, part: exp.Identifier, known: Iterable[str], table: str | None) -> SqlSemanticError:
        tables = [entry.alias for entry in self.entries if entry.alias]
        where = f' in "{table}"' if table else f' in "{tables[0]}"' if len(tables) == 1 else ""
        return SqlSemanticError(
            "sql.unknown_column",
            f'no column "{part.name}"{where}',
            hint=did_you_mean(part.name, known, "columns"),
            place=self._place(part),
        )

    def _place(self, identifier: exp.Identifier) -> Place | None:
        return place_of(identifier, self.text)


class _Shared(dict[str, object]):
    """What a parsed node knows of itself. Copies of the node share it: copying it costs more than the tree."""

    def __deepcopy__(self, memo: object) -> _Shared:
        return self


def share_places(tree: exp.Expr) -> None:
    """Let the copies of a freshly parsed tree share its places."""
    for node in tree.walk():
        node._meta = _Shared(node._meta) if node._meta else None


def place_of(tree: exp.Expr, text: str | None) -> Place | None:
    """Where a tree stands in the text it was parsed from, by its first identifier that knows."""
    if text is None:
        return None
    for node in tree.walk():
        if "start" in node.meta:
            return Place.in_text(text, node.meta["start"], node.meta["end"] - node.meta["start"] + 1)
    return None


def _fields(tree: exp.Expr, parts: list[exp.Identifier]) -> exp.Expr:
    """`tree.a.b`: the fields of a struct."""
    for part in parts:
        tree = exp.Dot(this=tree, expression=exp.Identifier(this=part.name, quoted=True))
    return tree


def distinct_names(names: Iterable[str]) -> list[str]:
    """The names, with `_1`, `_2`, ... after those that came before, compared without case."""
    taken: set[str] = set()
    made = []
    for name in names:
        candidate, count = name, 0
        while candidate.lower() in taken:
            count += 1
            candidate = f"{name}_{count}"
        taken.add(candidate.lower())
        made.append(candidate)
    return made
