"""Nexmark's events: people who join an auction house, auctions that they open, bids that they make.

The shape is that of the benchmark (Tucker et al., NEXMark, 2008, and the generator of Apache Beam): of fifty events one
is a person, three are auctions and the rest are bids; half of the bids go to one auction in a hundred, three quarters
of bids and auctions are of one person in a hundred; a bid may be for an auction that is about to open. The columns that
only fill space are left out.

Every value is a function of seed, event number and column alone, so any range of events can be made by itself, and the
same way in any chunks. Columns are computed whole: about a million events a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

NAMES: Final = ("person", "auction", "bid")
FIRST_ID: Final = 1000
FIRST_US: Final = 1_700_000_000_000_000  # event 0, microseconds since 1970
EPOCH: Final = 50  # events of which one is a person and three are auctions
AUCTIONS: Final = 3
IN_FLIGHT: Final = 100  # auctions that are open at a time
ACTIVE: Final = 1000  # people who bid at a time
LEAD: Final = 10  # how far ahead of the newest a bid may be
HOT: Final = 100  # one in so many is hot

_TIME = pa.timestamp("us")
PERSON: Final = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("email", pa.string()),
        ("city", pa.string()),
        ("state", pa.string()),
        ("date_time", _TIME),
    ]
)
AUCTION: Final = pa.schema(
    [
        ("id", pa.int64()),
        ("item_name", pa.string()),
        ("initial_bid", pa.int64()),
        ("reserve", pa.int64()),
        ("date_time", _TIME),
        ("expires", _TIME),
        ("seller", pa.int64()),
        ("category", pa.int64()),
    ]
)
BID: Final = pa.schema(
    [
        ("auction", pa.int64()),
        ("bidder", pa.int64()),
        ("price", pa.int64()),
        ("channel", pa.string()),
        ("url", pa.string()),
        ("date_time", _TIME),
    ]
)
SCHEMAS: Final = {"person": PERSON, "auction": AUCTION, "bid": BID}

_FIRST = ("Ada", "Blaise", "Carl", "Dana", "Emmy", "Felix", "Grace", "Hedy", "Ivan", "Julia", "Kurt")
_LAST = ("Abel", "Bose", "Curie", "Dirac", "Euler", "Fermi", "Gauss", "Hopf", "Ito")
_PLACES = (
    ("Phoenix", "AZ"),
    ("Los Angeles", "CA"),
    ("San Francisco", "CA"),
    ("Boise", "ID"),
    ("Portland", "OR"),
    ("Bend", "OR"),
    ("Redmond", "WA"),
    ("Seattle", "WA"),
    ("Kent", "WA"),
    ("Cheyenne", "WY"),
)
_CHANNELS = ("Google", "Facebook", "Baidu", "Apple", *(f"channel-{number}" for number in range(1000)))


@dataclass(frozen=True, slots=True)
class Nexmark:
    """A stream of events.

    Attributes:
        seed: another one gives other events.
        interval_us: time between two events.
        disorder_us: how far the time of an event may be behind that of its place.
    """

    seed: int = 1
    interval_us: int = 100
    disorder_us: int = 0

    def events(self, first: int, count: int, kinds: Sequence[str] = NAMES) -> dict[str, pa.Table]:
        """The events `first` up to `first + count`, by kind, each in the order in which they come."""
        numbers = np.arange(first, first + count, dtype=np.int64)
        place = numbers % EPOCH
        makers = {
            "person": (self._people, place == 0),
            "auction": (self._auctions, (place >= 1) & (place <= AUCTIONS)),
            "bid": (self._bids, place > AUCTIONS),
        }
        return {kind: makers[kind][0](numbers[makers[kind][1]]) for kind in kinds}

    def _people(self, numbers: Ints) -> pa.Table:
        place = self._below(numbers, 1, len(_PLACES))
        first, last = self._below(numbers, 2, len(_FIRST)), self._below(numbers, 3, len(_LAST))
        name = first * len(_LAST) + last
        names = [f"{one} {other}" for one in _FIRST for other in _LAST]
        emails = [f"{text.lower().replace(' ', '.')}@mail.example" for text in names]
        columns = [
            FIRST_ID + _last_person(numbers),
            _texts(names, name),
            _texts(emails, name),
            _texts([city for city, _ in _PLACES], place),
            _texts([state for _, state in _PLACES], place),
            self._times(numbers),
        ]
        return _table(columns, PERSON)

    def _auctions(self, numbers: Ints) -> pa.Table:
        times = self._times(numbers)
        initial = self._prices(numbers, 4)
        people = _last_person(numbers)
        hot = self._below(numbers, 5, 4) > 0
        some = self._near(numbers, 6, people, ACTIVE)
        open_us = 2 * IN_FLIGHT * EPOCH // AUCTIONS * self.interval_us
        columns = [
            FIRST_ID + _last_auction(numbers),
            _texts([f"item {number}" for number in range(1000)], self._below(numbers, 7, 1000)),
            initial,
            initial + self._prices(numbers, 8),
            times,
            times + 1 + self._below(numbers, 9, max(open_us, 1)),
            FIRST_ID + np.where(hot, people // HOT * HOT, some),
            10 + self._below(numbers, 10, 5),
        ]
        return _table(columns, AUCTION)

    def _bids(self, numbers: Ints) -> pa.Table:
        auctions, people = _last_auction(numbers), _last_person(numbers)
        hot_auction = self._below(numbers, 11, 2) > 0
        hot_bidder = self._below(numbers, 12, 4) > 0
        channel = self._below(numbers, 13, 8)
        channel = np.where(channel < 4, channel, 4 + self._below(numbers, 14, len(_CHANNELS) - 4))
        urls = [f"https://auctions.example/{text.lower()}/item.htm?query=1" for text in _CHANNELS]
        columns = [
            FIRST_ID + np.where(hot_auction, auctions // HOT * HOT, self._near(numbers, 15, auctions, IN_FLIGHT)),
            FIRST_ID + np.where(hot_bidder, people // HOT * HOT + 1, self._near(numbers, 16, people, ACTIVE)),
            self._prices(numbers, 17),
            _texts(_CHANNELS, channel),
            _texts(urls, channel),
            self._times(numbers),
        ]
        return _table(columns, BID)

    # --- values of a column, from the event numbers

    def _times(self, numbers: Ints) -> Ints:
        times = FIRST_US + numbers * self.interval_us
        return times - self._below(numbers, 18, self.disorder_us + 1)

    def _prices(self, numbers: Ints, column: int) -> Ints:
        """Cents, from 100 to 100 million, each power of ten as often."""
        part = self._random(numbers, column).astype(np.float64) / 2.0**64
        return np.round(10.0 ** (6 * part) * 100).astype(np.int64)

    def _near(self, numbers: Ints, column: int, last: Ints, width: int) -> Ints:
        """One of the newest `width`, or of those that are about to come."""
        least = np.maximum(last - width + 1, 0)
        return least + self._below(numbers, column, last - least + 1 + LEAD)

    def _below(self, numbers: Ints, column: int, bound: int | Ints) -> Ints:
        return (self._random(numbers, column) % np.asarray(bound, np.uint64)).astype(np.int64)

    def _random(self, numbers: Ints, column: int) -> Words:
        """64 bits for each event (Steele et al., SplitMix, OOPSLA 2014)."""
        start = np.uint64((self.seed * 0x9E3779B97F4A7C15 + column * 0xD1B54A32D192ED03) % 2**64)
        word = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + start
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))


def _last_person(numbers: Ints) -> Ints:
    """The newest person at each event, counted from 0."""
    return numbers // EPOCH


def _last_auction(numbers: Ints) -> Ints:
    """The newest auction at each event, counted from 0; before the first it is that one."""
    opened = np.minimum(numbers % EPOCH, AUCTIONS)
    return np.maximum(numbers // EPOCH * AUCTIONS + opened - 1, 0)


def _texts(values: Sequence[str], which: Ints) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(which))


def _table(columns: Sequence[Ints | pa.Array], schema: pa.Schema) -> pa.Table:
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column).cast(field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
