"""Recovery with one mistake."""

from __future__ import annotations

from typing import Any

import msgspec

from nodes.contract.replica import Request
from nodes.parts.failure_detector import CHECK, SEND
from nodes.parts.quorum import quorums_of
from nodes.parts.recovery import PlacementParameters, RangePage, RangeReady
from nodes.protocols.gossip import Difference, Forward, Gossip, Record
from nodes.protocols.quorum_register import Commit, QuorumRegister
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


class StoresUnderTheUnknown(QuorumRegister):
    """A replica stores what one stores that goes by a newer placement than it knows, and says
    so."""

    def on_commit(self, src: str, msg: Commit) -> None:
        if self.recovery is not None:
            number = self.recovery.placements.of(msg.key).number
            msg = msgspec.structs.replace(msg, placement=min(msg.placement, number))
        super().on_commit(src, msg)


class OldAnswersCount(QuorumRegister):
    """What was answered under the old placement counts in the first phase under the new one."""

    def on_placement(self, key_range: int) -> None:
        answered = {id(o): dict(o.answers) for o in self._operations.values() if o.record is None}
        super().on_placement(key_range)
        for operation in self._operations.values():
            answers = answered.get(id(operation), {})
            if operation.record is None:
                operation.answers.update(answers)


class LatePageBeginsAgain(QuorumRegister):
    """A page that comes twice lets the copy begin again with the first key."""

    def on_range_page(self, src: str, msg: RangePage) -> None:
        copy = self.recovery and self.recovery._copies.get(msg.range)
        if copy and copy.placement.number == msg.number and msg.after < copy.after.get(src, ""):
            del copy.after[src]
        else:
            super().on_range_page(src, msg)


class AnswersBeforeItsPlacement(QuorumRegister):
    """An answer is early if its record is durable, though the placement it is given under is
    not."""

    def _is_synced(self, key: str) -> bool:
        return key not in self._unsynced


class ReadyInSilence(QuorumRegister):
    """A new member that is ready tells nobody but who asks."""

    def on_range_page(self, src: str, msg: RangePage) -> None:
        first = len(self.out.sends)
        super().on_range_page(src, msg)
        sends = self.out.sends
        sends[first:] = [send for send in sends[first:] if type(send.msg) is not RangeReady]


class AnswersForOthers(Gossip):
    """A node that is asked for a key by another one answers, whether it has to hold it or not."""

    def on_forward(self, src: str, msg: Forward) -> None:
        self._asker = src
        self._answer(msg.request)
        self._asker = None


class AnswersWhileItCopies(Gossip):
    """A new member answers clients at once, by what it has copied so far."""

    def on_request(self, request: Request) -> None:
        key, kind = request.operation.key, request.operation.op
        if (
            self.recovery is not None
            and kind in ("read", "write", "delete")
            and self.recovery.placements.of(key).joined(self.id)
        ):
            self._answer(request)
        else:
            super().on_request(request)


class AsksTheOldMembers(QuorumRegister):
    """What is to be stored when a range moves goes on to those who held it before."""

    def on_placement(self, key_range: int) -> None:
        before = {id(o): o.replicas for o in self._operations.values() if o.record is not None}
        super().on_placement(key_range)
        for operation in self._operations.values():
            operation.replicas = before.get(id(operation), operation.replicas)


class HandsOverOnce(Gossip):
    """What a node that is no member has handed over it never offers again, whoever the members
    are."""

    def on_placement(self, key_range: int) -> None:
        handed_over = set(self._handed_over)
        super().on_placement(key_range)
        if not self._is_member(self.id, key_range):
            self._handed_over |= handed_over


class HandsOverToAnybody(Gossip):
    """What a node that is no member has handed over to another one that is none counts as handed
    over."""

    def on_difference(self, src: str, msg: Difference) -> None:
        super().on_difference(src, msg)
        for bucket in msg.buckets:
            lacking = [
                key
                for key in self._digest.keys(bucket)
                if self.policy.lacks(msg.clocks.get(key, {}), self._clock(key))
            ]
            if not lacking and not self._is_member(self.id, bucket):
                self._handed_over.add(bucket)


class OffersNoLateNews(Gossip):
    """What comes to a node that is no member after it has handed over the rest it keeps for
    itself."""

    def _store(self, key: str, record: Record) -> None:
        handed_over = set(self._handed_over)
        super()._store(key, record)
        self._handed_over |= handed_over


class BeatsBehindTheDisk(Gossip):
    """Now and then a heartbeat waits for the disk."""

    def on_timer(self, name: str) -> None:
        first = len(self.out.sends)
        super().on_timer(name)
        if name == SEND and self.env.rng.random() < 0.3:
            for i, send in enumerate(self.out.sends[first:], first):
                held = msgspec.structs.replace(send, position=self.disk.position)
                self.out.sends[i] = held


class TheDeadHaveTheirTurn(QuorumRegister):
    """Who is to propose waits also for members before it that it suspects."""

    def start_recovery(self, parameters: PlacementParameters, copy_quorum: int) -> None:
        super().start_recovery(parameters, copy_quorum)
        recovery: Any = self.recovery
        if recovery is not None:
            recovery._rank = lambda placement: [*placement.nodes, self.id].index(self.id)


class CopiesForWritesOnly(QuorumRegister):
    """A new member copies from so many that they meet every write quorum; of read quorums some are
    left that nobody has fenced."""

    def start_recovery(self, parameters: PlacementParameters, copy_quorum: int) -> None:
        n, _, write = quorums_of(self.config)
        super().start_recovery(parameters, n - write + 1)


class CopiesForReadsOnly(QuorumRegister):
    """A new member copies from so many that they meet every read quorum; what a write quorum has
    stored they may all have missed."""

    def start_recovery(self, parameters: PlacementParameters, copy_quorum: int) -> None:
        n, read, _ = quorums_of(self.config)
        super().start_recovery(parameters, n - read + 1)


_SKETCH = "protocols.md, recovery, wrong there"
_VERTICAL = "Lamport, Malkhi, Zhou 2009, section 2"
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
    Bug(
        name="recovery-stores-under-the-unknown",
        protocol="quorum-placed",
        replica=StoresUnderTheUnknown,
        source=_VERTICAL + ": who answers in a configuration knows it",
    ),
    Bug(
        name="recovery-old-answers-count",
        protocol="quorum-placed",
        replica=OldAnswersCount,
        source=_VERTICAL + ": a quorum is one of a configuration",
    ),
    Bug(
        name="recovery-late-page-begins-again",
        protocol="quorum-placed",
        replica=LatePageBeginsAgain,
        source="a transfer that goes back where it should go on",
    ),
    Bug(
        name="recovery-answers-before-its-placement",
        protocol="quorum-placed",
        replica=AnswersBeforeItsPlacement,
        source="a wrong early=True",
    ),
    Bug(
        name="recovery-ready-in-silence",
        protocol="quorum-placed",
        replica=ReadyInSilence,
        source="a call that was forgotten",
    ),
    Bug(
        name="recovery-answers-for-others",
        protocol="gossip-placed",
        replica=AnswersForOthers,
        source=_VERTICAL + ": who answers in a configuration is in it",
    ),
    Bug(
        name="recovery-answers-while-it-copies",
        protocol="gossip-placed",
        replica=AnswersWhileItCopies,
        source=_VERTICAL + ": a new member serves when it has the state",
    ),
    Bug(
        name="recovery-asks-the-old-members",
        protocol="quorum-placed",
        replica=AsksTheOldMembers,
        source=_VERTICAL + ": a quorum is one of a configuration",
    ),
    Bug(
        name="recovery-hands-over-once",
        protocol="gossip-placed",
        replica=HandsOverOnce,
        source="a mark that outlives what it was made for; Riak's hinted handoff",
    ),
    Bug(
        name="recovery-hands-over-to-anybody",
        protocol="gossip-placed",
        replica=HandsOverToAnybody,
        source="this project, before a claim asked for it",
    ),
    Bug(
        name="recovery-offers-no-late-news",
        protocol="gossip-placed",
        replica=OffersNoLateNews,
        source="this project, before a claim asked for it",
    ),
    Bug(
        name="recovery-beats-behind-the-disk",
        protocol="gossip-placed",
        replica=BeatsBehindTheDisk,
        source="a missing early=True: a slow disk is no crash",
    ),
    Bug(
        name="recovery-the-dead-have-their-turn",
        protocol="quorum-placed",
        replica=TheDeadHaveTheirTurn,
        source="a rank in a list that was not filtered",
    ),
    Bug(
        name="recovery-copies-for-writes-only",
        protocol="quorum-placed",
        replica=CopiesForWritesOnly,
        source=_VERTICAL + ": no read quorum of an older configuration is left",
    ),
    Bug(
        name="recovery-copies-for-reads-only",
        protocol="quorum-placed",
        replica=CopiesForReadsOnly,
        source=_VERTICAL + ": the state is that of a write quorum",
    ),
)
