"""Array file: named NumPy arrays in one file, read by mapping it into memory.

    8 bytes      VELARRAY
    8 bytes      length of the header, little-endian
    header       JSON: {name: {"type": "<i4", "count": n, "at": bytes from the start of the file}}
    arrays       little-endian, each on a multiple of 64 bytes

The file says nothing of its checksum: who names the file keeps it, and so notices a file that was swapped.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_MAGIC: Final = b"VELARRAY"
_ALIGNED: Final = 64
_CHUNK: Final = 1 << 22


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> int:
    """Write one-dimensional arrays into a new file, and wait until they are on disk.

    Returns:
        The checksum of the file.
    Raises:
        OSError: there is a file of this name, or this one is there in part.
    """
    told: dict[str, dict[str, Any]] = {
        name: {"type": _kind(array), "count": len(array)} for name, array in arrays.items()
    }
    # Places depend on the header's length: it is written with room for the largest.
    room = len(json.dumps({name: {**one, "at": 1 << 62} for name, one in told.items()})) + 16
    at = room
    for name, array in arrays.items():
        at += -at % _ALIGNED
        told[name]["at"] = at
        at += array.nbytes
    header = json.dumps(told).encode()
    with open(path, "xb") as stream:
        stream.write(_MAGIC + len(header).to_bytes(8, "little") + header)
        for name, array in arrays.items():
            stream.seek(told[name]["at"])
            stream.write(np.ascontiguousarray(array, _kind(array)).data.cast("B"))
        stream.truncate(at)
        stream.flush()
        os.fsync(stream.fileno())
    return checksum(path)


def checksum(path: Path) -> int:
    """The CRC-32 of a file, at about 1 GB/s."""
    found = 0
    with open(path, "rb") as stream:
        while block := stream.read(_CHUNK):
            found = zlib.crc32(block, found)
    return found


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Map the arrays of a file that `write_arrays` wrote; nothing is read before it is looked at.

    Raises:
        OSError, ValueError: it cannot be read, or is none.
    """
    whole = np.memmap(path, np.uint8, "r")
    if bytes(whole[:8]) != _MAGIC:
        raise ValueError("no array file")
    length = int.from_bytes(bytes(whole[8:16]), "little")
    header = json.loads(bytes(whole[16 : 16 + length]))
    made = {}
    for name, one in header.items():
        kind = np.dtype(one["type"])
        part = whole[one["at"] : one["at"] + one["count"] * kind.itemsize]
        # A plain array, whose slices cost less than a memmap's.
        made[name] = np.frombuffer(part, kind) if one["count"] else np.empty(0, kind)
    return made


def _kind(array: npt.NDArray[Any]) -> str:
    return array.dtype.newbyteorder("<").str
