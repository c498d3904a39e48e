"""Files of one schema through the batch readers, so that a row of a stream is the row that batch reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from velaria_core.errors import InputError, did_you_mean
from velaria_core.execution import files
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.files import OnError, OpenedFile
from velaria_core.execution.files.options import FORMATS, LineMode
from velaria_core.execution.sources.tables import conformed
from velaria_core.types import duckdb_type, quoted

_READERS: Mapping[str, Callable[..., OpenedFile]] = {
    "read_csv": files.read_csv,
    "read_line_file": files.read_line_file,
    "read_json": files.read_json,
    "read_parquet": files.read_parquet,
    "read_arrow": files.read_arrow,
}
READ_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A format and its options; see `execution.files` for what each reader takes.

    Attributes:
        using: csv, tsv, line, json, jsonl, parquet, arrow or feather.
        options: keyword arguments of the reader.

    Raises:
        InputError[option.unknown_format].
    """

    using: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.using not in FORMATS:
            hint = did_you_mean(self.using, FORMATS, "formats")
            raise InputError("option.unknown_format", f'no format "{self.using}"', hint=hint)

    @property
    def is_text(self) -> bool:
        """Whether a file without bytes is one without rows."""
        return FORMATS[self.using].reader not in ("read_parquet", "read_arrow")

    @property
    def leaves_rows_out(self) -> bool:
        return str(self.options.get("on_error", OnError.FAIL)) != OnError.FAIL

    def opened(self, engine: Engine, path: str, schema: pa.Schema | None) -> OpenedFile:
        """Open one file; with a schema its columns are read as these, and not found anew."""
        chosen = FORMATS[self.using]
        options = {**chosen.fixed, **self.options}
        if schema is not None:
            options |= self._columns(schema, options)
        return _READERS[chosen.reader](engine, path, **options)

    def _columns(self, schema: pa.Schema, options: Mapping[str, Any]) -> dict[str, Any]:
        types = {item.name: duckdb_type(item.type) for item in schema}
        match FORMATS[self.using].reader:
            case "read_csv" if "names" in options:
                return {"types": types}
            case "read_csv" | "read_json":
                return {"columns": types}
            case "read_line_file" if options.get("mappings") is None:
                first = 1 if str(options.get("mode", LineMode.SPLIT)) == LineMode.REGEX else 0
                return {"types": types, "mappings": [(name, at) for at, name in enumerate(types, first)]}
            case "read_line_file":
                return {"types": types}
        return {}  # the file itself says its types

    def batches(
        self, engine: Engine, path: str, schema: pa.Schema, columns: tuple[str, ...] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of one file in their order, as tables of at most READ_ROWS rows; memory stays bounded.

        Raises:
            DataError, InputError: what the reader has against the file; [source.schema]: it has other columns.
        """
        if self.leaves_rows_out:
            # Rows are left out while the file is read to a table, which lives as long as its engine.
            own = Engine(own_settings(engine.settings))
            try:
                yield from self._read(own, path, schema, columns)
            finally:
                own.close()
        else:
            yield from self._read(engine, path, schema, columns)

    def _read(
        self, engine: Engine, path: str, schema: pa.Schema, columns: tuple[str, ...] | None
    ) -> Iterator[pa.Table]:
        relation = self.opened(engine, path, schema).relation
        conformed(relation.schema.empty_table(), schema, path)
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        listed = ", ".join(quoted(name) for name in wanted.names)
        feeds = {relation.sql.strip('"'): relation.feed} if relation.feed is not None else None
        with engine.cursor(feeds) as cursor:
            for batch in cursor.batches(cursor.reader(f"SELECT {listed} FROM {relation.sql}", READ_ROWS)):
                yield conformed(pa.Table.from_batches([batch]), wanted, path)


def own_settings(settings: Settings) -> Settings:
    """The settings of an engine in memory that may read what another may."""
    return replace(settings, path=None, read_only=False)
