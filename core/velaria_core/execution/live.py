"""The live view: a running query on a terminal, in lines for a pipe, or as JSON for a program.

A `View` is fed with progress and draws itself as lines of text; it knows no terminal. A `Watcher` feeds it and writes:
it redraws in place on a terminal, and appends a line elsewhere. Everything shown is from the contract's messages.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TextIO

from velaria_core.contract.codec import PlanNode, Progress, StreamExplain
from velaria_core.contract.modes import QueryStatus
from velaria_core.errors import InputError, did_you_mean, display_width
from velaria_core.execution.clock import SYSTEM_CLOCK, Clock
from velaria_core.execution.moments import INFINITY, in_seconds
from velaria_core.execution.show import escaped

if TYPE_CHECKING:
    from velaria_core.execution.runtime import StreamingQuery

_SAMPLES: Final = 24
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_BAR_WIDTH: Final = 24
_NODES_SHOWN: Final = 6
_LABEL_WIDTH: Final = 11
_WIDTH_UNKNOWN: Final = 80
# Up to where the screen is cleared before it is drawn anew.
_UP_AND_CLEAR: Final = "\x1b[{lines}F\x1b[J"
_COLOURS: Final = {
    QueryStatus.RUNNING: "\x1b[32m",
    QueryStatus.BACKPRESSURE: "\x1b[33m",
    QueryStatus.FAILED: "\x1b[31m",
}
_PLAIN: Final = "\x1b[0m"


class Form(StrEnum):
    """How a query is watched."""

    LIVE = "live"  # a few lines that are drawn anew in place
    LINES = "lines"  # a line now and then
    JSON = "json"  # the contract's progress, an object a line


class View:
    """What is shown of one query.

    Args:
        now_ms: the clock's ticks as watching begins.
    """

    def __init__(self, progress: Progress, now_ms: float) -> None:
        self._began_ms = self._at_ms = now_ms
        self._progress = progress
        self._nodes: tuple[tuple[str, float], ...] = ()
        self._rates: deque[float] = deque(maxlen=_SAMPLES)

    @property
    def progress(self) -> Progress:
        """The last that it was given."""
        return self._progress

    def take(self, progress: Progress, now_ms: float, explain: StreamExplain | None = None) -> None:
        """Progress as of `now_ms`; `explain`, measured, tells where the time goes."""
        if now_ms > self._at_ms:
            self._rates.append(max(0, progress.rows_in - self._progress.rows_in) * 1000 / (now_ms - self._at_ms))
        self._progress, self._at_ms = progress, now_ms
        if explain is not None:
            self._nodes = shares(explain)

    def lines(self, width: int, wall_ms: int, *, coloured: bool = False) -> list[str]:
        """A picture of the query, cut to `width` columns.

        Args:
            wall_ms: the clock's `now_ms`, which the watermark is held against.
        """
        told = self._progress
        elapsed = duration((self._at_ms - self._began_ms) / 1000)
        rate = self._rates[-1] if self._rates else told.rows_per_second
        rows = [
            ("rows in", f"{told.rows_in:,}   {rate:,.0f}/s  {sparkline(self._rates)}"),
            ("rows out", f"{told.rows_out:,}"),
            ("epoch", f"{told.epoch:,}   {self._latency()}"),
            ("watermark", self._watermark(wall_ms)),
            ("late", self._late()),
            ("state", f"{told.state_rows:,} rows   {size(told.state_bytes)}"),
            ("in flight", self._in_flight()),
        ]
        lines = [_cut(f"{told.query_id}  {told.status}  {elapsed}  {told.delivery_guarantee.held}", width)]
        if coloured and (colour := _COLOURS.get(told.status)):
            lines[0] = lines[0].replace(told.status, f"{colour}{told.status}{_PLAIN}", 1)
        lines += [_cut(f"  {label:<{_LABEL_WIDTH}}{text}".rstrip(), width) for label, text in rows]
        lines += [_cut(f"  {line}", width) for line in self._shares()]
        if told.error is not None:
            lines.append(_cut(f"  {escaped(told.error)}", width))
        return lines

    def line(self, wall_ms: int) -> str:
        """The same in one line of `name=value`."""
        told = self._progress
        rate = self._rates[-1] if self._rates else told.rows_per_second
        parts = {
            "status": told.status,
            "epoch": told.epoch,
            "rows": told.rows_in,
            "rows_per_second": f"{rate:.0f}",
            "rows_out": told.rows_out,
            "latency_ms": f"{told.last_batch_latency_ms:.1f}",
            "watermark": told.watermark,
            "lag_s": None if (lag := _lag_s(told.watermark, wall_ms)) is None else f"{lag:.1f}",
            "late_rows": told.late_rows,
            "ahead_rows": told.ahead_rows,
            "state_rows": told.state_rows,
            "state_bytes": told.state_bytes,
            "inflight_batches": told.inflight_batches,
            "blocked_count": told.blocked_count,
            "error": None if told.error is None else escaped(told.error),
        }
        return " ".join([told.query_id, *(f"{name}={value}" for name, value in parts.items() if value is not None)])

    def _latency(self) -> str:
        told = self._progress
        parts = f"sink {told.last_sink_latency_ms:.1f}, state {told.last_state_latency_ms:.1f}"
        return f"{told.last_batch_latency_ms:.1f} ms   ({parts})" if told.epoch else ""

    def _watermark(self, wall_ms: int) -> str:
        watermark = self._progress.watermark
        if watermark is None:
            return "-"
        if watermark == INFINITY:
            return "the end: all is closed"
        lag = _lag_s(watermark, wall_ms)
        assert lag is not None
        side = "behind" if lag >= 0 else "ahead of"
        return f"{watermark.replace('T', ' ').removesuffix('Z')}   {duration(abs(lag))} {side} the clock"

    def _late(self) -> str:
        told = self._progress
        return f"{told.late_rows:,} rows   {told.late_dropped_rows:,} dropped   {told.ahead_rows:,} set aside"

    def _in_flight(self) -> str:
        told = self._progress
        blocked = f"blocked {told.blocked_count:,} time{'s' if told.blocked_count != 1 else ''}"
        if told.backpressure_active:
            blocked = f"backpressure, {blocked}"
        batches = f"{told.inflight_batches:,} batch{'es' if told.inflight_batches != 1 else ''}"
        return f"{batches}, the queue holds {told.backpressure_max_queue_batches:,}   {blocked}"

    def _shares(self) -> Iterable[str]:
        whole = sum(time_ms for _, time_ms in self._nodes)
        if not whole:
            return
        largest = sorted(self._nodes, key=lambda node: -node[1])[:_NODES_SHOWN]
        width = max(display_width(label) for label, _ in largest)
        for label, time_ms in largest:
            share = time_ms / whole
            bar = "█" * round(share * _BAR_WIDTH)
            yield f"{label}{' ' * (width - display_width(label))}  {bar:<{_BAR_WIDTH}} {share:4.0%}"


def shares(explain: StreamExplain) -> tuple[tuple[str, float], ...]:
    """Where the time of the last epochs went: (`#3 Aggregate`, milliseconds), but for nodes that run in another."""
    nodes = [(_name(node), node.time_ms) for node in explain.physical.nodes if node.time_ms is not None]
    return (*nodes, ("commit", explain.physical.state_ms or 0.0))


def _name(node: PlanNode) -> str:
    return f"#{node.id} {node.operator}"


def _lag_s(watermark: str | None, wall_ms: int) -> float | None:
    if watermark is None or watermark == INFINITY:
        return None
    return wall_ms / 1000 - in_seconds(watermark)


def _cut(line: str, width: int) -> str:
    """A line that does not wrap: the last column stays empty."""
    if display_width(line) < width:
        return line
    while line and display_width(line) > width - 2:
        line = line[:-1]
    return line + "…"


def sparkline(values: Sequence[float]) -> str:
    """`▁▄█`: each value as a block, the largest the highest; nothing for none."""
    top = max(values, default=0.0)
    if not top:
        return _BLOCKS[0] * len(values)
    return "".join(_BLOCKS[round(value / top * (len(_BLOCKS) - 1))] for value in values)


def size(nbytes: int) -> str:
    """`512 B`, `1.2 MB`."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """`3.2 s`, `5 min 20 s`, `2 h 5 min`, `12 d 3 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    large, small, names = next(step for below, step in _DURATIONS if seconds < below)
    return f"{int(seconds // large):,} {names[0]} {int(seconds % large // small)} {names[1]}"


# Below so many seconds: seconds of the large unit and of the small one, and their names.
_DURATIONS: Final = (
    (3_600, (60, 1, ("min", "s"))),
    (86_400, (3_600, 60, ("h", "min"))),
    (math.inf, (86_400, 3_600, ("d", "h"))),
)


# --- watching -----------------------------------------------------------------------------------------------


def watching_form(text: str | None) -> Form | None:
    """A form by its name; None stands for what fits.

    Raises:
        InputError[watch.form]: there is no such form.
    """
    try:
        return None if text is None else Form(text)
    except ValueError:
        hint = did_you_mean(text or "", [str(form) for form in Form], "forms")
        raise InputError("watch.form", f'a query is not watched as "{text}"', hint=hint) from None


def fitting_form(stream: TextIO) -> Form:
    """`live` on a terminal that can, `lines` elsewhere."""
    return Form.LIVE if stream.isatty() and os.environ.get("TERM") != "dumb" else Form.LINES


class Watcher:
    """Shows one query on one stream.

    Args:
        form: by default what fits the stream.
        stream: stderr by default.
    """

    def __init__(
        self,
        query: StreamingQuery,
        form: Form | None = None,
        stream: TextIO | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._query, self._clock = query, clock
        self._stream = sys.stderr if stream is None else stream
        self._form = fitting_form(self._stream) if form is None else form
        self._coloured = self._form is Form.LIVE and not os.environ.get("NO_COLOR")
        self._view = View(query.current(), clock.ticks_ms())
        self._drawn_lines = 0
        self._shown: Progress | None = None

    def run(self, every_s: float) -> None:
        """Show the query until it has stopped, and once more then or when something interrupts.

        Raises:
            VelariaError: what the query failed with.
        """
        try:
            while not self._query.await_termination(every_s):
                self.show()
        finally:
            self.show()

    def show(self) -> None:
        """Show where the query is now; in lines or JSON only what has changed."""
        live = self._form is Form.LIVE
        measured = self._query.explanation(analyze=True) if live else None
        self._view.take(self._query.current(), self._clock.ticks_ms(), measured)
        if live or self._view.progress != self._shown:
            self._shown = self._view.progress
            self._stream.write(self._picture() if live else self._line())
            self._stream.flush()

    def _picture(self) -> str:
        screen = shutil.get_terminal_size((_WIDTH_UNKNOWN, 24))
        lines = self._view.lines(screen.columns, self._clock.now_ms(), coloured=self._coloured)
        lines = lines[: max(1, screen.lines - 1)]
        before, self._drawn_lines = self._drawn_lines, len(lines)
        return (_UP_AND_CLEAR.format(lines=before) if before else "") + "\n".join(lines) + "\n"

    def _line(self) -> str:
        if self._form is Form.JSON:
            return self._view.progress.to_json() + "\n"
        return self._view.line(self._clock.now_ms()) + "\n"
