"""Traces: a Chrome trace that lines up, and OpenTelemetry spans where it is installed."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from velaria_experimental.observe.dashboard import dashboard
from velaria_experimental.observe.spans import Span, Stage, totals_us
from velaria_experimental.observe.trace import export_opentelemetry, write_chrome_trace

SPANS = (
    Span(Stage.COMPUTE, "worker-1", "j/c0/0", 2_000, 500, 0),
    Span(Stage.SPLIT, "client-1", "j", 1_000, 300, 64),
    Span(Stage.COMPUTE, "worker-2", "j/c0/1", 2_100, 700, 0),
)


def test_a_chrome_trace(tmp_path: Path) -> None:
    write_chrome_trace(SPANS, tmp_path / "trace.json")
    told = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {one["pid"]: one["args"]["name"] for one in told if one["ph"] == "M"}
    done = [(one["ts"], one["name"], names[one["pid"]], one["dur"]) for one in told if one["ph"] == "X"]
    assert done == [
        (1_000, "split", "client-1", 300),
        (2_000, "compute", "worker-1", 500),
        (2_100, "compute", "worker-2", 700),
    ]
    assert totals_us(SPANS)["compute"] == 1_200


def test_opentelemetry() -> None:
    assert export_opentelemetry((), "j") is False
    if find_spec("opentelemetry") is None:
        assert export_opentelemetry(SPANS, "j") is False
        pytest.skip("the extra otel is not installed")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    assert export_opentelemetry(SPANS, "j") is True
    found = {span.name: span for span in kept.get_finished_spans()}
    assert set(found) == {"split", "compute", "job j"}
    job = found["job j"]
    assert (job.end_time - job.start_time) // 1000 == 1_800
    assert found["split"].parent.span_id == job.context.span_id
    assert found["split"].attributes["velaria.node"] == "client-1"


def test_the_dashboard() -> None:
    shown = dashboard(
        {
            "workers": {
                "worker-1": {"missing": False, "heartbeat_seq": 4, "running": ["j/c1/0"]},
                "w2": {"missing": True, "heartbeat_seq": 1, "running": []},
            },
            "jobs": {
                "j": {
                    "state": "running",
                    "summary": "SELECT 1",
                    "error": None,
                    "chains": {
                        "c0": {"state": "succeeded", "tasks": [{"state": "succeeded"}] * 3},
                        "c1": {"state": "running", "tasks": [{"state": "running"}, {"state": "queued"}]},
                    },
                }
            },
        }
    )
    assert shown == (
        "workers 2   jobs 1\n"
        "  worker-1  heartbeat 4  j/c1/0\n"
        "  w2        silent\n"
        "j  running  SELECT 1\n"
        "  c0  succeeded  ###\n"
        "  c1  running    >."
    )
