"""Progress in Prometheus' text format (version 0.0.4): one table says what is exported and how it is named.

Names are `velaria_<thing>_<unit>`, with `_total` for what only grows; the one label is the query. Durations are seconds
and moments seconds since 1970, which are the format's base units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from velaria_core.contract.codec import Progress
from velaria_core.contract.modes import QueryStatus
from velaria_core.execution.moments import in_seconds

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_COUNTER, _GAUGE = "counter", "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a query: its name, how it moves, what it means, and where it is; None leaves the sample out."""

    name: str
    kind: str
    help: str
    value: Callable[[Progress], float | None]


def _seconds(moment: str | None) -> float | None:
    return None if moment is None else in_seconds(moment)


_RUNNING: Final = frozenset({QueryStatus.RUNNING, QueryStatus.BACKPRESSURE})

METRICS: Final[tuple[Metric, ...]] = (
    Metric("velaria_query_running", _GAUGE, "1 while the query runs.", lambda p: p.status in _RUNNING),
    Metric("velaria_query_failed", _GAUGE, "1 once the query has failed.", lambda p: p.status is QueryStatus.FAILED),
    Metric("velaria_epochs_total", _COUNTER, "Committed epochs.", lambda p: p.epoch),
    Metric("velaria_source_rows_total", _COUNTER, "Source rows of committed epochs.", lambda p: p.rows_in),
    Metric("velaria_source_bytes_total", _COUNTER, "Their size in memory.", lambda p: p.bytes_in),
    Metric("velaria_sink_rows_total", _COUNTER, "Rows given to the sink.", lambda p: p.rows_out),
    Metric("velaria_source_rows_per_second", _GAUGE, "Source rows of the last epochs.", lambda p: p.rows_per_second),
    Metric("velaria_pulled_batches_total", _COUNTER, "Batches taken from the sources.", lambda p: p.batches_pulled),
    Metric("velaria_processed_batches_total", _COUNTER, "Batches committed.", lambda p: p.batches_processed),
    Metric("velaria_inflight_batches", _GAUGE, "Batches pulled and not committed.", lambda p: p.inflight_batches),
    Metric("velaria_inflight_partitions", _GAUGE, "Parts held by workers.", lambda p: p.inflight_partitions),
    Metric("velaria_backlog_max_batches", _GAUGE, "Most batches that waited.", lambda p: p.max_backlog_batches),
    Metric("velaria_backpressure_active", _GAUGE, "1 while pulling is stopped.", lambda p: p.backpressure_active),
    Metric("velaria_backpressure_blocks_total", _COUNTER, "Times it was stopped.", lambda p: p.blocked_count),
    Metric("velaria_epoch_seconds", _GAUGE, "The last epoch.", lambda p: p.last_batch_latency_ms / 1000),
    Metric("velaria_epoch_sink_seconds", _GAUGE, "Of it, in the sink.", lambda p: p.last_sink_latency_ms / 1000),
    Metric("velaria_epoch_state_seconds", _GAUGE, "Of it, in state.", lambda p: p.last_state_latency_ms / 1000),
    Metric("velaria_epoch_end_timestamp_seconds", _GAUGE, "When it ended.", lambda p: _seconds(p.finished_at)),
    Metric("velaria_watermark_timestamp_seconds", _GAUGE, "The watermark.", lambda p: _seconds(p.watermark)),
    Metric("velaria_late_rows_total", _COUNTER, "Rows behind the watermark.", lambda p: p.late_rows),
    Metric("velaria_late_dropped_rows_total", _COUNTER, "Of these, in no result.", lambda p: p.late_dropped_rows),
    Metric("velaria_ahead_rows_total", _COUNTER, "Rows dated far ahead and set aside.", lambda p: p.ahead_rows),
    Metric("velaria_state_rows", _GAUGE, "Rows kept between epochs.", lambda p: p.state_rows),
    Metric("velaria_state_bytes", _GAUGE, "Their size.", lambda p: p.state_bytes),
    Metric("velaria_retried_epochs_total", _COUNTER, "Epochs run again after a failure.", lambda p: p.retried_count),
    Metric("velaria_dead_letter_rows_total", _COUNTER, "Rows set aside by policy.", lambda p: p.dead_letter_rows),
    Metric("velaria_listener_errors_total", _COUNTER, "Exceptions of listeners.", lambda p: p.listener_errors),
)


def exposition(queries: Iterable[Progress]) -> str:
    """The metrics of some queries, each metric with its samples together, as the format wants it."""
    known = tuple(queries)
    lines: list[str] = []
    for metric in METRICS:
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        for progress in known:
            if (value := metric.value(progress)) is not None:
                lines.append(f'{metric.name}{{query="{escaped(progress.query_id)}"}} {_number(value)}')
    return "".join(line + "\n" for line in lines)


def escaped(label: str) -> str:
    """The value of a label between its quotes."""
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
