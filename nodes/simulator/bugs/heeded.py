"""What is heard and not heeded, or told and not so: with luck nothing comes of it, and mostly there
is luck."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from nodes.parts.placement import PromisePlacement
from nodes.parts.recovery import RangePage
from nodes.parts.synod import NO_BALLOT
from nodes.protocols.paxos import Paxos, Promise
from nodes.protocols.quorum_register import QuorumRegister
from nodes.protocols.raft import AppendEntries, Entry, Progress, Raft
from nodes.simulator.bugs import Bug


class HigherTermIgnored(Raft):
    """A leader does not mind that a follower has gone on to a higher term."""

    def _heard_from(self, src: str, m: Any) -> Progress | None:
        return None if m.term > self.term else super()._heard_from(src, m)


class ShowsTooSoon(Raft):
    """A restarted node shows what it has as soon as it hears of anything that is committed."""

    def on_append_entries(self, src: str, m: AppendEntries) -> None:
        super().on_append_entries(src, m)
        self._caught_up = self._caught_up or self.commit > 0


class LeaderShowsTooSoon(Raft):
    """A leader shows its own clients what others have on disk, and itself not yet."""

    def _answer_reads(self) -> None:
        durable, self.durable_index = self.durable_index, self.disk.last_index
        super()._answer_reads()
        self.durable_index = durable


class ShowsOutOfOrder(Raft):
    """A leader's answer waits for all of its disk, and newer ones go before it."""

    def _answer_reads(self) -> None:
        super()._answer_reads()
        while self._unshown:
            _, reply = self._unshown.popleft()
            if self._requests.waiting.pop((reply.client, reply.sequence), None) is not None:
                self.out.reply(reply)


class ForgetsWhatItShowed(Raft):
    """A restarted node takes an old copy of a message for all that it had shown."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._shown = 0


class ComparesTheFirst(Raft):
    """Entries behind one that agrees are taken to agree."""

    def _new_entries(self, prev: int, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        held = self.disk.last_index - prev
        if held > 0 and entries and self.term_at(prev + 1) == entries[0].term:
            return entries[held:]
        return super()._new_entries(prev, entries)


class OnePartMissing(Paxos):
    """A promise in parts counts when all but one of them are there."""

    def on_promise(self, src: str, m: Promise) -> None:
        parts = max(1, m.parts - 1)
        super().on_promise(src, replace(m, part=min(m.part, parts - 1), parts=parts))


class ProposesItsOwn(QuorumRegister):
    """Who proposes a placement goes on with its own, whatever votes it is told of."""

    def on_promise_placement(self, src: str, msg: PromisePlacement) -> None:
        super().on_promise_placement(src, replace(msg, voted=NO_BALLOT, vote=None))


class FirstVoteWins(QuorumRegister):
    """Who proposes a placement goes on with the vote that it is told of first, not with that of the
    highest ballot."""

    def on_promise_placement(self, src: str, msg: PromisePlacement) -> None:
        if msg.vote is not None:
            msg = replace(msg, voted=msg.ballot)
        super().on_promise_placement(src, msg)


class OldPromisesCount(QuorumRegister):
    """Promises to an older ballot count for the present one."""

    def on_promise_placement(self, src: str, msg: PromisePlacement) -> None:
        assert self.recovery is not None
        proposal = self.recovery.placements._proposals.get(msg.range)
        if proposal is not None:
            msg = replace(msg, ballot=proposal.proposer.ballot)
        super().on_promise_placement(src, msg)


class TellsOfTheLastPage(QuorumRegister):
    """Of a copy only the bytes of the last page are told."""

    def on_range_page(self, src: str, msg: RangePage) -> None:
        assert self.recovery is not None
        copy = self.recovery._copies.get(msg.range)
        if copy is not None:
            copy.bytes = 0
        super().on_range_page(src, msg)


_P2C = "Lamport, Paxos Made Simple, section 2, P2c"
BUGS = (
    Bug(
        name="raft-higher-term-ignored",
        protocol="raft",
        replica=HigherTermIgnored,
        source="etcd 8501; Raft paper, 5.1",
    ),
    Bug(
        name="raft-shows-too-soon",
        protocol="raft-stale-read",
        replica=ShowsTooSoon,
        source="a node that is up before its state is",
    ),
    Bug(
        name="raft-forgets-what-it-showed",
        protocol="raft-stale-read",
        replica=ForgetsWhatItShowed,
        source="found here: a late copy of AppendEntries after a restart",
    ),
    Bug(
        name="raft-leader-shows-too-soon",
        protocol="raft-stale-read",
        replica=LeaderShowsTooSoon,
        source="found here: a confirmed read, and a crash before the leader's own disk has it",
    ),
    Bug(
        name="raft-shows-out-of-order",
        protocol="raft-stale-read",
        replica=ShowsOutOfOrder,
        source="found here: an answer that waits longer than what it tells of",
    ),
    Bug(
        name="raft-compares-the-first",
        protocol="raft",
        replica=ComparesTheFirst,
        source="Raft paper, 5.3: an existing entry that conflicts goes, with all that follow it",
    ),
    Bug(name="paxos-one-part-missing", protocol="paxos", replica=OnePartMissing, source=_P2C),
    Bug(
        name="placement-proposes-its-own",
        protocol="quorum-placed",
        replica=ProposesItsOwn,
        source=_P2C,
    ),
    Bug(
        name="placement-first-vote-wins",
        protocol="quorum-placed",
        replica=FirstVoteWins,
        source=_P2C,
    ),
    Bug(
        name="placement-old-promises-count",
        protocol="quorum-placed",
        replica=OldPromisesCount,
        source="Lamport, The Part-Time Parliament, section 2.3: LastVote(b, v) is for ballot b",
    ),
    Bug(
        name="recovery-tells-of-the-last-page",
        protocol="quorum-placed",
        replica=TellsOfTheLastPage,
        source="a counter that is set where it should be added to",
    ),
)
