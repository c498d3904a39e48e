"""The forms in which rows leave: one file a form, loaded when it is used.

A writer takes a frame and a binary stream. All but `table` stream: memory stays bounded however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from velaria_core.dataframe import DataFrame


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    TSV = "tsv"
    MARKDOWN = "markdown"
    PARQUET = "parquet"
    ARROW = "arrow"


Writer = Callable[["DataFrame", BinaryIO, int], None]
"""Writes a frame to a stream; the number is `--max-rows`, which only `table` heeds."""


@dataclass(frozen=True, slots=True)
class _Form:
    module: str
    writer: str
    suffixes: tuple[str, ...]
    binary: bool = False


_FORMS = {
    Format.TABLE: _Form("table", "write_table", (".txt",)),
    Format.JSON: _Form("json", "write_json", (".json",)),
    Format.NDJSON: _Form("json", "write_ndjson", (".ndjson", ".jsonl")),
    Format.CSV: _Form("delimited", "write_csv", (".csv",)),
    Format.TSV: _Form("delimited", "write_tsv", (".tsv", ".tab")),
    Format.MARKDOWN: _Form("markdown", "write_markdown", (".md", ".markdown")),
    Format.PARQUET: _Form("columnar", "write_parquet", (".parquet", ".pq"), binary=True),
    Format.ARROW: _Form("columnar", "write_arrow", (".arrow", ".arrows", ".ipc"), binary=True),
}

SUFFIXES = {suffix: name for name, form in _FORMS.items() for suffix in form.suffixes}


def format_of(path: str) -> Format | None:
    """The format that a file's suffix asks for, or None."""
    return SUFFIXES.get(Path(path).suffix.lower())


def is_binary(chosen: Format) -> bool:
    """Whether a terminal cannot show it."""
    return _FORMS[chosen].binary


def writer(chosen: Format) -> Writer:
    """The function that writes a format."""
    form = _FORMS[chosen]
    found: Writer = getattr(import_module(f"{__name__}.{form.module}"), form.writer)
    return found
