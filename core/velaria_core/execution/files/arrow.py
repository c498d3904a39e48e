"""Arrow IPC: files (Feather too) are mapped and scanned as a dataset, streams are opened anew for each scan.

The engine pushes projection and simple filters into a dataset; a stream has no footer, so all of it is read.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import pyarrow as pa

from velaria_core.errors import DataError, Place
from velaria_core.execution.files import faults, scan
from velaria_core.execution.files.paths import File
from velaria_core.types import duckdb_type, quoted

MAGIC = b"ARROW1"
# Begins every message of a stream.
CONTINUATION = b"\xff\xff\xff\xff"
FEATHER_1 = b"FEA1"

_numbers = count(1)


class Stream:
    """A stream file as something the engine can scan any number of times.

    Invariant: each call opens the file anew, so that two scans of one query do not share a position.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.schema = self._open().schema

    def _open(self) -> pa.RecordBatchReader:
        return pa.ipc.open_stream(pa.memory_map(self.path))

    def __arrow_c_schema__(self) -> Any:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._open().__arrow_c_stream__(requested_schema)


class Streams(Stream):
    """Several streams of one schema, one after another."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        super().__init__(paths[0])

    def _open(self) -> pa.RecordBatchReader:
        readers = [pa.ipc.open_stream(pa.memory_map(path)) for path in self.paths]
        batches = (batch for reader in readers for batch in reader)
        return pa.RecordBatchReader.from_batches(readers[0].schema, batches)


def is_stream(first: bytes) -> bool:
    """Whether these bytes begin an IPC stream."""
    return first.startswith(CONTINUATION)


def plan_of(files: tuple[File, ...]) -> scan.Plan:
    """How to read Arrow files of one schema.

    Raises:
        DataError[file.invalid, file.truncated, file.mixed_schemas, file.empty].
    """
    streams = [_kind(file) for file in files]
    name = f"velaria_arrow_{next(_numbers)}"
    schema: pa.Schema | None = None
    for file, stream in zip(files, streams, strict=True):
        found = _schema(file, stream)
        if schema is not None and found.remove_metadata() != schema.remove_metadata():
            raise DataError(
                "file.mixed_schemas",
                f'"{file.path}" has other columns than "{files[0].path}"',
                hint="read them one by one and use union",
                place=Place(file=file.path),
            )
        schema = found
        for item in found:
            duckdb_type(item.type)  # tells of a type that the engine has not
    pushdown = scan.COLUMNAR
    if all(streams):
        feed: Any = Streams([file.path for file in files])
        pushdown = frozenset()
    elif not any(streams):
        import pyarrow.dataset

        feed = pyarrow.dataset.dataset([file.path for file in files], format="ipc")
    else:
        raise DataError(
            "file.mixed_schemas",
            "some files are Arrow streams, some are Arrow files",
            hint="read them one by one and use union",
            place=Place(file=files[0].path),
        )
    faults.name_feed(name, files[0].path)
    details = (("ipc", "stream" if streams[0] else "file"),)
    return scan.Plan("arrow", files, quoted(name), feed=feed, pushdown=pushdown, details=details)


def _kind(file: File) -> bool:
    with open(file.path, "rb") as stream:
        first = stream.read(8)
    if first.startswith(MAGIC):
        return False
    if is_stream(first):
        return True
    hint = "read finds the format of a file"
    if first.startswith(FEATHER_1):
        hint = "Feather version 1 is read by pyarrow.feather; write it again as version 2"
    raise DataError(
        "file.invalid" if file.size else "file.empty",
        f'"{file.path}" is {"not an Arrow file" if file.size else "empty"}',
        hint=hint,
        place=Place(file=file.path),
    )


def _schema(file: File, stream: bool) -> pa.Schema:
    try:
        source = pa.memory_map(file.path)
        return pa.ipc.open_stream(source).schema if stream else pa.ipc.open_file(source).schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            "file.truncated",
            f'"{file.path}" is cut off or damaged: {error}',
            hint="fetch or write it again",
            place=Place(file=file.path),
            cause=error,
        ) from error
