"""What a leader of Raft knows of another node."""

from __future__ import annotations

from enum import Enum


class Outgoing:
    """A snapshot on its way to a follower, which has the bytes before ``offset``. ``sent``: the
    next chunk is on its way. ``missing``: and was not there when a later heartbeat came."""

    __slots__ = ("data", "index", "missing", "offset", "sent")

    def __init__(self, index: int, data: bytes) -> None:
        self.index = index
        self.data = data
        self.offset = 0
        self.sent = False
        self.missing = False


class Incoming:
    """The chunks that came of a snapshot of the leader of ``term``."""

    __slots__ = ("data", "index", "term")

    def __init__(self, term: int, index: int) -> None:
        self.term = term
        self.index = index
        self.data = bytearray()


class State(Enum):
    """How a leader replicates to a follower (names as in etcd's Raft)."""

    PROBE = "probe"
    """Where the logs meet is unknown. Entries go there once, and again when an answer says more."""
    REPLICATE = "replicate"
    """The logs meet. Entries go there without waiting for the answers."""
    SNAPSHOT = "snapshot"
    """What it lacks first is compacted. A snapshot goes there."""


# Looked up at every message: members of an Enum are slow to find.
PROBE, REPLICATE, SNAPSHOT = State.PROBE, State.REPLICATE, State.SNAPSHOT


class Progress:
    """What a leader knows of a follower. ``next``: the entry to send next. ``match``: durable there
    up to here. ``probed``: in `State.PROBE`, the entries are on their way. ``snapshot``: in
    `State.SNAPSHOT`, what is on its way; else None. ``round``: the last round that it confirmed.
    ``active``: it was heard since the last check of the majority."""

    __slots__ = ("active", "match", "next", "probed", "round", "snapshot", "state")

    def __init__(self, next_index: int) -> None:
        self.match = 0
        self.round = 0
        self.active = True
        self.become_probe(next_index)

    def become_probe(self, next_index: int) -> None:
        """Look for the place where the logs meet, from ``next_index`` on."""
        self.state = PROBE
        self.next = next_index
        self.probed = False
        self.snapshot: Outgoing | None = None

    def become_replicate(self) -> None:
        """The logs meet at ``match``."""
        self.state = REPLICATE
        self.next = self.match + 1
        self.snapshot = None

    def become_snapshot(self, outgoing: Outgoing) -> None:
        """Begin to send a snapshot, or another one in place of it."""
        self.state = SNAPSHOT
        self.snapshot = outgoing

    def acknowledge(self, index: int) -> bool:
        """The follower has the leader's entries up to ``index``, durably. Whether that is news."""
        is_news = index > self.match
        if is_news:
            self.match = index
        if self.state is SNAPSHOT:
            assert self.snapshot is not None
            if index >= self.snapshot.index:
                self.become_replicate()
        elif self.state is PROBE:
            self.become_replicate()
        elif self.next <= self.match:
            self.next = self.match + 1
        return is_news
