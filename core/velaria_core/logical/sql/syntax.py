"""Syntax errors in our words: where, what stood there, and what would mend it.

A hint is tried before it is given: the text is changed that way and must then read further than before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from sqlglot.tokenizer_core import Token, TokenType

from velaria_core.errors import Place, SqlSyntaxError, VelariaError
from velaria_core.logical.sql.tokens import RESERVED, is_name, span, word

# Words that people misspell. A name of one's own may be as near to one of them, so only a word that mends the text
# is proposed.
KEYWORDS: Final = """
    SELECT FROM WHERE GROUP ORDER BY HAVING LIMIT OFFSET JOIN INNER LEFT RIGHT FULL OUTER CROSS ON USING AS AND OR
    NOT IN IS NULL LIKE BETWEEN CASE WHEN THEN ELSE END DISTINCT UNION INTERSECT EXCEPT ALL WITH VALUES OVER
    PARTITION QUALIFY WINDOW CAST INTERVAL ASC DESC EXISTS RECURSIVE PIVOT UNPIVOT LATERAL ROWS RANGE PRECEDING
    FOLLOWING UNBOUNDED CURRENT ROW FILTER NULLS FIRST LAST EXCLUDE REPLACE SEMI ANTI ASOF NATURAL TRUE FALSE
    """.split()  # noqa: SIM905 -- a block of words reads better than a list
_CLAUSES: Final = ("FROM", "WHERE", "GROUP BY", "HAVING", "WINDOW", "QUALIFY", "ORDER BY", "LIMIT", "OFFSET")
Check = Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class Trial:
    """What a hint is tried on.

    Attributes:
        text: that of the tokens, from the first one's start on, without what was cut from between them.
        fails_at: where another such text fails: an offset in it, -1 for nowhere, None for somewhere.
    """

    text: str
    fails_at: Check


def diagnosed(
    text: str,
    tokens: Sequence[Token],
    offset: int | None,
    cause: Exception,
    trial: Trial | None = None,
) -> VelariaError:
    """The error for tokens that do not read.

    Args:
        text: the whole text.
        tokens: those of the query or expression at fault; at least one.
        offset: where a parser stopped, or None where it does not tell.
        cause: what that parser said.
        trial: what hints are tried on; without it there are none that change the text.
    """
    if isinstance(cause, VelariaError) and not isinstance(cause, SqlSyntaxError):
        place = Place.in_text(text, offset) if offset is not None else span(tokens[0], tokens[-1]).place(text)
        return type(cause)(cause.code, cause.message, hint=cause.hint, place=place)
    opened, closed = _unbalanced(tokens)
    if closed is not None:
        return SqlSyntaxError(
            "sql.syntax", f'unexpected "{closed.text}": it closes nothing', place=span(closed).place(text)
        )
    if offset is None:
        return _without_offset(text, tokens, cause)
    at = next((at for at, token in enumerate(tokens) if token.end >= offset), len(tokens) - 1)
    early = _ends_early(tokens, at, trial)
    hint = _hint(tokens, at, trial, early=early) if trial is not None else None
    if early:
        if opened is not None:
            return SqlSyntaxError(
                "sql.syntax",
                f'this "{opened.text}" is never closed',
                hint=hint,
                place=span(opened).place(text),
            )
        last = tokens[-1]
        return SqlSyntaxError(
            "sql.syntax",
            f'the text ends too early, after "{_shown(text, last)}"',
            hint=hint,
            place=Place.in_text(text, last.end + 1),
        )
    if opened is not None and opened.start < tokens[at].start:
        where = Place.in_text(text, opened.start)
        hint = f'the "{opened.text}" at line {where.line}, column {where.column} is never closed'
    elif hint is None and word(tokens[at]) in _CLAUSES:
        hint = f"clauses come in this order: {', '.join(_CLAUSES)}"
    return SqlSyntaxError(
        "sql.syntax",
        f'unexpected "{_shown(text, tokens[at])}"',
        hint=hint,
        place=span(tokens[at]).place(text),
    )


def _shown(text: str, token: Token) -> str:
    shown = text[token.start : token.end + 1]
    return shown if len(shown) <= 40 else shown[:37] + "..."


def _without_offset(text: str, tokens: Sequence[Token], cause: Exception) -> SqlSyntaxError:
    message = cause.message if isinstance(cause, VelariaError) else "the text is not SQL"
    for at, token in enumerate(tokens):
        follows = word(tokens[at + 1]) if at + 1 < len(tokens) else ""
        if word(token) == "SELECT" and (at + 1 == len(tokens) or follows == "FROM" or tokens[at + 1].text == ")"):
            return SqlSyntaxError(
                "sql.syntax",
                "SELECT is not told what to select",
                hint="name columns, or write SELECT *",
                place=span(token).place(text),
            )
    return SqlSyntaxError(
        "sql.syntax", message[:1].lower() + message[1:], place=span(tokens[0], tokens[-1]).place(text)
    )


def _unbalanced(tokens: Sequence[Token]) -> tuple[Token | None, Token | None]:
    """The innermost bracket that is never closed, and the first that closes nothing."""
    pairs = {TokenType.R_PAREN: TokenType.L_PAREN, TokenType.R_BRACKET: TokenType.L_BRACKET}
    pairs[TokenType.R_BRACE] = TokenType.L_BRACE
    opened: list[Token] = []
    for token in tokens:
        if token.token_type in pairs.values():
            opened.append(token)
        elif token.token_type in pairs:
            if not opened or opened[-1].token_type != pairs[token.token_type]:
                return None, token
            opened.pop()
    return (opened[-1] if opened else None), None


def _ends_early(tokens: Sequence[Token], at: int, trial: Trial | None) -> bool:
    """Whether more text is wanted: parsers then point at the last token, or behind it."""
    if at < len(tokens) - 1:
        return False
    if trial is None:
        return True
    found = trial.fails_at(trial.text + " x")
    return found == -1 or (found is not None and found > tokens[-1].start - tokens[0].start)


def _hint(tokens: Sequence[Token], at: int, trial: Trial, *, early: bool) -> str | None:
    """What mends the text at token `at`, or near it."""
    start = tokens[0].start
    failed = tokens[at].start - start

    def tried(token: Token, instead: str, *, whole: bool = False) -> bool:
        found = trial.fails_at(trial.text[: token.start - start] + instead + trial.text[token.end + 1 - start :])
        moved = len(instead) - (token.end - token.start + 1)
        return found == -1 or (not whole and found is not None and found > failed + max(moved, 0))

    here = tokens[at]
    original = trial.text[here.start - start : here.end + 1 - start]
    if at > 0 and is_name(before := tokens[at - 1]) and before.token_type != TokenType.IDENTIFIER:
        # Quotes change nothing but for a word that the engine took as its own, as AT of AT TIME ZONE.
        written = trial.text[before.start - start : before.end + 1 - start]
        if tried(before, f'"{written}"', whole=True):
            return f'{written} is a word of SQL; as a name it goes in double quotes: "{written}"'
    for near in range(at, max(-1, at - 4), -1):
        token = tokens[near]
        if not is_name(token) or token.token_type == TokenType.IDENTIFIER:
            continue
        written = word(token)
        for keyword in get_close_matches(written, KEYWORDS, n=3, cutoff=0.65):
            if keyword != written and tried(token, keyword):
                return f'did you mean "{keyword}"?'
    if at > 0 and word(tokens[at - 1]) in {"GROUP", "ORDER", "PARTITION"} and tried(here, f"BY {original}"):
        return f"write {word(tokens[at - 1])} BY"
    if early:
        return None
    if original.lower() in RESERVED and tried(here, f'"{original}"', whole=True):
        return f'{original} is a reserved word; as a name it goes in double quotes: "{original}"'
    if at > 0 and tried(here, f", {original}", whole=True):
        return f'is a comma missing before "{original}"?'
    return None
