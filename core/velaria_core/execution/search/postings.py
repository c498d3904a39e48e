"""Postings: which documents hold a term, how often and where. One immutable part of a keyword index.

Documents are numbered from 0 in the order of their row ids. Terms are sorted by their UTF-8 bytes, so that those with
a prefix stand together. A term's postings are a slice of `documents` (rising) and of `times`; its occurrences, posting
by posting, are a slice of `places`. With F columns the n-th term of column f has place n * F + f: terms follow one
another in a text where their places differ by F.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from velaria_core.execution.duck import Engine
from velaria_core.execution.vectors import Array, Hashes, Mask, Rows, vector_of, whole
from velaria_core.logical.analyzers import Analyzer

_AFTER_ALL: Final = b"\xff"  # no UTF-8 text begins with it
_KEY_BITS: Final = 63
_PIECES_MIN: Final = 4000


@dataclass(frozen=True, slots=True)
class Counts:
    """The documents that hold something, n rising numbers, and how often each column of each does: n for a column."""

    documents: Array
    times: tuple[Array, ...]

    def take(self, at: Array | slice) -> Counts:
        """Those at some places, or where a mask is true."""
        return Counts(self.documents[at], tuple(times[at] for times in self.times))


@dataclass(frozen=True, slots=True)
class Postings:
    """n documents, t terms, p postings, o occurrences, F columns.

    Attributes:
        rows: (n,) int64, rising: the row ids.
        hashes: (n,) uint64: of what the rows held, as whoever added them counts it.
        lengths: F of (n,): how many terms each column of a document has.
        term_bytes, term_starts: the terms' UTF-8, and (t + 1,) int64 where each begins.
        starts: (t + 1,) int64, where each term's postings begin.
        documents: (p,) int32.
        times: F of (p,).
        place_starts: (t + 1,) int64, where each term's places begin.
        places: (o,).
    """

    rows: Rows
    hashes: Hashes
    lengths: tuple[Array, ...]
    term_bytes: npt.NDArray[np.uint8]
    term_starts: Rows
    starts: Rows
    documents: npt.NDArray[np.int32]
    times: tuple[Array, ...]
    place_starts: Rows
    places: Array
    _texts: memoryview = field(init=False, repr=False)
    _begins: memoryview = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Views of memory give Python's integers and bytes at a fifth of NumPy's cost.
        object.__setattr__(self, "_texts", self.term_bytes.data)
        object.__setattr__(self, "_begins", self.term_starts.data)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> int:
        """F."""
        return len(self.lengths)

    # --- looking up

    def _at(self, term: bytes) -> int:
        """How many terms sort before this one. 10 us for a million terms."""
        texts, begins = self._texts, self._begins
        return bisect_left(range(len(begins) - 1), term, key=lambda at: bytes(texts[begins[at] : begins[at + 1]]))

    def _number(self, term: str) -> int | None:
        key = term.encode()
        at = self._at(key)
        known = at < len(self._begins) - 1 and bytes(self._texts[self._begins[at] : self._begins[at + 1]]) == key
        return at if known else None

    def _slice(self, first: int, last: int) -> Counts:
        part = slice(int(self.starts[first]), int(self.starts[last]))
        return Counts(self.documents[part], tuple(times[part] for times in self.times))

    def term(self, term: str) -> Counts:
        """The documents with a term: slices, nothing is copied."""
        at = self._number(term)
        return self._slice(0, 0) if at is None else self._slice(at, at + 1)

    def prefix(self, prefix: str) -> Counts:
        """The documents with terms that begin so; what is counted is all of those terms."""
        key = prefix.encode()
        first, last = self._at(key), self._at(key + _AFTER_ALL)
        found = self._slice(first, last)
        if last - first < 2:
            return found
        documents, of = np.unique(found.documents, return_inverse=True)
        return Counts(
            documents, tuple(np.bincount(of, times, len(documents)).astype(np.int64) for times in found.times)
        )

    def phrase(self, terms: Sequence[str]) -> Counts:
        """The documents with these terms one after another in one column; how often they are so."""
        numbers = [self._number(term) for term in terms]
        known = [number for number in numbers if number is not None]
        if len(known) < len(numbers):
            return self._slice(0, 0)
        lists = [self._slice(number, number + 1).documents for number in known]
        common = min(lists, key=len)
        for documents in lists:
            common = common[within(common, documents)]
        starts: Rows | None = None
        for after, (number, documents) in enumerate(zip(known, lists, strict=True)):
            places, of = self._places(number, np.searchsorted(documents, common))
            # Where the phrase would begin, one number for each document and place; none is below zero.
            began = (of << 32) + places.astype(np.int64) + (len(terms) - after) * self.columns
            starts = began if starts is None else np.intersect1d(starts, began, assume_unique=True)
        assert starts is not None
        of, column = starts >> 32, (starts & 0xFFFFFFFF) % self.columns
        times = tuple(np.bincount(of[column == one], minlength=len(common)) for one in range(self.columns))
        return Counts(common, times).take(np.bincount(of, minlength=len(common)) > 0)

    def _places(self, term: int, postings: Array) -> tuple[Array, Rows]:
        """The places of a term in some of its postings, and of which posting each is."""
        part = slice(int(self.starts[term]), int(self.starts[term + 1]))
        counts = total(self.times, part)
        ends = np.cumsum(counts) + int(self.place_starts[term])
        taken = counts[postings]
        at = ragged(ends[postings] - taken, taken)
        return self.places[at], np.repeat(np.arange(len(postings)), taken)

    # --- as arrays of a file

    def arrays(self) -> dict[str, Array]:
        """All by name."""
        named: dict[str, Array] = {
            "rows": self.rows,
            "hashes": self.hashes,
            "term_bytes": self.term_bytes,
            "term_starts": self.term_starts,
            "starts": self.starts,
            "documents": self.documents,
            "place_starts": self.place_starts,
            "places": self.places,
        }
        for column in range(self.columns):
            named[f"lengths_{column}"] = self.lengths[column]
            named[f"times_{column}"] = self.times[column]
        return named

    @staticmethod
    def of_arrays(arrays: Mapping[str, Array], columns: int) -> Postings:
        """What `arrays` gave.

        Raises:
            KeyError: one is missing.
        """
        return Postings(
            arrays["rows"],
            arrays["hashes"],
            tuple(arrays[f"lengths_{column}"] for column in range(columns)),
            arrays["term_bytes"],
            arrays["term_starts"],
            arrays["starts"],
            arrays["documents"],
            tuple(arrays[f"times_{column}"] for column in range(columns)),
            arrays["place_starts"],
            arrays["places"],
        )


# --- making them --------------------------------------------------------------------------------------------------


def posted(
    engine: Engine, analyzer: Analyzer, rows: Rows, hashes: Hashes, columns: Sequence[pa.ChunkedArray]
) -> Postings:
    """The postings of some texts.

    Args:
        rows: (n,) int64, rising.
        hashes: (n,) of them.
        columns: F columns of n texts, string; NULL is a text without terms.
    Returns:
        Cost: about 3 us a document of 10 words on one core, and 60 bytes for each word while it works.
    """
    count, width = len(rows), len(columns)
    names, terms, lengths = _analysed(engine, analyzer, columns)
    order = vector_of(pc.sort_indices(names)).data
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    # Occurrences stand column by column, document by document.
    begins = np.cumsum(lengths) - lengths
    places = (np.arange(len(terms)) - np.repeat(begins, lengths)) * width
    places += np.repeat(np.repeat(np.arange(width), count), lengths)
    document = np.repeat(np.tile(np.arange(count), width), lengths)
    term, document, places = _sorted(rank[terms], document, places)
    firsts = _changes(term, document)
    term, document = term[firsts], document[firsts]
    starts = _starts(term, len(names))
    return Postings(
        rows,
        hashes,
        tuple(_narrow(lengths[column * count : (column + 1) * count]) for column in range(width)),
        *_term_arrays(names.take(pa.array(order))),
        starts,
        document.astype(np.int32),
        tuple(_narrow(_sums(places % width == column, firsts)) for column in range(width)),
        np.append(firsts, len(places))[starts],
        _narrow(places),
    )


def merged(parts: Sequence[tuple[Postings, Mask]]) -> Postings:
    """One of several: their documents where a mask is true, by row id.

    Returns:
        Cost: about 0.2 us a posting on one core.
    """
    width = parts[0][0].columns
    rows = np.concatenate([part.rows[kept] for part, kept in parts])
    by_row = np.argsort(rows)
    number = np.empty(len(rows), np.int64)
    number[by_row] = np.arange(len(rows))
    names = pa.chunked_array([_names(part) for part, _ in parts]).dictionary_encode().combine_chunks()
    order = vector_of(pc.sort_indices(names.dictionary)).data
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    known = rank[vector_of(names.indices).data]
    terms, documents, counts, places = [], [], [], []
    times: list[list[Array]] = [[] for _ in range(width)]
    first_term = first_document = 0
    for part, kept in parts:
        new = np.full(len(part), -1, np.int64)
        new[kept] = number[first_document : first_document + int(kept.sum())]
        first_document += int(kept.sum())
        document = new[part.documents]
        stay = document >= 0
        size = len(part.starts) - 1
        term = np.repeat(known[first_term : first_term + size], np.diff(part.starts))
        first_term += size
        occurrences = total(part.times, slice(None))
        terms.append(term[stay])
        documents.append(document[stay])
        counts.append(occurrences[stay])
        places.append(part.places[np.repeat(stay, occurrences)])
        for column in range(width):
            times[column].append(part.times[column][stay])
    term, document, count = np.concatenate(terms), np.concatenate(documents), np.concatenate(counts)
    by_term = np.argsort((term << 32) | document)
    term, document = term[by_term], document[by_term]
    begins = (np.cumsum(count) - count)[by_term]
    count = count[by_term]
    # Terms of documents that are gone are gone too.
    used = np.bincount(term, minlength=len(order)) > 0
    starts = _starts((np.cumsum(used) - 1)[term], int(used.sum()))
    return Postings(
        rows[by_row],
        np.concatenate([part.hashes[kept] for part, kept in parts])[by_row],
        tuple(
            _narrow(np.concatenate([part.lengths[column][kept] for part, kept in parts])[by_row])
            for column in range(width)
        ),
        *_term_arrays(names.dictionary.take(pa.array(order[used]))),
        starts,
        document.astype(np.int32),
        tuple(_narrow(np.concatenate(times[column])[by_term]) for column in range(width)),
        np.append(0, np.cumsum(count))[starts],
        np.concatenate(places)[ragged(begins, count)],
    )


def _analysed(engine: Engine, analyzer: Analyzer, columns: Sequence[pa.ChunkedArray]) -> tuple[pa.Array, Array, Array]:
    """The different terms of some texts; of each occurrence, in order, which it is; of each text, how many it has."""
    texts = whole(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()))
    # A space ends every run of every analyzer. So the pieces between spaces are analysed, and each that comes again
    # only once: a tenth of all and less, where texts are many.
    pieces = pc.split_pattern(texts.fill_null(""), " ")
    coded = pieces.flatten().dictionary_encode()
    cut = _cut(engine, analyzer, coded.dictionary)
    terms = cut.flatten().dictionary_encode()
    cuts = _offsets(cut)
    piece = vector_of(coded.indices).data
    sizes = np.diff(cuts)[piece]
    occurrences = vector_of(terms.indices).data[ragged(cuts[piece], sizes)]
    ends = np.append(0, np.cumsum(sizes))
    return terms.dictionary, occurrences, np.diff(ends[_offsets(pieces)])


def _cut(engine: Engine, analyzer: Analyzer, pieces: pa.Array) -> pa.Array:
    """The terms of each piece. The engine needs 20 ms to read what it is asked, and Python 5 us a piece."""
    if len(pieces) < _PIECES_MIN:
        return pa.array([analyzer.terms(piece) for piece in pieces.to_pylist()], pa.list_(pa.string()))
    table = pa.table({"piece": range(len(pieces)), "x": pieces})
    with engine.cursor({"pieces": table}) as cursor:
        return whole(cursor.table(f"SELECT {analyzer.sql('x')} AS terms FROM pieces ORDER BY piece").column(0))


def _offsets(lists: pa.Array) -> Rows:
    found = np.append(0, np.cumsum(vector_of(pc.list_value_length(lists)).data, dtype=np.int64))
    return found.astype(np.int64)


def _sorted(term: Rows, document: Rows, place: Rows) -> tuple[Rows, Rows, Rows]:
    """Occurrences by term, document and place. One number for all three sorts ten times as fast as they do."""
    sizes = [int(part.max(initial=0)).bit_length() for part in (term, document, place)]
    if sum(sizes) > _KEY_BITS:
        order = np.lexsort((place, document, term))
        return term[order], document[order], place[order]
    _, middle, low = sizes
    keys = (term << (middle + low)) | (document << low) | place
    keys.sort()
    return keys >> (middle + low), (keys >> low) & ((1 << middle) - 1), keys & ((1 << low) - 1)


def _changes(term: Rows, document: Rows) -> Rows:
    """Where a document or a term differs from the one before."""
    if not len(term):
        return np.empty(0, np.int64)
    return np.flatnonzero(np.append(True, (term[1:] != term[:-1]) | (document[1:] != document[:-1])))


def _sums(marks: Mask, firsts: Rows) -> Rows:
    """How many marks there are from each place to the next."""
    if not len(firsts):
        return firsts
    sums: Rows = np.add.reduceat(marks, firsts, dtype=np.int64)
    return sums


def _starts(numbers: Rows, count: int) -> Rows:
    """Where each of `count` rising numbers begins, and the end."""
    return np.append(0, np.cumsum(np.bincount(numbers, minlength=count))).astype(np.int64)


def _narrow(values: Array) -> Array:
    """Whole numbers in as few bytes as hold them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _term_arrays(names: pa.Array) -> tuple[npt.NDArray[np.uint8], Rows]:
    """The bytes of some texts, and where each begins."""
    count = len(names)
    _, starts, texts = pa.concat_arrays([names.cast(pa.large_string())]).buffers()
    begins = np.frombuffer(starts, np.int64)[: count + 1] if count else np.zeros(1, np.int64)
    return np.frombuffer(texts, np.uint8)[: begins[-1]] if begins[-1] else np.empty(0, np.uint8), begins


def _names(part: Postings) -> pa.Array:
    """The terms as an Arrow array."""
    buffers = [None, pa.py_buffer(part.term_starts), pa.py_buffer(part.term_bytes)]
    return pa.Array.from_buffers(pa.large_string(), len(part.term_starts) - 1, buffers)


# --- rising numbers -----------------------------------------------------------------------------------------------


def within(values: Array, others: Array) -> Mask:
    """Which of some rising numbers are among others, rising too."""
    if not len(values) or not len(others):
        return np.zeros(len(values), np.bool_)
    size = int(max(values[-1], others[-1])) + 1
    if len(values) * 16 < len(others) + size // 16:
        at = np.searchsorted(others, values)
        at[at == len(others)] = 0
        found: Mask = others[at] == values
        return found
    known = np.zeros(size, np.bool_)
    known[others] = True
    return known[values]


def ragged(starts: Array, counts: Array) -> Rows:
    """The numbers `starts[i], starts[i] + 1, ...`, `counts[i]` of them, one i after another."""
    counts = counts.astype(np.int64)
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)


def total(times: Sequence[Array], part: slice) -> Rows:
    """How often all columns together hold something."""
    found = times[0][part].astype(np.int64)
    for more in times[1:]:
        found += more[part]
    return found
