"""Sample: enough of a file to say what it is, read once for probing, dialect and types.

A small file is read whole, so that what is found holds for all of it. Of a large one the head and evenly spread
blocks down to its end are read: the first lines of a file are often unlike the rest.
"""

from __future__ import annotations

import codecs
import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from velaria_core.errors import DataError, InputError, Place
from velaria_core.execution.files.paths import File

WHOLE_BYTES_MAX = 512 * 1024
HEAD_BYTES = 128 * 1024
BLOCK_BYTES = 16 * 1024
BLOCKS = 15
FIRST_BYTES = 64 * 1024

# Suggested for a file that is not UTF-8, the first that decodes it; Chinese before the one that decodes all.
FALLBACK_ENCODINGS = ("gb18030", "shift_jis", "cp1252", "latin-1")

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMPRESSIONS = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
)
# Formats that are read otherwise, so that the error can say how.
_FOREIGN = (
    (b"PAR1", "Parquet", "use read_parquet, or read"),
    (b"ARROW1", "Arrow", "use read_arrow, or read"),
    (b"%PDF", "a PDF", None),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "save it as .xlsx or CSV"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV or Parquet"),
    (b"\x89PNG", "a picture", None),
    (b"\xff\xd8\xff", "a picture", None),
    (b"Obj\x01", "Avro", "convert it to Parquet"),
    (b"ORC", "ORC", "convert it to Parquet"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Text from a file.

    Attributes:
        head: whole lines from the start, line ends as `\\n`.
        blocks: whole lines from further down; where each starts is not known.
        complete: the head is the whole file.
        compression: none, gzip, zstd, bz2, xz or zip, by the first bytes.
        encoding: as Python names it; `utf-8-sig` and `utf-16` were told by a byte order mark.
        mixed_newlines: lines end in more than one way.
    """

    file: File
    head: str
    blocks: tuple[str, ...]
    complete: bool
    compression: str
    encoding: str
    mixed_newlines: bool

    def lines(self, limit: int | None = None) -> list[str]:
        """The lines of the head that are not blank."""
        lines = [line for line in self.head.split("\n") if line.strip()]
        return lines[:limit]

    def all_lines(self) -> Iterator[str]:
        """The lines of head and blocks that are not blank."""
        for text in (self.head, *self.blocks):
            yield from (line for line in text.split("\n") if line.strip())


def compression_of(first: bytes, path: str) -> str:
    """The compression by magic bytes. A zip archive counts when it is not an office document."""
    for magic, name in _COMPRESSIONS:
        if first.startswith(magic):
            return name
    if first.startswith(b"PK\x03\x04") and path.lower().endswith(".zip"):
        return "zip"
    return "none"


def first_bytes(file: File, count: int = 16) -> bytes:
    """The first bytes as they are stored."""
    with open(file.path, "rb") as stream:
        return stream.read(count)


def open_plain(file: File, compression: str) -> IO[bytes]:
    """A stream of the uncompressed bytes.

    Raises:
        InputError[file.archive]: a zip archive holds more or fewer than one file.
    """
    if compression == "gzip":
        import gzip

        return gzip.open(file.path, "rb")  # type: ignore[return-value]
    if compression == "bz2":
        import bz2

        return bz2.open(file.path, "rb")
    if compression == "xz":
        import lzma

        return lzma.open(file.path, "rb")
    if compression == "zstd":
        import pyarrow as pa

        stream: Any = pa.input_stream(file.path, compression="zstd")
        return io.BufferedReader(stream)
    if compression == "zip":
        import zipfile

        archive = zipfile.ZipFile(file.path)
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise InputError(
                "file.archive",
                f'"{file.path}" holds {len(names)} files, and one can be read in place',
                hint="unpack it first",
            )
        return archive.open(names[0])
    return open(file.path, "rb")


def take_sample(file: File, encoding: str | None = None) -> Sample:
    """Read the sample of a text file. One open, at most 512 KB; 1 to 3 ms.

    Raises:
        DataError[file.empty, file.binary, file.encoding, file.truncated]: it is no text that could be read.
    """
    if not file.size:
        raise DataError("file.empty", f'"{file.path}" is empty', place=Place(file=file.path))
    try:
        return _take(file, encoding)
    except OSError as error:
        raise damaged(file, error) from error
    except (EOFError, zlib.error) as error:
        raise damaged(file, error) from error


def damaged(file: File, error: BaseException) -> DataError:
    """A compressed file that ends early or holds other bytes than it should."""
    return DataError(
        "file.truncated",
        f'"{file.path}" is cut off or damaged: {error}',
        hint="fetch or write it again",
        place=Place(file=file.path),
        cause=error,
    )


def inspect(file: File) -> str:
    """The compression of a file that is not sampled; a zst file is checked to be whole."""
    compression = compression_of(first_bytes(file), file.path)
    if compression == "zstd":
        try:
            check_zstd(file)
        except EOFError as error:
            raise damaged(file, error) from error
    return compression


def first_text(file: File, encoding: str | None = None) -> str:
    """The first 64 KB of a text file, for its header; bytes that do not decode are replaced."""
    with open_plain(file, compression_of(first_bytes(file), file.path)) as stream:
        head = stream.read(FIRST_BYTES)
    chosen = encoding or encoding_by_mark(head) or "utf-8"
    return _newlines(codecs.getincrementaldecoder(chosen)(errors="replace").decode(head))


def check_zstd(file: File) -> None:
    """Raise EOFError for a zst file that is cut off, which the engine would read as a shorter one.

    Goes from block to block by their sizes, without decompressing: one seek for up to 128 KB.
    Source: RFC 8878, section 3.1.
    """
    with open(file.path, "rb") as stream:
        while (magic := int.from_bytes(stream.read(4), "little")) or stream.tell() < file.size:
            if magic & 0xFFFFFFF0 == 0x184D2A50:  # a frame to be skipped
                stream.seek(int.from_bytes(_exactly(stream, 4), "little"), os.SEEK_CUR)
                continue
            if magic != 0xFD2FB528:
                raise EOFError("bytes that are no frame follow the last one")
            (descriptor,) = _exactly(stream, 1)
            single = descriptor >> 5 & 1
            _exactly(stream, (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6])
            last = False
            while not last:
                header = int.from_bytes(_exactly(stream, 3), "little")
                last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
                stream.seek(1 if kind == 1 else size, os.SEEK_CUR)
            stream.seek(4 if descriptor >> 2 & 1 else 0, os.SEEK_CUR)
            if stream.tell() > file.size:
                raise EOFError("the last block ends early")


def _exactly(stream: IO[bytes], count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise EOFError("a block begins beyond the end")
    return found


def _take(file: File, encoding: str | None) -> Sample:
    raw = first_bytes(file)
    compression = compression_of(raw, file.path)
    if compression == "zstd":
        check_zstd(file)
    limit = WHOLE_BYTES_MAX
    if compression == "none":
        refuse_binary(file, raw, encoding)
        if file.size > WHOLE_BYTES_MAX:
            limit = HEAD_BYTES
    with open_plain(file, compression) as stream:
        head = stream.read(limit + 1)
        complete = len(head) <= limit
        if not complete:
            head = head[:limit]
        refuse_binary(file, head, encoding)
        chosen = encoding or encoding_by_mark(head) or "utf-8"
        blocks = []
        if not complete and compression == "none" and not chosen.startswith(("utf-16", "utf-32")):
            for number in range(1, BLOCKS + 1):
                start = HEAD_BYTES + (file.size - HEAD_BYTES - BLOCK_BYTES) * number // BLOCKS
                stream.seek(max(start, HEAD_BYTES))
                blocks.append(stream.read(BLOCK_BYTES))
                if start <= HEAD_BYTES:
                    break
    text = _decoded(file, head, chosen, complete)
    mixed = "\r\n" in text and text.count("\n") != text.count("\r\n")
    return Sample(
        file=file,
        head=_newlines(text),
        blocks=tuple(_block_lines(block, chosen, last=block is blocks[-1]) for block in blocks),
        complete=complete,
        compression=compression,
        encoding=chosen,
        mixed_newlines=mixed,
    )


def encoding_by_mark(head: bytes) -> str | None:
    """The encoding that a byte order mark tells."""
    return next((name for mark, name in _BOMS if head.startswith(mark)), None)


def refuse_binary(file: File, head: bytes, encoding: str | None = None) -> None:
    """Raise DataError[file.binary] for bytes that are no text."""
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            raise DataError("file.binary", f'"{file.path}" is {what}, not text', hint=hint, place=Place(file=file.path))
    if head.startswith(b"PK\x03\x04") and not file.path.lower().endswith(".zip"):
        raise DataError(
            "file.binary",
            f'"{file.path}" is a zip archive or office document, not text',
            hint="an Excel sheet is read by velaria's excel import; a zip archive must be named .zip",
            place=Place(file=file.path),
        )
    wide = encoding is not None and encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
    if b"\0" in head and not wide and not head.startswith(tuple(mark for mark, _ in _BOMS[1:])):
        line = head.count(b"\n", 0, head.index(b"\0")) + 1
        raise DataError(
            "file.binary",
            f'"{file.path}" is not text: it holds a NUL byte',
            hint='UTF-16 without a mark must be named: encoding="utf-16-le"',
            place=Place(file=file.path, line=line),
        )


def _decoded(file: File, head: bytes, encoding: str, complete: bool) -> str:
    """The head as text, cut at its last line end when the file goes on."""
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        raise InputError(
            "option.value", f"no encoding {encoding!r}", hint="e.g. utf-8, gb18030, latin-1", cause=error
        ) from error
    try:
        text = decoder.decode(head, final=complete)
    except UnicodeDecodeError as error:
        raise wrong_encoding(file, head, encoding, error) from error
    if not complete:
        cut = max(text.rfind("\n"), text.rfind("\r"))
        text = text[: cut + 1] if cut >= 0 else text
    return text


def wrong_encoding(file: File, data: bytes, encoding: str, error: UnicodeDecodeError) -> DataError:
    """The error for bytes that are not `encoding`: the line of the first, and an encoding that reads them."""
    line = data.count(b"\n", 0, error.start) + 1
    return DataError(
        "file.encoding",
        f'"{os.path.basename(file.path)}" is not {encoding.upper()}: byte 0x{data[error.start]:02x} in line {line}',
        hint=encoding_hint(data, encoding),
        place=Place(file=file.path, line=line),
        cause=error,
    )


def encoding_hint(data: bytes, tried: str) -> str:
    """Which encodings decode these bytes."""
    readable: list[str] = []
    for name in FALLBACK_ENCODINGS:
        if name == tried:
            continue
        try:
            codecs.getincrementaldecoder(name)().decode(data, final=False)
        except UnicodeDecodeError:
            continue
        readable.append(name)
    return "name the encoding; it reads as " + " or ".join(f'encoding="{name}"' for name in readable[:3])


def _newlines(text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removeprefix("\ufeff")


def _block_lines(block: bytes, encoding: str, *, last: bool) -> str:
    """The whole lines of a block: its first is cut off, and its last too unless the file ends with it."""
    text = _newlines(block.decode(encoding, errors="replace"))
    first = text.find("\n")
    end = len(text) if last else text.rfind("\n")
    return text[first + 1 : end] if 0 <= first < end else ""
