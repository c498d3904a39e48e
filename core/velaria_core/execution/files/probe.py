"""Probe: what a file seems to be, with the evidence for it.

Every format scores by rules over the sampled lines; the best is taken, and how far ahead it is gives the confidence.
Reading uses the same functions, so a probed read and an explicit one agree on dialect, names and types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

from velaria_core.errors import DataError, Place
from velaria_core.execution.duck import Engine
from velaria_core.execution.files import arrow, csv, json, line, parquet, scan
from velaria_core.execution.files.dialect import DELIMITERS, LOOKED_AT, Division, divide, has_header, rows_of
from velaria_core.execution.files.options import (
    ArrowOptions,
    CsvOptions,
    JsonFormat,
    JsonOptions,
    LineOptions,
    ParquetOptions,
)
from velaria_core.execution.files.paths import File, stem_of
from velaria_core.execution.files.sample import Sample, first_bytes, take_sample
from velaria_core.types import type_name

# Scores, by rule.
JSON_LINES, JSON_ARRAY, JSON_SUFFIX = 92, 94, 8
DIVIDED, PER_COLUMN, COLUMNS_MAX = 40, 3, 12
HEADER, NO_HEADER, SUFFIX = 25, 28, 20
LINE_OF_HEADER, LINE_ODD_DELIMITER, LINE_CSV_DELIMITER, LINE_SUFFIX = -10, 24, 8, 8
UNDIVIDED = 15
FALLBACK = {".csv": 55, ".tsv": 55, ".tab": 55, ".json": 58, ".jsonl": 60, ".ndjson": 60}
MAGIC = 100
HIGH, HIGH_GAP, MEDIUM, MEDIUM_GAP = 90, 15, 65, 8
LOW_SCORE = 40
# Broken lines among JSON lines: they stay JSON lines, and reading tells of them.
JSON_SHARE = 0.9


class Confidence(StrEnum):
    """How far the best candidate is ahead."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A format that the file may have. `format` is the final one, `kind` the reader's."""

    format: str
    kind: str
    score: int
    reason: str
    evidence: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "format": self.format,
            "kind": self.kind,
            "score": self.score,
            "reason": self.reason,
            "evidence": list(self.evidence),
        }


@dataclass(frozen=True, slots=True)
class Probe:
    """What a file seems to be. `to_dict` has the fields that the kind has.

    Attributes:
        kind: csv, line, json, parquet or arrow: which reader takes it.
        final_format: csv, tsv, line_split, json_lines, json_array, parquet, arrow.
        score: of the best candidate; 100 and more is as good as certain.
        schema: the columns as a read gives them.
        mappings: of lines: (column, index).
        columns: of JSON: the keys.
    """

    path: str
    kind: str
    final_format: str
    score: int
    confidence: Confidence
    schema: pa.Schema
    suggested_table_name: str
    warnings: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    compression: str = "none"
    encoding: str = "utf-8"
    files: int = 1
    delimiter: str | None = None
    header: bool | None = None
    mode: str | None = None
    mappings: tuple[tuple[str, int], ...] | None = None
    format: str | None = None
    columns: tuple[str, ...] | None = None
    opened: scan.OpenedFile | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the fields of every kind, then those of this one."""
        found: dict[str, Any] = {
            "path": self.path,
            "kind": self.kind,
            "final_format": self.final_format,
            "score": self.score,
            "confidence": self.confidence.value,
            "schema": list(self.schema.names),
            "types": [type_name(item.type) for item in self.schema],
            "suggested_table_name": self.suggested_table_name,
            "warnings": list(self.warnings),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "compression": self.compression,
            "encoding": self.encoding,
            "files": self.files,
        }
        if self.kind == "csv":
            found |= {"delimiter": self.delimiter, "header": self.header}
        elif self.kind == "line":
            found |= {
                "mode": self.mode,
                "delimiter": self.delimiter,
                "mappings": [{"column": name, "source_index": at} for name, at in self.mappings or ()],
            }
        elif self.kind == "json":
            found |= {"format": self.format, "columns": list(self.columns or ())}
        return found


def probe(engine: Engine, files: tuple[File, ...], path: str) -> Probe:
    """Probe the first of the files, and open all of them as it says.

    Raises:
        DataError[file.empty, file.binary, file.encoding, file.truncated]: nothing can be told.
    """
    file = files[0]
    sample, candidates = look(file)
    best = candidates[0]
    gap = best.score - candidates[1].score if len(candidates) > 1 else best.score
    opened, more = open_as(engine, files, best, sample)
    return Probe(
        path=path,
        kind=best.kind,
        final_format=best.format,
        score=best.score,
        confidence=confidence(best.score, gap),
        schema=opened.relation.schema,
        suggested_table_name=table_name(path if len(files) == 1 else file.path),
        warnings=(*warnings(best, candidates, gap), *opened.warnings),
        candidates=tuple(candidates),
        compression=sample.compression if sample else "none",
        encoding=sample.encoding.removesuffix("-sig") if sample else "utf-8",
        files=len(files),
        opened=opened,
        **more,
    )


def look(file: File, encoding: str | None = None) -> tuple[Sample | None, list[Candidate]]:
    """The candidates, best first, and the sample of a text file; `encoding` where a caller names it."""
    first = first_bytes(file)
    if first.startswith(parquet.MAGIC):
        return None, [Candidate("parquet", "parquet", MAGIC, "magic bytes", ("begins with PAR1",))]
    if first.startswith(arrow.MAGIC) or arrow.is_stream(first):
        what = "an IPC file" if first.startswith(arrow.MAGIC) else "an IPC stream"
        return None, [Candidate("arrow", "arrow", MAGIC, "magic bytes", (f"begins as {what} does",))]
    sample = take_sample(file, encoding)
    candidates = sorted(text_candidates(sample), key=lambda item: -item.score)
    if not candidates:
        raise DataError("file.empty", f'"{file.path}" has no lines', place=Place(file=file.path))
    return sample, candidates


def text_candidates(sample: Sample) -> list[Candidate]:
    """What a text may be, by the rules."""
    lines = sample.lines(LOOKED_AT)
    if not lines:
        return []
    found = [*_json(sample, lines), *_divided(sample, lines)]
    suffix = sample.file.suffix
    if (score := FALLBACK.get(suffix)) is not None:
        named, kind = {
            ".csv": ("csv", "csv"),
            ".json": ("json_array" if lines[0].lstrip().startswith("[") else "json_lines", "json"),
        }.get(suffix, ("tsv", "csv") if suffix in (".tsv", ".tab") else ("json_lines", "json"))
        if all(candidate.format != named for candidate in found):
            found.append(Candidate(named, kind, score, "suffix", (f"named {suffix}",)))
    return found


def _json(sample: Sample, lines: Sequence[str]) -> list[Candidate]:
    suffix = sample.file.suffix
    objects = [text.strip().startswith("{") and text.strip().endswith("}") for text in lines]
    if objects[0] and sum(objects) >= JSON_SHARE * len(objects):
        bonus = JSON_SUFFIX if suffix in (".json", ".jsonl", ".ndjson") else 0
        evidence = [f"{sum(objects)} of {len(objects)} lines are objects"]
        return [
            Candidate(
                "json_lines",
                "json",
                JSON_LINES + bonus,
                "one object a line",
                (*evidence, *([f"named {suffix}"] if bonus else [])),
            )
        ]
    if lines[0].lstrip().startswith("["):
        rest = sample.head.lstrip()[1:].lstrip()
        if rest[:1] in ("{", "]"):
            bonus = JSON_SUFFIX if suffix == ".json" else 0
            return [
                Candidate(
                    "json_array",
                    "json",
                    JSON_ARRAY + bonus,
                    "an array of objects",
                    ("begins with [", *([f"named {suffix}"] if bonus else [])),
                )
            ]
    if lines[0].lstrip().startswith("{") and json.objects_of(sample, json.RUNNING):
        bonus = JSON_SUFFIX if suffix in (".json", ".jsonl", ".ndjson") else 0
        return [
            Candidate(
                "json_lines", "json", JSON_LINES + bonus, "objects over several lines", ("begins with an object",)
            )
        ]
    return []


def _divided(sample: Sample, lines: Sequence[str]) -> list[Candidate]:
    """Candidates of the delimiter that divides all lines alike, into the most fields."""
    divisions = [divide(sample.head, delimiter, complete=sample.complete) for delimiter in DELIMITERS]
    consistent = [division for division in divisions if division.consistent]
    if not consistent:
        return [Candidate("line_split", "line", UNDIVIDED, "no delimiter divides the lines alike", _ragged(divisions))]
    best = max(consistent, key=lambda division: division.fields)
    base = DIVIDED + PER_COLUMN * min(best.fields, COLUMNS_MAX)
    rows = rows_of(lines, best.delimiter)
    header = best.delimiter != " " and has_header(rows)
    suffix = sample.file.suffix
    shown = repr(best.delimiter)
    evidence = (f"delimiter {shown}", f"{best.fields} fields in each of {len(rows)} rows")
    named = "tsv" if best.delimiter == "\t" else "csv"
    suffixes = (".tsv", ".tab") if named == "tsv" else (".csv",)
    matching = SUFFIX if suffix in suffixes else 0
    found = []
    if header:
        found.append(Candidate(named, "csv", base + HEADER + matching, "a header and even rows", (*evidence, "header")))
    elif matching and best.delimiter in (",", "\t", ";"):
        found.append(
            Candidate(named, "csv", base + NO_HEADER + matching, "even rows, no header", (*evidence, f"named {suffix}"))
        )
    score = base
    if header:
        score += LINE_OF_HEADER
    else:
        odd = best.delimiter not in (",", "\t")
        score += (LINE_ODD_DELIMITER if odd else LINE_CSV_DELIMITER) + matching // 2
    if suffix in (".log", ".txt", ".lines") and best.delimiter != ",":
        score += LINE_SUFFIX
    found.append(Candidate("line_split", "line", score, f"lines divided by {shown}", evidence))
    return found


def _ragged(divisions: Sequence[Division]) -> tuple[str, ...]:
    return tuple(
        f"by {division.delimiter!r} row {division.ragged[0]} has {division.ragged[1]} fields, "
        f"the first {division.fields}"
        for division in divisions
        if division.ragged is not None and division.fields > 1
    )


def confidence(score: int, gap: int) -> Confidence:
    """How sure a score is that is `gap` ahead of the next."""
    if score >= HIGH and gap >= HIGH_GAP:
        return Confidence.HIGH
    if score >= MEDIUM and gap >= MEDIUM_GAP:
        return Confidence.MEDIUM
    return Confidence.LOW


def warnings(best: Candidate, candidates: Sequence[Candidate], gap: int) -> list[str]:
    """What makes the choice doubtful."""
    found = []
    if confidence(best.score, gap) is Confidence.LOW:
        found.append(f"low confidence: name the format if it is not {best.format}")
    if len(candidates) > 1 and gap <= MEDIUM_GAP:
        found.append(f"{best.format} and {candidates[1].format} score nearly alike")
    if best.score < LOW_SCORE:
        found.append("nothing speaks clearly for any format")
    return found


def table_name(path: str) -> str:
    """The stem of a file, as a name that SQL takes without quotes where it can."""
    stem = stem_of(path) or "data"
    name = "".join(ch if ch.isalnum() or ch == "_" else "_" for ch in stem)
    return f"_{name}" if name[0].isdigit() else name


def open_as(
    engine: Engine, files: tuple[File, ...], best: Candidate, sample: Sample | None
) -> tuple[scan.OpenedFile, dict[str, Any]]:
    """Open files as a candidate says; what is told of its dialect beside."""
    if best.kind == "parquet":
        plan = parquet.plan(engine, files, ParquetOptions())
        return scan.opened(engine, "parquet", files, ParquetOptions(), lambda: plan), {}
    if best.kind == "arrow":
        plan = arrow.plan_of(files)
        return scan.opened(engine, "arrow", files, ArrowOptions(), lambda: plan), {}
    assert sample is not None
    if best.kind == "csv":
        options = csv_options(best, sample)
        found = scan.opened(engine, "csv", files, options, lambda: csv.plan(engine, files, options))
        details = dict(found.relation.details)
        return found, {"delimiter": details["delimiter"], "header": details["header"] == "true"}
    if best.kind == "line":
        lines = LineOptions()
        found = scan.opened(engine, "line", files, lines, lambda: line.plan(engine, files, lines))
        delimiter = dict(found.relation.details)["delimiter"]
        mappings = tuple((name, at) for at, name in enumerate(found.relation.schema.names))
        return found, {"mode": "split", "delimiter": delimiter, "mappings": mappings}
    options_json = JsonOptions(format=JsonFormat.ARRAY if best.format == "json_array" else JsonFormat.AUTO)
    found = scan.opened(engine, "json", files, options_json, lambda: json.plan(engine, files, options_json))
    return found, {"format": best.format, "columns": tuple(found.relation.schema.names)}


def csv_options(best: Candidate, sample: Sample) -> CsvOptions:
    """The options of a CSV candidate: none, so that it is sniffed as an explicit read is; tsv by name is tabbed."""
    if best.format == "tsv" and "\t" in sample.head:
        return CsvOptions(delimiter="\t")
    return CsvOptions()
