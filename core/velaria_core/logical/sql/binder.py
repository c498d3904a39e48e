"""Binder: a parsed SELECT becomes a plan.

The clauses of a SELECT turn into nodes in the order in which SQL evaluates them: FROM, WHERE, GROUP BY, HAVING,
window functions, QUALIFY, select list, DISTINCT, ORDER BY, LIMIT. A block that holds something without a node (a
subquery in an expression, LATERAL, a recursive CTE, ...) becomes one Opaque node over the same tables, so that
whatever the engine can run, Velaria runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow as pa
from sqlglot import exp

from velaria_core.errors import Place, SqlSemanticError, SqlUnsupportedError, VelariaError
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.expr import default_name, reference, renamed, to_sql
from velaria_core.logical.extract import Extracted, aggregate_call, has, window_call
from velaria_core.logical.functions import faithful
from velaria_core.logical.node import Node
from velaria_core.logical.operators import (
    Aggregate,
    Distinct,
    Drop,
    Except,
    Filter,
    Intersect,
    Join,
    JoinKind,
    Limit,
    Opaque,
    Project,
    Rename,
    Sample,
    Sort,
    Union,
    Values,
    Window,
    WindowAssign,
    WithColumn,
)
from velaria_core.logical.operators.opaque import marker
from velaria_core.logical.query import Named, Sets
from velaria_core.logical.scope import Entry, Scope, distinct_names, place_of, share_places
from velaria_core.logical.sql.searches import bind_fused_search, bind_keyword_search, bind_vector_search
from velaria_core.logical.sql.statements import Select
from velaria_core.logical.sql.time_windows import bind_window_function, is_window_function


class Tables(Protocol):
    """What the binder asks of a session."""

    def table(self, name: str, place_text: str | None, tree: exp.Expr) -> Node:
        """The plan of a table, view or file of this name; CatalogNotFoundError where there is none."""

    def table_function(self, call: exp.Expr) -> Node | None:
        """The plan of a reader call such as read_csv('...'), or None for any other function."""

    def time_kind(self, node: Node, column: str) -> TimeKind:
        """What kind of time a column holds; SqlSemanticError where it holds none."""

    def type_of(self, node: Node, column: str) -> pa.DataType:
        """The type of a node's column, as the engine has it."""

    def schema_of(self, template: str, tables: Sequence[Node]) -> pa.Schema:
        """The columns that an opaque query gives, as the engine binds it."""


class _NoNode(Exception):
    """A block holds something that has no node; the text says what."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A bound FROM item: its rows, and what may be called by name in them."""

    node: Node
    scope: Scope


Ctes = Mapping[str, Node]


class Binder:
    """Binds the queries of one statement."""

    def __init__(self, tables: Tables, text: str) -> None:
        self._tables = tables
        self._text = text
        self._parts: Mapping[str, Select] = {}

    def bind(self, select: Select) -> Node:
        """The plan of a whole SELECT statement.

        Raises:
            SqlSemanticError, CatalogNotFoundError, SqlUnsupportedError: with the place in the text.
        """
        self._parts = {**self._parts, **select.parts}
        if select.tree is None:
            return self._opaque_text(select.text)
        tree = faithful(select.tree)
        share_places(tree)
        try:
            return self._query(tree, {}, select)
        except SqlSemanticError as refused:
            # The engine has the last word: what it accepts is not refused here.
            # What it would order by any of several values is not an order.
            if select.has_clauses or refused.code == "sql.hidden_order":
                raise
            try:
                return self._opaque(tree, {}, "what only the engine understands")
            except VelariaError:
                raise refused from refused.cause

    # --- queries --------------------------------------------------------------------------------------------

    def _query(self, tree: exp.Expr, ctes: Ctes, clauses: Select | None = None) -> Node:
        try:
            with_clause = tree.args.get("with_")
            if with_clause is not None:
                ctes = self._with(with_clause, ctes)
            match tree:
                case exp.Select():
                    return self._select(tree, ctes, clauses)
                case exp.SetOperation():
                    return self._ordered_and_limited(self._set_operation(tree, ctes), tree)
                case exp.Subquery() if isinstance(tree.this, exp.Query) and not tree.args.get("joins"):
                    return self._ordered_and_limited(self._query(tree.this, ctes), tree)
                case exp.Values():
                    return self._ordered_and_limited(self._values(tree), tree)
                case _:
                    raise _NoNode(f"{type(tree).__name__.lower()} statement")
        except _NoNode as reason:
            if clauses is not None and clauses.has_clauses:
                raise SqlUnsupportedError(
                    "sql.unsupported", f"this clause does not go together with {reason}"
                ) from None
            return self._opaque(tree, ctes, str(reason))

    def _with(self, clause: exp.Expr, ctes: Ctes) -> Ctes:
        if clause.args.get("recursive"):
            raise _NoNode("recursive CTE")
        known = dict(ctes)
        for cte in clause.expressions:
            if not isinstance(cte.this, exp.Query):
                raise _NoNode("data-changing CTE")
            node = self._query(cte.this, known)
            known[cte.alias.lower()] = self._with_names(node, cte.args.get("alias"))
        return known

    def _set_operation(self, tree: exp.SetOperation, ctes: Ctes) -> Node:
        left, right = self._query(tree.left, ctes), self._query(tree.right, ctes)
        by_name = bool(tree.args.get("by_name"))
        if not by_name and len(left.columns) != len(right.columns):
            raise SqlSemanticError(
                "sql.column_count",
                f"{type(tree).__name__.upper()} takes as many columns on both sides, "
                f"not {len(left.columns)} and {len(right.columns)}",
                hint=f"left: {', '.join(left.columns)}; right: {', '.join(right.columns)}",
                place=place_of(tree.right, self._text),
            )
        every = not tree.args.get("distinct", True)
        match tree:
            case exp.Union():
                united = Union(left, right, by_name)
                return united if every else Distinct(united)
            case exp.Intersect() if not by_name:
                return Intersect(left, right, every)
            case exp.Except() if not by_name:
                return Except(left, right, every)
        raise _NoNode("set operation by name")

    def _ordered_and_limited(self, node: Node, tree: exp.Expr) -> Node:
        if (order := tree.args.get("order")) is not None:
            scope = Scope.of(node.columns, self._text)
            keys = []
            for key in order.expressions:
                keys.append(self._sort_key(key, node.columns, lambda tree: scope.resolved(tree)))
            node = Sort(node, tuple(keys))
        return self._limited(node, tree)

    def _limited(self, node: Node, tree: exp.Expr) -> Node:
        limit, offset = tree.args.get("limit"), tree.args.get("offset")
        if limit is None and offset is None:
            return node
        if isinstance(limit, exp.Fetch) or (limit is not None and limit.args.get("limit_options")):
            raise _NoNode("LIMIT in percent")
        count = self._whole_number(limit.expression, "LIMIT") if limit is not None else None
        skipped = self._whole_number(offset.expression, "OFFSET") if offset is not None else 0
        return Limit(node, count, skipped)

    def _whole_number(self, tree: exp.Expr, clause: str) -> int:
        if isinstance(tree, exp.Literal) and not tree.is_string and str(tree.this).isdigit():
            return int(tree.this)
        raise _NoNode(f"{clause} with an expression")

    def _values(self, tree: exp.Values) -> Node:
        rows = tuple(tuple(row.expressions) for row in tree.expressions)
        if any(has(value, _subquery) for row in rows for value in row):
            raise _NoNode("subquery in VALUES")
        widths = {len(row) for row in rows}
        if len(widths) != 1:
            raise SqlSemanticError("sql.column_count", "the rows of VALUES differ in length")
        names = tuple(f"col{at}" for at in range(widths.pop()))
        scope = Scope(text=self._text)
        node = Values(names, tuple(tuple(scope.resolved(value) for value in row) for row in rows))
        return self._with_names(node, tree.args.get("alias"))

    def _with_names(self, node: Node, alias: exp.Expr | None) -> Node:
        """`node` with the column names of an alias such as `t(a, b)`."""
        columns = [column.name for column in (alias.args.get("columns") or ())] if alias is not None else []
        if not columns:
            return node
        if len(columns) > len(node.columns):
            raise SqlSemanticError(
                "sql.column_count",
                f'"{alias.name if alias is not None else ""}" names {len(columns)} columns of {len(node.columns)}',
                place=place_of(alias, self._text) if alias is not None else None,
            )
        wanted = [*columns, *node.columns[len(columns) :]]
        return _renamed(node, distinct_names(wanted))

    # --- SELECT ---------------------------------------------------------------------------------------------

    def _select(self, tree: exp.Select, ctes: Ctes, clauses: Select | None) -> Node:
        self._refuse_without_node(tree)
        bound = self._from(tree, ctes)
        node, scope = bound.node, bound.scope
        if (sample := tree.args.get("sample")) is not None:
            node = self._sampled(node, sample)
        if (where := tree.args.get("where")) is not None:
            predicate = self._scalar(where.this, scope, "WHERE", self._aliases(tree, scope))
            node = Filter(node, predicate)
        if clauses is not None:
            node, scope = self._velaria_clauses(node, scope, clauses)
        shown = self._select_list(tree, scope)
        names = [name for name, _ in shown]
        aliases = {name.lower(): value for name, value in reversed(shown)}

        having, qualify = tree.args.get("having"), tree.args.get("qualify")
        order = tree.args.get("order")

        def resolved(part: exp.Expr) -> exp.Expr:
            return scope.resolved(self._named_windows(part, tree), aliases)

        having_tree = resolved(having.this) if having is not None else None
        qualify_tree = resolved(qualify.this) if qualify is not None else None
        sort_keys = [
            self._sort_key(key, names, resolved, aliases)
            for key in (self._order_all(order, names) if order is not None else ())
        ]
        outputs = [value for _, value in shown]

        # Everything above the rows, rewritten step by step over what the steps make.
        above = [*outputs, *sort_keys]
        above += [part for part in (having_tree, qualify_tree) if part is not None]
        group = tree.args.get("group")
        if group is not None or any(has(part, aggregate_call) for part in above):
            node, rewrite = self._aggregate(node, group, shown, scope, above)
            outputs = [rewrite(part) for part in outputs]
            sort_keys = [_as_ordered(rewrite(key)) for key in sort_keys]
            if having_tree is not None:
                node = Filter(node, rewrite(having_tree))
            qualify_tree = rewrite(qualify_tree) if qualify_tree is not None else None
        elif having is not None:
            raise SqlSemanticError(
                "sql.misplaced_having",
                "HAVING needs GROUP BY or an aggregate",
                hint="use WHERE",
                place=place_of(having, self._text),
            )
        windowed = [*outputs, *sort_keys, *([qualify_tree] if qualify_tree is not None else [])]
        if any(has(part, window_call) for part in windowed):
            calls = Extracted(window_call, "__window_")
            outputs = [calls.rewrite(part) for part in outputs]
            sort_keys = [_as_ordered(calls.rewrite(key)) for key in sort_keys]
            qualify_tree = calls.rewrite(qualify_tree) if qualify_tree is not None else None
            node = Window(node, tuple(calls.calls))
        if qualify_tree is not None:
            node = Filter(node, qualify_tree)
        return self._finished(node, tree, names, outputs, sort_keys, scope)

    def _finished(
        self,
        node: Node,
        tree: exp.Select,
        names: Sequence[str],
        outputs: Sequence[exp.Expr],
        sort_keys: Sequence[exp.Ordered],
        scope: Scope,
    ) -> Node:
        """The select list, DISTINCT, ORDER BY and LIMIT over rows in which every call is a column."""
        distinct = tree.args.get("distinct")
        on = distinct.args.get("on") if distinct is not None else None
        if on is not None:
            keys = on.expressions if isinstance(on, exp.Tuple) else [on]
            by_name = {name.lower(): value for name, value in zip(names, outputs, strict=True)}
            node = Distinct(node, tuple(scope.resolved(key, by_name) for key in keys), tuple(sort_keys))
        # ORDER BY may use what the select list does not show: it rides along and is dropped after the sort.
        hidden: list[Named] = []
        keys_over_output: list[exp.Ordered] = []
        for key in sort_keys:
            at = next((at for at, value in enumerate(outputs) if value == key.this), None)
            if at is not None:
                name = names[at]
            elif distinct is not None and on is None:
                raise SqlSemanticError(
                    "sql.hidden_order",
                    "with SELECT DISTINCT, ORDER BY takes selected columns only",
                    hint="select the expression too",
                    place=place_of(tree.args["order"], self._text),
                )
            else:
                name = f"__order_{len(hidden) + 1}"
                hidden.append((name, key.this))
            over = key.copy()
            over.set("this", reference(name))
            keys_over_output.append(over)
        named = tuple(zip(names, outputs, strict=True))
        if hidden or not _is_identity(node, named):
            node = Project(node, (*named, *hidden))
        if distinct is not None and on is None:
            node = Distinct(node)
        if keys_over_output:
            node = Sort(node, tuple(keys_over_output))
        node = self._limited(node, tree)
        return Drop(node, tuple(name for name, _ in hidden)) if hidden else node

    def _refuse_without_node(self, tree: exp.Select) -> None:
        for clause in (
            "laterals",
            "connect",
            "match",
            "into",
            "pivots",
            "cluster",
            "distribute",
            "sort",
            "exclude",
        ):
            if tree.args.get(clause):
                raise _NoNode(clause.upper().rstrip("S"))
        for part in ("expressions", "where", "group", "having", "qualify", "order", "distinct"):
            value = tree.args.get(part)
            for item in value if isinstance(value, list) else [value] if value is not None else []:
                if (found := item.find(*_WITHOUT_NODE)) is not None:
                    raise _NoNode(_WITHOUT_NODE_NAMES.get(type(found), "subquery in an expression"))
                if (found := item.find(exp.In)) is not None and found.args.get("query") is not None:
                    raise _NoNode("subquery in an expression")
                if _unnests(item):
                    raise _NoNode("unnest in an expression")

    def _velaria_clauses(self, node: Node, scope: Scope, clauses: Select) -> tuple[Node, Scope]:
        if clauses.window_by is not None:
            by = clauses.window_by
            time = scope.resolved(by.tree)
            if not isinstance(time, exp.Column):
                raise SqlSemanticError("sql.window_column", "WINDOW BY takes a column")
            try:
                kind = self._tables.time_kind(node, time.name)
            except SqlSemanticError as error:
                error.place = place_of(by.tree, self._text)
                raise
            node = WindowAssign(node, time.name, kind, by.every_ms, by.slide_ms, by.name)
            entry = Entry(None, ((by.name, by.name),))
            scope = replace(scope, entries=(*scope.entries, entry))
        keywords, vectors = clauses.keyword_search, clauses.hybrid_search
        if vectors is not None and vectors.fuse is not None:
            if keywords is None:
                raise SqlSemanticError(
                    "search.fusion",
                    "FUSE needs a KEYWORD SEARCH to fuse with",
                    hint="KEYWORD SEARCH(column) QUERY 'words' before HYBRID SEARCH",
                    place=vectors.fuse.span.place(self._text),
                )
            return bind_fused_search(keywords, vectors, node, scope, self._tables, self._text)
        if keywords is not None:
            node, scope = bind_keyword_search(keywords, node, scope, self._tables, self._text)
        if vectors is not None:
            return bind_vector_search(vectors, node, scope, self._tables, self._text)
        return node, scope

    def _scalar(self, tree: exp.Expr, scope: Scope, clause: str, aliases: Mapping[str, exp.Expr]) -> exp.Expr:
        """An expression over a row: no aggregate, no window function."""
        for test, what in ((window_call, "window function"), (aggregate_call, "aggregate")):
            if has(tree, test):
                found = next(node for node in tree.walk() if test(node))
                raise SqlSemanticError(
                    "sql.misplaced_aggregate" if what == "aggregate" else "sql.misplaced_window",
                    f"{clause} works on single rows and cannot hold the {what} {to_sql(found)}",
                    hint="use HAVING, after GROUP BY" if what == "aggregate" else "use QUALIFY",
                    place=place_of(found, self._text),
                )
        return scope.resolved(tree, aliases)

    # --- select list ----------------------------------------------------------------------------------------

    def _aliases(self, tree: exp.Select, scope: Scope) -> dict[str, exp.Expr]:
        """Aliases of the select list that WHERE may use: those of scalar expressions."""
        if not any(isinstance(item, exp.Alias) for item in tree.expressions):
            return {}
        made: dict[str, exp.Expr] = {}
        for item in tree.expressions:
            if isinstance(item, exp.Alias) and not has(item.this, aggregate_call) and not has(item.this, window_call):
                try:
                    made.setdefault(item.alias.lower(), scope.resolved(item.this, made))
                except SqlSemanticError:
                    continue  # reported where the select list itself is bound
        return made

    def _select_list(self, tree: exp.Select, scope: Scope) -> list[Named]:
        shown: list[Named] = []
        known: dict[str, exp.Expr] = {}
        for item in tree.expressions:
            item = self._named_windows(item, tree)
            if isinstance(item, exp.Star):
                shown += self._star(item, scope, None)
            elif isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
                shown += self._star(item.this, scope, item.table or None)
            else:
                value = item.this if isinstance(item, exp.Alias) else item
                if isinstance(value, exp.Columns) or value.find(exp.Columns) is not None:
                    raise _NoNode("COLUMNS(...)")
                if any(not isinstance(star.parent, exp.Func) for star in value.find_all(exp.Star)):
                    raise _NoNode("star in an expression")
                resolved = scope.resolved(value, known)
                name = item.alias if isinstance(item, exp.Alias) else self._default_name(value, len(shown))
                known.setdefault(name.lower(), resolved)
                shown.append((name, resolved))
        names = distinct_names(name for name, _ in shown)
        return [(name, value) for name, (_, value) in zip(names, shown, strict=True)]

    def _default_name(self, tree: exp.Expr, at: int) -> str:
        return f"expr{at + 1}" if isinstance(tree, (exp.Literal, exp.Boolean, exp.Null)) else default_name(tree)

    def _star(self, star: exp.Star, scope: Scope, alias: str | None) -> list[Named]:
        if not scope.entries:
            raise SqlSemanticError("sql.star_without_from", "* needs a FROM", place=place_of(star, self._text))
        excepted = {_bare_name(item) for item in star.args.get("except_") or ()}
        replaced = {item.alias.lower(): item.this for item in star.args.get("replace") or ()}
        renames = {_bare_name(item.this): item.alias for item in star.args.get("rename") or ()}
        found = scope.star(alias)
        known = {shown.lower() for shown, _ in found}
        for name in (*excepted, *replaced, *renames):
            if name not in known:
                raise SqlSemanticError("sql.unknown_column", f'no column "{name}" to leave out, replace or rename')
        return [
            (
                renames.get(shown.lower(), shown),
                scope.resolved(replaced[shown.lower()]) if shown.lower() in replaced else value,
            )
            for shown, value in found
            if shown.lower() not in excepted
        ]

    def _named_windows(self, part: exp.Expr, tree: exp.Select) -> exp.Expr:
        """`part` with `OVER w` replaced by the definition of w."""
        definitions = {window.name.lower(): window for window in tree.args.get("windows") or ()}
        if not definitions or part.find(exp.Window) is None:
            return part
        copied = part.copy()
        for window in list(copied.find_all(exp.Window)):
            alias = window.args.get("alias")
            if alias is None or (definition := definitions.get(alias.name.lower())) is None:
                continue
            window.set("alias", None)
            for argument in ("partition_by", "order", "spec"):
                value = definition.args.get(argument)
                if value and not window.args.get(argument):
                    window.set(
                        argument,
                        [item.copy() for item in value] if isinstance(value, list) else value.copy(),
                    )
        return copied

    # --- GROUP BY, ORDER BY ---------------------------------------------------------------------------------

    def _aggregate(
        self,
        node: Node,
        group: exp.Group | None,
        shown: Sequence[Named],
        scope: Scope,
        above: Sequence[exp.Expr],
    ) -> tuple[Node, Callable[[exp.Expr], exp.Expr]]:
        """The Aggregate, and how expressions above it are rewritten over its columns."""
        trees, sets = self._group_keys(group, shown, scope)
        keys: list[Named] = []
        for tree in trees:
            name = tree.name if isinstance(tree, exp.Column) else f"__key_{len(keys) + 1}"
            keys.append((name, tree))
        extracted = Extracted(aggregate_call, "__agg_", keys=tuple(keys))

        def rewrite(part: exp.Expr) -> exp.Expr:
            made = extracted.rewrite(part)
            allowed = {name for name, _ in (*keys, *extracted.calls)}
            for column in made.find_all(exp.Column):
                if column.name not in allowed:
                    raise SqlSemanticError(
                        "sql.not_grouped",
                        f'"{column.name}" is neither in GROUP BY nor inside an aggregate',
                        hint=f"add it to GROUP BY, or take any_value({column.name})",
                        place=self._mention(column.name),
                    )
            return made

        for part in above:
            rewrite(part)
        computed = [(name, tree) for name, tree in keys if not isinstance(tree, exp.Column)]
        if computed:
            # A key that is computed becomes a column first: state and grouping sets go by column.
            node = WithColumn(node, tuple(computed))
        over = tuple((name, reference(name)) for name, _ in keys)
        return Aggregate(node, over, tuple(extracted.calls), sets), rewrite

    def _group_keys(
        self, group: exp.Group | None, shown: Sequence[Named], scope: Scope
    ) -> tuple[list[exp.Expr], Sets | None]:
        if group is None:
            return [], None
        if group.args.get("all"):
            return _unique([tree for _, tree in shown if not has(tree, aggregate_call) and not _constant(tree)]), None

        def key(tree: exp.Expr) -> exp.Expr:
            inner = tree.unnest()
            if isinstance(inner, exp.Literal) and not inner.is_string:
                return self._by_position(inner, [value for _, value in shown], "GROUP BY")
            if isinstance(inner, exp.Column) and not inner.table and not scope.knows(inner.name):
                for name, value in shown:
                    if name.lower() == inner.name.lower():
                        return value
            return self._scalar(inner, scope, "GROUP BY", {name.lower(): value for name, value in shown})

        choices: list[list[list[exp.Expr]]] = []
        plain = True
        for item in group.expressions:
            if isinstance(item, (exp.Rollup, exp.Cube, exp.GroupingSets)):
                plain = False
                choices.append(_grouping_sets(item, key))
            elif isinstance(item, exp.Tuple):
                choices.append([[key(part) for part in item.expressions]])
            else:
                choices.append([[key(item)]])
        for clause in ("rollup", "cube", "grouping_sets"):
            for item in group.args.get(clause) or ():
                plain = False
                choices.append(_grouping_sets(item, key))
        combined: list[list[exp.Expr]] = [[]]
        for choice in choices:
            combined = [[*before, *one] for before in combined for one in choice]
        keys = _unique([tree for one in combined for tree in one])
        for tree in keys:
            if has(tree, aggregate_call):
                raise SqlSemanticError("sql.misplaced_aggregate", "GROUP BY cannot hold an aggregate")
        if plain:
            return keys, None
        return keys, tuple(tuple(keys.index(tree) for tree in _unique(one)) for one in combined)

    def _order_all(self, order: exp.Order, names: Sequence[str]) -> list[exp.Expr]:
        """The sort keys, with ORDER BY ALL spelt out as positions."""
        keys: list[exp.Expr] = []
        for key in order.expressions:
            if isinstance(key.this, exp.Var) and key.this.name.upper() == "ALL":
                for at in range(len(names)):
                    spelt = key.copy()
                    spelt.set("this", exp.Literal.number(at + 1))
                    keys.append(spelt)
            else:
                keys.append(key)
        return keys

    def _sort_key(
        self,
        key: exp.Expr,
        names: Sequence[str],
        resolved: Callable[[exp.Expr], exp.Expr],
        aliases: Mapping[str, exp.Expr] | None = None,
    ) -> exp.Ordered:
        """A sort key: a position or an output name first, as SQL has it, then any expression."""
        made = _as_ordered(key.copy())
        inner = made.this.unnest()
        if isinstance(inner, exp.Literal) and not inner.is_string:
            position = int(inner.this) if str(inner.this).isdigit() else 0
            if not 1 <= position <= len(names):
                raise self._bad_position(inner, len(names), "ORDER BY")
            name = names[position - 1]
            made.set("this", aliases[name.lower()].copy() if aliases is not None else reference(name))
        elif (
            aliases is not None and isinstance(inner, exp.Column) and not inner.table and inner.name.lower() in aliases
        ):
            made.set("this", aliases[inner.name.lower()].copy())
        else:
            made.set("this", resolved(inner))
        return made

    def _by_position(self, literal: exp.Literal, values: Sequence[exp.Expr], clause: str) -> exp.Expr:
        position = int(literal.this) if str(literal.this).isdigit() else 0
        if not 1 <= position <= len(values):
            raise self._bad_position(literal, len(values), clause)
        return values[position - 1]

    def _bad_position(self, literal: exp.Literal, count: int, clause: str) -> SqlSemanticError:
        return SqlSemanticError(
            "sql.position",
            f"{clause} {literal.this} is not a column of the select list",
            hint=f"positions go from 1 to {count}",
            place=place_of(literal, self._text),
        )

    def _mention(self, name: str) -> Place | None:
        at = self._text.lower().find(name.lower())
        return Place.in_text(self._text, at, len(name)) if at >= 0 else None

    # --- FROM -----------------------------------------------------------------------------------------------

    def _from(self, tree: exp.Expr, ctes: Ctes) -> _Item:
        clause = tree.args.get("from_")
        if clause is None:
            # One row without columns worth naming.
            return _Item(Values(("__row",), ((exp.Literal.number(1),),)), Scope(text=self._text))
        item = self._item(clause.this, ctes)
        for join in [*(clause.this.args.get("joins") or ()), *(tree.args.get("joins") or ())]:
            item = self._join(item, join, ctes)
        return item

    def _item(self, tree: exp.Expr, ctes: Ctes) -> _Item:
        if tree.args.get("pivots") or tree.args.get("laterals"):
            raise _NoNode("PIVOT" if tree.args.get("pivots") else "LATERAL")
        alias = tree.args.get("alias")
        match tree:
            case exp.Table():
                node = self._table(tree, ctes)
                name = tree.alias or tree.name
            case exp.Subquery() if isinstance(tree.this, exp.Query):
                node = self._query(tree.this, ctes)
                name = tree.alias
            case exp.Subquery() | exp.Paren() if isinstance(tree.this, exp.Table) and not tree.alias:
                inner = self._item(tree.this, ctes)
                for join in tree.this.args.get("joins") or ():
                    inner = self._join(inner, join, ctes)
                return inner
            case exp.Values():
                node = self._values(tree)
                return self._scoped(node, tree.alias or None)
            case _:
                raise _NoNode(f"{type(tree).__name__.upper()} in FROM")
        if (sample := tree.args.get("sample")) is not None:
            node = self._sampled(node, sample)
        return self._scoped(self._with_names(node, alias), name or None)

    def _scoped(self, node: Node, alias: str | None) -> _Item:
        entry = Entry(alias, tuple((name, name) for name in node.columns))
        return _Item(node, Scope((entry,), {}, self._text))

    def _table(self, tree: exp.Table, ctes: Ctes) -> Node:
        if not isinstance(tree.this, exp.Identifier):
            if is_window_function(tree.this):
                return bind_window_function(
                    tree.this, lambda inner: self._table(inner, ctes), self._tables.time_kind, self._text
                )
            node = self._tables.table_function(tree.this)
            if node is None:
                if tree.this.find(exp.Column, exp.Subquery, exp.Table) is not None:
                    raise _NoNode("table function over columns")
                return self._function(tree.this)
            return node
        name = ".".join(part.name for part in tree.parts if isinstance(part, exp.Identifier))
        if (cte := ctes.get(name.lower())) is not None:
            return cte
        if (part := self._parts.get(name)) is not None:
            return self.bind(part)
        return self._tables.table(name, self._text, tree)

    def _function(self, call: exp.Expr) -> Node:
        template = f"SELECT * FROM {to_sql(call)}"
        return self._bound(template, (), f"table function {to_sql(call)}")

    def _sampled(self, node: Node, sample: exp.Expr) -> Node:
        percent, size, seed = (sample.args.get(name) for name in ("percent", "size", "seed"))
        amount = percent if percent is not None else size
        if not isinstance(amount, exp.Literal) or (seed is not None and not isinstance(seed, exp.Literal)):
            raise _NoNode("SAMPLE with an expression")
        return Sample(node, float(amount.this), percent is not None, int(seed.this) if seed is not None else None)

    def _join(self, left: _Item, join: exp.Join, ctes: Ctes) -> _Item:
        side, kind, method = (str(join.args.get(name) or "").upper() for name in ("side", "kind", "method"))
        on, using = join.args.get("on"), [column.name for column in join.args.get("using") or ()]
        if method not in ("", "ASOF", "NATURAL") or kind not in (
            "",
            "INNER",
            "OUTER",
            "CROSS",
            "SEMI",
            "ANTI",
        ):
            raise _NoNode(f"{method or kind} JOIN")
        if on is not None and (on.find(*_WITHOUT_NODE) or any(part.args.get("query") for part in on.find_all(exp.In))):
            raise _NoNode("subquery in a join condition")
        right = self._item(join.this, ctes)
        for nested in join.this.args.get("joins") or ():
            if isinstance(join.this, exp.Table):
                right = self._join(right, nested, ctes)
        if method == "NATURAL":
            known = {name.lower() for name in left.scope.names()}
            using = [name for name in right.scope.names() if name.lower() in known]
        right = _apart(left, right)
        join_kind = _join_kind(side, kind, method)
        has_condition = on is not None or bool(using)
        if not has_condition:
            if join_kind not in (JoinKind.INNER, JoinKind.CROSS):
                raise SqlSemanticError(
                    "sql.join_condition",
                    f"{side or kind or method} JOIN needs ON or USING",
                    place=place_of(join, self._text),
                )
            join_kind = JoinKind.CROSS
        elif join_kind == JoinKind.CROSS:
            raise SqlSemanticError("sql.join_condition", "CROSS JOIN takes no condition")
        both = Scope((*left.scope.entries, *right.scope.entries), left.scope.merged, self._text)
        if on is not None:
            condition: exp.Expr | None = self._scalar(on, both, "ON", {})
            merged = dict(left.scope.merged)
        else:
            condition, both, merged = self._using(left.scope, right.scope, using, join_kind)
        node = Join(left.node, right.node, join_kind, condition)
        if join_kind in (JoinKind.SEMI, JoinKind.ANTI):
            return _Item(node, left.scope)
        return _Item(node, Scope(both.entries, merged, self._text))

    def _using(
        self, left: Scope, right: Scope, names: Sequence[str], kind: JoinKind
    ) -> tuple[exp.Expr | None, Scope, dict[str, exp.Expr]]:
        """The condition of USING (the last pair of an as-of join is an order), and the columns shown once."""
        merged = dict(left.merged)
        parts: list[exp.Expr] = []
        for at, name in enumerate(names):
            column = exp.Column(this=exp.to_identifier(name, quoted=True))
            pair = left.resolved(column), right.resolved(column)
            is_order = kind in (JoinKind.ASOF, JoinKind.ASOF_LEFT) and at == len(names) - 1
            parts.append((exp.GTE if is_order else exp.EQ)(this=pair[0], expression=pair[1]))
            if kind == JoinKind.FULL:
                merged[name.lower()] = exp.Coalesce(this=pair[0].copy(), expressions=[pair[1].copy()])
            else:
                merged[name.lower()] = (pair[1] if kind == JoinKind.RIGHT else pair[0]).copy()
        folded = frozenset(name.lower() for name in names)
        hidden = tuple(replace(entry, hidden=entry.hidden | folded) for entry in right.entries)
        condition = exp.and_(*parts, copy=False) if parts else None
        return condition, Scope((*left.entries, *hidden), merged, self._text), merged

    # --- opaque ---------------------------------------------------------------------------------------------

    def _opaque(self, tree: exp.Expr, ctes: Ctes, reason: str) -> Node:
        """The block as text for the engine, over the tables that it reads."""
        copied = tree.copy()
        local = {cte.alias.lower() for cte in copied.find_all(exp.CTE)}
        tables: list[Node] = []
        for table in list(copied.find_all(exp.Table)):
            if isinstance(table.this, exp.Identifier):
                name = ".".join(part.name for part in table.parts if isinstance(part, exp.Identifier))
                if name.lower() in local:
                    continue
            elif self._tables.table_function(table.this) is None:
                continue
            node = self._table(table, ctes)
            if not table.alias:
                # A call goes by the name of its function.
                name = table.name or to_sql(table.this).partition("(")[0].strip()
                table.set("alias", exp.TableAlias(this=exp.to_identifier(name, quoted=True)))
            table.set("this", exp.Identifier(this=marker(len(tables)).strip('"'), quoted=True))
            table.set("db", None)
            table.set("catalog", None)
            tables.append(node)
        template = to_sql(copied)
        return self._bound(template, tables, reason)

    def _opaque_text(self, text: str) -> Node:
        return self._bound(text, (), "what only the engine reads")

    def _bound(self, template: str, tables: Sequence[Node], reason: str) -> Opaque:
        schema = self._tables.schema_of(template, tables)
        return Opaque(template, tuple(tables), tuple(distinct_names(schema.names)), reason, schema)


_WITHOUT_NODE = (exp.Select, exp.SetOperation, exp.Exists, exp.Columns, exp.Lateral)
_WITHOUT_NODE_NAMES: dict[type[exp.Expr], str] = {
    exp.Columns: "COLUMNS(...)",
    exp.Lateral: "LATERAL",
}


def _subquery(tree: exp.Expr) -> bool:
    return isinstance(tree, exp.Query)


def _unnests(tree: exp.Expr) -> bool:
    return tree.find(exp.Explode, exp.Unnest, exp.Posexplode) is not None or any(
        call.name.lower() in ("unnest", "generate_subscripts") for call in tree.find_all(exp.Anonymous)
    )


def _constant(tree: exp.Expr) -> bool:
    return tree.find(exp.Column) is None


def _bare_name(tree: exp.Expr) -> str:
    return tree.name.lower()


def _unique(trees: Sequence[exp.Expr]) -> list[exp.Expr]:
    found: list[exp.Expr] = []
    for tree in trees:
        if tree not in found:
            found.append(tree)
    return found


def _as_ordered(tree: exp.Expr) -> exp.Ordered:
    assert isinstance(tree, exp.Ordered)
    return tree


def _is_identity(node: Node, named: Sequence[Named]) -> bool:
    return tuple(name for name, _ in named) == node.columns and all(
        isinstance(tree, exp.Column) and tree.name == name for name, tree in named
    )


def _renamed(node: Node, names: Sequence[str]) -> Node:
    changed = tuple((old, new) for old, new in zip(node.columns, names, strict=True) if old != new)
    return Rename(node, changed) if changed else node


def _apart(left: _Item, right: _Item) -> _Item:
    """The right item, its columns renamed where the left has them too; what a user calls them stays."""
    taken = {name.lower() for name in left.node.columns}
    flat: dict[str, str] = {}
    for entry in right.scope.entries:
        for shown, column in entry.columns:
            candidate, count = column, 1
            while candidate.lower() in taken:
                stem = f"{entry.alias or 'right'}.{shown}"
                candidate = stem if count == 1 else f"{stem}_{count}"
                count += 1
            taken.add(candidate.lower())
            flat[column] = candidate
    node = _renamed(right.node, [flat[name] for name in right.node.columns])
    entries = tuple(
        replace(entry, columns=tuple((shown, flat[column]) for shown, column in entry.columns))
        for entry in right.scope.entries
    )
    merged = {name: renamed(tree, flat) for name, tree in right.scope.merged.items()}
    return _Item(node, Scope(entries, merged, right.scope.text))


def _join_kind(side: str, kind: str, method: str) -> JoinKind:
    if method == "ASOF":
        if side == "LEFT":
            return JoinKind.ASOF_LEFT
        if side:
            raise _NoNode(f"ASOF {side} JOIN")
        return JoinKind.ASOF
    if kind in ("SEMI", "ANTI", "CROSS"):
        return JoinKind(kind.lower())
    return JoinKind(side.lower()) if side else JoinKind.INNER


def _grouping_sets(item: exp.Expr, key: Callable[[exp.Expr], exp.Expr]) -> list[list[exp.Expr]]:
    """ROLLUP, CUBE or GROUPING SETS as a list of key lists."""

    def one(tree: exp.Expr) -> list[exp.Expr]:
        return [key(part) for part in tree.expressions] if isinstance(tree, exp.Tuple) else [key(tree)]

    parts = [one(part) for part in item.expressions if not isinstance(part, (exp.Rollup, exp.Cube))]
    if isinstance(item, exp.Rollup):
        return [[tree for part in parts[:count] for tree in part] for count in range(len(parts), -1, -1)]
    if isinstance(item, exp.Cube):
        return [
            [tree for at, part in enumerate(parts) if mask >> at & 1 for tree in part]
            for mask in range(2 ** len(parts) - 1, -1, -1)
        ]
    nested = [
        one_set
        for part in item.expressions
        if isinstance(part, (exp.Rollup, exp.Cube))
        for one_set in _grouping_sets(part, key)
    ]
    return [*parts, *nested]
