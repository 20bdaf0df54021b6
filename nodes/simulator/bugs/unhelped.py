"""Mistakes that the next write, the next leader or the next moment of peace makes good: they show
only where none of these comes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from nodes.parts.placement import PromisePlacement
from nodes.protocols.gossip import Gossip, Push, Record
from nodes.protocols.paxos import Accept, Accepted, Paxos, Prepare, Refused, SurveyReply
from nodes.protocols.quorum_register import QuorumRegister
from nodes.protocols.raft import AppendEntriesReply, InstallSnapshot, Raft
from nodes.simulator.bugs import Bug


class AcknowledgesItsTail(Raft):
    """Asked for a snapshot that it knows, a follower acknowledges all of its log."""

    def on_install_snapshot(self, src: str, m: InstallSnapshot) -> None:
        sends = self.out.sends
        before = len(sends)
        super().on_install_snapshot(src, m)
        for number in range(before, len(sends)):
            reply = sends[number].msg
            if type(reply) is AppendEntriesReply and reply.success:
                reply = replace(reply, index=self.disk.last_index)
                sends[number] = replace(sends[number], msg=reply)


class OldRefusalConfirms(Raft):
    """The refusal of what a leader sent in an older term confirms a round of this one."""

    def on_append_entries_reply(self, src: str, m: AppendEntriesReply) -> None:
        if m.term == self.term and not m.success and m.round <= self._round:
            self._heard_from(src, m)
        super().on_append_entries_reply(src, m)


class LateRefusalDeposes(Paxos):
    """A refusal of an older ballot, which comes late, ends the present one."""

    def on_refused(self, src: str, m: Refused) -> None:
        super().on_refused(src, replace(m, ballot=self.ballot))


class OldSurveysCount(Paxos):
    """Whoever heard no leader when it was asked long ago hears none now."""

    def on_survey_reply(self, src: str, m: SurveyReply) -> None:
        super().on_survey_reply(src, replace(m, number=self._survey))


class SurveysBeginAgain(Paxos):
    """A node counts its surveys from 0 after each start."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._survey = 0


class NeverGoesBack(Paxos):
    """A leader believes that a node still knows what it knew before a crash."""

    def on_accepted(self, src: str, m: Accepted) -> None:
        progress = self._progress.get(src)
        known = 0 if progress is None else progress.upto
        super().on_accepted(src, m)
        if progress is not None and progress.upto < known:
            progress.upto, progress.next = known, known + 1


class RoundsStarve(Gossip):
    """Each write puts off the next round of rumours."""

    def _heat(self, key: str) -> None:
        super()._heat(key)
        if self._hot:
            self.out.set_timer("gossip-round", self.parameters.gossip_interval_s)


class HotKeysStayAsTheyAre(Gossip):
    """Of a write to a key that is a rumour already, a node tells in the rounds that were left."""

    def _heat(self, key: str) -> None:
        left = self._hot.get(key)
        super()._heat(key)
        if left is not None:
            self._hot[key] = left


class RepairsBecomeRumours(Gossip):
    """What anti-entropy brings is told as if it were new."""

    def on_push(self, src: str, msg: Push) -> None:
        for key in self._absorb(msg.records):
            self._heat(key)


class SmallMessages(Gossip):
    """After the first message of an exchange that is full each record travels alone."""

    def _portions(self, keys: Sequence[str]) -> Iterator[dict[str, Record]]:
        portions = super()._portions(keys)
        yield from itertools.islice(portions, 1)
        for records in portions:
            yield from ({key: record} for key, record in records.items())


class ChoosesAnew(QuorumRegister):
    """A proposer of a placement chooses again whenever another one promises."""

    def on_promise_placement(self, src: str, msg: PromisePlacement) -> None:
        assert self.recovery is not None
        proposal = self.recovery.placements._proposals.get(msg.range)
        if proposal is not None and proposal.proposer.ballot == msg.ballot:
            proposal.value = None
        super().on_promise_placement(src, msg)


_RUMOURS = "Demers et al. 1987, section 1.4"


class BeginsAboveItsPromise(Paxos):
    """A new ballot is above the own promise, not above all that were heard of."""

    def become_proposer(self) -> None:
        self._highest = self.promised
        super().become_proposer()


class VotesAgain(Paxos):
    """A copy of what was asked is written once more."""

    def on_accept(self, src: str, m: Accept) -> None:
        before = self.disk.last_index
        super().on_accept(src, m)
        is_copy = self.disk.last_index == before and m.ballot == self.promised and m.values
        if is_copy and m.first > self.commit:
            self._vote(m.ballot, m.first, m.values)


class FollowsTheDeposed(Paxos):
    """Whoever promises a higher ballot follows the leader of the one before."""

    def on_prepare(self, src: str, m: Prepare) -> None:
        leader = self.leader
        super().on_prepare(src, m)
        if self.leader is None and leader != self.id:
            self.leader = leader


class FollowsTheLastOne(Raft):
    """In a new term a node follows the leader of the one before, until there is another one."""

    def become_follower(self, term: int, leader: str | None = None) -> None:
        before = self.leader
        super().become_follower(term, leader)
        if self.leader is None and before != self.id:
            self.leader = before


BUGS = (
    Bug(
        name="raft-acknowledges-its-tail",
        protocol="raft",
        replica=AcknowledgesItsTail,
        source="Raft paper, section 7: what follows a snapshot's entry may be another leader's",
    ),
    Bug(
        name="raft-old-refusal-confirms",
        protocol="raft",
        replica=OldRefusalConfirms,
        source="Ongaro, dissertation, 6.4, step 3: responses to this round",
    ),
    Bug(
        name="paxos-late-refusal-deposes",
        protocol="paxos",
        replica=LateRefusalDeposes,
        source="PMMC, section 2.3: preempted(b') for the ballot that was proposed",
    ),
    Bug(
        name="paxos-old-surveys-count",
        protocol="paxos",
        replica=OldSurveysCount,
        source="Ongaro, dissertation, 9.6: pre-votes are for one election",
    ),
    Bug(
        name="paxos-surveys-begin-again",
        protocol="paxos",
        replica=SurveysBeginAgain,
        source="Ongaro, dissertation, 9.6: pre-votes are for one election",
    ),
    Bug(
        name="paxos-never-goes-back",
        protocol="paxos",
        replica=NeverGoesBack,
        source="etcd, raft: Progress.Match of a follower that lost what it had",
    ),
    Bug(name="gossip-rounds-starve", protocol="gossip", replica=RoundsStarve, source=_RUMOURS),
    Bug(
        name="gossip-hot-keys-stay",
        protocol="gossip",
        replica=HotKeysStayAsTheyAre,
        source=_RUMOURS,
    ),
    Bug(
        name="gossip-repairs-become-rumours",
        protocol="gossip",
        replica=RepairsBecomeRumours,
        source="Demers et al. 1987, section 1.5: backing up complex epidemics with anti-entropy",
    ),
    Bug(
        name="gossip-small-messages",
        protocol="gossip",
        replica=SmallMessages,
        source="a counter that is not set back with what it counts",
    ),
    Bug(
        name="placement-chooses-anew",
        protocol="quorum-placed",
        replica=ChoosesAnew,
        source="Lamport, Paxos Made Simple, section 2: a ballot has one value",
    ),
    Bug(
        name="paxos-begins-above-its-promise",
        protocol="paxos-basic",
        replica=BeginsAboveItsPromise,
        source="van Renesse and Altinbuken, PMMC, section 2.3: above the ballot that preempted it",
    ),
    Bug(
        name="paxos-votes-again",
        protocol="paxos",
        replica=VotesAgain,
        source="one write for each vote",
    ),
    Bug(
        name="paxos-follows-the-deposed",
        protocol="paxos",
        replica=FollowsTheDeposed,
        source="a leader is that of the highest ballot",
    ),
    Bug(
        name="raft-follows-the-last-one",
        protocol="raft",
        replica=FollowsTheLastOne,
        source="Raft paper, 5.1: a term has at most one leader",
    ),
)
