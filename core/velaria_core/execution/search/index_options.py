"""Index options: what a search index can be told when it is made, in one table.

A vector index is exact, and so answers every metric, or has an approximate one beside its vectors, for one metric,
which answers where the recall that it showed when it was built is what was asked for (`approximate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from velaria_core.contract.modes import Metric
from velaria_core.errors import InputError, Place, did_you_mean
from velaria_core.logical.analyzers import ANALYZER, ANALYZERS

Value = str | int | float | bool


class IndexKind(StrEnum):
    VECTOR = "vector"
    KEYWORD = "keyword"


class Method(StrEnum):
    """How a vector index finds what is near."""

    EXACT = "exact"
    IVF = "ivf"
    HNSW = "hnsw"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of an index.

    Attributes:
        kind: of the indexes that take it.
        values: the names that it takes; empty where it takes a number above 0, up to 1.
        code: of the error for a name that is none of these.
    """

    name: str
    kind: IndexKind
    values: tuple[str, ...]
    default: str | float
    code: str = "option.value"

    def read(self, value: Value) -> str | float:
        """The value as it is meant: names have no case.

        Raises:
            InputError[option.value], or of the option's own code.
        """
        if not self.values:
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
                told = f"{self.name} is a number above 0, up to 1, not {value!r}"
                raise InputError("option.value", told, hint=f"{self.name} = {self.default}")
            return float(value)
        if not isinstance(value, str):
            told = f"{self.name} is a name, not {value!r}"
            raise InputError("option.value", told, hint=f"{self.name}: {', '.join(self.values)}")
        name = value.strip().lower()
        if name not in self.values:
            raise InputError(self.code, f'no {self.name} "{value}"', hint=did_you_mean(value, self.values, "values"))
        return name


OPTIONS: Final = (
    Option("analyzer", IndexKind.KEYWORD, ANALYZERS, ANALYZER, "search.analyzer"),
    Option("method", IndexKind.VECTOR, tuple(Method), Method.EXACT),
    Option("metric", IndexKind.VECTOR, tuple(Metric), Metric.COSINE),
    Option("recall", IndexKind.VECTOR, (), 0.99),
)


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """What was asked of an index, or is where nothing was.

    Attributes:
        analyzer: of a keyword index; empty for vectors.
        metric: of an approximate index; an exact one answers all.
        recall: that an approximate index has to show to be used.
    """

    analyzer: str = ""
    method: Method = Method.EXACT
    metric: Metric = Metric.COSINE
    recall: float = 0.99

    @property
    def is_exact(self) -> bool:
        return self.method is Method.EXACT


def index_options(
    kind: IndexKind, given: Mapping[str, Value], places: Mapping[str, Place | None] | None = None
) -> IndexOptions:
    """The options of an index.

    Args:
        places: where each stands in a statement.

    Raises:
        InputError[option.unknown, option.value, search.analyzer].
    """
    known = {option.name: option for option in OPTIONS if option.kind is kind}
    read = {name: option.default for name, option in known.items()}
    for name, value in given.items():
        try:
            if name not in known:
                hint = did_you_mean(name, known, "options")
                raise InputError("option.unknown", f'no option "{name}" for a {kind} index', hint=hint)
            read[name] = known[name].read(value)
        except InputError as error:
            error.place = (places or {}).get(name)
            raise
    if kind is IndexKind.KEYWORD:
        return IndexOptions(str(read["analyzer"]))
    return IndexOptions("", Method(str(read["method"])), Metric(str(read["metric"])), float(read["recall"]))
