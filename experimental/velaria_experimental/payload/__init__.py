"""Rows between processes: Arrow IPC in shared memory, or in chunks over the stream under credit."""
