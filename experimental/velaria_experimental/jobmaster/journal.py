"""Journal: what a scheduler must know to go on with the jobs of one that died.

A folder: `journal` has a record for each job that was submitted, each task that was done, and each job that is over;
`payloads/` has the rows that came over the stream, a file each, named by a hash. A record is a length, a checksum and
a message; what a crash has left of the last one is cut off. A submission is on disk before it is acknowledged; a task
that is lost from the journal only runs again.

Invariant: a record names payload files that were complete before it was written.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from google.protobuf.message import DecodeError

from velaria_core.errors import StateError
from velaria_experimental.jobmaster.effects import TaskKey
from velaria_experimental.jobmaster.graph import Job, Payload
from velaria_experimental.wire.codec import job_message, job_of, key_message, key_of, payload_message, payloads_of
from velaria_experimental.wire.v1 import runtime_pb2 as pb

_HEAD: Final = struct.Struct("<II")  # bytes, crc32
_MAGIC: Final = b"velaria-journal-1\n"


@dataclass(slots=True)
class Unfinished:
    """A job that was not over, and what of it was done."""

    job: Job
    client: str
    done: dict[tuple[str, int], tuple[TaskKey, tuple[Payload, ...]]] = field(default_factory=dict)


class Journal:
    """The journal of one scheduler at a time.

    Args:
        folder: made where it is not there.
        bytes_max: it is begun anew when it is larger, and no job is left in it.

    Raises:
        StateError[journal.damaged]: the file there is no journal.
    """

    def __init__(self, folder: Path, bytes_max: int = 1 << 20) -> None:
        self.folder, self._bytes_max = folder, bytes_max
        self._payloads = folder / "payloads"
        self._payloads.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / "journal"
        self.unfinished = self._read()
        self._live = set(self.unfinished)
        self._file = self._rewritten()

    def submitted(self, job: Job, client: str) -> None:
        """A job is about to be accepted. On disk when this returns: 1 to 5 ms."""
        self._live.add(job.job_id)
        self._append(pb.Frame(node_id=client, submit=pb.Submit(job=job_message(job))))
        os.fsync(self._file.fileno())

    def done(self, key: TaskKey, node_id: str, payloads: tuple[Payload, ...]) -> None:
        """A task was done."""
        told = pb.Result(task=key_message(key), ok=True, payloads=map(payload_message, payloads))
        self._append(pb.Frame(node_id=node_id, result=told))

    def over(self, job_id: str) -> None:
        """A job has ended, and its client knows."""
        self._append(pb.Frame(cancel=pb.Cancel(job_id=job_id)))
        self._live.discard(job_id)
        if not self._live and self._file.tell() > self._bytes_max:
            self._file.close()
            self.unfinished = {}
            self._file = self._rewritten()

    def keep(self, payload_id: str, data: bytes) -> None:
        """Rows that came over the stream; they outlive the scheduler."""
        path = self._file_of(payload_id)
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.rename(path)

    def kept(self, payload_id: str) -> bytes | None:
        """The rows that `keep` was given; None where they are gone."""
        try:
            return self._file_of(payload_id).read_bytes()
        except FileNotFoundError:
            return None

    def drop(self, payload_id: str) -> None:
        """Nobody needs these rows any more."""
        self._file_of(payload_id).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # --- inside ---------------------------------------------------------------------------------------------

    def _file_of(self, payload_id: str) -> Path:
        return self._payloads / f"{hashlib.sha256(payload_id.encode()).hexdigest()[:40]}.arrow"

    def _append(self, frame: pb.Frame) -> None:
        data = frame.SerializeToString()
        self._file.write(_HEAD.pack(len(data), zlib.crc32(data)) + data)
        self._file.flush()

    def _read(self) -> dict[str, Unfinished]:
        found: dict[str, Unfinished] = {}
        for frame in self._records():
            if frame.HasField("submit"):
                job = job_of(frame.submit.job)
                found[job.job_id] = Unfinished(job, frame.node_id)
            elif frame.HasField("result"):
                key = key_of(frame.result.task)
                if (one := found.get(key.job_id)) is not None:
                    one.done[key.chain_id, key.task_id] = (key, tuple(payloads_of(frame.result.payloads)))
            else:
                found.pop(frame.cancel.job_id, None)
        return found

    def _records(self) -> Iterator[pb.Frame]:
        if not self._path.exists():
            return
        data = self._path.read_bytes()
        if not data.startswith(_MAGIC[: len(data)]):
            hint = "name another folder, or remove it: its jobs are then submitted again by their clients"
            raise StateError("journal.damaged", f"{self._path} is no journal of this version", hint=hint)
        at = len(_MAGIC)
        while at + _HEAD.size <= len(data):
            size, checksum = _HEAD.unpack_from(data, at)
            record = data[at + _HEAD.size : at + _HEAD.size + size]
            if len(record) < size or zlib.crc32(record) != checksum:
                return  # the record that was being written
            try:
                yield pb.Frame.FromString(record)
            except DecodeError as error:
                raise StateError("journal.damaged", f"{self._path}: a record at {at} does not read") from error
            at += _HEAD.size + size

    def _rewritten(self) -> BinaryIO:
        """The journal with what still matters, as a new file in the place of the old one."""
        fresh = self._path.with_suffix(".new")
        file = fresh.open("wb")
        self._file = file
        file.write(_MAGIC)
        needed: set[Path] = set()
        for one in self.unfinished.values():
            self._append(pb.Frame(node_id=one.client, submit=pb.Submit(job=job_message(one.job))))
            needed.update(self._file_of(payload.payload_id) for payload in one.job.payloads)
            for key, payloads in one.done.values():
                self.done(key, "", payloads)
                needed.update(self._file_of(payload.payload_id) for payload in payloads)
        os.fsync(file.fileno())
        fresh.rename(self._path)
        for path in self._payloads.iterdir():
            if path not in needed:
                path.unlink(missing_ok=True)
        return file
