"""Where a user wrote what the engine complains about.

The engine's positions count in the lowered query, which no user has seen. The words at that position are looked for in
the text the user wrote; found, the error points there, and otherwise nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from velaria_core.errors import Place, VelariaError

_WORD = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\w+(?:\.\d+)?|[^\w\s]")
_ALIAS = re.compile(r"t\d+\Z")


@contextmanager
def pointing_into(text: str | None) -> Iterator[None]:
    """Errors inside whose place is in another text point into `text` instead, or have no place."""
    try:
        yield
    except VelariaError as error:
        place = error.place
        if place is not None and place.text is not None and place.text != text:
            error.place = relocated(place, text) if text is not None else None
        raise


def relocated(place: Place, text: str) -> Place | None:
    """The place in `text` of the words that `place` marks in a lowered query; None where they are not there."""
    if place.text is None or place.offset is None:
        return None
    end = place.offset + place.length
    marked = [word for word, start, _ in _words(place.text) if place.offset <= start < end]
    words = _words(text)
    for at in range(len(words) - len(marked) + 1):
        if marked and [word for word, _, _ in words[at : at + len(marked)]] == marked:
            start, stop = words[at][1], words[at + len(marked) - 1][2]
            return Place.in_text(text, start, stop - start)
    return None


def _words(text: str) -> list[tuple[str, int, int]]:
    """(word, start, end), without case, quotes of names, and the table aliases that lowering adds."""
    found = [(m[0].strip('"').lower(), m.start(), m.end()) for m in _WORD.finditer(text)]
    kept = []
    for at, word in enumerate(found):
        following = found[at + 1][0] if at + 1 < len(found) else ""
        previous = found[at - 1][0] if at else ""
        if (_ALIAS.match(word[0]) and following == ".") or (word[0] == "." and _ALIAS.match(previous)):
            continue
        kept.append(word)
    return kept
