"""What the tests of files share: an engine, a folder to write into, and relations as rows."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from velaria_core.execution import files
from velaria_core.execution.duck import Engine, Settings
from velaria_core.execution.files.sample import BLOCK_BYTES, BLOCKS, HEAD_BYTES
from velaria_core.logical.relation import Relation


class Desk:
    """A folder of test files, and an engine that reads them."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.engine = Engine(Settings(threads=2, **settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.close()

    def write(self, name: str, content: str | bytes) -> str:
        """Write a file; the text as it is, line ends too. Its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def csv(self, content: str | bytes, name: str = "t.csv", **options: Any) -> list[dict[str, Any]]:
        """The rows of a CSV file with this content."""
        return self.rows(files.read_csv(self.engine, self.write(name, content), **options))

    def table(self, opened: files.OpenedFile | Relation, query: str = "SELECT * FROM {}") -> pa.Table:
        """The result of a query over a relation."""
        relation = opened if isinstance(opened, Relation) else opened.relation
        feeds = {relation.sql.strip('"'): relation.feed} if relation.feed is not None else None
        with self.engine.cursor(feeds) as cursor:
            return cursor.table(query.format(relation.sql))

    def rows(self, opened: files.OpenedFile | Relation, query: str = "SELECT * FROM {}") -> list[dict[str, Any]]:
        """The result of a query over a relation, as dicts."""
        found: list[dict[str, Any]] = self.table(opened, query).to_pylist()
        return found

    def rejects(self, opened: files.OpenedFile) -> list[tuple[Any, ...]]:
        """(line, column, error) of what was left out, in order of lines."""
        assert opened.rejects is not None
        found = self.table(opened.rejects, "SELECT * FROM {} ORDER BY file, line, column_name").to_pylist()
        return [(row["line"], row["column_name"], row["error"]) for row in found]


def types_of(opened: files.OpenedFile) -> dict[str, str]:
    """Column -> Velaria's name of its type."""
    from velaria_core.types import type_name

    return {item.name: type_name(item.type) for item in opened.relation.schema}


def hidden(header: str, line: str, other: str, size: int = 1_000_000) -> tuple[str, int]:
    """A file of about `size` bytes of `line`, with `other` where no sample looks; and the line that `other` is.

    `line` may itself hold line ends.
    """
    step = (size - HEAD_BYTES - BLOCK_BYTES) // BLOCKS
    gap = HEAD_BYTES + step * 7 + BLOCK_BYTES + (step - BLOCK_BYTES) // 2
    before, after = (length // (len(line) + 1) for length in (gap, size - gap))
    text = header + (line + "\n") * before + other + "\n" + (line + "\n") * after
    return text, header.count("\n") + (line.count("\n") + 1) * before + 1
