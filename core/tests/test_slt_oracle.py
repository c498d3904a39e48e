"""The golden files against the bare engine: every plain SELECT of them, run on the same tables by DuckDB alone.

So binding and lowering are held to say what the text says. A record marked `own` means something of Velaria's own; the
prose above it says what. Column names may differ, rows and types may not.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from properties.tables import bag, row_list
from slt_file import FILES, FOLDER, Record, letters, read, write_file, write_rows

from velaria_core import DataflowSession, VelariaError
from velaria_core.logical.sql.parser import parse
from velaria_core.logical.sql.statements import Select


class Oracle:
    """A session, and a bare connection that holds the same tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.session = DataflowSession()
        self.bare = duckdb.connect(config={"python_enable_replacements": "false"})
        self.bare.execute("SET TimeZone='UTC'")
        self.differences: list[str] = []
        self.compared = 0

    def run(self, record: Record) -> None:
        """Run one record on both sides."""
        sql = record.sql.replace("$DATA", str(self.folder))
        if record.kind == "file":
            write_file(record, self.folder)
            self._mirror()  # a file table may read it
        elif record.kind == "write":
            write_rows(record, self.folder, self.session.sql(sql))
        elif record.kind == "query" and _is_plain(sql):
            self._compare(record, sql)
        elif record.kind == "query" or (record.kind == "statement" and record.words[0] == "ok"):
            with suppress(VelariaError):  # test_slt.py tells of it
                self.session.sql(sql, record.parameters)
            self._mirror()

    def _mirror(self) -> None:
        """Give the bare connection every table, view and file table of the session."""
        for row in self.session.sql("SHOW TABLES").to_rows():
            name, kind = row["name"], row["kind"]
            if kind == "sink":
                continue
            quoted = '"' + name.replace('"', '""') + '"'
            try:
                feed = self.session.sql(f"SELECT * FROM {quoted}").to_arrow()
            except VelariaError:
                continue  # a view of what is gone
            self.bare.register("feed", feed)
            self.bare.execute(f"CREATE OR REPLACE TABLE {quoted} AS SELECT * FROM feed")
            self.bare.unregister("feed")

    def _compare(self, record: Record, sql: str) -> None:
        try:
            ours = self.session.sql(sql, record.parameters).to_arrow()
        except VelariaError:
            return  # test_slt.py tells of it
        try:
            theirs: pa.Table = self.bare.execute(sql, record.parameters or []).to_arrow_table()
        except duckdb.Error as error:
            if "own" not in record.flags:
                self.differences.append(f"{record.where}: the bare engine refuses: {error}\n\n{sql}\n")
            return
        self.compared += 1
        ordered = " ORDER BY " in f" {sql.upper()} " and "rowsort" not in record.flags
        mine, other = (list(zip(*(c.to_pylist() for c in table.columns), strict=True)) for table in (ours, theirs))
        same = row_list(mine) == row_list(other) if ordered else bag(mine) == bag(other)
        types = letters(ours.schema), letters(theirs.schema)
        if (same and types[0] == types[1]) == ("own" in record.flags):
            said = f"{mine} {types[0]}, the bare engine {other} {types[1]}"
            if "own" in record.flags:
                said = "the same as the bare engine, though it is marked own"
            self.differences.append(f"{record.where}: {said}\n\n{sql}\n")

    def close(self) -> None:
        self.bare.close()
        self.session.close()


def _is_plain(sql: str) -> bool:
    """Whether this is one SELECT without clauses of Velaria's own."""
    try:
        statements = parse(sql)
    except VelariaError:
        return sql.lstrip("( \n").upper().startswith(("SELECT", "WITH", "FROM", "VALUES", "PIVOT", "UNPIVOT"))
    return len(statements) == 1 and isinstance(statements[0], Select) and not statements[0].has_clauses


@pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_the_bare_engine_gives_the_same(path: Path, tmp_path: Path) -> None:
    oracle = Oracle(tmp_path)
    try:
        for record in read(path).records:
            oracle.run(record)
    finally:
        oracle.close()
    assert oracle.compared > 0 or path.parent.name not in ("sql", "functions", "types")
    if oracle.differences:
        pytest.fail("\n".join(oracle.differences), pytrace=False)
