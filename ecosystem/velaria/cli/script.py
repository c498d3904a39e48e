"""A script: statements that prepare, and a last one that is the query."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    """A text in two parts.

    Attributes:
        before: all statements but the last; empty where there is one.
        last: the last, in its place: what stands before it is blank, so that an error in it knows its line and column.
        is_insert: whether the last is an INSERT.
    """

    before: str
    last: str
    is_insert: bool

    @staticmethod
    def of(text: str) -> Script:
        """Cut a text before its last statement."""
        from velaria_core.logical.sql.tokens import tokenize

        start = first = None
        for token in tokenize(text):
            if token.token_type.name == "SEMICOLON":
                start = None
            elif start is None:
                start, first = token.start, token
        # After a last semicolon nothing may stand: then the statement before it is the last.
        begin = 0 if first is None else first.start
        blank = re.sub(r"[^\n]", " ", text[:begin])
        before = text[:begin].strip()
        return Script(before, blank + text[begin:], first is not None and first.text.upper() == "INSERT")
