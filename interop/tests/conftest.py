"""What the border tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from velaria_core.session import DataflowSession


@pytest.fixture
def session() -> Iterator[DataflowSession]:
    with DataflowSession() as session:
        yield session
