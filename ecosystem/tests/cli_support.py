"""What the tests of the command line share: the types of their fixtures, and data."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Protocol

ORDERS = "id,name,price\n1,ada,1.5\n2,北京,\n3,eve,7\n"

# Runs for hours, on all cores, and gives no row for a long time.
ENDLESS = "SELECT i, j FROM range(100000000) a(i), range(100000000) b(j) WHERE i * j % 1000003 = 7 AND i + j < 0"


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code, and what it wrote."""

    code: int
    data: bytes
    errors: str

    @property
    def text(self) -> str:
        return self.data.decode()


class Run(Protocol):
    """Runs a command line to its end."""

    def __call__(self, *arguments: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> Ran: ...


class Start(Protocol):
    """Starts a command line as a process; `rest` as for Popen."""

    def __call__(
        self, *arguments: str, env: dict[str, str] | None = None, **rest: object
    ) -> subprocess.Popen[bytes]: ...
