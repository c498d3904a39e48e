"""The journal: what a killed scheduler knew of jobs that are not over, the next one knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from velaria_core.errors import StateError
from velaria_experimental.jobmaster.effects import TaskKey
from velaria_experimental.jobmaster.graph import Chain, ChainInput, Job, Payload
from velaria_experimental.jobmaster.journal import Journal
from velaria_experimental.jobmaster.options import JobOptions

MADE = Payload("j/c0/0/1/0-abc", "table-arrow-ipc-v1", 3, 1)


def job(name: str) -> Job:
    given = Payload(f"{name}/given/0", "table-arrow-ipc-v1", 5, 1)
    reads = ChainInput("exchange_1", b"schema", (given.payload_id,))
    return Job(
        name, (Chain("c0", "plan", 2, (reads,)),), (given,), JobOptions(timeout_ms=9, max_attempts=2), "SELECT 1"
    )


def test_what_is_not_over_is_found_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for name in ("j", "done"):
        journal.keep(f"{name}/given/0", b"rows")
        journal.submitted(job(name), "client-1")
    journal.keep(MADE.payload_id, b"abc")
    journal.done(TaskKey("j", "c0", 0, 1), "worker-1", (MADE,))
    journal.over("done")
    # Not closed: the scheduler was killed.
    again = Journal(tmp_path)
    assert list(again.unfinished) == ["j"]
    found = again.unfinished["j"]
    assert found.job == job("j")
    assert found.done == {("c0", 0): (TaskKey("j", "c0", 0, 1), (MADE,))}
    assert again.kept(MADE.payload_id) == b"abc"
    assert again.kept("j/given/0") == b"rows"
    assert again.kept("done/given/0") is None
    again.over("j")
    again.close()
    assert Journal(tmp_path).unfinished == {}
    assert list((tmp_path / "payloads").iterdir()) == []


def test_a_record_that_was_being_written_is_cut_off_at_any_byte(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.submitted(job("first"), "client-1")
    size = (tmp_path / "journal").stat().st_size
    journal.submitted(job("second"), "client-1")
    journal.close()
    whole = (tmp_path / "journal").read_bytes()
    for cut in range(size, len(whole)):
        (tmp_path / "journal").write_bytes(whole[:cut])
        made = Journal(tmp_path)
        made.close()
        assert list(made.unfinished) == ["first"], cut


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"something else altogether")
    with pytest.raises(StateError) as refused:
        Journal(tmp_path)
    assert refused.value.code == "journal.damaged"


def test_it_begins_anew_when_nothing_is_left_in_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, bytes_max=2_000)
    for number in range(100):
        journal.submitted(job(f"j{number}"), "client-1")
        journal.over(f"j{number}")
        assert (tmp_path / "journal").stat().st_size < 3_000
    journal.submitted(job("last"), "client-1")
    journal.close()
    assert list(Journal(tmp_path).unfinished) == ["last"]
