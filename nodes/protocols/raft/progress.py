"""What a leader of Raft knows of another node."""

from __future__ import annotations


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


class Progress:
    """What a leader knows of a follower. ``next``: the entry to send next. ``match``: durable there
    up to here. ``probing``: where the logs meet is unknown; entries go there once (then
    ``paused``), and again when its answer says more. ``installing``: the snapshot on its way.
    ``round``: the last round that it confirmed. ``active``: it was heard since the last check of
    the majority."""

    __slots__ = ("active", "installing", "match", "next", "paused", "probing", "round")

    def __init__(self, next_index: int) -> None:
        self.next = next_index
        self.match = 0
        self.probing = True
        self.paused = False
        self.installing: Outgoing | None = None
        self.round = 0
        self.active = True
