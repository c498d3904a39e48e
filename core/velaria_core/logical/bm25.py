"""BM25 as SQL: how well texts of a relation match a keyword query.

    score = sum over what the query counts of  idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean length))
    idf   = ln(1 + (N - df + 0.5) / (df + 0.5))

`tf` is how often a document has the term, the prefix or the phrase, `length` how many terms it has, N how many
documents there are, df how many of them have it. Of several columns `tf` and `length` are sums weighted by column, so
that two columns of weight 1 score as their texts one after another. NULL is a text without terms, and counts in N.

The query is three steps, which a stream may keep apart: `counted` has each document's length and tf, from its own row
alone; `statistics` are sums over those; `score` is an expression over both.

Source: Robertson, Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; the idf is Lucene's,
never negative; the columns as in Robertson, Zaragoza, Taylor, "Simple BM25 Extension to Multiple Weighted Fields",
CIKM 2004.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from velaria_core.errors import InputError
from velaria_core.logical.analyzers import analyzer
from velaria_core.logical.keyword_query import All, Condition, Has, KeywordQuery, Kind, Leaf, Not
from velaria_core.types import literal, quoted

K1: Final = 1.2
B: Final = 0.75
_WEIGHT_MIN: Final = 0.000001
_WEIGHT_MAX: Final = 1000000.0

SCORE: Final = "keyword_score"
LENGTH: Final = "__keyword_length"
"""Of `counted`: the weighted number of terms of a document, DOUBLE."""
DOCUMENTS: Final = "__keyword_documents"
"""Of `statistics`: N, BIGINT."""
MEAN_LENGTH: Final = "__keyword_mean_length"
"""Of `statistics`: the mean of LENGTH, DOUBLE; NULL of no rows."""
_COUNTED: Final = "__keyword_counted"
_TERMS: Final = "__keyword_terms"
_HITS: Final = "__keyword_hits"


def frequency(leaf: int) -> str:
    """The column of `counted` with the weighted number of times that a document has this leaf of the query, DOUBLE."""
    return f"__keyword_tf_{leaf}"


def having(leaf: int) -> str:
    """The column of `statistics` with the number of documents that have this leaf of the query, BIGINT."""
    return f"__keyword_df_{leaf}"


def counted(rows: str, columns: Mapping[str, float], query: KeywordQuery) -> str:
    """The rows of a relation with what the query counts in each: LENGTH and `frequency(i)` for each leaf.

    Args:
        rows: what may stand in FROM.
        columns: the columns of text to search, VARCHAR, with their weights.
    Returns:
        SQL of one SELECT; one row for each. Cost: about 3 us a row of 16 words, most of it the analyzer's.
    Raises:
        InputError[search.weight]: a weight is out of range.
    """
    check_weights(columns)
    cut = analyzer(query.analyzer).sql
    fields = [f"{_TERMS}_{number}" for number in range(len(columns))]
    terms = ", ".join(f"{cut(quoted(name))} AS {field}" for name, field in zip(columns, fields, strict=True))
    weights = list(columns.values())

    def weighted(counts: list[str]) -> str:
        return " + ".join(f"{weight!r}::DOUBLE * {count}" for weight, count in zip(weights, counts, strict=True))

    length = weighted([f"len({field})" for field in fields])
    # The few terms that the query knows, so that each leaf does not go through all.
    known = _known(query)
    hits = ", ".join(
        f"list_filter({field}, lambda t: {known}) AS {_HITS}_{number}" for number, field in enumerate(fields)
    )
    counts = ", ".join(
        f"{weighted([_count(leaf, field, f'{_HITS}_{number}') for number, field in enumerate(fields)])} "
        f"AS {frequency(at)}"
        for at, leaf in enumerate(query.leaves)
    )
    hidden = ", ".join([*fields, *(f"{_HITS}_{number}" for number in range(len(fields)))])
    return (
        f"SELECT * EXCLUDE ({hidden}), {length} AS {LENGTH}, {counts} "
        f"FROM (SELECT *, {hits} FROM (SELECT *, {terms} FROM {rows}))"
    )


def check_weights(columns: Mapping[str, float]) -> None:
    """Every column has a weight, within what float32 can add up.

    Raises:
        InputError[search.weight]: one has not.
    """
    for name, weight in columns.items():
        if not _WEIGHT_MIN <= weight <= _WEIGHT_MAX:
            raise InputError(
                "search.weight",
                f'the weight of "{name}" is {weight}, not a number from 0.000001 to 1,000,000',
                hint="leave a column out that is not to be searched",
            )


def _known(query: KeywordQuery) -> str:
    words = sorted({leaf.terms[0] for leaf in query.leaves if leaf.kind is not Kind.PREFIX})
    tests = [f"t IN ({', '.join(map(literal, words))})"] if words else []
    tests += [f"starts_with(t, {literal(leaf.terms[0])})" for leaf in query.leaves if leaf.kind is Kind.PREFIX]
    return " OR ".join(tests)


def _count(leaf: Leaf, terms: str, hits: str) -> str:
    if leaf.kind is Kind.TERM:
        return f"len(list_filter({hits}, lambda t: t = {literal(leaf.terms[0])}))"
    if leaf.kind is Kind.PREFIX:
        return f"len(list_filter({hits}, lambda t: starts_with(t, {literal(leaf.terms[0])})))"
    phrase = f"[{', '.join(map(literal, leaf.terms))}]"
    starts = f"range(1, len({terms}) - {len(leaf.terms) - 2})"
    found = f"len(list_filter({starts}, lambda i: {terms}[i : i + {len(leaf.terms) - 1}] = {phrase}))"
    return f"CASE WHEN list_contains({hits}, {literal(leaf.terms[0])}) THEN {found} ELSE 0 END"


def statistics(documents: str, query: KeywordQuery) -> str:
    """One row over the rows of `counted`: DOCUMENTS, MEAN_LENGTH, and `having(i)` for each leaf that is scored."""
    found = ", ".join(f"count_if({frequency(leaf)} > 0) AS {having(leaf)}" for leaf in query.scored)
    return f"SELECT count(*) AS {DOCUMENTS}, avg({LENGTH}) AS {MEAN_LENGTH}, {found} FROM {documents}"


def score(query: KeywordQuery) -> str:
    """The score of a row of `counted` beside the row of `statistics`, DOUBLE; 0.0 where it has nothing of the query."""
    parts = [
        f"CASE WHEN {tf} > 0 THEN ln(1 + ({DOCUMENTS} - {df} + 0.5) / ({df} + 0.5)) * ({tf} * {K1 + 1}) / "
        f"({tf} + {K1} * ({1 - B} + {B} * {LENGTH} / {MEAN_LENGTH})) ELSE 0.0::DOUBLE END"
        for tf, df in ((frequency(leaf), having(leaf)) for leaf in query.scored)
    ]
    return " + ".join(parts)


def matches(query: KeywordQuery) -> str:
    """Whether a row of `counted` is what the query asks for."""
    return _holds(query.condition)


def _holds(condition: Condition) -> str:
    if isinstance(condition, Has):
        return f"{frequency(condition.leaf)} > 0"
    if isinstance(condition, Not):
        return f"NOT ({_holds(condition.part)})"
    word = " AND " if isinstance(condition, All) else " OR "
    return "(" + word.join(map(_holds, condition.parts)) + ")"


def scored(
    rows: str,
    columns: Mapping[str, float],
    query: KeywordQuery,
    *,
    over: str | None = None,
    first: int | None = None,
    ties: str = "",
) -> str:
    """The rows that match, with their score as a last column `keyword_score`.

    Args:
        rows: what may stand in FROM. All its columns of all rows are kept while statistics are taken, so where they
            are wide, search few of them and join the rest.
        over: the relation that N, df and the mean length are of, where they are not of `rows`: the same columns of
            text.
        first: how many of the best to give, best first; None is all, in no order.
        ties: an expression over `rows` by which rows of one score are ordered.
    Returns:
        SQL of one SELECT.
    """
    hidden = ", ".join([LENGTH, *(frequency(leaf) for leaf in range(len(query.leaves)))])
    whole = _COUNTED if over is None else f"({counted(over, columns, query)})"
    order = "" if first is None else f" ORDER BY {SCORE} DESC{', ' + ties if ties else ''} LIMIT {first}"
    return (
        f"WITH {_COUNTED} AS MATERIALIZED ({counted(rows, columns, query)}), "
        f"__keyword_statistics AS ({statistics(whole, query)}) "
        f"SELECT {_COUNTED}.* EXCLUDE ({hidden}), {score(query)} AS {SCORE} "
        f"FROM {_COUNTED} CROSS JOIN __keyword_statistics WHERE {matches(query)}{order}"
    )
