"""Paths: which files a caller means, and whether the session may read them.

Globs, lists and folders become a sorted tuple of plain files here, in one place, before the engine hears of any:
it would otherwise read a folder recursively, and take `[` in a file's own name for a pattern.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from velaria_core.errors import ExternalError, InputError, did_you_mean
from velaria_core.execution.duck import Settings
from velaria_core.types import literal

PathLike = str | os.PathLike[str]

# Suffix (below .gz or .zst) -> format, for folders and for the probe's evidence.
SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".log": "line",
    ".txt": "line",
    ".lines": "line",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
}
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz", ".zip")


@dataclass(frozen=True, slots=True)
class File:
    """A regular file and what tells one version of it from another."""

    path: str
    size: int
    mtime_ns: int
    inode: int

    @property
    def fingerprint(self) -> tuple[str, int, int, int]:
        return self.path, self.size, self.mtime_ns, self.inode

    @property
    def suffix(self) -> str:
        """The suffix that tells the format: `.csv` of `a.csv.gz`."""
        return suffix_of(self.path)


def suffix_of(path: str) -> str:
    """The suffix below a compression's, in lower case."""
    base = path.lower()
    for compression in COMPRESSIONS:
        base = base.removesuffix(compression)
    return os.path.splitext(base)[1]


def stem_of(path: str) -> str:
    """The file name without folder and suffixes: what a table is called."""
    base = os.path.basename(path.rstrip("/"))
    for compression in COMPRESSIONS:
        if base.lower().endswith(compression):
            base = base[: -len(compression)]
    return os.path.splitext(base)[0]


def looks_like_path(name: str) -> bool:
    """Whether a name in FROM is meant as a file: it has a folder, a known suffix, or is there."""
    return bool("/" in name or suffix_of(name) in SUFFIXES or glob.has_magic(name))


def resolve(settings: Settings, path: PathLike | Sequence[PathLike], formats: Sequence[str] = ()) -> tuple[File, ...]:
    """The files that `path` names: one, a list, a glob, or a folder of files in one of `formats`.

    Returns:
        Sorted within each glob and folder; at least one; empty files left out where others have bytes.
    Raises:
        InputError[file.not_found, file.directory, file.not_regular, file.remote]: nothing can be read there.
        ExternalError[file.forbidden]: outside the session's roots; whether it exists is not told.
        ExternalError[file.unreadable]: the user may not read it.
    """
    items = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    if not items:
        raise InputError("file.not_found", "the list of paths is empty")
    found: list[File] = []
    for item in items:
        found.extend(_one(settings, os.fspath(item), formats))
    filled = [file for file in found if file.size]
    return tuple(filled or found)


def _one(settings: Settings, text: str, formats: Sequence[str]) -> list[File]:
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" in text:
        raise InputError(
            "file.remote",
            f'"{text}" is not on this machine',
            hint="copy it first, or open it through velaria_interop's object stores",
        )
    if not text or "\0" in text:
        raise InputError("file.not_found", "the path is empty" if not text else "the path has a NUL character")
    whole = os.path.abspath(os.path.expanduser(text))
    if os.path.lexists(whole) or not glob.has_magic(text):
        allowed = within(settings, whole)
        if os.path.isdir(allowed):
            return _folder(settings, allowed, formats)
        return [_file(allowed, text)]
    return _matches(settings, whole, text)


def within(settings: Settings, path: str) -> str:
    """`path` with its links resolved, when it is below one of the session's roots (or there are none).

    Raises:
        ExternalError[file.forbidden]: it is not.
    """
    if settings.roots is None:
        return path
    real = os.path.realpath(path)
    for root in settings.roots:
        real_root = os.path.realpath(root)
        if real == real_root or real.startswith(real_root.rstrip("/") + "/"):
            # The engine compares texts, with the root as the session wrote it.
            return os.path.normpath(os.path.join(os.path.abspath(root), os.path.relpath(real, real_root)))
    raise ExternalError(
        "file.forbidden",
        f'"{path}" is outside the folders that this session may use',
        hint="allowed: " + ", ".join(settings.roots),
    )


def _matches(settings: Settings, pattern: str, text: str) -> list[File]:
    fixed = pattern[: next(at for at, ch in enumerate(pattern) if ch in "*?[")]
    within(settings, os.path.dirname(fixed))
    names = sorted(name for name in glob.glob(pattern, recursive=True) if os.path.isfile(name))
    if not names:
        raise InputError("file.not_found", f'no file matches "{text}"', hint="check the folder and the pattern")
    return [_file(within(settings, name), name) for name in names]


def _file(path: str, text: str) -> File:
    try:
        found = os.stat(path)
    except PermissionError as error:
        raise _unreadable(text) from error
    except OSError as error:
        raise InputError("file.not_found", f'no file "{text}"', hint=_neighbours(path), cause=error) from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError("file.not_regular", f'"{text}" is a pipe or device', hint="save what it gives to a file first")
    if not os.access(path, os.R_OK):
        raise _unreadable(text)
    return File(path, found.st_size, found.st_mtime_ns, found.st_ino)


def _unreadable(text: str) -> ExternalError:
    return ExternalError("file.unreadable", f'"{text}" may not be read by this user', hint="change its permissions")


def _neighbours(path: str) -> str:
    folder = os.path.dirname(path)
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return f'the folder "{folder}" is not there'
    hint = did_you_mean(os.path.basename(path), names, "files")
    return hint if hint and hint.startswith("did") else f'look into "{folder}"'


def _folder(settings: Settings, folder: str, formats: Sequence[str]) -> list[File]:
    """The data files below a folder, nested only by `key=value`, when all are of one format."""
    names: list[str] = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if "=" in name)
        names += [os.path.join(where, name) for name in sorted(files) if name[0] not in "._"]
    by_format: dict[str, list[str]] = {}
    for name in names:
        kind = SUFFIXES.get(suffix_of(name))
        if kind is not None and (not formats or kind in formats):
            by_format.setdefault(kind, []).append(name)
    if len(by_format) != 1:
        what = "files of several formats" if by_format else "no data files"
        raise InputError(
            "file.directory",
            f'"{folder}" is a folder with {what}',
            hint=f'name the files, e.g. "{folder}/*.{min(by_format, default="csv")}"',
        )
    (chosen,) = by_format.values()
    return [_file(within(settings, name), name) for name in chosen]


def engine_list(paths: Sequence[str]) -> str:
    """Paths as the engine's list of literal names: a bracket, star or question mark in a name is no pattern."""
    return "[" + ", ".join(literal(glob.escape(path)) for path in paths) + "]"
