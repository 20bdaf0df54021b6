"""What one simulated node's disk keeps.

The replica writes to a `nodes.contract.disk.Disk` in memory. Here is its companion: the writes that
wait for an fsync, in order, and a second `Disk` on which every synced write was replayed. A crash
rebuilds the replica's disk from that one. A torn crash keeps some of the unsynced writes too, but
always the first ones: a log file never has a later record without the earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable

from nodes.contract.disk import Disk, Put, Write


class StableStorage:
    """The durable side of a node's disk. ``waiting``: writes that were made and are not durable.
    ``synced``: the disk as the next replica would find it. ``counts``: the writes that became
    durable, by the key of a Put or by the kind of the others."""

    __slots__ = ("_round_trip", "counts", "synced", "waiting", "written")

    def __init__(self, round_trip: Callable[[Write], Write] | None = None) -> None:
        self.synced = Disk()
        self._round_trip = round_trip
        self.waiting: list[Write] = []
        self.counts: dict[str | type, int] = {}
        self.written = 0

    def accept(self, writes: list[Write]) -> None:
        """Take the journal of a step."""
        if self._round_trip is not None:
            writes = [self._round_trip(write) for write in writes]
        self.waiting.extend(writes)

    def commit(self, count: int) -> list[Write]:
        """The oldest ``count`` waiting writes are durable now; returns them."""
        if count == len(self.waiting):
            writes, self.waiting = self.waiting, []
        else:
            writes = self.waiting[:count]
            del self.waiting[:count]
        apply = self.synced.apply
        counts = self.counts
        for write in writes:
            apply(write)
            kind = type(write)
            name = write.key if kind is Put else kind  # type: ignore[union-attr]
            counts[name] = counts.get(name, 0) + 1
        self.written += count
        return writes

    def crash(self, surviving: int = 0) -> Disk:
        """Lose what waits, but for the first ``surviving`` writes; returns what the next replica
        finds."""
        self.commit(min(surviving, len(self.waiting)))
        self.waiting.clear()
        return Disk.replay(self.synced.checkpoint())

    def is_rare(self, write: Write) -> bool:
        """Whether this node makes such writes seldom (a vote among many entries)."""
        name = write.key if isinstance(write, Put) else type(write)
        return self.counts.get(name, 0) * 10 <= self.written
