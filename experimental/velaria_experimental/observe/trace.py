"""Traces: the spans of a job as a Chrome trace file (chrome://tracing, Perfetto), and as OpenTelemetry spans.

The file is JSON of the Trace Event Format: complete events ("X") in microseconds, a process for each node.
OpenTelemetry is used where its API is installed; where spans go is the business of the SDK and its OTEL_* variables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from time import time_ns
from typing import Any

from velaria_experimental.observe.spans import Span, now_us


def chrome_trace(spans: Sequence[Span]) -> dict[str, Any]:
    """The spans as a document of the Trace Event Format."""
    nodes = {node: at for at, node in enumerate(dict.fromkeys(span.node_id for span in spans), 1)}
    named = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": node}} for node, pid in nodes.items()
    ]
    events = [
        {
            "ph": "X",
            "name": span.stage,
            "cat": span.stage,
            "pid": nodes[span.node_id],
            "tid": 1,
            "ts": span.start_us,
            "dur": span.duration_us,
            "args": {"what": span.what, "bytes": span.nbytes},
        }
        for span in sorted(spans, key=lambda one: one.start_us)
    ]
    return {"traceEvents": [*named, *events], "displayTimeUnit": "ms"}


def write_chrome_trace(spans: Sequence[Span], path: str | os.PathLike[str]) -> None:
    """Write the document to a file."""
    with open(path, "w", encoding="utf-8") as out:
        json.dump(chrome_trace(spans), out)


def export_opentelemetry(spans: Sequence[Span], job_id: str) -> bool:
    """Give the spans to OpenTelemetry, below one for the job; False where its API is not installed."""
    if not spans or find_spec("opentelemetry") is None:
        return False
    trace = import_module("opentelemetry.trace")
    tracer = trace.get_tracer("velaria_experimental")
    boot_ns = time_ns() - now_us() * 1000
    first = min(span.start_us for span in spans)
    last = max(span.start_us + span.duration_us for span in spans)
    job = tracer.start_span(f"job {job_id}", start_time=boot_ns + first * 1000)
    context = trace.set_span_in_context(job)
    for span in spans:
        made = tracer.start_span(span.stage, context=context, start_time=boot_ns + span.start_us * 1000)
        made.set_attributes({"velaria.node": span.node_id, "velaria.what": span.what, "velaria.bytes": span.nbytes})
        made.end(end_time=boot_ns + (span.start_us + span.duration_us) * 1000)
    job.end(end_time=boot_ns + last * 1000)
    return True
