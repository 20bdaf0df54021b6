"""Recovery with one mistake."""

from __future__ import annotations

from typing import Any

from nodes.protocols.quorum_register import QuorumRegister
from nodes.simulator.bugs import Bug


class NotFenced(QuorumRegister):
    """A replica answers whoever goes by an old placement, though it knows a newer one."""

    def _admits(self, src: str, key: str, placement: int) -> bool:
        if self.recovery is None:
            return True
        self.recovery.note_answer(key, placement)
        return self.recovery.serves(key)


class ServesBeforeCopying(QuorumRegister):
    """A new member of a range serves at once, without the data."""

    def on_placement(self, key_range: int) -> None:
        super().on_placement(key_range)
        assert self.recovery is not None
        placements = self.recovery.placements
        if placements.current[key_range].joined(self.id) > placements.ready[key_range]:
            placements.become_ready(key_range)


class EverybodyPlaces(QuorumRegister):
    """Who suspects a node hands out the next placement alone; others may hand out another."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self.recovery is not None:
            placements: Any = self.recovery.placements
            placements.propose = placements.learn


_SKETCH = "protocols.md, recovery, wrong there"
PARAMETERS: dict[str, Any] = {
    "replication_factor": 3,
    "ranges": 4,
    "recover_after_s": 0.1,
    "heartbeat": {
        "heartbeat_every_s": 0.15,
        "check_every_s": 0.05,
        "counting": {"timeout_s": 0.3, "rise": 0.5},
    },
}
"""Fewer copies than nodes, and moved soon."""

BUGS = (
    Bug(
        name="recovery-not-fenced",
        protocol="quorum",
        replica=NotFenced,
        source=_SKETCH + ": two replica sets at a time",
        parameters=PARAMETERS,
    ),
    Bug(
        name="recovery-serves-before-copying",
        protocol="quorum",
        replica=ServesBeforeCopying,
        source=_SKETCH + ": the new replica never gets the data",
        parameters=PARAMETERS,
    ),
    Bug(
        name="recovery-everybody-places",
        protocol="quorum",
        replica=EverybodyPlaces,
        source=_SKETCH + ": two nodes that suspect each other hand out different sets",
        parameters=PARAMETERS,
    ),
)
