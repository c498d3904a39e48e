"""Cache: a parsed source kept as columns on disk, so that it is parsed once and not once a session.

A source and its options name a folder; size, modification time and inode of its files name the entry in it. An entry
is written beside its place and renamed into it, its description last, so that a reader sees a whole entry or none, and
two processes that write the same one do no harm. An entry of an older version of the file is never read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from velaria_core.errors import DataError, ExternalError, Place
from velaria_core.execution.duck import Engine
from velaria_core.execution.files import scan
from velaria_core.execution.files.faults import name_copy
from velaria_core.execution.files.options import CacheFormat, Materialization, OnError, ReadOptions
from velaria_core.execution.files.paths import File, engine_list, resolve, within
from velaria_core.execution.files.sample import Sample, damaged, open_plain, wrong_encoding
from velaria_core.logical.relation import Relation
from velaria_core.types import duckdb_type, literal, quoted

# Raised when what an entry holds would differ; older entries are then not found.
VERSION = 1
# Another session may still scan an entry of an older version of its file.
STALE_SECONDS = 24 * 3600
STALE_COPY_SECONDS = 7 * 24 * 3600
COPY_BYTES = 1 << 20


def default_directory() -> str:
    """`velaria_source_materialization_cache-<user>` in the temporary folder, for this user only.

    Raises:
        ExternalError[file.forbidden]: another user has made a folder of that name.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    path = os.path.join(tempfile.gettempdir(), f"velaria_source_materialization_cache-{user}")
    os.makedirs(path, mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and os.lstat(path).st_uid != user:
        raise ExternalError(
            "file.forbidden", f'"{path}" belongs to another user', hint="choose a folder: materialization_dir"
        )
    return path


def directory(engine: Engine, chosen: str | None) -> Path:
    """The cache folder, which the engine must be allowed to read and write."""
    path = os.path.abspath(os.path.expanduser(chosen)) if chosen else default_directory()
    try:
        path = within(engine.settings, path)
    except ExternalError as error:
        raise ExternalError(
            "file.forbidden",
            f'the cache folder "{path}" is outside the folders that this session may use',
            hint="choose one inside: materialization_dir",
            cause=error,
        ) from error
    return Path(path)


def materialised(
    engine: Engine,
    kind: str,
    files: tuple[File, ...],
    options: ReadOptions,
    build: Callable[[], scan.Plan],
) -> scan.OpenedFile:
    """The stored columns of a source; parses and stores them when there is no entry for this version of its files.

    Raises:
        DataError[file.changed]: a file was written to while it was read.
    """
    chosen = options.materialization
    source_id = digest(VERSION, kind, options.key(), chosen.format.value, [file.path for file in files])
    version = digest([file.fingerprint for file in files])
    folder = directory(engine, chosen.directory) / source_id
    described = folder / f"{version}.json"
    if not described.exists():
        folder.mkdir(parents=True, exist_ok=True)
        entry = _write(engine, build(), options, folder, version)
        entry |= {
            "source_id": source_id,
            "data_format": chosen.format.value,
            "source_format": kind,
            "source_options": options.key(),
            "abs_path": [file.path for file in files],
            "file_size": [file.size for file in files],
            "mtime_ns": [file.mtime_ns for file in files],
        }
        if tuple(resolve(engine.settings, [file.path for file in files])) != files:
            raise DataError(
                "file.changed",
                f'"{files[0].path}" was written to while it was read',
                hint="read it again when it is whole",
                place=Place(file=files[0].path),
            )
        with _written(described) as path:
            Path(path).write_text(json.dumps(entry, indent=1))
        _forget_stale(folder, version)
    entry = json.loads(described.read_text())
    suffix = _suffix(chosen.format)
    relation = _stored(engine, kind, files, chosen.format, folder / f"{version}{suffix}", entry["types"], "cached ")
    rejects = None
    if options.on_error is OnError.COLLECT:
        rejects = _stored(
            engine,
            kind,
            files,
            CacheFormat.PARQUET,
            folder / f"{version}.rejects.parquet",
            entry["reject_types"],
            "rejects of ",
        )
    warnings = tuple(entry["warnings"])
    if in_memory := chosen.in_memory:
        held = type(options)(materialization=Materialization(in_memory=in_memory))
        plan = scan.Plan(kind, files, relation.sql, feed=relation.feed)
        opened = scan.opened(engine, f"cached {kind} {source_id} {version}", files, held, lambda: plan)
        return scan.OpenedFile(opened.relation, rejects, entry["skipped"], warnings)
    return scan.OpenedFile(relation, rejects, entry["skipped"], warnings)


def digest(*parts: Any) -> str:
    """A name for values: the first 32 hexadecimal digits of their SHA-256."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def _suffix(stored_as: CacheFormat) -> str:
    return ".parquet" if stored_as is CacheFormat.PARQUET else ".arrow"


def _write(engine: Engine, plan: scan.Plan, options: ReadOptions, folder: Path, version: str) -> dict[str, Any]:
    """Store the columns of a plan, and its rejects; gives what the description needs to read them."""
    tables: tuple[str, ...] = ()
    sql, rejects, skipped = plan.sql, None, None
    if options.on_error is not OnError.FAIL and plan.stage is not None:
        sql, rejects, skipped = scan.stage(engine, plan, options)
        tables = (sql, rejects)
    feeds = {plan.sql.strip('"'): plan.feed} if plan.feed is not None else None
    try:
        with engine.cursor(feeds) as cursor:
            schema = cursor.schema(f"SELECT * FROM {sql}")
            target = folder / f"{version}{_suffix(options.materialization.format)}"
            with _written(target) as path:
                if options.materialization.format is CacheFormat.PARQUET:
                    cursor.execute(f"COPY (SELECT * FROM {sql}) TO {literal(path)} (FORMAT parquet)")
                else:
                    reader = cursor.reader(f"SELECT * FROM {sql}", 65_536)
                    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
                        for batch in cursor.batches(reader):
                            writer.write_batch(batch)
        with engine.cursor() as cursor:
            if options.on_error is OnError.COLLECT:
                rows = f"SELECT * FROM {rejects}" if rejects else f"SELECT {_no_rejects()} LIMIT 0"
                with _written(folder / f"{version}.rejects.parquet") as path:
                    cursor.execute(f"COPY ({rows}) TO {literal(path)} (FORMAT parquet)")
    finally:
        scan.drop(engine, *tables)
    return {
        "types": [(item.name, duckdb_type(item.type)) for item in schema],
        "reject_types": [part.split(" ") for part in scan.REJECTS.split(", ")],
        "skipped": skipped,
        "warnings": list(plan.warnings),
    }


def _no_rejects() -> str:
    return ", ".join(
        f"CAST(NULL AS {kind}) AS {name}" for name, kind in (part.split(" ") for part in scan.REJECTS.split(", "))
    )


def _stored(
    engine: Engine,
    kind: str,
    files: tuple[File, ...],
    stored_as: CacheFormat,
    path: Path,
    types: list[tuple[str, str]],
    prefix: str,
) -> Relation:
    """The relation of a stored file. Parquet forgets some types (fixed vectors are lists there): they are cast back."""
    details = (("cache", str(path)),)
    name = prefix + scan.label(kind, files)
    if stored_as is CacheFormat.ARROW:
        from velaria_core.execution.files import arrow

        plan = arrow.plan_of((File(str(path), path.stat().st_size, 0, 0),))
        found = scan.relation_of(engine, plan)
        return Relation(name, found.schema, found.sql, kind, found.feed, scan.COLUMNAR, details)
    call = f"read_parquet({engine_list([str(path)])})"
    with engine.cursor() as cursor:
        stored = cursor.schema(f"SELECT * FROM {call}")
        shown = [
            f"CAST({quoted(column)} AS {wanted}) AS {quoted(column)}"
            if duckdb_type(stored.field(column).type) != wanted
            else quoted(column)
            for column, wanted in types
        ]
        sql = call if all(text.startswith('"') for text in shown) else f"(SELECT {', '.join(shown)} FROM {call})"
        return Relation(name, cursor.schema(f"SELECT * FROM {sql}"), sql, kind, None, scan.COLUMNAR, details)


@contextmanager
def _written(target: Path) -> Iterator[str]:
    """A path to write to, which becomes `target` when all of it is written, and nothing when it is not."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        yield str(temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _forget_stale(folder: Path, version: str) -> None:
    """Remove entries of older versions of the source that nobody can be scanning any more."""
    limit = time.time() - STALE_SECONDS
    for path in folder.iterdir():
        if version not in path.name and path.stat().st_mtime < limit:
            with contextlib.suppress(OSError):
                path.unlink()


# --- plain copies -----------------------------------------------------------------------------------------------------


def plain_copy(engine: Engine, sample: Sample, chosen: Materialization) -> str:
    """A UTF-8 copy with `\\n` line ends of a file that the engine cannot read as it is; lines keep their numbers.

    For other encodings, byte order marks before JSON, mixed line ends, and bz2, xz and zip. Kept in the cache.

    Raises:
        DataError[file.encoding]: the text is not in the encoding, with the line. DataError[file.truncated].
    """
    file = sample.file
    folder = directory(engine, chosen.directory) / "plain" / digest(file.fingerprint, sample.encoding)
    target = folder / os.path.basename(file.path)
    if target.exists():
        os.utime(target)  # still in use
    else:
        _forget_copies(folder.parent)
        folder.mkdir(parents=True, exist_ok=True)
        with _written(target) as path:
            try:
                _copy_text(file, sample, path)
            except UnicodeDecodeError as error:
                raise _at_line(file, sample, error) from error
            except (OSError, EOFError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise damaged(file, error) from error
    name_copy(str(target), file.path)
    return str(target)


def _forget_copies(folder: Path) -> None:
    """Remove plain copies that nobody has opened for long."""
    limit = time.time() - STALE_COPY_SECONDS
    for path in folder.glob("*/*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()
                path.parent.rmdir()


def _copy_text(file: File, sample: Sample, path: str) -> None:
    import io

    with (
        open_plain(file, sample.compression) as stream,
        io.TextIOWrapper(stream, encoding=sample.encoding, newline=None) as text,
        open(path, "w", encoding="utf-8", newline="\n") as out,
    ):
        shutil.copyfileobj(text, out, COPY_BYTES)


def _at_line(file: File, sample: Sample, error: UnicodeDecodeError) -> DataError:
    """The error with the line of the file, which a decoder that works in chunks cannot tell."""
    with open_plain(file, sample.compression) as stream:
        data = stream.read()
    try:
        data.decode(sample.encoding)
    except UnicodeDecodeError as whole:
        return wrong_encoding(file, data, sample.encoding, whole)
    return wrong_encoding(file, data, sample.encoding, error)
