"""What a leader of Paxos knows of another node."""

from __future__ import annotations


class Progress:
    """What a leader knows of another node. ``next``: the slot to send next. ``upto``: voted for
    and durable there. ``round``: the last round that it confirmed. ``rewound``: to which slot the
    leader has gone back since the last heartbeat. ``catching_up``: a snapshot is on its way.
    ``active``: it was heard since the last look at the majority."""

    __slots__ = ("active", "catching_up", "next", "rewound", "round", "upto")

    def __init__(self, next_slot: int) -> None:
        self.next = next_slot
        self.upto = 0
        self.round = 0
        self.rewound = 0
        self.catching_up = False
        self.active = True
