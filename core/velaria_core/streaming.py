"""StreamingDataFrame: a plan that runs continuously, once it is given a sink."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from velaria_core.contract import abi
from velaria_core.contract.modes import DeliveryMode, OutputMode, Trigger
from velaria_core.errors import InputError, did_you_mean
from velaria_core.execution.options import StreamOptions
from velaria_core.execution.runtime import StreamingQuery
from velaria_core.frame import Frame
from velaria_core.logical.explain import tree
from velaria_core.logical.rules import for_stream

if TYPE_CHECKING:
    from velaria_core.dataframe import DataFrame
    from velaria_core.logical.node import Node
    from velaria_core.session import DataflowSession


class StreamingDataFrame(Frame):
    """Rows that keep coming. The verbs are those of a DataFrame; `write_stream` makes a query of it.

    Attributes:
        output_mode: what `write_stream` takes where it is not told: as EMIT says in SQL, "update" otherwise.
    """

    def __init__(
        self, session: DataflowSession, node: Node, *, text: str | None = None, output_mode: str = "update"
    ) -> None:
        super().__init__(session, node, text=text)
        self.output_mode = output_mode

    def write_stream(
        self,
        sink: abi.Sink,
        *,
        trigger: Trigger | None = None,
        checkpoint_path: str | None = None,
        output_mode: str | None = None,
        delivery_mode: str = "exactly-once",
        epoch_rows_max: int = 65_536,
    ) -> StreamingQuery:
        """A query that runs this plan into `sink`; `start()` it, or `process_available()` on this thread.

        Args:
            trigger: when epochs start; as soon as rows are there by default.
            checkpoint_path: folder that makes the query durable: written again with the same folder it goes on.
            output_mode: "update" (changes of the result), "complete" (the whole result each time), or "append" (rows
                that never change). By default the frame's own.
            delivery_mode: "exactly-once", "at-least-once" or "best-effort"; `query.delivery` says what holds.
            epoch_rows_max: rows after which an epoch is full.

        Raises:
            InputError[stream.output_mode]: the sink does not take what the query gives.
            StateError[checkpoint.other_query, checkpoint.version, database.locked].
        """
        options = StreamOptions(
            trigger=trigger if trigger is not None else Trigger.processing_time(0),
            checkpoint_path=checkpoint_path,
            output_mode=_member(OutputMode, output_mode or self.output_mode),
            delivery_mode=_member(DeliveryMode, delivery_mode),
            epoch_rows_max=epoch_rows_max,
        )
        return StreamingQuery(self._session._engine, for_stream(self.node), sink, options)

    def batch(self) -> DataFrame:
        """The same plan over rows that are there; refused while it reads a stream."""
        if self.is_stream:
            raise InputError("frame.is_stream", "a stream has no end to wait for", hint="write_stream(sink)")
        from velaria_core.dataframe import DataFrame

        return DataFrame(self._session, self.node, text=self._text)

    def explain(self) -> str:
        """The plan, each operator with its incremental shape and what an epoch costs it."""
        return tree(for_stream(self.node), shapes=True)

    def __repr__(self) -> str:
        names = ", ".join(f"{field.name}: {field.type}" for field in self.schema)
        return f"StreamingDataFrame[{names}]"


Mode = TypeVar("Mode", OutputMode, DeliveryMode)


def _member(kind: type[Mode], text: str) -> Mode:
    try:
        return kind(text)
    except ValueError:
        hint = did_you_mean(text, [str(member) for member in kind], "modes")
        raise InputError("stream.mode", f'no mode "{text}"', hint=hint) from None
