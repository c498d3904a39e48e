"""TUMBLE and HOP, the standard's window functions over a table, as WindowAssign nodes.

`TUMBLE(TABLE t, DESCRIPTOR(ts), size)` and `HOP(TABLE t, DESCRIPTOR(ts), slide, size)` give the rows of `t` with
`window_start` and `window_end`; arguments may be named `data`, `timecol`, `slide`, `size`, and DESCRIPTOR left out.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from velaria_core.errors import SqlSemanticError, SqlUnsupportedError
from velaria_core.logical.event_time import TimeKind
from velaria_core.logical.node import Node
from velaria_core.logical.operators import WindowAssign
from velaria_core.logical.scope import Scope, place_of
from velaria_core.logical.sql.durations import NotADuration, interval_milliseconds

_PARAMETERS = {"TUMBLE": ("data", "timecol", "size"), "HOP": ("data", "timecol", "slide", "size")}


def is_window_function(tree: exp.Expr) -> bool:
    """Whether a table function is TUMBLE, HOP or SESSION."""
    return isinstance(tree, exp.Anonymous) and tree.name.upper() in (*_PARAMETERS, "SESSION")


def bind_window_function(
    call: exp.Expr,
    table: Callable[[exp.Table], Node],
    time_kind: Callable[[Node, str], TimeKind],
    text: str,
) -> Node:
    """The node of a TUMBLE or HOP call; `table` binds the table it reads.

    Raises:
        SqlSemanticError[sql.window_function]: arguments are missing, unknown or of no use.
    """
    name = call.name.upper()
    if name not in _PARAMETERS:
        raise SqlUnsupportedError(
            "sql.unsupported", f"{name} windows come with the streaming runtime", place=place_of(call, text)
        )
    arguments = _arguments(name, call, text)
    data, column = arguments["data"], arguments["timecol"]
    if isinstance(column, exp.Anonymous) and column.name.upper() == "DESCRIPTOR":
        column = column.expressions[0]
    if not isinstance(data, exp.Column) or not isinstance(column, exp.Column):
        raise _wrong(name, "takes a table and a time column", call, text)
    node = table(exp.Table(this=data.this, db=data.args.get("table")))
    time = Scope.of(node.columns, text).resolved(column)
    if not isinstance(time, exp.Column):
        raise _wrong(name, "takes a time column", call, text)
    size = _length(name, arguments["size"], text)
    slide = _length(name, arguments["slide"], text) if "slide" in arguments else size
    if slide > size:
        raise _wrong(name, f"slides by {slide} ms, more than its size of {size} ms", call, text)
    return WindowAssign(node, time.name, time_kind(node, time.name), size, slide, "window_start", "window_end")


def _arguments(name: str, call: exp.Expr, text: str) -> dict[str, exp.Expr]:
    known = _PARAMETERS[name]
    found: dict[str, exp.Expr] = {}
    for at, argument in enumerate(call.expressions):
        if isinstance(argument, (exp.Kwarg, exp.PropertyEQ)):
            found[argument.this.name.lower()] = argument.expression
        elif at < len(known):
            found[known[at]] = argument
        else:
            raise _wrong(name, f"takes {len(known)} arguments", call, text)
    if set(found) != set(known):
        raise _wrong(name, f"takes {', '.join(known)}", call, text)
    return found


def _length(name: str, tree: exp.Expr, text: str) -> int:
    try:
        length = interval_milliseconds(tree)
    except NotADuration as error:
        raise _wrong(name, str(error), tree, text) from error
    if length <= 0:
        raise _wrong(name, "takes a length greater than zero", tree, text)
    return length


def _wrong(name: str, what: str, tree: exp.Expr, text: str) -> SqlSemanticError:
    return SqlSemanticError(
        "sql.window_function",
        f"{name} {what}",
        hint=f"{name}(TABLE t, DESCRIPTOR(ts), {', '.join(part.upper() for part in _PARAMETERS[name][2:])})",
        place=place_of(tree, text),
    )
