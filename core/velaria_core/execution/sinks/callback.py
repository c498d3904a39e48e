"""Callback: a function that is given each epoch's table."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa

from velaria_core.contract.abi import SinkContext, SinkInfo
from velaria_core.contract.modes import SinkMode
from velaria_core.errors import ExternalError, VelariaError


class CallbackSink:
    """Calls `function(epoch, table)`, in the query's thread, before the epoch is durable.

    So nothing is lost: an epoch whose call did not return is run again after a crash, and its call is made again, with
    the same number and perhaps with its rows cut otherwise.

    To be called less often with more rows, ask the query for larger epochs: with `trigger_interval_ms` rows wait for
    each other that long, and `epoch_rows_max` is how many a call gets at most. A sink that gathered rows over several
    epochs would lose them in a crash, as they are then durable in the query and given nowhere.

    Args:
        function: gets the epoch, counted from 1, and its changes in the form of the query's mode. What it raises
            fails the epoch.
        modes: which forms it can take.
        idempotent: the function promises that a repeated epoch leaves what one call leaves.
    """

    def __init__(
        self,
        function: Callable[[int, pa.Table], object],
        *,
        modes: Iterable[SinkMode] = tuple(SinkMode),
        idempotent: bool = False,
    ) -> None:
        self._function = function
        self._info = SinkInfo(frozenset(modes), transactional=False, idempotent=idempotent)

    def info(self) -> SinkInfo:
        return self._info

    def open(self, context: SinkContext) -> None:
        """Nothing to do."""

    def stage(self, epoch: int, changes: pa.Table) -> str:
        """Make the call.

        Raises:
            VelariaError: that the function raised. ExternalError[sink.callback]: it raised another exception.
        """
        try:
            self._function(epoch, changes)
        except VelariaError:
            raise
        except Exception as error:
            told = f"the function raised {type(error).__name__} for epoch {epoch}: {error}"
            raise ExternalError("sink.callback", told, cause=error) from error
        return ""

    def commit(self, epoch: int, ref: str) -> None:
        """Nothing to do: the call is made."""

    def abort(self, epoch: int, ref: str) -> None:
        """A call cannot be taken back."""

    def close(self) -> None:
        """Nothing to do."""
