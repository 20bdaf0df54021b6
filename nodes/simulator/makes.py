"""Nodes of another make: they do what a paper allows, and what the nodes of this project never do.
In some seeds the others meet that, as they would meet an older or a newer version of themselves."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from nodes.contract.replica import Replica
from nodes.parts.placement import AcceptPlacement, PreparePlacement
from nodes.parts.recovery import TICK, PlacedReplica
from nodes.protocols.raft import Raft
from nodes.registry import Protocol

SHARE = 0.2
"""The share of the seeds with such nodes."""
_BACK = 8
"""By so many entries does a new leader look back, at most."""
_MOVES = 0.4
"""How likely a member asks for moves when it looks at its ranges, or hears of a proposal."""
_LOST = 0.5
_RESTLESS_UNTIL_S = 8.0
"""Virtual seconds: before the faults end, so that all comes to rest."""


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


class Restless(PlacedReplica):
    """While faults are on, members of a range ask for moves that nobody needs, to nodes of their
    own choice; whoever hears of a proposal perhaps makes another one at once; and half of what
    proposers say is lost on them. So several proposals that differ are under way together, and many
    are left half-way. (What is to move is up to a strategy, which an operator may replace. That all
    have the same one is good for their peace, not for their safety.)"""

    def on_timer(self, name: str) -> None:
        super().on_timer(name)
        if name == TICK and self.recovery is not None and self._draws(_MOVES):
            for number in range(self.recovery.placements.ranges):
                self._propose(number)

    def on_prepare_placement(self, src: str, msg: PreparePlacement) -> None:
        if not self._draws(_LOST):
            super().on_prepare_placement(src, msg)
            if self._draws(_MOVES):
                self._propose(msg.base.range)

    def on_accept_placement(self, src: str, msg: AcceptPlacement) -> None:
        if not self._draws(_LOST):
            super().on_accept_placement(src, msg)

    def _draws(self, chance: float) -> bool:
        env: Any = self.env  # A `nodes.simulator.clock.Clock`.
        return bool(env.timeline.now < _RESTLESS_UNTIL_S and env.rng.random() < chance)

    def _propose(self, number: int) -> None:
        assert self.recovery is not None
        placements, rng = self.recovery.placements, self.env.rng
        if (
            placements.serves(number)
            and placements.is_complete(number)
            and not placements.proposes(number)
        ):
            placement = placements.current[number]
            others = [node for node in self.config.nodes if not placement.joined(node)]
            lost, to = (some[rng.randrange(0, len(some))] for some in (placement.nodes, others))
            placements.propose(placement.replace(lost, to))


_MAKES: dict[type[Replica], tuple[type[Replica], ...]] = {
    Raft: (LooksBack, SendsSnapshots),
    PlacedReplica: (Restless,),
}


def is_of_another_make(replica: Replica | None) -> bool:
    """Whether it begins where ours does not, so that it costs more."""
    return isinstance(replica, LooksBack | SendsSnapshots)


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
