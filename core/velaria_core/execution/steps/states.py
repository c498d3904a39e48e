"""State steps: aggregates over rows that only come, as states of the engine by key.

An epoch's rows are grouped once, and one entry for each key is appended to a table: no row is read again. The values of
the touched keys are merged from their entries, and compared with what was shown of them, which is kept as well: merging
floating point numbers in another order may give another last digit, and a row that was never shown must not be
retracted.

Invariant: entries are merged, key by key, once as much has been appended as was there after the last time, so there are
at most twice as many as keys, and `SLACK_ROWS` and an epoch's own more. Where a state holds all its values, these are
what is counted, and merging them has a constant cost for each row too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from velaria_core.changes import DIFF
from velaria_core.errors import VelariaError
from velaria_core.execution.state import Store
from velaria_core.execution.steps.base import COUNT, Changes, Moment, Step, fitted, some
from velaria_core.execution.steps.horizon import Horizons
from velaria_core.execution.steps.rows import SLACK_ROWS, Log
from velaria_core.logical.expr import to_sql
from velaria_core.logical.node import Node
from velaria_core.logical.states import States
from velaria_core.types import quoted

_SAMPLE_ROWS: Final = 1_000


class Entries:
    """States by key in a table, to which each epoch appends. Columns k0, k1, ... and s0, s1, ..."""

    held: Final = None  # in memory
    is_in_table: bool = True

    def __init__(self, store: Store, name: str, states: States, rows: str, grows: bool) -> None:
        """
        Args:
            rows: the SQL name of what has an epoch's rows.
        """
        self._store, self._cursor, self._grows = store, store.cursor, grows
        keys = [f"k{at}" for at in range(len(states.keys))]
        calls = [f"s{at}" for at in range(len(states.calls))]
        group = f" GROUP BY {', '.join(keys)}" if keys else ""
        shown = [f"{to_sql(tree)} AS {key}" for key, (_, tree) in zip(keys, states.keys, strict=True)]
        shown += [f"{to_sql(tree)} EXPORT_STATE AS {call}" for call, (_, tree) in zip(calls, states.calls, strict=True)]
        by = f" GROUP BY {', '.join(to_sql(tree) for _, tree in states.keys)}" if keys else ""
        grouped = f"SELECT {', '.join(shown)} FROM {rows}{by}"
        self.table = store.table_of(name, grouped)
        self._add = store.command(f"INSERT INTO {self.table} {grouped}")
        merged = [*keys, *(f"combine_aggr({call}) AS {call}" for call in calls)]
        self._merge = f"INSERT INTO {self.table} SELECT {', '.join(merged)} FROM {self.table}{group}"
        self._entries: int | None = None
        self._added = self._left = 0  # in entries, or in rows where states grow
        self._merged_entries = 0  # the first of all, of which there is one a key
        self._widths_bytes: dict[int, float] = {}  # of those from here on

    @property
    def entries(self) -> int:
        """How many the table has."""
        if self._entries is None:
            self._entries = self._added = self._counted()
            self._left = self._merged_entries = 0
            self._widths_bytes.clear()
        return self._entries

    @property
    def nbytes(self) -> int:
        """What they take, by the width of the first that were merged and of the first that came since."""
        entries = self.entries
        merged = min(self._merged_entries, entries)
        return int(merged * self._width(0) + (entries - merged) * self._width(merged))

    def _width(self, start: int) -> float:
        """Bytes of an entry from here on, where there is one."""
        if start not in self._widths_bytes:
            found = self._cursor.table(f"SELECT * FROM {self.table} LIMIT {_SAMPLE_ROWS} OFFSET {start:d}")
            if not found.num_rows:
                return 0.0
            self._widths_bytes[start] = found.nbytes / found.num_rows
        return self._widths_bytes[start]

    def add(self, rows: int, keys: int) -> None:
        """Append an epoch's rows, of so many keys."""
        more = rows if self._grows else keys
        if self.entries and self._added + more > max(self._left, SLACK_ROWS):
            self._left = self._merged()
            self._added = 0
        self._add()
        self._entries = self.entries + keys
        self._added += more
        self._store.holds(self.table, self._entries)

    def forgot(self) -> None:
        """The table has other entries now."""
        self._entries = None

    def _merged(self) -> int:
        """Leave one entry a key; what is left, in the measure of what is added."""
        before = self._left + self._added
        ((last,),) = self._cursor.rows(f"SELECT max(rowid) FROM {self.table}")
        self._cursor.rows(self._merge)
        self._cursor.rows(f"DELETE FROM {self.table} WHERE rowid <= {last:d}")
        self._entries = self._merged_entries = self._counted()
        self._widths_bytes.clear()
        return before if self._grows else self._entries

    def _counted(self) -> int:
        ((found,),) = self._cursor.rows(f"SELECT count(*) FROM {self.table}")
        return int(found)


class StatesStep(Step):
    """An aggregate by states of the engine; without keys there is one key."""

    impl = "states"
    impl_reason = "rows only come, so what the engine holds of the touched keys is merged with what came"

    def __init__(self, store: Store, name: str, node: Node, states: States, below: Step) -> None:
        self._feed = store.feed(below.schema)
        self._keyed = bool(states.keys)
        self._kept = Entries(store, name, states, self._feed.name, states.grows)
        keys = [(f"k{at}", key, tree) for at, (key, tree) in enumerate(states.keys)]
        touched = ", ".join(f"{to_sql(tree)} AS {at}" for at, _, tree in keys)
        find_touched = f"SELECT DISTINCT {touched} FROM {self._feed.name}" if keys else "SELECT 0 AS k"
        self._touched = store.feed(store.schema(find_touched))
        self._find_touched = store.prepare(find_touched)
        same = " AND ".join(f"s.{at} IS NOT DISTINCT FROM k.{at}" for at, _, _ in keys) or "true"
        values = [f"s.{at} AS {quoted(key)}" for at, key, _ in keys]
        values += [f"finalize(combine_aggr(s.s{at})) AS {quoted(call)}" for at, (call, _) in enumerate(states.calls)]
        by = f" GROUP BY {', '.join(f's.{at}' for at, _, _ in keys)}" if keys else ""
        result = (
            f"SELECT {', '.join(values)} FROM {self._kept.table} AS s SEMI JOIN {self._touched.name} AS k ON {same}{by}"
        )
        super().__init__(store.schema(result), False, [below])
        if states.grows:
            self.impl_reason = "rows only come, so all values of the touched keys, as the engine holds them, are merged"
        self._shown = Log(store, f"{name}_shown", self.schema, append_only=False)
        listed = ", ".join(quoted(column) for column in self.schema.names)
        shown = self._shown.entries_of([key for _, key, _ in keys], self._touched if keys else None)
        self._difference = store.prepare(
            f"SELECT {listed}, CAST(sum({DIFF}) AS BIGINT) AS {DIFF} FROM ("
            f"SELECT {listed}, 1 AS {DIFF} FROM ({result}) UNION ALL SELECT {listed}, -{COUNT} FROM {shown}"
            f") GROUP BY {listed} HAVING sum({DIFF}) <> 0"
        )
        horizons = node.horizons(below.times)
        kept_by = [(self._kept, self._shown, *found) for found in keys]
        forgetting: list[list[tuple[Entries | Log, str]]] = [
            [
                one
                for kept, log, at, key, tree in kept_by
                if horizon is not None and horizon.kept is not None and tree.name == horizon.column
                for one in ((kept, at), (log, key))
            ]
            for horizon in horizons
        ]
        self._horizons = Horizons(store, [below], horizons, forgetting)

    def step(self, changes: Sequence[Changes], at: Moment) -> Changes:
        (given,) = self._horizons.admitted(self, changes, at)
        made: Changes = None
        # Of no rows at all an aggregate without keys shows one row, from the first epoch on.
        if given is not None or (at.first and not self._keyed):
            made = self._changed(given)
        self._horizons.forget(at)
        return made

    def _changed(self, given: Changes) -> Changes:
        self._feed.table = fitted(given, self._feed)
        self._touched.table = self._find_touched()
        self._kept.add(self._feed.table.num_rows, self._touched.table.num_rows)
        made = some(self._difference())
        if made is not None:
            self._shown.take(made)
        return made

    @property
    def scanned(self) -> str:
        return "states of the engine are kept in tables only"

    def state_rows(self) -> int:
        return self._kept.entries + self._shown.entries

    def state_bytes(self) -> int:
        return self._kept.nbytes + self._shown.nbytes

    def rolled_back(self) -> None:
        self._horizons.rolled_back()
        self._kept.forgot()
        self._shown.rolled_back()


def states_step(store: Store, name: str, node: Node, states: States, below: Step) -> Step | None:
    """The step of an aggregate by states; None where rows also go, or the engine exports none of these types."""
    if not below.append_only:
        return None
    try:
        return StatesStep(store, name, node, states, below)
    except VelariaError:
        return None  # whether it is the query that is wrong, who computes it anew will say
