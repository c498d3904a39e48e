"""Keyword query: what a user types to search texts, read and analysed.

    night train          either word; documents with both, or the rarer, come first
    night AND train      both
    +night train         the first must be there, the second only adds to the score
    night -train         the second must not be there; `night NOT train` is the same
    "night train"        the words one after another
    tra*                 every word that begins so
    (a OR b) AND c       in parentheses

Words that stand beside each other are alternatives, and bind weaker than OR, OR weaker than AND. A word that the
analyzer cuts in several terms (a Chinese run) is any of them where it only adds to the score, and a phrase where it
must or must not be there. A word of which the analyzer leaves nothing counts as not written. What is not excluded adds
to the score of a document that matches, wherever in the query it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn, TypeAlias

from velaria_core.errors import InputError, Place
from velaria_core.logical.analyzers import Analyzer

LEAVES_MAX: Final = 256
_DEPTH_MAX: Final = 50


class Kind(StrEnum):
    TERM = "term"
    PREFIX = "prefix"
    PHRASE = "phrase"


@dataclass(frozen=True, slots=True)
class Leaf:
    """What is counted in a document: a term, the terms with a prefix, or terms one after another."""

    kind: Kind
    terms: tuple[str, ...]

    def __str__(self) -> str:
        if self.kind is Kind.PHRASE:
            return f'"{" ".join(self.terms)}"'
        return self.terms[0] + ("*" if self.kind is Kind.PREFIX else "")


@dataclass(frozen=True, slots=True)
class Has:
    """The leaf of this number is in the document."""

    leaf: int


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """A part holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Condition


Condition: TypeAlias = Has | All | Any | Not


@dataclass(frozen=True, slots=True)
class KeywordQuery:
    """An analysed query.

    Attributes:
        text: as it was written.
        analyzer: the name of the analyzer.
        leaves: what is counted, each once.
        scored: the numbers of the leaves that add to the score, rising: all that may be in a document that matches.
        condition: which documents match.
    """

    text: str
    analyzer: str
    leaves: tuple[Leaf, ...]
    scored: tuple[int, ...]
    condition: Condition

    def __str__(self) -> str:
        return _shown(self.condition, self.leaves)


def keyword_query(text: str, analyzer: Analyzer) -> KeywordQuery:
    """A query in the language above.

    Raises:
        InputError[search.query]: it is malformed, or has nothing to search for; with the place.
    """
    return _Reader(text, analyzer).query()


def plain_query(text: str, analyzer: Analyzer) -> KeywordQuery:
    """A query of the words of a text, whatever signs it holds: a title, a sentence, what a program passes on.

    Raises:
        InputError[search.query]: no word is in it, or too many.
    """
    reader = _Reader(text, analyzer)
    return reader.made(reader.any_of(analyzer.terms(text)))


# --- reading ------------------------------------------------------------------------------------------------------

# A sign that no word follows says nothing, and one before another is part of a word: "a - b", "--all".
_PIECES: Final = re.compile(r'[()]|"[^"]*"?|(?P<sign>[+-])(?=[^\s)+-])|[^\s()"]+')


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sign, an operator, a quoted phrase or a word, and where it stands."""

    text: str
    at: int


class _Reader:
    """Recursive descent: a list of clauses, clauses of alternatives, alternatives of items that all hold."""

    def __init__(self, text: str, analyzer: Analyzer) -> None:
        self._text, self._analyzer = text, analyzer
        self._pieces = [
            _Piece(found.group(), found.start())
            for found in _PIECES.finditer(text)
            if found["sign"] or found.group().strip("+-")
        ]
        self._at = 0
        self._depth = 0
        self._excluding = 0
        self._leaves: dict[Leaf, int] = {}
        self._scored: set[int] = set()

    def query(self) -> KeywordQuery:
        """The whole text."""
        condition = self._list()
        if (piece := self._next()) is not None:
            self._refuse("a ) that closes nothing", piece)
        return self.made(condition)

    def made(self, condition: Condition | None) -> KeywordQuery:
        """A query of what was read."""
        if condition is None:
            self._refuse("the query has no word to search for", _Piece(self._text, 0))
        scored = tuple(sorted(self._scored))
        return KeywordQuery(self._text, self._analyzer.name, tuple(self._leaves), scored, condition)

    def any_of(self, terms: list[str]) -> Condition | None:
        """Any of these terms."""
        return _joined(Any, [self._has(Leaf(Kind.TERM, (term,))) for term in terms])

    # --- the grammar

    def _list(self) -> Condition | None:
        """Clauses side by side, up to a ) or the end."""
        must: list[Condition] = []
        may: list[Condition] = []
        excluded: list[Condition] = []
        exclusion: _Piece | None = None
        while (piece := self._next()) is not None and piece.text != ")":
            made: Condition | None
            if piece.text in ("-", "NOT"):
                exclusion = piece
                made = self._exclusion()
                excluded += [made] if made else []
            elif piece.text == "+":
                self._at += 1
                made = self._item(strict=True)
                must += [made] if made else []
            else:
                made = self._any()
                may += [made] if made else []
                continue
            if (after := self._next()) is not None and after.text in ("AND", "OR"):
                self._refuse(f"{piece.text} and {after.text} do not go together", after)
        if exclusion is not None and not must and not may:
            self._refuse("a query that only excludes finds nothing", exclusion)
        # Beside what must be there, what may be there says nothing about which documents match.
        wanted = _joined(All, must) if must else _joined(Any, may)
        return _joined(All, [wanted, *map(Not, excluded)])

    def _any(self) -> Condition | None:
        """Alternatives between OR."""
        parts = [self._all()]
        while (operator := self._next()) is not None and operator.text == "OR":
            self._at += 1
            if (piece := self._next()) is not None and piece.text in ("-", "NOT", "+"):
                self._refuse(f"OR and {piece.text} do not go together", piece)
            self._expects_item(operator)
            parts.append(self._all())
        return _joined(Any, parts)

    def _all(self) -> Condition | None:
        """Items between AND."""
        # What must be there is a phrase where it is several terms.
        parts = [self._item(strict=self._at + 1 < len(self._pieces) and self._pieces[self._at + 1].text == "AND")]
        while (operator := self._next()) is not None and operator.text == "AND":
            self._at += 1
            self._expects_item(operator)
            piece = self._pieces[self._at]
            if piece.text in ("-", "NOT"):
                made = self._exclusion()
                parts.append(None if made is None else Not(made))
            else:
                self._at += piece.text == "+"
                parts.append(self._item(strict=True))
        return _joined(All, parts)

    def _exclusion(self) -> Condition | None:
        sign = self._pieces[self._at]
        self._at += 1
        self._expects_item(sign)
        self._excluding += 1
        made = self._item(strict=True)
        self._excluding -= 1
        return made

    def _item(self, *, strict: bool = False) -> Condition | None:
        """A word, a phrase, or a list in parentheses."""
        piece = self._pieces[self._at]
        self._at += 1
        text = piece.text
        if text in ("AND", "OR"):
            self._refuse(f"{text} has nothing before it", piece)
        if text in ("+", "-", "NOT"):
            self._refuse(f"{text} stands after another sign", piece)
        if text == "(":
            return self._parentheses(piece)
        if text.startswith('"'):
            if len(text) < 2 or not text.endswith('"'):
                self._refuse("a phrase without its closing quote", piece)
            return self._phrase(text[1:-1])
        if text.endswith("*"):
            return self._prefix(piece)
        return self._phrase(text) if strict else self.any_of(self._analyzer.terms(text))

    def _parentheses(self, piece: _Piece) -> Condition | None:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            self._refuse(f"more than {_DEPTH_MAX} parentheses in one another", piece)
        made = self._list()
        if self._next() is None:
            self._refuse("a ( without its )", piece)
        self._at += 1
        self._depth -= 1
        return made

    def _phrase(self, text: str) -> Condition | None:
        terms = tuple(self._analyzer.phrase(text))
        return self._has(Leaf(Kind.TERM if len(terms) == 1 else Kind.PHRASE, terms)) if terms else None

    def _prefix(self, piece: _Piece) -> Condition:
        terms = self._analyzer.prefix(piece.text.rstrip("*"))
        if len(terms) != 1:
            told = "a prefix of more than one word" if terms else "a * with nothing before it"
            self._refuse(f"{told}: {piece.text}", piece)
        return self._has(Leaf(Kind.PREFIX, tuple(terms)))

    # --- the parts

    def _has(self, leaf: Leaf) -> Has:
        number = self._leaves.setdefault(leaf, len(self._leaves))
        if number >= LEAVES_MAX:
            self._refuse(f"a query of more than {LEAVES_MAX} different words", _Piece(self._text, 0))
        if not self._excluding:
            self._scored.add(number)
        return Has(number)

    def _next(self) -> _Piece | None:
        return self._pieces[self._at] if self._at < len(self._pieces) else None

    def _expects_item(self, operator: _Piece) -> None:
        if (piece := self._next()) is None or piece.text == ")":
            self._refuse(f"{operator.text} has nothing after it", operator)

    def _refuse(self, what: str, piece: _Piece) -> NoReturn:
        raise InputError(
            "search.query",
            f"not a keyword query: {what}",
            place=Place.in_text(self._text, piece.at, len(piece.text)),
            hint='words, "a phrase", begin*, +must, -not, AND, OR, NOT and parentheses; quote what is meant as it is',
        )


def _joined(kind: type[All] | type[Any], parts: Iterable[Condition | None]) -> Condition | None:
    """One condition of those that say something, each once; parts of the same kind are its own."""
    flat = (
        inner for part in parts if part is not None for inner in (part.parts if isinstance(part, kind) else (part,))
    )
    kept = tuple(dict.fromkeys(flat))
    return (kept[0] if len(kept) == 1 else kind(kept)) if kept else None


def _shown(condition: Condition, leaves: tuple[Leaf, ...]) -> str:
    if isinstance(condition, Has):
        return str(leaves[condition.leaf])
    if isinstance(condition, Not):
        return f"NOT {_shown(condition.part, leaves)}"
    word = " AND " if isinstance(condition, All) else " OR "
    return f"({word.join(_shown(part, leaves) for part in condition.parts)})"
