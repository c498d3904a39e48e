"""The golden files in slt/ say what SQL means here; every record of them runs, in every mode.

    pytest core/tests/test_slt.py -k joins                  the files whose path holds "joins"
    VELARIA_UPDATE_GOLDEN=1 pytest core/tests/test_slt.py   writes what is, for the eye to review in the diff

CI never sets the variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from slt_changelog import Changelog, columned
from slt_file import (
    FILES,
    FOLDER,
    Change,
    Record,
    Slt,
    aligned,
    compared,
    letters,
    read,
    rows_as_text,
    write_file,
    write_rows,
)
from slt_streams import Feeding

from velaria_core import DataflowSession, VelariaError
from velaria_core.logical.explain import tree
from velaria_core.logical.operators import Scan
from velaria_core.logical.sql.parser import parse
from velaria_core.logical.sql.statements import Select

UPDATE = bool(os.environ.get("VELARIA_UPDATE_GOLDEN"))


# Runs a query and gives its rows; None where the way makes no difference to it.
Way = Callable[[DataflowSession, str, Any], pa.Table | None]


def run_batch(session: DataflowSession, sql: str, parameters: Any) -> pa.Table:
    """Run a text over all rows at once."""
    return session.sql(sql, parameters).to_arrow()


def streamed(run: Callable[[Feeding], pa.Table]) -> Way:
    """A way that gives what reads tables their rows as a stream."""

    def way(session: DataflowSession, sql: str, parameters: Any) -> pa.Table | None:
        frame = session.sql(sql, parameters)
        if not any(isinstance(node, Scan) for node in frame.node.walk()):
            return None
        feeding = Feeding(session, frame.node)
        return run(feeding) if feeding.rows <= ROWS_MAX else None

    return way


def is_select(session: DataflowSession, sql: str) -> bool:
    statements = parse(sql, session._engine.parse_error)
    return len(statements) == 1 and isinstance(statements[0], Select)


# How a query can be run; each must give the rows of the file. A stream gives them in no order.
WAYS: dict[str, Way] = {
    "batch": run_batch,
    "epoch": streamed(Feeding.in_one_epoch),
    "rows": streamed(Feeding.row_by_row),
    "restored": streamed(Feeding.restored),
}
MODES = {"batch": ("batch",), "stream": ("epoch", "rows", "restored")}
ROWS_MAX = 60
# Without VELARIA_SLT_ALL=1 a query runs in one epoch or row by row, and, as a checkpoint on disk costs most, one of so
# many is restored from one.
EVERY_WAY = bool(os.environ.get("VELARIA_SLT_ALL"))
RESTORED_EVERY = 4


class Run:
    """One run of one file: its session, its folder, and what it found wrong."""

    def __init__(self, slt: Slt, folder: Path, mode: str) -> None:
        self.slt = slt
        self.folder = folder
        self.mode = mode
        self.streams = mode != "batch"
        self.session = DataflowSession()
        self.failures: list[str] = []
        self.changes: dict[int, Change] = {}

    def run(self) -> None:
        with self.session:
            for record in self.slt.records:
                if self.streams and record.kind in ("explain", "stream"):
                    continue  # once is enough
                try:
                    getattr(self, "_" + record.kind)(record)
                except VelariaError as error:
                    self._fail(record, f"refused:\n{error}")

    def _fail(self, record: Record, problem: str, change: Change | None = None) -> None:
        if UPDATE and change is not None and not self.streams:
            self.changes[self.slt.records.index(record)] = change
        else:
            self.failures.append(f"{record.where}: {problem}\n\n{record.sql}\n")

    def _sql(self, record: Record) -> str:
        return record.sql.replace("$DATA", str(self.folder))

    def _hidden(self, text: str) -> str:
        return text.replace(str(self.folder), "$DATA")

    def _file(self, record: Record) -> None:
        write_file(record, self.folder)

    def _write(self, record: Record) -> None:
        write_rows(record, self.folder, self.session.sql(self._sql(record)))

    def _statement(self, record: Record) -> None:
        sql = self._sql(record)
        if record.words[0] == "ok":
            run_batch(self.session, sql, record.parameters)
            return
        _, code, *rest = record.words
        try:
            run_batch(self.session, sql, record.parameters)
        except VelariaError as error:
            found = (error.place.line, error.place.column) if error.place is not None else ()
            place = ":".join(str(number) for number in found if number is not None)
            asked = rest.pop(0) if rest and re.fullmatch(r"\d+(:\d+)?", rest[0]) else None
            pattern = " ".join(rest)
            text = self._hidden(str(error))
            told = [line.rstrip() for line in text.splitlines()]
            wrong = error.code != code or (asked is not None and asked != place)
            wrong = wrong or (bool(pattern) and re.search(pattern, text) is None)
            new = Change(
                " ".join(["statement error", error.code, *([place] if place else ())]) if wrong else None,
                told if record.expected is not None else None,
            )
            if wrong:
                asked_for = " ".join(record.words[1:])
                self._fail(record, f"expected {asked_for}, got {error.code} {place}\n{text}", new)
            elif record.expected is not None and told != list(record.expected):
                self._fail(record, "the message is another:\n" + text, new)
        else:
            self._fail(record, f"expected {code}, but it ran")

    def _query(self, record: Record) -> None:
        sql = self._sql(record)
        ways = MODES[self.mode]
        if self.streams and not is_select(self.session, sql):
            ways = ("batch",)
        elif self.streams and not EVERY_WAY:
            ways = ways[record.line % 2 :][:1] + (ways[-1:] if record.line % RESTORED_EVERY == 0 else ())
        for way in ways:
            if not record.only or way in record.only:
                table = WAYS[way](self.session, sql, record.parameters)
                if table is not None:
                    self._compare(record, table, way)

    def _compare(self, record: Record, table: pa.Table, way: str) -> None:
        found = letters(table.schema)
        problems = []
        if record.types is not None and record.types != found:
            problems.append(f"the types are {found}, not {record.types}")
        rows = [[self._hidden(value) for value in row] for row in rows_as_text(table)]
        if "rowsort" in record.flags:
            rows.sort()
        if "names" in record.flags:
            rows.insert(0, table.schema.names)
        expected = [compared(line) for line in record.expected or ()]
        if self.streams:
            rows.sort(key=lambda row: compared("  ".join(row)))
            expected.sort()
        if expected != [compared("  ".join(row)) for row in rows] or record.expected is None:
            shown = "\n".join(aligned(rows)) if rows else "(no rows)"
            problems.append("expected\n" + "\n".join(record.expected or ()) + "\ngot\n" + shown)
        if problems:
            problems.insert(0, f"as {way}")
            words = [found if word == record.types else word for word in record.words]
            self._fail(record, "; ".join(problems), Change(" ".join(["query", *words]), aligned(rows) if rows else []))

    def _stream(self, record: Record) -> None:
        """In a session of its own, whose queues are new: what came before in the file makes it again."""
        with DataflowSession() as session:
            for before in self.slt.records:
                if before is record:
                    break
                if before.kind == "statement" and before.words[0] == "ok":
                    run_batch(session, self._sql(before), before.parameters)
            changelog = Changelog(session, self._sql(record), record.words)
            told = [changelog.line(line) for line in record.expected or ()]
            changelog.close()
        if [compared(line) for line in told] != [compared(line) for line in record.expected or ()]:
            self._fail(record, "the changes are\n" + "\n".join(told), Change(expected=columned(told)))

    def _explain(self, record: Record) -> None:
        frame = self.session.sql(self._sql(record), record.parameters)
        plan = self._hidden(tree(frame.node)).splitlines()
        if plan != list(record.expected or ()):
            self._fail(record, "the plan is\n" + "\n".join(plan), Change(expected=plan))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_golden(path: Path, mode: str, tmp_path: Path) -> None:
    run = Run(read(path), tmp_path, mode)
    run.run()
    if UPDATE and run.changes:
        path.write_text(run.slt.rewritten(run.changes), encoding="utf-8")
    if run.failures:
        pytest.fail(f"{len(run.failures)} records of {path}\n\n" + "\n".join(run.failures), pytrace=False)


def test_there_are_files_of_every_kind() -> None:
    folders = {path.parent.name for path in FILES}
    assert folders == {"sql", "functions", "types", "errors", "files", "ddl", "windows", "search", "stream"}
    assert len(FILES) >= 60
