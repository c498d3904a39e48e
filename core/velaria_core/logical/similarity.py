"""Similarity: how vectors are compared, as expressions of the engine, and how people write a vector.

A score is a float64, computed from the values as they are stored; the vector that is searched for is float32, as
embeddings are. `cosine` and `l2` are distances, `dot` is a similarity. A vector of zeros has no direction: its cosine
distance is 1.0. Of a NULL among a vector's numbers the engine makes an error.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from sqlglot import exp

from velaria_core.contract.modes import Metric
from velaria_core.errors import SqlSemanticError, did_you_mean

METRICS: Final = {"cosine": Metric.COSINE, "cosin": Metric.COSINE, "dot": Metric.DOT, "l2": Metric.L2}
SIMILARITIES: Final = ("cosine_similarity", "cosine_distance", "dot_product", "l2_distance")
_HINT: Final = "a vector is numbers: '[0.1, 0.2]', '[0.1 0.2]', a list, a NumPy or an Arrow array"
_SEPARATORS: Final = re.compile(r"[\s,]+")
_FUNCTION: Final = {Metric.COSINE: "cosine_distance", Metric.DOT: "inner_product", Metric.L2: "distance"}


def metric_named(name: str) -> Metric:
    """The metric that a user names.

    Raises:
        SqlSemanticError[sql.metric].
    """
    if (found := METRICS.get(name.lower())) is None:
        hint = did_you_mean(name, [metric.value for metric in Metric], "metrics")
        raise SqlSemanticError("sql.metric", f'no metric "{name}"', hint=hint)
    return found


def is_better_below(metric: Metric) -> bool:
    """Whether a smaller score is a better one."""
    return metric is not Metric.DOT


# --- vectors as people write them -------------------------------------------------------------------------------


def vector_of(value: Any) -> tuple[float, ...]:
    """A vector as float32 values.

    Args:
        value: text such as '[1 2 3]' or '1, 2, 3', or a sequence of numbers: list, NumPy array, Arrow array or scalar.

    Raises:
        SqlSemanticError[search.vector]: it is none, or a number of it is NULL, NaN or infinite as float32.
    """
    try:
        numbers = _numbers(value)
        made = tuple(array("f", numbers))
    except (TypeError, ValueError, OverflowError) as error:
        raise SqlSemanticError("search.vector", f"not a vector: {_shown(value)}", hint=_HINT, cause=error) from error
    if not made:
        raise SqlSemanticError("search.vector", "a vector without numbers", hint=_HINT)
    if not all(map(math.isfinite, made)):
        raise SqlSemanticError("search.vector", f"a number is no finite float32: {_shown(value)}", hint=_HINT)
    return made


def _numbers(value: Any) -> list[float]:
    if isinstance(value, str):
        inner = value.strip()
        if inner[:1] == "[" and inner[-1:] == "]":
            inner = inner[1:-1].strip()
        return [float(part) for part in _SEPARATORS.split(inner)] if inner else []
    for method in ("to_pylist", "as_py", "tolist"):
        if hasattr(value, method):
            value = getattr(value, method)()
            break
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise TypeError(f"a {type(value).__name__} is no sequence of numbers")
    if any(isinstance(number, bool) for number in value):
        raise TypeError("a truth value is no number")
    return [float(number) for number in value]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _vector_tree(vector: Sequence[float]) -> exp.Expr:
    """A vector as a constant of type DOUBLE[n]: one text, since a literal for each number costs the parser more."""
    return _cast(exp.Literal.string(_text_of(vector)), f"DOUBLE[{len(vector)}]")


def vector_sql(vector: Sequence[float]) -> str:
    """The same as text."""
    return f"CAST('{_text_of(vector)}' AS DOUBLE[{len(vector)}])"


def _text_of(vector: Sequence[float]) -> str:
    return f"[{', '.join(map(repr, vector))}]"


# --- scores as expressions --------------------------------------------------------------------------------------


def score_sql(metric: Metric, one: str, other: str, length: int | None) -> str:
    """The score of two vectors, which are SQL; NaN where a cosine meets a vector of zeros.

    Text, and not a tree: a query is made for each search, and trees are copied as they are put together.

    Args:
        length: how many numbers they have; None where only their rows tell.
    """
    kind = f"DOUBLE[{length or ''}]"
    return f"{_function(metric, length)}(CAST({one} AS {kind}), CAST({other} AS {kind}))"


def zero_sql(one: str, length: int | None) -> str:
    """Whether all numbers of a vector are zero."""
    return f"{score_sql(Metric.DOT, one, one, length)} = 0"


def _score_tree(metric: Metric, one: exp.Expr, other: exp.Expr, length: int | None) -> exp.Expr:
    kind = f"DOUBLE[{length or ''}]"
    return _call(_function(metric, length), *(_as(kind, side) for side in (one, other)))


def _function(metric: Metric, length: int | None) -> str:
    return f"{'array' if length is not None else 'list'}_{_FUNCTION[metric]}"


def _is_zero(tree: exp.Expr, length: int | None) -> exp.Expr:
    return exp.EQ(this=_score_tree(Metric.DOT, tree, tree, length), expression=exp.Literal.number(0))


def similarity_call(name: str, arguments: Sequence[exp.Expr]) -> exp.Expr | None:
    """What `cosine_similarity(a, b)` and its kin stand for; None where they are not called with two vectors.

    Each side is an array, a list, or text such as '[1 2 3]', as a constant or a column.

    Raises:
        SqlSemanticError[search.vector]: a constant text is no vector.
        SqlSemanticError[search.dimension]: two constants differ in length.
    """
    if len(arguments) != 2:
        return None
    lengths = [_length(argument) for argument in arguments]
    known = [length for length in lengths if length is not None]
    if len(set(known)) > 1:
        raise SqlSemanticError("search.dimension", f"{name} of {known[0]} and {known[1]} numbers")
    length = known[0] if known else None
    left, right = (_operand(argument, length) for argument in arguments)
    metric = {"dot_product": Metric.DOT, "l2_distance": Metric.L2}.get(name, Metric.COSINE)
    score = _score_tree(metric, left, right, length)
    if metric is not Metric.COSINE:
        return score
    without = exp.or_(_is_zero(left, length), _is_zero(right, length), copy=False)
    distance = exp.Case(ifs=[exp.If(this=without, true=exp.Literal.number("1.0"))], default=score)
    if name == "cosine_distance":
        return distance
    return exp.Sub(this=exp.Literal.number("1.0"), expression=distance)


def _length(tree: exp.Expr) -> int | None:
    """How many numbers a constant has."""
    inner = tree.unnest()
    if isinstance(inner, exp.Literal) and inner.is_string:
        return len(vector_of(str(inner.this)))
    return len(inner.expressions) if isinstance(inner, exp.Array) else None


def _operand(tree: exp.Expr, length: int | None) -> exp.Expr:
    """A side as DOUBLE[n] or DOUBLE[]; text is read as a vector."""
    inner = tree.unnest()
    if isinstance(inner, exp.Literal) and inner.is_string:
        return _vector_tree(vector_of(str(inner.this)))
    kind = f"DOUBLE[{length or ''}]"
    if isinstance(inner, exp.Array):
        return _cast(tree, kind)
    # The engine knows `typeof` as it plans, so that nothing of this is left when it runs.
    text = _call("trim", _cast(tree.copy(), "VARCHAR"), exp.Literal.string("[] \t\n"))
    parts = _call(
        "regexp_replace",
        text,
        exp.Literal.string(r"[\s,]+"),
        exp.Literal.string(","),
        exp.Literal.string("g"),
    )
    listed = exp.DPipe(
        this=exp.DPipe(this=exp.Literal.string("["), expression=parts), expression=exp.Literal.string("]")
    )
    is_text = exp.EQ(this=_call("typeof", tree.copy()), expression=exp.Literal.string("VARCHAR"))
    made = exp.Case(ifs=[exp.If(this=is_text, true=_cast(exp.Paren(this=listed), kind))], default=_cast(tree, kind))
    if length is not None:
        return made
    # A NULL array that is cast to a list keeps NULLs inside, which the engine's functions refuse; a slice has none.
    return _call("list_slice", made, exp.Literal.number(1), exp.Neg(this=exp.Literal.number(1)))


def _as(kind: str, tree: exp.Expr) -> exp.Expr:
    made = _cast(tree.copy(), kind)
    return tree.copy() if isinstance(tree, exp.Cast) and tree.to == made.to else made


def _call(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _cast(tree: exp.Expr, kind: str) -> exp.Cast:
    return exp.Cast(this=tree, to=_type(kind).copy())


@cache
def _type(kind: str) -> exp.DataType:
    return exp.DataType.build(kind, dialect="duckdb")
