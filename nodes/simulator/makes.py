"""Nodes of another make: they do what a paper allows, and what the nodes of this project never do.
In some seeds the others meet that, as they would meet an older or a newer version of themselves."""

from __future__ import annotations

import random

import msgspec

from nodes.protocols.raft import Raft
from nodes.registry import Protocol

SHARE = 0.2
"""The share of the seeds with such nodes."""
_BACK = 8
"""By so many entries does a new leader look back, at most."""


class LooksBack(Raft):
    """A new leader begins with entries that its followers may have: where a log goes on is its
    guess (paper, 5.3), and here none that it has compared with anybody."""

    def become_leader(self) -> None:
        super().become_leader()
        for progress in self._progress.values():
            guess = progress.next - self.env.rng.randrange(0, _BACK)
            progress.next = max(self.disk.snapshot_index + 1, guess)


class SendsSnapshots(Raft):
    """A new leader that has a snapshot sends it to some of its followers, whatever they have: one
    that has those entries keeps what follows them (paper, section 7)."""

    def become_leader(self) -> None:
        super().become_leader()
        for progress in self._progress.values():
            if self.disk.snapshot_index > 0 and self.env.rng.random() < 0.5:
                progress.next = self.disk.snapshot_index


_MAKES = {Raft: (LooksBack, SendsSnapshots)}


def perhaps_of_another_make(protocol: Protocol, seed: int) -> Protocol:
    """The protocol, in some seeds of nodes of another make."""
    for kind, others in _MAKES.items():
        draw = random.Random(f"{seed}/make").random()
        if issubclass(protocol.replica, kind) and draw < SHARE:
            other = others[int(draw / SHARE * len(others))]
            bases = (other,) if protocol.replica is kind else (other, protocol.replica)
            mixed = type(protocol.replica.__name__, bases, {})
            return msgspec.structs.replace(protocol, replica=mixed)
    return protocol
