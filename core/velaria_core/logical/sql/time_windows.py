"""TUMBLE, HOP and SESSION, the standard's window functions over a table, as WindowAssign and SessionWindow nodes.

`TUMBLE(TABLE t, DESCRIPTOR(ts), size)`, `HOP(TABLE t, DESCRIPTOR(ts), slide, size)` and
`SESSION(TABLE t PARTITION BY (key, ...), DESCRIPTOR(ts), gap)` give the rows of `t` with `window_start` and
`window_end`. The keys may also stand before the gap, as `DESCRIPTOR(key, ...)`. Arguments may be named `data`,
`timecol`, `slide`, `size`, `key`, `gap`; DESCRIPTOR may be left out, and so may the keys of a session, which is then
one for all rows.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from velaria_core.errors import SqlSemanticError
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.node import Node
from velaria_core.logical.operators import WindowAssign
from velaria_core.logical.operators.session_window import SessionWindow
from velaria_core.logical.scope import Scope, place_of
from velaria_core.logical.sql.durations import NotADuration, interval_milliseconds

_PARAMETERS = {
    "TUMBLE": ("data", "timecol", "size"),
    "HOP": ("data", "timecol", "slide", "size"),
    "SESSION": ("data", "timecol", "key", "gap"),
}

_HINTS = {
    "TUMBLE": "TUMBLE(TABLE t, DESCRIPTOR(ts), SIZE)",
    "HOP": "HOP(TABLE t, DESCRIPTOR(ts), SLIDE, SIZE)",
    "SESSION": "SESSION(TABLE t PARTITION BY (k, l), DESCRIPTOR(ts), GAP)",
}


def is_window_function(tree: exp.Expr) -> bool:
    """Whether a table function is TUMBLE, HOP or SESSION."""
    return isinstance(tree, exp.Anonymous) and tree.name.upper() in _PARAMETERS


def bind_window_function(
    call: exp.Expr,
    table: Callable[[exp.Table], Node],
    time_kind: Callable[[Node, str], TimeKind],
    text: str,
) -> Node:
    """The node of a TUMBLE, HOP or SESSION call; `table` binds the table it reads.

    Raises:
        SqlSemanticError[sql.window_function]: arguments are missing, unknown or of no use.
    """
    name = call.name.upper()
    arguments = _arguments(name, call, text)
    data, columns = arguments["data"], _described(arguments["timecol"])
    if not isinstance(data, exp.Column) or len(columns) != 1:
        raise _wrong(name, "takes a table and a time column", call, text)
    node = table(exp.Table(this=data.this, db=data.args.get("table")))

    def column(tree: exp.Expr) -> str:
        found = Scope.of(node.columns, text).resolved(tree) if isinstance(tree, exp.Column) else tree
        if not isinstance(found, exp.Column):
            raise _wrong(name, "takes columns", tree, text)
        return found.name

    time = column(columns[0])
    if name == "SESSION":
        keys = tuple(column(key) for key in _described(arguments["key"])) if "key" in arguments else ()
        return SessionWindow(node, keys, time, time_kind(node, time), _length(name, arguments["gap"], call, text))
    size = _length(name, arguments["size"], call, text)
    slide = _length(name, arguments["slide"], call, text) if "slide" in arguments else size
    if slide > size:
        raise _wrong(name, f"slides by {slide} ms, more than its size of {size} ms", call, text)
    return WindowAssign(node, time, time_kind(node, time), size, slide, "window_start", "window_end")


def _described(tree: exp.Expr) -> list[exp.Expr]:
    """The columns of DESCRIPTOR(a, b), or of `a`."""
    if isinstance(tree, exp.Anonymous) and tree.name.upper() == "DESCRIPTOR":
        return list(tree.expressions)
    return [tree]


def _arguments(name: str, call: exp.Expr, text: str) -> dict[str, exp.Expr]:
    given = [one for one in call.expressions if isinstance(one, (exp.Kwarg, exp.PropertyEQ))]
    placed = [one for one in call.expressions if not isinstance(one, (exp.Kwarg, exp.PropertyEQ))]
    named = {one.this.name.lower(): one.expression for one in given}
    known = [parameter for parameter in _PARAMETERS[name] if parameter not in named]
    if "key" in known and len(placed) < len(known):
        known.remove("key")
    if len(placed) > len(known):
        raise _wrong(name, f"takes {len(_PARAMETERS[name])} arguments", placed[len(known)], text)
    if len(placed) < len(known) or not set(named) <= set(_PARAMETERS[name]):
        raise _wrong(name, f"takes {', '.join(_PARAMETERS[name])}", call, text)
    return named | dict(zip(known, placed, strict=True))


def _length(name: str, tree: exp.Expr, call: exp.Expr, text: str) -> int:
    where = tree if place_of(tree, text) is not None else call  # not every literal knows its place
    try:
        length = interval_milliseconds(tree)
    except NotADuration as error:
        raise _wrong(name, str(error), where, text) from error
    if length <= 0:
        raise _wrong(name, "takes a length greater than zero", where, text)
    return length


def _wrong(name: str, what: str, tree: exp.Expr, text: str) -> SqlSemanticError:
    return SqlSemanticError(
        "sql.window_function",
        f"{name} {what}",
        hint=_HINTS[name],
        place=place_of(tree, text),
    )
