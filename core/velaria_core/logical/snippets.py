"""Snippets: the piece of a text that shows best why it matches a keyword query, with the matches marked.

What is marked is what the analyzer makes of the text, so "trains" is marked for "train" by `english`, and "CAFÉ" for
"cafe". A phrase is marked where it stands whole; what a query excludes is never marked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Final

from sqlglot import exp

from velaria_core.errors import InputError, SqlSemanticError, did_you_mean
from velaria_core.logical.analyzers import ANALYZER, Analyzer, Span, analyzer
from velaria_core.logical.keyword_query import KeywordQuery, Kind, Leaf, keyword_query

SNIPPET_FUNCTION: Final = "velaria_snippet"
"""The function of the engine that `snippet` stands for: (text, query, analyzer, length, before, after, html)."""

_CUT: Final = "…"
# How far a cut moves to fall between words: more would lose too much where there are no spaces.
_WORD_MAX: Final = 24
_SHOWN_MAX: Final = 80  # characters of a malformed query in a message


@dataclass(frozen=True, slots=True)
class Marks:
    """How a snippet is made.

    Attributes:
        before, after: what stands around a match.
        length: about how many characters of the text are shown.
        html: whether the text is escaped, so that nothing in it is read as HTML; the marks are not.
    """

    before: str = "<mark>"
    after: str = "</mark>"
    length: int = 160
    html: bool = True


_PLAIN: Final = Marks()
# What a call of `snippet` may say after the text and the query, in this order or by name.
_OPTIONS: Final[dict[str, str | int]] = {
    "analyzer": ANALYZER,
    "length": _PLAIN.length,
    "before": _PLAIN.before,
    "after": _PLAIN.after,
    "html": _PLAIN.html,
}
_KINDS: Final = {str: "VARCHAR", int: "BIGINT", bool: "BOOLEAN"}
SNIPPET_TYPES: Final = ("VARCHAR", "VARCHAR", *(_KINDS[type(value)] for value in _OPTIONS.values()))
"""Of the arguments of SNIPPET_FUNCTION."""


def snippet_call(arguments: Sequence[exp.Expr]) -> exp.Expr:
    """What `snippet(text, query, ...)` stands for.

    Raises:
        InputError[search.query, search.analyzer]: a constant query is malformed, or there is no such analyzer.
        SqlSemanticError[sql.argument]: there is no such argument, it is given twice, or text or query is not given.
    """
    named = [one for one in arguments if isinstance(one, (exp.PropertyEQ, exp.Kwarg))]
    placed = [one for one in arguments if not isinstance(one, (exp.PropertyEQ, exp.Kwarg))]
    if not 2 <= len(placed) <= len(SNIPPET_TYPES):
        usage = f"snippet(text, query[, {', '.join(_OPTIONS)}])"
        raise SqlSemanticError("sql.argument", f"snippet of {len(placed)} arguments", hint=usage)
    given = dict(zip(_OPTIONS, placed[2:], strict=False))
    for one in named:
        name = one.this.name.lower()
        if name not in _OPTIONS:
            hint = did_you_mean(name, _OPTIONS, "arguments after the text and the query")
            raise SqlSemanticError("sql.argument", f'snippet has no argument "{name}"', hint=hint)
        if name in given:
            raise SqlSemanticError("sql.argument", f'snippet is given "{name}" twice', hint="by place or by name, once")
        given[name] = one.expression
    trees = [*placed[:2], *(given.get(name, exp.convert(value)) for name, value in _OPTIONS.items())]
    query, cut = trees[1].unnest(), trees[2].unnest()
    if isinstance(query, exp.Literal) and isinstance(cut, exp.Literal):
        _query(str(query.this), str(cut.this))  # its errors, now and with the place
    casts = [
        exp.Cast(this=tree.copy(), to=exp.DataType.build(kind, dialect="duckdb"))
        for tree, kind in zip(trees, SNIPPET_TYPES, strict=True)
    ]
    return exp.Anonymous(this=SNIPPET_FUNCTION, expressions=casts)


@lru_cache(maxsize=64)
def _query(text: str, cut: str) -> KeywordQuery:
    return keyword_query(text, analyzer(cut))


def snippet_of(
    text: str | None,
    query: str | None,
    cut: str | None,
    length: int | None,
    before: str | None,
    after: str | None,
    html: bool | None,
) -> str | None:
    """What SNIPPET_FUNCTION gives for one row: NULL where anything is, the beginning of the text where nothing matches.

    About 1 us a character: for the rows that are shown, not for all that are searched.

    Raises:
        InputError[search.query, search.analyzer, search.snippet]: a malformed query, which the message shows, no such
            analyzer, a length below 1.
    """
    if (
        text is None
        or query is None
        or cut is None
        or length is None
        or before is None
        or after is None
        or html is None
    ):
        return None
    if length < 1:
        raise InputError("search.snippet", f"a snippet of {length} characters", hint="length is 1 or more")
    cutter = analyzer(cut)
    try:
        asked = _query(query, cut)
    except InputError as error:
        # The query of a row is no part of the statement, so no place there tells of it.
        shown = query if len(query) <= _SHOWN_MAX else query[:_SHOWN_MAX] + _CUT
        raise InputError(error.code, f"{error.message}: {shown}", hint=error.hint) from error
    leaves = [asked.leaves[leaf] for leaf in asked.scored]
    return _snippet(text, cutter, leaves, Marks(before, after, length, html))


def _snippet(text: str, cut: Analyzer, leaves: list[Leaf], marks: Marks) -> str:
    matches = sorted(_matches(list(cut.spans(text)), leaves))
    start, end = _window(text, matches, marks.length)
    shown = escape if marks.html else str
    parts = [_CUT] if start else []
    at = start
    for first, last in _joined((first, last) for first, last, _ in matches):
        first, last = max(first, start), min(last, end)
        if first < last:
            parts += [shown(text[at:first]), marks.before, shown(text[first:last]), marks.after]
            at = last
    parts += [shown(text[at:end])] + ([_CUT] if end < len(text) else [])
    return "".join(parts)


def _matches(spans: list[Span], leaves: list[Leaf]) -> Iterable[tuple[int, int, int]]:
    """Where the text has which leaf."""
    terms = {leaf.terms[0]: number for number, leaf in enumerate(leaves) if leaf.kind is Kind.TERM}
    for term, start, end in spans:
        if (number := terms.get(term)) is not None:
            yield start, end, number
    for number, leaf in enumerate(leaves):
        if leaf.kind is Kind.PREFIX:
            yield from ((start, end, number) for term, start, end in spans if term.startswith(leaf.terms[0]))
        elif leaf.kind is Kind.PHRASE:
            for at in range(len(spans) - len(leaf.terms) + 1):
                found = spans[at : at + len(leaf.terms)]
                if all(span.term == term for span, term in zip(found, leaf.terms, strict=True)):
                    yield min(span.start for span in found), max(span.end for span in found), number


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges by their starts, those that touch as one."""
    made: list[tuple[int, int]] = []
    for start, end in ranges:
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        else:
            made.append((start, end))
    return made


def _window(text: str, matches: list[tuple[int, int, int]], length: int) -> tuple[int, int]:
    """What is shown: the first piece with the most different leaves, then the most matches, in its middle."""
    if len(text) <= length:
        return 0, len(text)
    best, start, end = (0, 0), 0, 0
    inside: Counter[int] = Counter()
    last = 0
    for first, (begin, _, leaf) in enumerate(matches):
        while last < len(matches) and (last == first or matches[last][1] <= begin + length):
            inside[matches[last][2]] += 1
            last += 1
        if (value := (len(inside), inside.total())) > best:
            best, start, end = value, begin, matches[last - 1][1]
        inside[leaf] -= 1
        inside += Counter()  # without those that are zero
    begin = max(0, min(start - max(0, length - (end - start)) // 2, len(text) - length))
    return _between_words(text, begin, begin + length, start, end)


def _between_words(text: str, begin: int, stop: int, start: int, end: int) -> tuple[int, int]:
    """The window with its ends moved inwards between words, and not into what it is for."""
    if begin and not text[begin - 1].isspace():
        inner = range(begin, min(begin + _WORD_MAX, start))
        begin = next((at + 1 for at in inner if text[at].isspace()), begin)
    if stop < len(text) and not text[stop].isspace():
        inner = range(stop - 1, max(stop - _WORD_MAX, end - 1), -1)
        stop = next((at for at in inner if text[at].isspace()), stop)
    return begin, stop
