"""Tokens: SQL text as words with their places, and a cursor over them.

The tokens are sqlglot's, made by its DuckDB tokenizer. Offsets count characters of the whole text, so every
error can point at what the user wrote. Words compare without case and never match a string or a quoted name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType

from velaria_core.errors import Place, SqlSyntaxError
from velaria_core.logical.expr import DIALECT

_DUCKDB: Final = Dialect.get_or_raise(DIALECT)

# The engine's reserved words: none names anything unless it is quoted. Held against the engine by a test. One is
# left out: `window`, which ends up quoted wherever it is a name.
RESERVED: Final = frozenset(
    """
    all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create
    default deferrable desc describe distinct do else end except false fetch for foreign from group having in
    initially intersect into lambda lateral leading limit not null offset on only or order pivot pivot_longer
    pivot_wider placing primary qualify references returning select show some summarize symmetric table then
    to trailing true union unique unpivot using variadic when where with
    """.split()  # noqa: SIM905 -- a block of words reads better than a list
)

_STRINGS: Final = frozenset({TokenType.STRING, TokenType.HEREDOC_STRING, TokenType.BYTE_STRING})
# Tokens after which a table or an expression may be complete, and a clause may begin.
_OPERAND_ENDS: Final = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.STAR})
_WORD: Final = re.compile(r"\w+\Z")
# Whole quoted things and comments; what is left of a quote after them is not closed.
_QUOTED: Final = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)""", re.DOTALL
)
# Full-width signs by code point, since they are hard to tell apart.
_FULL_WIDTH: Final = {
    "\uff0c": ",",
    "\u3001": ",",
    "\uff1b": ";",
    "\uff08": "(",
    "\uff09": ")",
    "\u201c": '"',
    "\u201d": '"',
    "\u2018": "'",
    "\u2019": "'",
    "\uff1d": "=",
    "\uff0a": "*",
    "\uff1a": ":",
    "\u3002": ".",
}
# Names in backticks, as MySQL writes them; what is quoted otherwise is skipped.
_BACKTICKS: Final = re.compile(_QUOTED.pattern + r'|`(?P<name>[^`"]*)`', re.DOTALL)
_OPENERS: Final = {
    "'": "the text in single quotes is never closed",
    '"': "the name in double quotes is never closed",
    "/*": "the comment is never closed",
    "$$": "the text in dollar quotes is never closed",
}


class Span(NamedTuple):
    """A stretch of the SQL text, in characters."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length

    def place(self, text: str) -> Place:
        """The span as the place of an error."""
        return Place.in_text(text, self.offset, self.length)


def tokenize(text: str) -> list[Token]:
    """The tokens of a text.

    Raises:
        SqlSyntaxError[sql.unterminated]: a quote or a comment is never closed.
        SqlSyntaxError[sql.syntax]: a character starts no token.
    """
    try:
        tokens = list(_DUCKDB.tokenize(_BACKTICKS.sub(_requoted, text) if "`" in text else text))
    except TokenError as error:
        if (opener := _unclosed(text)) is not None:
            offset, what = opener
            raise SqlSyntaxError(
                "sql.unterminated",
                what,
                hint="write a quote inside quotes twice: 'it''s'" if text[offset] == "'" else None,
                place=Place.in_text(text, offset),
                cause=error,
            ) from error
        details = error.args[1] if len(error.args) > 1 else {}
        end = details.get("end", len(text)) if isinstance(details, dict) else len(text)
        raise SqlSyntaxError(
            "sql.syntax",
            "the text is not SQL from here on",
            place=Place.in_text(text, max(0, end - 1)),
            cause=error,
        ) from error
    if not text.isascii():
        _refuse_full_width(text, tokens)
    return tokens


def _requoted(found: re.Match[str]) -> str:
    return found[0] if found["name"] is None else f'"{found["name"]}"'


def _refuse_full_width(text: str, tokens: Sequence[Token]) -> None:
    """A full-width sign in a bare word is what an input method left behind, never a name."""
    for token in tokens:
        if is_string(token) or token.token_type == TokenType.IDENTIFIER:
            continue
        for at in range(token.start, token.end + 1):
            if (plain := _FULL_WIDTH.get(text[at])) is not None:
                raise SqlSyntaxError(
                    "sql.syntax",
                    f'"{text[at]}" is a full-width sign',
                    hint=f"write {plain}",
                    place=Place.in_text(text, at),
                )


def _unclosed(text: str) -> tuple[int, str] | None:
    """Where a quote or comment opens that never closes, and what to say of it."""
    bare = _QUOTED.sub(lambda found: " " * len(found[0]), text)
    places = [(at, what) for opener, what in _OPENERS.items() if (at := bare.find(opener)) >= 0]
    return min(places, default=None)


def span(first: Token, last: Token | None = None) -> Span:
    """From the start of one token to the end of another."""
    return Span(first.start, (last or first).end - first.start + 1)


def word(token: Token) -> str:
    """The token as an upper-case keyword; empty for strings, quoted names, numbers and signs."""
    if token.token_type in _STRINGS or token.token_type == TokenType.IDENTIFIER:
        return ""
    text = str(token.text)
    return text.upper() if text[:1].isalpha() or text[:1] == "_" else ""


def is_string(token: Token) -> bool:
    return token.token_type in _STRINGS


def is_name(token: Token) -> bool:
    """Whether the token can name a table or column: it is quoted, or a word that is not reserved."""
    if token.token_type == TokenType.IDENTIFIER:
        return True
    text = str(token.text)
    return bool(word(token)) and _WORD.match(text) is not None and text.lower() not in RESERVED


def ends_operand(token: Token) -> bool:
    """Whether a table or an expression may end with this token."""
    if token.token_type in _OPERAND_ENDS or token.token_type == TokenType.NUMBER or is_string(token):
        return True
    return is_name(token) or word(token) in {"NULL", "TRUE", "FALSE", "END", "ASC", "DESC", "ALL"}


def depths(tokens: Sequence[Token]) -> list[int]:
    """How many parentheses each token stands in; a parenthesis itself counts outside."""
    found, depth = [], 0
    for token in tokens:
        if token.token_type in (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE):
            depth -= 1
        found.append(depth)
        if token.token_type in (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE):
            depth += 1
    return found


class Cursor:
    """A place in the tokens of one statement, that moves on as words are accepted."""

    def __init__(self, text: str, tokens: Sequence[Token], at: int = 0) -> None:
        self.text = text
        self.tokens = tokens
        self.at = at

    @property
    def done(self) -> bool:
        return self.at >= len(self.tokens)

    def peek(self, ahead: int = 0) -> Token | None:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else None

    def next(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def sees(self, *words: str) -> bool:
        """Whether these words stand here, one after the other. `(` and other signs stand for themselves."""
        return sees(self.tokens, self.at, *words)

    def sees_string(self) -> bool:
        """Whether a text in quotes stands here."""
        token = self.peek()
        return token is not None and is_string(token)

    def accept(self, *words: str) -> bool:
        """Move past these words if they stand here."""
        if not self.sees(*words):
            return False
        self.at += len(words)
        return True

    def expect(self, *words: str, after: str = "") -> Token:
        """Move past these words; the last of them.

        Raises:
            SqlSyntaxError[sql.syntax]: something else stands here.
        """
        for one in words:
            if not self.accept(one):
                raise self.expected(one, after=after)
        return self.tokens[self.at - 1]

    def name(self, what: str) -> Token:
        """Move past a name, quoted or not."""
        token = self.peek()
        if token is None or not is_name(token):
            hint = None
            if token is not None and str(token.text).lower() in RESERVED:
                hint = f'"{token.text}" is a reserved word; as a name it goes in double quotes'
            raise self.expected(what, hint=hint)
        if not token.text:
            raise self.expected(what, hint="a name has at least one character")
        return self.next()

    def previous(self) -> Token:
        return self.tokens[self.at - 1]

    def here(self) -> Span:
        """The token at hand, or the end of the statement."""
        token = self.peek()
        if token is not None:
            return span(token)
        end = self.tokens[-1].end + 1 if self.tokens else len(self.text)
        return Span(end, 1)

    def expected(self, what: str, *, after: str = "", hint: str | None = None) -> SqlSyntaxError:
        """The error that `what` should stand here."""
        token = self.peek()
        found = f'not "{self.text[token.start : token.end + 1]}"' if token is not None else "but the text ends here"
        after = f" after {after}" if after else ""
        return SqlSyntaxError(
            "sql.syntax", f"expected {what}{after}, {found}", hint=hint, place=self.here().place(self.text)
        )

    def finish(self, what: str) -> None:
        """Nothing may be left."""
        if not self.done:
            raise self.expected(f"the end of {what}")

    def group(self) -> tuple[int, int]:
        """Move past a `( ... )` that starts here; the positions of its first token inside and of its `)`."""
        opening = self.at
        depth = 0
        for at in range(opening, len(self.tokens)):
            kind = self.tokens[at].token_type
            depth += (kind == TokenType.L_PAREN) - (kind == TokenType.R_PAREN)
            if depth == 0:
                self.at = at + 1
                return opening + 1, at
        raise SqlSyntaxError(
            "sql.syntax", "the parenthesis is never closed", place=span(self.tokens[opening]).place(self.text)
        )


def sees(tokens: Sequence[Token], at: int, *words: str) -> bool:
    """Whether these words or signs stand at a position."""
    if at < 0 or at + len(words) > len(tokens):
        return False
    return all(
        word(token) == wanted if wanted[0].isalpha() else (token.text == wanted and not is_string(token))
        for token, wanted in zip(tokens[at : at + len(words)], words, strict=True)
    )
