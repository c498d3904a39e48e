"""Every error that Velaria raises: one root, five classes by what the caller does next, dotted codes.

A code is stable and says where to look it up; the class says what helps. Front ends map classes to exit codes
or statuses through `EXIT_CODES` and tables like it, never by text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where an error is: a span of a SQL text, or a line of a file. Lines and columns count from 1."""

    text: str | None = None
    offset: int | None = None
    length: int = 1
    file: str | None = None
    line: int | None = None
    column: int | None = None

    @staticmethod
    def in_text(text: str, offset: int, length: int = 1) -> Place:
        """A span of `text` that starts `offset` characters in."""
        offset = min(max(offset, 0), len(text))
        before = text[:offset]
        line = before.count("\n") + 1
        return Place(text, offset, max(length, 1), None, line, offset - (before.rfind("\n") + 1) + 1)

    def render(self) -> str:
        """`line 1, column 8: SELECT pricee FROM orders` and a caret line below, or `file.csv, line 3`."""
        if self.text is None or self.line is None or self.column is None:
            parts = [self.file, f"line {self.line}" if self.line else None]
            parts += [f"column {self.column}" if self.column else None]
            return ", ".join(part for part in parts if part)
        lines = self.text.splitlines() or [""]
        shown = lines[min(self.line, len(lines)) - 1]
        # A long line is cut around the place, so that the caret stays in sight.
        start = max(0, self.column - 1 - 60)
        window = shown[start : start + 110]
        lead = f"line {self.line}, column {self.column}: " + ("..." if start else "")
        head = shown[start : self.column - 1]
        carets = "^" * max(1, min(self.length, len(shown) - self.column + 1))
        return f"{lead}{window}\n  {' ' * (len(lead) + display_width(head))}{carets}"


def display_width(text: str) -> int:
    """Columns that `text` takes in a terminal: wide East Asian characters take two, marks and joiners none."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(0 if category(ch) in ("Mn", "Me", "Cf") else 2 if east_asian_width(ch) in "WF" else 1 for ch in text)


class VelariaError(Exception):
    """The root. `code` is dotted and stable, `hint` says what to try, `place` where it is.

    `cause` keeps the exception of an engine or library that led here.
    """

    retryable = False

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        place: Place | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.place = place
        self.__cause__ = cause

    @property
    def cause(self) -> BaseException | None:
        return self.__cause__

    def __str__(self) -> str:
        text = f"{type(self).__name__}[{self.code}]: {self.message}"
        if self.place is not None and (where := self.place.render()):
            text += f"\n  {where}"
        if self.hint:
            text += f"\n  hint: {self.hint}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """The error as plain values, for JSON: class, code, hint, and the place where it is known.

        `column` counts characters, `column_utf8` bytes, `column_utf16` the units of editors and browsers; from 1.
        """
        place = self.place
        told: dict[str, Any] = {
            "error": self.message,
            "error_type": type(self).__name__,
            "code": self.code,
            "hint": self.hint,
            "file": place.file if place else None,
            "line": place.line if place else None,
            "column": place.column if place else None,
            "column_utf8": None,
            "column_utf16": None,
            "byte_offset": None,
        }
        if place is not None and place.text is not None and place.offset is not None and place.column is not None:
            before = place.text[: place.offset]
            on_line = before[len(before) - (place.column - 1) :]
            told["column_utf8"] = len(on_line.encode()) + 1
            told["column_utf16"] = len(on_line.encode("utf-16-le")) // 2 + 1
            told["byte_offset"] = len(before.encode())
        return told


class InputError(VelariaError):
    """The query, call or option is wrong: mend it and try again."""


class SqlSyntaxError(InputError):
    """The text is not SQL that Velaria can read."""


class SqlSemanticError(InputError):
    """The SQL reads well and means nothing: unknown names, types that clash, misplaced aggregates."""


class SqlUnsupportedError(InputError):
    """The SQL is valid and this engine does not run it."""


class TableKindError(InputError):
    """A source is written to, or a sink read from."""


class CatalogNotFoundError(InputError):
    """No table, view, source or sink has this name."""


class DataError(VelariaError):
    """A row, a value or a file is wrong: mend the data, or choose an `on_error` mode."""


class ExternalError(VelariaError):
    """Something outside failed: a disk, a network, a permission. Retry where `retryable`."""

    def __init__(self, code: str, message: str, *, retryable: bool = False, **rest: Any) -> None:
        super().__init__(code, message, **rest)
        self.retryable = retryable


class QueryCancelled(ExternalError):
    """The query was cancelled, or ran past its timeout."""


class StateError(VelariaError):
    """Stored state does not fit: restore another checkpoint or reset it."""


class InternalError(VelariaError):
    """A bug of Velaria: please report it."""


# What a process answers with: 1 for work that failed, 2 for a call that was wrong.
EXIT_CODES: tuple[tuple[type[VelariaError], int], ...] = (
    (InputError, 2),
    (VelariaError, 1),
)


def exit_code(error: VelariaError) -> int:
    """The exit code of a process that ends with `error`."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def did_you_mean(name: str, known: Iterable[str], noun: str) -> str | None:
    """A hint for an unknown name: the nearest known one, then what there is (at most a dozen)."""
    names = list(dict.fromkeys(known))
    folded = {candidate.lower(): candidate for candidate in reversed(names)}
    near = get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    listed = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    parts = [f'did you mean "{folded[near[0]]}"?'] if near else []
    parts += [f"{noun}: {listed}"] if names else [f"there are no {noun}"]
    return " ".join(parts)
