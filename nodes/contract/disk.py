"""A replica's durable state: a table, a log and a snapshot, in memory, with a journal of writes.

The replica sees its own writes at once. The driver takes the journal (`take`), makes it durable in
order, and tells the replica with `Durable(position)`. After a crash, `replay` of the durable prefix
of all writes gives the disk that the next replica starts from. Both drivers use this class, so the
meaning of a write is defined once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import msgspec


class Put(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Set ``key`` in the table; None deletes it."""

    key: str
    value: Any


class Append(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Add ``entry`` at the end of the log."""

    entry: Any


class Truncate(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Remove the log's entries from ``index`` on."""

    index: int


class Compact(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """``snapshot`` stands for all entries up to and including ``index``, which are removed. If the
    log ends before ``index``, it is empty afterwards and goes on at ``index`` + 1."""

    index: int
    snapshot: Any


Write: TypeAlias = Put | Append | Truncate | Compact


class Disk:
    """What one replica has written. Log indices start at 1.

    Invariants: ``first_index == snapshot_index + 1``; ``last_index >= snapshot_index``;
    ``position`` counts all writes ever made through this object and never goes back.
    """

    __slots__ = (
        "_journal",
        "_log",
        "_table",
        "last_index",
        "position",
        "snapshot",
        "snapshot_index",
        "stable",
    )

    def __init__(self) -> None:
        self.position = 0
        self.stable: Disk | None = None
        """What would survive a crash now. The simulator alone knows it, and only invariants may
        look at it."""
        self.snapshot: Any = None
        self.snapshot_index = 0
        self.last_index = 0
        """Index of the last entry (the snapshot's, if the log is empty)."""
        self._table: dict[str, Any] = {}
        self._log: list[Any] = []
        self._journal: list[Write] = []

    @classmethod
    def replay(cls, writes: Iterable[Write]) -> Disk:
        """The disk after ``writes``, with an empty journal."""
        disk = cls()
        for write in writes:
            disk.apply(write)
        return disk

    # --- what the replica reads ---

    def get(self, key: str, default: Any = None) -> Any:
        """The table's value of ``key``."""
        return self._table.get(key, default)

    def items(self) -> Iterator[tuple[str, Any]]:
        """The table, in the order of first writing."""
        return iter(self._table.items())

    @property
    def first_index(self) -> int:
        """Index of the first entry that is still in the log."""
        return self.snapshot_index + 1

    def entry(self, index: int) -> Any:
        """The entry at ``index``. Raises IndexError if it is compacted away or not there yet."""
        offset = index - self.snapshot_index - 1
        if offset < 0:
            raise IndexError(f"entry {index} is in the snapshot up to {self.snapshot_index}")
        return self._log[offset]

    def entries(self, start: int, stop: int) -> list[Any]:
        """The entries from ``start`` up to but not including ``stop``."""
        offset = start - self.snapshot_index - 1
        if offset < 0:
            raise IndexError(f"entry {start} is in the snapshot up to {self.snapshot_index}")
        return self._log[offset : stop - self.snapshot_index - 1]

    # --- what the replica writes ---

    def put(self, key: str, value: Any) -> None:
        """Set ``key``; None deletes it. Values are scalars, lists of them, or the protocol's
        RECORDS."""
        # What `apply` does, without asking which kind of write it is: most writes come this way.
        if value is None:
            self._table.pop(key, None)
        else:
            self._table[key] = value
        self.position += 1
        self._journal.append(Put(key, value))

    def append(self, entry: Any) -> int:
        """Add ``entry`` to the log; returns its index."""
        self._write(Append(entry))
        return self.last_index

    def truncate(self, index: int) -> None:
        """Remove the entries from ``index`` on. Raises IndexError for a compacted index."""
        if index <= self.snapshot_index:
            raise IndexError(f"entry {index} is in the snapshot up to {self.snapshot_index}")
        self._write(Truncate(index))

    def compact(self, index: int, snapshot: Any) -> None:
        """Replace the log up to and including ``index`` by ``snapshot``."""
        if index < self.snapshot_index:
            raise IndexError(f"a snapshot up to {self.snapshot_index} is there already")
        self._write(Compact(index, snapshot))

    # --- what the driver does ---

    def take(self) -> list[Write]:
        """The writes since the last call, oldest first; the last has position `position`."""
        journal = self._journal
        self._journal = []
        return journal

    def checkpoint(self) -> list[Write]:
        """The fewest writes that lead to the present state, for the rewriting of a log file."""
        writes: list[Write] = [Put(key, value) for key, value in self._table.items()]
        if self.snapshot_index or self.snapshot is not None:
            writes.append(Compact(self.snapshot_index, self.snapshot))
        writes.extend(Append(entry) for entry in self._log)
        return writes

    def apply(self, write: Write) -> None:
        """Change the state, without the journal."""
        kind = type(write)
        if kind is Append:
            self._log.append(write.entry)  # type: ignore[union-attr]
            self.last_index += 1
        elif kind is Put:
            if write.value is None:  # type: ignore[union-attr]
                self._table.pop(write.key, None)  # type: ignore[union-attr]
            else:
                self._table[write.key] = write.value  # type: ignore[union-attr]
        elif kind is Truncate:
            del self._log[write.index - self.snapshot_index - 1 :]  # type: ignore[union-attr]
            self.last_index = self.snapshot_index + len(self._log)
        elif kind is Compact:
            del self._log[: write.index - self.snapshot_index]  # type: ignore[union-attr]
            self.snapshot_index = write.index  # type: ignore[union-attr]
            self.snapshot = write.snapshot  # type: ignore[union-attr]
            self.last_index = self.snapshot_index + len(self._log)
        else:
            raise TypeError(f"not a write: {write!r}")

    def _write(self, write: Write) -> None:
        self.apply(write)
        self.position += 1
        self._journal.append(write)
