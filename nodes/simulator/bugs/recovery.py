"""Recovery with one mistake."""

from __future__ import annotations

from typing import Any

import msgspec

from nodes.parts.failure_detector import CHECK
from nodes.parts.recovery import RangePage
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


class SuspicionIsForgotten(QuorumRegister):
    """The time of a suspicion is taken anew at each check, so that no suspicion lasts."""

    def on_timer(self, name: str) -> None:
        super().on_timer(name)
        if name == CHECK and self.recovery is not None:
            suspected = self.recovery._suspected_s
            suspected.update(dict.fromkeys(suspected, self.env.now()))


class FirstPageIsAll(QuorumRegister):
    """A new member of a range is content with the first page of each source."""

    def on_range_page(self, src: str, msg: RangePage) -> None:
        super().on_range_page(src, msgspec.structs.replace(msg, last=None))


_SKETCH = "protocols.md, recovery, wrong there"
BUGS = (
    Bug(
        name="recovery-not-fenced",
        protocol="quorum-placed",
        replica=NotFenced,
        source=_SKETCH + ": two replica sets at a time",
    ),
    Bug(
        name="recovery-serves-before-copying",
        protocol="quorum-placed",
        replica=ServesBeforeCopying,
        source=_SKETCH + ": the new replica never gets the data",
    ),
    Bug(
        name="recovery-first-page-is-all",
        protocol="quorum-placed",
        replica=FirstPageIsAll,
        source="a transfer that ends when an answer comes",
    ),
    Bug(
        name="recovery-everybody-places",
        protocol="quorum-placed",
        replica=EverybodyPlaces,
        source=_SKETCH + ": two nodes that suspect each other hand out different sets",
    ),
    Bug(
        name="recovery-suspicion-never-lasts",
        protocol="quorum-placed",
        replica=SuspicionIsForgotten,
        source="a timer that every check starts again",
    ),
)
