"""Random SELECTs as text, over the tables `r` and `s`: what a person might write, clause upon clause.

Nearly every query that comes out is valid (the test skips what the engine refuses), and its rows do not depend on
chance: LIMIT stands only behind an ORDER BY of every column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import strategies as st

from properties.tables import Kind

T = TypeVar("T")
Output = list[tuple[str, Kind]]

TABLES: dict[str, dict[str, Kind]] = {
    "r": {"k": Kind.INT, "v": Kind.INT, "s": Kind.TEXT, "f": Kind.FLOAT, "d": Kind.DECIMAL, "ts": Kind.TIME},
    "s": {"k": Kind.INT, "w": Kind.INT, "s": Kind.TEXT, "b": Kind.BOOL},
}
_NUMBERS = (Kind.INT, Kind.FLOAT, Kind.DECIMAL)
_SHOWN = (Kind.INT, Kind.TEXT, Kind.FLOAT, Kind.DECIMAL, Kind.BOOL, Kind.TIME)
_JOINS = ("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "SEMI JOIN", "ANTI JOIN", ",")
_SET_OPERATORS = ("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL", "INTERSECT ALL", "UNION BY NAME")
_LITERALS: dict[Kind, list[str]] = {
    Kind.INT: ["0", "1", "-2", "3"],
    Kind.FLOAT: ["0.5::DOUBLE", "'nan'::DOUBLE", "2e0"],
    Kind.DECIMAL: ["1.50", "-0.25"],
    Kind.TEXT: ["'a'", "''", "'数据'", "'it''s'", "'null'"],
    Kind.BOOL: ["TRUE", "FALSE", "NULL::BOOLEAN"],
    Kind.TIME: ["TIMESTAMP '1970-01-01 00:07:00'", "DATE '1970-01-01'::TIMESTAMP"],
}


@dataclass
class Scope:
    """What may be named in a block: the text and kind of each column in reach."""

    columns: Output = field(default_factory=list)

    def of(self, *kinds: Kind) -> list[str]:
        return [text for text, kind in self.columns if kind in kinds]


@dataclass
class Writer:
    """Draws the text of one query, block by block."""

    draw: st.DrawFn
    aliases: int = 0

    def chance(self, of: int = 2) -> bool:
        """True once in `of` times."""
        return self.draw(st.integers(1, of)) == of

    def one(self, items: Sequence[T]) -> T:
        return self.draw(st.sampled_from(items))

    def alias(self) -> str:
        self.aliases += 1
        return f"t{self.aliases}"

    # --- expressions ----------------------------------------------------------------------------------------

    def scalar(self, scope: Scope, kind: Kind, depth: int = 2) -> str:
        """An expression over a row that raises no error."""
        known = scope.of(kind)
        if depth == 0 or self.chance(3):
            return self.one(known) if known and not self.chance(5) else self.one(_LITERALS[kind])

        def inner(wanted: Kind = kind) -> str:
            return self.scalar(scope, wanted, depth - 1)

        choices: list[Callable[[], str]] = [
            lambda: f"coalesce({inner()}, {inner()})",
            lambda: f"CASE WHEN {inner(Kind.BOOL)} THEN {inner()} ELSE {inner()} END",
            lambda: f"CASE WHEN {inner(Kind.BOOL)} THEN {inner()} END",
            lambda: f"nullif({inner()}, {inner()})",
        ]
        match kind:
            case Kind.INT:
                choices += [
                    lambda: f"{inner()} + {inner()}",
                    lambda: f"({inner()} - {inner()}) % 4",
                    lambda: f"- {inner()} * 2",
                    lambda: f"length({inner(Kind.TEXT)})",
                    lambda: f"abs({inner()})",
                ]
            case Kind.FLOAT:
                choices += [lambda: f"{inner()} * 0.5::DOUBLE", lambda: f"{inner(Kind.INT)}::DOUBLE"]
            case Kind.TEXT:
                choices += [
                    lambda: f"upper({inner()})",
                    lambda: f"{inner()} || {inner()}",
                    lambda: f"substr({inner()}, 2)",
                    lambda: f"CAST({inner(Kind.INT)} AS VARCHAR)",
                ]
            case Kind.BOOL:
                choices = [
                    lambda: self.comparison(scope, depth),
                    lambda: self.comparison(scope, depth),
                    lambda: f"{inner(self.one(_SHOWN))} IS {self.one(['', 'NOT '])}NULL",
                    lambda: f"NOT {inner()}",
                    lambda: f"({inner()} AND {inner()})",
                    lambda: f"({inner()} OR {inner()})",
                    lambda: f"{inner(Kind.INT)} {self.one(['', 'NOT '])}IN ({inner(Kind.INT)}, 1, NULL)",
                    lambda: f"{inner(Kind.INT)} {self.one(['', 'NOT '])}BETWEEN -1 AND {inner(Kind.INT)}",
                    lambda: f"{inner(Kind.TEXT)} {self.one(['', 'NOT '])}LIKE {self.one(['%', 'a%', '_'])!r}",
                ]
        return self.one(choices)()

    def comparison(self, scope: Scope, depth: int) -> str:
        kind = self.one([Kind.INT, Kind.FLOAT, Kind.DECIMAL, Kind.TEXT, Kind.TIME])
        operator = self.one(["=", "<>", "<", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
        sides = self.scalar(scope, kind, depth - 1), self.scalar(scope, kind, depth - 1)
        return f"({sides[0]} {operator} {sides[1]})"

    def condition(self, scope: Scope, depth: int) -> str:
        """A predicate, now and then with a subquery in it."""
        if depth > 0 and self.chance(4):
            return self.subquery(scope)
        return self.scalar(scope, Kind.BOOL)

    def subquery(self, scope: Scope) -> str:
        name, alias = self.one(list(TABLES)), self.alias()
        inner = Scope([(f"{alias}.{column}", kind) for column, kind in TABLES[name].items()])
        both = Scope([*inner.columns, *scope.columns])
        where = self.scalar(both if self.chance() else inner, Kind.BOOL)
        rows = f"FROM {name} AS {alias} WHERE {where}"
        forms: list[Callable[[], str]] = [
            lambda: f"{self.one(['', 'NOT '])}EXISTS (SELECT 1 {rows})",
            lambda: f"{self.scalar(scope, Kind.INT, 1)} {self.one(['', 'NOT '])}IN (SELECT {alias}.k {rows})",
            lambda: f"{self.scalar(scope, Kind.INT, 1)} > (SELECT {self.one(['max', 'count'])}({alias}.k) {rows})",
            lambda: f"{self.scalar(scope, Kind.TEXT, 1)} = ANY (SELECT {alias}.s {rows})",
        ]
        return self.one(forms)()

    # --- FROM -----------------------------------------------------------------------------------------------

    def item(self, depth: int) -> tuple[str, str, Output]:
        """One FROM item: its text, its alias, and its columns without the alias."""
        alias = self.alias()
        if depth > 0 and self.chance(3):
            text, output = self.query(depth - 1)
            return f"({text}) AS {alias}", alias, output
        name = self.one(list(TABLES))
        return f"{name} AS {alias}", alias, list(TABLES[name].items())

    def rows_from(self, depth: int) -> tuple[str, Scope]:
        """A FROM clause and what it puts in reach."""
        text, alias, output = self.item(depth)
        columns: Output = [(f"{alias}.{name}", kind) for name, kind in output]
        bare = {name for name, _ in output}
        for _ in range(self.draw(st.sampled_from([0, 0, 1, 1, 2]))):
            right, name, more = self.item(depth)
            reach: Output = [(f"{name}.{column}", kind) for column, kind in more]
            shared = [column for column, kind in more if column in bare and (column, kind) in output]
            kind = self.one(
                ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "SEMI JOIN", "ANTI JOIN", ","]
            )
            pairs = [(a, b) for a, x in columns for b, y in reach if x is y and x is not Kind.LIST]
            if kind in ("CROSS JOIN", ","):
                text = f"{text}{'' if kind == ',' else ' '}{kind} {right}"
            elif shared and len(columns) == len(output) and self.chance():
                # Merged columns are named without a table; those of the sides stay in reach with one.
                using = self.draw(st.lists(st.sampled_from(shared), min_size=1, max_size=2, unique=True))
                text = f"{text} {kind} {right} USING ({', '.join(using)})"
                if kind not in ("SEMI JOIN", "ANTI JOIN"):
                    columns += [(column, dict(output)[column]) for column in using]
            else:
                on = " AND ".join(f"{a} = {b}" for a, b in ([self.one(pairs)] if pairs else [])) or "TRUE"
                if self.chance(3) and kind in ("JOIN", "LEFT JOIN"):
                    on += f" AND {self.scalar(Scope([*columns, *reach]), Kind.BOOL, 1)}"
                text = f"{text} {kind} {right} ON {on}"
            if kind not in ("SEMI JOIN", "ANTI JOIN"):
                columns += reach
            bare = set()
        return text, Scope(columns)

    # --- blocks ---------------------------------------------------------------------------------------------

    def block(self, depth: int) -> tuple[str, Output]:
        """SELECT ... FROM ... with any of its clauses, but for ORDER BY and LIMIT."""
        rows, scope = self.rows_from(depth)
        where = f" WHERE {self.condition(scope, depth)}" if self.chance() else ""
        if self.chance(3):
            return self.grouped(rows, scope, where)
        items: Output = []
        for _ in range(self.draw(st.integers(1, 4))):
            kind = self.one(_SHOWN)
            items.append((self.scalar(scope, kind), kind))
        if self.chance(4):
            items.append((self.window(scope), Kind.INT))
        names = self.names(len(items))
        distinct = "DISTINCT " if self.chance(4) else ""
        shown = ", ".join(f"{text} AS {name}" for (text, _), name in zip(items, names, strict=True))
        # A later item and WHERE may use an alias.
        ints = [name for (_, kind), name in zip(items, names, strict=True) if kind is Kind.INT]
        output = [(name, kind) for name, (_, kind) in zip(names, items, strict=True)]
        if ints and not distinct and self.chance(4):
            shown += f", {ints[0]} + 1 AS later"
            output.append(("later", Kind.INT))
        qualify = f" QUALIFY rank() OVER (ORDER BY {self.scalar(scope, Kind.INT, 1)}) < 3" if self.chance(6) else ""
        return f"SELECT {distinct}{shown} FROM {rows}{where}{qualify}", output

    def names(self, count: int) -> list[str]:
        return list(self.draw(st.permutations(["a", "b", "k", "v", "x", '"q q"']))[:count])

    def window(self, scope: Scope) -> str:
        by = f"PARTITION BY {self.scalar(scope, self.one(_SHOWN), 1)} " if self.chance() else ""
        order = f"ORDER BY {self.scalar(scope, self.one(_SHOWN), 1)} {self.one(['', 'DESC', 'NULLS FIRST'])}"
        call = self.one(["rank()", "dense_rank()", "count(*)", f"sum({self.scalar(scope, Kind.INT, 1)})"])
        return f"{call} OVER ({by}{order})"

    def grouped(self, rows: str, scope: Scope, where: str) -> tuple[str, Output]:
        drawn = [self.key(scope, self.one(_SHOWN)) for _ in range(self.draw(st.integers(0, 3)))]
        keys = [text for text, _ in drawn]
        metrics = [self.aggregate(scope) for _ in range(self.draw(st.integers(0 if keys else 1, 3)))]
        names = self.names(len(keys) + len(metrics))
        items: Output = [*drawn, *metrics]
        shown = ", ".join(f"{text} AS {name}" for (text, _), name in zip(items, names, strict=True))
        group = ""
        if keys:
            positions = [str(at + 1) for at in range(len(keys))]
            plain = ", ".join(keys)
            forms = [plain, ", ".join(positions), f"ROLLUP ({plain})", f"GROUPING SETS (({plain}), ({keys[0]}), ())"]
            group = " GROUP BY " + self.one([*forms, plain, *(["ALL"] if metrics else [])])
        having = f" HAVING count(*) > {self.one(['0', '1'])}" if self.chance(3) else ""
        if metrics and self.chance(4):
            having = f" HAVING {metrics[0][0]} IS NOT NULL"
        output = [(name, kind) for name, (_, kind) in zip(names, items, strict=True)]
        return f"SELECT {shown} FROM {rows}{where}{group}{having}", output

    def key(self, scope: Scope, kind: Kind) -> tuple[str, Kind]:
        """A group key that reads a column: a constant would be taken for a position, or group nothing."""
        columns = scope.of(kind)
        if not columns:
            return f"({self.one([text for text, _ in scope.columns])} IS NULL)", Kind.BOOL
        column = self.one(columns)
        changed = {Kind.INT: f"{column} % 2", Kind.TEXT: f"upper({column})"}.get(kind, column)
        return self.one([column, column, changed]), kind

    def aggregate(self, scope: Scope) -> tuple[str, Kind]:
        kind = self.one(_NUMBERS)
        value = self.scalar(scope, kind, 1)
        where = f" FILTER (WHERE {self.scalar(scope, Kind.BOOL, 1)})" if self.chance(4) else ""
        call, result = self.one(
            [
                ("count(*)", Kind.INT),
                (f"count({value})", Kind.INT),
                (f"count(DISTINCT {value})", Kind.INT),
                (f"sum({value})", kind),
                (f"min({value})", kind),
                (f"max({value})", kind),
            ]
        )
        return call + where, result

    # --- whole queries --------------------------------------------------------------------------------------

    def query(self, depth: int) -> tuple[str, Output]:
        """A block, a set operation or a WITH; ordered and limited now and then."""
        form = self.one(["block", "block", "set", "with"]) if depth > 0 else "block"
        if form == "with":
            text, output = self.query(depth - 1)
            name = self.alias()
            scope = Scope([(f"{name}.{column}", kind) for column, kind in output])
            where = f" WHERE {self.scalar(scope, Kind.BOOL)}" if self.chance() else ""
            star = self.one(["*", f"{name}.*", "* EXCLUDE (" + output[0][0] + ")" if len(output) > 1 else "*"])
            made = f"WITH {name} AS ({text}) SELECT {star} FROM {name}{where}"
            output = output[1:] if "EXCLUDE" in star else output
        elif form == "set":
            text, output = self.query(depth - 1)
            scope = Scope([(name, kind) for name, kind in output])
            # The other branch is the same query, filtered: the types then agree.
            other = f"SELECT * FROM ({text}) AS {self.alias()} WHERE {self.scalar(scope, Kind.BOOL, 1)}"
            operator = self.one(
                ["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL", "INTERSECT ALL", "UNION BY NAME"]
            )
            made = f"({text}) {operator} ({other})"
        else:
            made, output = self.block(depth)
        if self.chance(4):
            made += f" ORDER BY ALL{self.one(['', ' DESC', ' NULLS FIRST'])}"
            if self.chance():
                made += f" LIMIT {self.one([0, 1, 3])}" + (f" OFFSET {self.one([1, 2])}" if self.chance(3) else "")
        return made, output


@st.composite
def queries(draw: st.DrawFn, depth: int = 2) -> str:
    """The text of a SELECT over `TABLES`."""
    return Writer(draw).query(depth)[0]
