"""Analyzers: how a text becomes the terms that a keyword search counts.

Each analyzer is said twice and means one thing: as SQL for columns, and in Python for one text, where a query is read
and a match is marked. Both cut a text into runs of letters and fold each run on its own.

    standard  words of any script in lower case, Latin, Greek and Cyrillic without accents; Chinese, Japanese and
              Korean runs as pairs of neighbours (or the one character)
    english   standard, and plurals as singulars: the S-stemmer of Harman, "How effective is suffixing?", JASIS 1991
    builtin   ASCII words in lower case; CJK runs as 1, 2 and 3 neighbours, and whole where they have 2 to 8
    jieba     words of Chinese by the dictionary of jieba, as its search mode cuts them, folded as standard folds

No words are left out as too common: what is in every document weighs next to nothing in BM25, and a phrase needs it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from typing import Final, NamedTuple, TypeAlias

from velaria_core.errors import InputError, did_you_mean
from velaria_core.types import literal

ANALYZER: Final = "english"
"""What is taken where none is named."""
JIEBA_FUNCTION: Final = "velaria_jieba"
"""The function of the engine that cuts texts for `jieba`, (VARCHAR) -> VARCHAR[]."""

# The runs of `builtin` are those of the first Velaria, whose indexes and scores it keeps.
_BUILTIN_CJK: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
# Han with its marks of repetition, kana with their combining marks, bopomofo, Hangul whole and in parts, half-width
# forms. Written out, for the engine's tables of scripts and Python's are of different years.
_CJK: Final = (
    "\u1100-\u11ff\u3005-\u3007\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f"
    "\u3131-\u318e\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003fffd"
)
# Where accents are ornaments of a letter. In other scripts marks are vowels, and words differ by nothing else.
_ACCENTED: Final = "0-\u052f\u1e00-\u1fff"
# What ends most words. Last the hyphen, which in a class means itself there.
_PUNCTUATION: Final = ",.()'\":;-"
_WIDE: Final = "".join(map(chr, [*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B)]))
_NARROW: Final = "".join(chr(ord(ch) - 0xFEE0) for ch in _WIDE)
# Lower case as the engine has it, one letter for one, and one sigma.
_FOLDED: Final = str.maketrans(_WIDE + "\u0130\u03c2", _NARROW + "i\u03c3")


class Span(NamedTuple):
    """A term and the characters of the text that it stands for."""

    term: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Analyzer:
    """One way to cut texts.

    Attributes:
        name: what users write.
        spans: the terms of a text, in order.
        sql: the same terms as SQL over an expression of type VARCHAR: VARCHAR[], empty for NULL.
        phrase: the terms that stand one after another in `spans` wherever this text stands in another one.
        prefix: the terms of a beginning of a word; more than one where it is more than one word.
    """

    name: str
    spans: Callable[[str], Iterator[Span]]
    sql: Callable[[str], str]
    phrase: Callable[[str], list[str]]
    prefix: Callable[[str], list[str]]

    def terms(self, text: str) -> list[str]:
        """The terms of one text, in order."""
        return [span.term for span in self.spans(text)]


def analyzer(name: str) -> Analyzer:
    """The analyzer of this name.

    Raises:
        InputError[search.analyzer]: there is none.
        InputError[search.analyzer_missing]: it needs a package that is not installed.
    """
    found = _ANALYZERS.get(name.strip().lower())
    if found is None:
        raise InputError("search.analyzer", f'no analyzer "{name}"', hint=did_you_mean(name, _ANALYZERS, "analyzers"))
    if found.name == "jieba" and not has_jieba():
        raise InputError(
            "search.analyzer_missing",
            'the analyzer "jieba" needs the package rjieba',
            hint='pip install "velaria[jieba]", or take "standard", which needs nothing',
        )
    return found


# --- runs and folding ---------------------------------------------------------------------------------------------


@lru_cache(65536)
def _kind(ch: str) -> str:
    """What a character belongs to: a run of "cjk", a "word", or "" between them."""
    if _is_cjk(ch):
        return "cjk"
    return "word" if unicodedata.category(ch)[0] in "LNM" else ""


_is_cjk: Final = re.compile(f"[{_CJK}]").match
_ascii_words: Final = re.compile("[0-9A-Za-z]+").finditer
_only_accented: Final = re.compile(f"[{_ACCENTED}]+").fullmatch


def _runs(text: str) -> Iterator[tuple[str, int, int]]:
    if text.isascii():
        for found in _ascii_words(text):
            yield "word", *found.span()
        return
    at = 0
    for kind, characters in groupby(text, _kind):
        end = at + sum(1 for _ in characters)
        if kind:
            yield kind, at, end
        at = end


def fold(word: str) -> str:
    """A word as it is compared: composed, in lower case, letters in one width, accents off where they are ornaments."""
    if word.isascii():
        return word.lower()
    lowered = unicodedata.normalize("NFC", "".join(map(str.lower, word.translate(_FOLDED))).translate(_FOLDED))
    if not _only_accented(lowered):
        return lowered
    letters = (ch for ch in unicodedata.normalize("NFD", lowered) if not unicodedata.category(ch).startswith("M"))
    return unicodedata.normalize("NFC", "".join(letters))


def _fold_sql(word: str) -> str:
    narrow = f"translate({word}, {literal(_WIDE)}, {literal(_NARROW)})"
    one_width = f"CASE WHEN regexp_matches({word}, '[{_WIDE}]') THEN {narrow} ELSE {word} END"
    lowered = f"nfc_normalize(replace(lower({one_width}), '\u03c2', '\u03c3'))"
    return (
        f"list_transform([{lowered}], lambda w: "
        f"CASE WHEN regexp_full_match(w, '[{_ACCENTED}]+') THEN strip_accents(w) ELSE w END)[1]"
    )


# --- standard, english, jieba --------------------------------------------------------------------------------------

Cut: TypeAlias = Callable[[str], Iterable[tuple[str, int, int]]]


def _cut_spans(text: str, cut: Cut) -> Iterator[Span]:
    """Words folded, and CJK runs as `cut` cuts them."""
    for kind, start, end in _runs(text):
        if kind == "word":
            if word := fold(text[start:end]):
                yield Span(word, start, end)
            continue
        run = unicodedata.normalize("NFC", text[start:end])
        same = len(run) == end - start
        for term, first, last in cut(run):
            # Characters that were composed have no place of their own: the whole run stands for each.
            yield Span(term, start + first, start + last) if same else Span(term, start, end)


def _pairs(run: str) -> Iterator[tuple[str, int, int]]:
    for at in range(max(1, len(run) - 1)):
        term = run[at : at + 2]
        yield term, at, at + len(term)


def _standard_spans(text: str) -> Iterator[Span]:
    return _cut_spans(text, _pairs)


def _standard_sql(text: str, stem: Callable[[str], str] | None = None) -> str:
    word = f"(?:[^\\P{{L}}{_CJK}]|[^\\P{{N}}{_CJK}]|[^\\P{{M}}{_CJK}])+"
    runs = f"regexp_extract_all({text}, '[{_CJK}]+|{word}')"
    pairs = "list_transform(range(1, greatest(2, length(c))), lambda i: substring(c, i, 2))"
    cut = f"list_transform([nfc_normalize(r)], lambda c: {pairs})[1]"
    terms = f"CASE WHEN regexp_matches(r, '^[{_CJK}]') THEN {cut} ELSE [{_fold_sql('r')}] END"
    other = f"list_filter(flatten(list_transform({runs}, lambda r: {terms})), lambda t: t <> '')"
    made = _unless_ascii(text, f"coalesce({other}, [])")
    return made if stem is None else f"list_transform({made}, lambda w: {stem('w')})"


def _unless_ascii(text: str, other: str) -> str:
    """The terms where they are words of ASCII: most texts are such, and `other` costs eight times as much."""
    spaced = f"lower({text})"
    for sign in _PUNCTUATION:
        spaced = f"replace({spaced}, {literal(sign)}, ' ')"
    return (
        f"CASE WHEN NOT regexp_matches({text}, {literal(f'[^A-Za-z0-9 {_PUNCTUATION}]')}) "
        f"THEN list_filter(string_split({spaced}, ' '), lambda t: t <> '') "
        f"WHEN strlen({text}) = length({text}) THEN regexp_extract_all(lower({text}), '[a-z0-9]+') ELSE {other} END"
    )


def singular(word: str) -> str:
    """An English word without the s of its plural."""
    if len(word) < 4 or not word.endswith("s"):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    return word if word.endswith(("us", "ss")) else word[:-1]


def _singular_sql(word: str) -> str:
    def ends(*tails: str) -> str:
        return "(" + " OR ".join(f"ends_with({word}, '{tail}')" for tail in tails) + ")"

    return (
        f"CASE WHEN length({word}) < 4 OR NOT {ends('s')} THEN {word} "
        f"WHEN {ends('ies')} AND NOT {ends('eies', 'aies')} THEN {word}[:-4] || 'y' "
        f"WHEN {ends('es')} AND NOT {ends('aes', 'ees', 'oes')} THEN {word}[:-2] "
        f"WHEN {ends('us', 'ss')} THEN {word} ELSE {word}[:-2] END"
    )


def _english_spans(text: str) -> Iterator[Span]:
    for span in _standard_spans(text):
        yield span._replace(term=singular(span.term))


# --- builtin ------------------------------------------------------------------------------------------------------


_builtin_runs: Final = re.compile(f"[0-9A-Za-z]+|[{_BUILTIN_CJK}]+").finditer


def _builtin_whole(text: str) -> Iterator[Span]:
    for found in _builtin_runs(text):
        yield Span(found.group().lower(), found.start(), found.end())


def _builtin_spine(text: str) -> Iterator[Span]:
    """The words and single characters. They stand first, for a phrase is found by them."""
    for run, start, end in _builtin_whole(text):
        if run.isascii():
            yield Span(run, start, end)
        else:
            yield from (Span(ch, start + at, start + at + 1) for at, ch in enumerate(run))


def _builtin_spans(text: str) -> Iterator[Span]:
    yield from _builtin_spine(text)
    for run, start, end in _builtin_whole(text):
        if run.isascii():
            continue
        for width in (2, 3):
            for at in range(len(run) - width + 1):
                yield Span(run[at : at + width], start + at, start + at + width)
        if 2 <= len(run) <= 8:
            yield Span(run, start, end)


def _builtin_sql(text: str) -> str:
    one, two, three = (
        f"list_transform(range(1, length(r) - {width} + 2), lambda i: substring(r, i, {width}))" for width in (1, 2, 3)
    )
    whole = "CASE WHEN length(r) BETWEEN 2 AND 8 THEN [r] ELSE [] END"
    spine = f"flatten(list_transform(rs, lambda r: CASE WHEN ascii(r) < 128 THEN [lower(r)] ELSE {one} END))"
    grams = f"CASE WHEN ascii(r) < 128 THEN [] ELSE flatten([{two}, {three}, {whole}]) END"
    rest = f"flatten(list_transform(rs, lambda r: {grams}))"
    runs = f"regexp_extract_all({text}, '[0-9A-Za-z]+|[{_BUILTIN_CJK}]+')"
    return f"list_transform([{runs}], lambda rs: list_concat({spine}, {rest}))[1]"


# --- jieba --------------------------------------------------------------------------------------------------------


@cache
def has_jieba() -> bool:
    """Whether the package of `jieba` is installed; it is loaded when a text is cut by it."""
    return find_spec("rjieba") is not None


def _whole_spans(text: str) -> Iterator[Span]:
    return _cut_spans(text, lambda run: [(run, 0, len(run))])


def _words_of_jieba(run: str) -> Iterable[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = import_module("rjieba").tokenize(run, "search")
    return found


def _jieba_spans(text: str) -> Iterator[Span]:
    return _cut_spans(text, _words_of_jieba)


def jieba_terms(text: str) -> list[str]:
    """The terms of one text by `jieba`: what JIEBA_FUNCTION gives."""
    return [span.term for span in _jieba_spans(text)]


# ------------------------------------------------------------------------------------------------------------------


def _analyzer(
    name: str,
    spans: Callable[[str], Iterator[Span]],
    sql: Callable[[str], str],
    *,
    phrase: Callable[[str], Iterator[Span]] | None = None,
    prefix: Callable[[str], Iterator[Span]] = _standard_spans,
) -> Analyzer:
    return Analyzer(
        name,
        spans,
        lambda text: f"coalesce({sql(text)}, [])",
        lambda text: [span.term for span in (phrase or spans)(text)],
        lambda text: [span.term for span in prefix(text)],
    )


_ANALYZERS: Final = {
    made.name: made
    for made in (
        _analyzer("standard", _standard_spans, _standard_sql),
        _analyzer("english", _english_spans, lambda text: _standard_sql(text, _singular_sql)),
        _analyzer("builtin", _builtin_spans, _builtin_sql, phrase=_builtin_spine, prefix=_builtin_whole),
        _analyzer(
            "jieba", _jieba_spans, lambda text: _unless_ascii(text, f"{JIEBA_FUNCTION}({text})"), prefix=_whole_spans
        ),
    )
}
ANALYZERS: Final = tuple(_ANALYZERS)
"""The names of all analyzers."""
