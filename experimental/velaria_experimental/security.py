"""Who may talk: processes of this host that know the scheduler's token.

A scheduler listens on loopback or a unix socket and on nothing else. It makes a token, or takes one, and writes it to a
file that its user alone can read, named by its address; a worker or client of the same user finds it there. Every
stream carries it, and it is compared in constant time.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from velaria_core.errors import ExternalError, InputError

DEFAULT_ADDRESS: Final = "127.0.0.1:61000"
METADATA_KEY: Final = "authorization"
_SOCKET_BYTES_MAX: Final = 103  # of the systems that we know the least
_HINT: Final = "127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:/PATH"


def checked_address(text: str) -> str:
    """The address, if it is of this host alone.

    Raises:
        InputError[exchange.address]: it is none, or others could reach it.
    """
    if text.startswith("unix:") and len(text) > len("unix:"):
        if len(os.fsencode(text)) - len("unix:") > _SOCKET_BYTES_MAX:
            told = f"the path of a socket has {_SOCKET_BYTES_MAX} bytes at most: {text}"
            raise InputError("exchange.address", told, hint="use a folder with a shorter name")
        return text
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise InputError("exchange.address", f"{text!r} is no address", hint=_HINT)
    if host != "localhost":
        try:
            is_local = ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            is_local = False
        if not is_local:
            raise InputError("exchange.address", f"{host!r} is not this host's own: others could reach it", hint=_HINT)
    return text


def token_path(address: str) -> Path:
    """Where the token of the scheduler at an address is, by default."""
    base = os.environ.get("XDG_RUNTIME_DIR") or str(Path(tempfile.gettempdir(), f"velaria-{os.getuid()}"))
    name = "".join(letter if letter.isalnum() else "-" for letter in address)
    return Path(base, f"velaria-experimental-{name}.token")


def write_token(path: Path) -> str:
    """The token in this file; a new one where there is none.

    Raises:
        ExternalError[exchange.token]: others could read or write it, or it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return read_token(path)
    except OSError as error:
        raise ExternalError("exchange.token", f"writing {path}: {error.strerror}", hint="--token-file") from error
    token = secrets.token_urlsafe(32)
    with os.fdopen(file, "w") as out:
        out.write(token)
    return token


def read_token(path: Path) -> str:
    """The token in this file.

    Raises:
        ExternalError[exchange.token]: there is none, or others could have read or written it.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        hint = "start a scheduler at this address, or name its --token-file"
        raise ExternalError("exchange.token", f"reading {path}: {error.strerror}", hint=hint, retryable=True) from error
    with os.fdopen(file) as source:
        found = os.fstat(source.fileno())
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            told = f"{path} must belong to this user and be readable by nobody else"
            raise ExternalError("exchange.token", told, hint=f"remove {path}")
        token = source.read().strip()
    if len(token) < 16:
        raise ExternalError("exchange.token", f"{path} holds no token", hint="wait a moment", retryable=True)
    return token


def allowed(token: str, metadata: object) -> bool:
    """Whether a stream's metadata carry the token."""
    given = ""
    for key, value in metadata or ():  # type: ignore[attr-defined]
        if key == METADATA_KEY:
            given = value if isinstance(value, str) else ""
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


def credentials(token: str) -> list[tuple[str, str]]:
    """The metadata that `allowed` looks for."""
    return [(METADATA_KEY, f"Bearer {token}")]
