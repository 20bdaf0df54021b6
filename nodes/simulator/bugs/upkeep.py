"""Work that is done badly, and nothing is lost for it: what is told twice or not often enough, to
the wrong ones or always to the same; what is never forgotten; what moves too soon or where it
should not. In the end all is well, and so nobody noticed."""

from __future__ import annotations

from typing import Any

import msgspec

from nodes.contract.replica import Request
from nodes.parts.failure_detector import CHECK, SEND, Heartbeats
from nodes.parts.recovery import CopyRange, RangePage
from nodes.protocols.detector import Detector
from nodes.protocols.gossip import Gossip
from nodes.protocols.quorum_register import Difference, QuorumRegister, Record
from nodes.simulator.bugs import Bug

# --- anti-entropy and rumours ---


class PushesWhatIsKnown(QuorumRegister):
    """Anti-entropy pushes all keys of the buckets that differ."""

    def on_difference(self, src: str, msg: Difference) -> None:
        first = len(self.out.sends)
        super().on_difference(src, msg)
        del self.out.sends[first:]
        self._push(src, [key for bucket in msg.buckets for key in self._digest.keys(bucket)])


class RumoursEndEarly(Gossip):
    """A node tells a rumour once, however often it is to be repeated."""

    def _heat(self, key: str) -> None:
        super()._heat(key)
        self._hot = dict.fromkeys(self._hot, 1)


class AlwaysTheSamePartner(Gossip):
    """Anti-entropy is with the first peer only."""

    def _start_anti_entropy(self) -> None:
        super()._start_anti_entropy()
        last = self.out.sends[-1]
        self.out.sends[-1] = msgspec.structs.replace(last, dst=self.config.peers[0])


class StampsOnlyCount(Gossip):
    """A hybrid clock that counts, and never looks at the time."""

    def _new_sibling(self, request: Request, clock: Any) -> Any:
        self._stamp += 1
        new = super()._new_sibling(request, clock)
        return msgspec.structs.replace(new, counter=self._stamp_before(new.counter))

    def _stamp_before(self, counter: int) -> int:
        known = max((s.counter for r in self.records.values() for s in r.siblings), default=0)
        self._stamp = min(counter, known + 1)
        return self._stamp


class SureOfTheSilent(Gossip):
    """Whoever was not heard of for long counts as one who has nothing, not as unknown."""

    def _replication_ratio(self) -> float | None:
        ratio = super()._replication_ratio()
        return 1 / len(self.config.nodes) if ratio is None else ratio


class HandsReadsToSuspects(Gossip):
    """A request is handed on to a member that is suspected, though others are there."""

    def _member_for(self, request: Request) -> str:
        assert self.recovery is not None
        heartbeats: Any = self.recovery.heartbeats
        asked, heartbeats.suspected = heartbeats.suspected, lambda node: False
        member = super()._member_for(request)
        heartbeats.suspected = asked
        return member


# --- the register ---


class AsksWhoHasAnswered(QuorumRegister):
    """Whoever has answered is asked again with the others."""

    def _others(self, operation: Any, asked: Any) -> list[str]:
        return super()._others(operation, {})


class WritesBackToWhoAnswered(QuorumRegister):
    """A read writes back to the replicas that have answered it, and to no other one."""

    def _others(self, operation: Any, asked: Any) -> list[str]:
        others = super()._others(operation, asked)
        if operation.record is None or operation.wrote:
            return others
        return [node for node in others if node in operation.answers]


class NeverForgets(QuorumRegister):
    """Requests are remembered though their clients have acknowledged them."""

    def _remember(self, key: str, record: Record, acked: int) -> bool:
        return super()._remember(key, record, 0)


# --- detectors ---


class _Slow(Heartbeats):
    def on_timer(self, name: str) -> Any:
        changes = super().on_timer(name)
        if name == SEND:
            self._out.set_timer(SEND, 1.5 * self._parameters.heartbeat_every_s)
        return changes


class BeatsSlowly(Detector):
    """Heartbeats are sent two times where three are due."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.heartbeats.__class__ = _Slow


class MarksOneDetector(Detector):
    """Only the first of several detectors says when it changes its mind."""

    def on_timer(self, name: str) -> None:
        super().on_timer(name)
        if name == CHECK:
            first = next(iter(self.heartbeats._detectors))
            self.out.marks[:] = [m for m in self.out.marks if m[1].get("detector", "") == first]


# --- placements ---


class MovesToWhoJustCame(QuorumRegister):
    """A node gets ranges as soon as it is trusted again, though it may come and go."""

    def on_timer(self, name: str) -> None:
        if self.recovery is not None:
            long_ago = dict.fromkeys(self.recovery._trusted_s, -1e9)
            self.recovery._trusted_s.update(long_ago)
        super().on_timer(name)


class MovesToTheUnheard(QuorumRegister):
    """A range moves to a node that was never heard."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self.recovery is not None:
            self.recovery._heard = dict.fromkeys(self.config.nodes)


class AllProposeTogether(QuorumRegister):
    """All members propose as soon as one is lost, not one after another."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self.recovery is not None:
            recovery: Any = self.recovery
            recovery._rank = lambda placement: 0


class CopiesFromTheUnready(QuorumRegister):
    """A member that has yet to copy a range sends what it has of it."""

    def on_copy_range(self, src: str, msg: CopyRange) -> None:
        super().on_copy_range(src, msg)
        assert self.recovery is not None
        placements = self.recovery.placements
        number = msg.placement.range
        if placements.current[number] == msg.placement and not self.out.sends:
            last, contents = self.range_page(number, msg.after)
            page = RangePage(number, msg.placement.number, msg.after, last, contents)
            self.out.send(src, page)


_DEMERS = "Demers et al. 1987, "

BUGS = (
    Bug(
        name="quorum-pushes-what-is-known",
        protocol="quorum",
        replica=PushesWhatIsKnown,
        source=_DEMERS + "1.3: what differs is exchanged",
    ),
    Bug(
        name="quorum-asks-who-has-answered",
        protocol="quorum",
        replica=AsksWhoHasAnswered,
        source="retransmission to all",
    ),
    Bug(
        name="quorum-writes-back-to-who-answered",
        protocol="quorum",
        replica=WritesBackToWhoAnswered,
        source="Cassandra: read repair of the replicas that were asked",
    ),
    Bug(
        name="quorum-never-forgets",
        protocol="quorum",
        replica=NeverForgets,
        source="Lee et al., RIFL, SOSP 2015, section 3; hints that pile up in Cassandra",
    ),
    Bug(
        name="gossip-rumours-end-early",
        protocol="gossip",
        replica=RumoursEndEarly,
        source=_DEMERS + "1.4: a counter of rounds",
    ),
    Bug(
        name="gossip-always-the-same-partner",
        protocol="gossip",
        replica=AlwaysTheSamePartner,
        source=_DEMERS + "1.3: a random site",
    ),
    Bug(
        name="gossip-stamps-only-count",
        protocol="gossip-lww",
        replica=StampsOnlyCount,
        source="Kulkarni et al. 2014: no stamp is behind its node's clock",
    ),
    Bug(
        name="gossip-sure-of-the-silent",
        protocol="gossip",
        replica=SureOfTheSilent,
        source="a status that takes unknown for a number",
    ),
    Bug(
        name="gossip-hands-reads-to-suspects",
        protocol="gossip-placed",
        replica=HandsReadsToSuspects,
        source="a request goes to a member that is not suspected",
    ),
    Bug(
        name="detection-beats-slowly",
        protocol="heartbeat",
        replica=BeatsSlowly,
        source="a period that is not the one that was set",
    ),
    Bug(
        name="detection-marks-one-detector",
        protocol="heartbeat",
        replica=MarksOneDetector,
        source="what is measured live are the marks",
    ),
    Bug(
        name="recovery-moves-to-who-just-came",
        protocol="quorum-placed",
        replica=MovesToWhoJustCame,
        source="nodes that flap: a trust has to last as well as a suspicion",
    ),
    Bug(
        name="recovery-moves-to-the-unheard",
        protocol="quorum-placed",
        replica=MovesToTheUnheard,
        source="a range that is moved to a dead node",
    ),
    Bug(
        name="recovery-all-propose-together",
        protocol="quorum-placed",
        replica=AllProposeTogether,
        source="the first live member proposes, each further one later",
    ),
    Bug(
        name="recovery-copies-from-the-unready",
        protocol="quorum-placed",
        replica=CopiesFromTheUnready,
        source="Lamport, Malkhi, Zhou 2009, section 2: state transfer",
    ),
)
