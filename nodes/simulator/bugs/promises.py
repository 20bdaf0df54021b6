"""Promises that are broken without any harm, mostly: an election that nobody asked for, a member
that counts too soon, a refusal that is forgotten. Nothing went wrong in hundreds of seeds, and so
nobody noticed until what leaves a node was held against what was promised."""

from __future__ import annotations

from typing import Any

import msgspec

from nodes.contract.disk import Disk
from nodes.contract.replica import Reply, Request
from nodes.parts.forwarding import Requests
from nodes.protocols.gossip import Gossip
from nodes.protocols.quorum_register import Commit, QuorumRegister
from nodes.protocols.raft import PreVote, PreVoteReply, Raft, TimeoutNow
from nodes.simulator.bugs import Bug

# --- Raft: elections and members ---


class PreVoteForAnyLog(Raft):
    """A pre-vote is granted to whoever asks while no leader is heard, whatever its log."""

    def on_pre_vote(self, src: str, m: PreVote) -> None:
        super().on_pre_vote(src, msgspec.structs.replace(m, last_term=self.term))


class OldPreVotesCount(Raft):
    """Pre-votes count that were granted for an earlier term."""

    def on_pre_vote_reply(self, src: str, m: PreVoteReply) -> None:
        if m.granted and m.term <= self.term:
            m = msgspec.structs.replace(m, term=self.term + 1)
        super().on_pre_vote_reply(src, m)


class OldTimeoutNow(Raft):
    """A leader of long ago may still tell a node to stand for election."""

    def on_timeout_now(self, src: str, m: TimeoutNow) -> None:
        super().on_timeout_now(src, TimeoutNow(max(m.term, self.term)))


class TruncateKeepsMembers(Raft):
    """Members stay as a part of the log named them that has been truncated."""

    def _truncate(self, index: int) -> None:
        memberships = list(self._memberships)
        super()._truncate(index)
        self._memberships = memberships
        self._set_deciding()


class JoinsTooSoon(Raft):
    """A new member counts before it has caught up."""

    def _administer(self) -> None:
        progress = self._progress.get(self._joining or "")
        if progress is None:
            super()._administer()
            return
        match, progress.match = progress.match, max(progress.match, self.commit)
        super()._administer()
        progress.match = match


class TransferNeverEnds(Raft):
    """A leader that hands over to a node that is down waits for it for ever."""

    def on_timer(self, name: str) -> None:
        if name != "transfer":
            super().on_timer(name)


class SendsWithoutAWindow(Raft):
    """A leader sends a follower all that it has, however little was acknowledged."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._window = 1 << 60


# --- what clients are told ---


class _NotOnDisk(Requests):
    __slots__ = ()

    def _refuse(self, request: Request) -> None:
        disk, self._disk = self._disk, Disk()
        super()._refuse(request)
        self._disk = disk


class RefusalNotOnDisk(Raft):
    """What was refused is remembered until the next crash."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._requests.__class__ = _NotOnDisk


class _StayOnDisk(Requests):
    __slots__ = ()

    def _refuse(self, request: Request) -> None:
        before = list(self._refused)
        super()._refuse(request)
        for name in before:
            self._disk.put(name, True)


class RefusalsStayOnDisk(Raft):
    """What was refused long ago is forgotten in memory only, and taken up again from disk."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._requests.__class__ = _StayOnDisk


class _NeverSure(Requests):
    __slots__ = ()

    def answer_here(self, reply: Reply) -> None:
        if reply.outcome == "fail":
            reply = msgspec.structs.replace(reply, outcome="info")
        super().answer_here(reply)


class ReadsEndUnknown(Raft):
    """A read that nobody answered in time may have taken effect, clients are told."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._requests.__class__ = _NeverSure


class ReaderAcknowledges(QuorumRegister):
    """What a reader has acknowledged is taken for acknowledged by the writer whose record it writes
    back."""

    def _send_commit(self, number: int, operation: Any) -> None:
        first = len(self.out.sends)
        super()._send_commit(number, operation)
        for i, send in enumerate(self.out.sends[first:], first):
            if type(send.msg) is Commit:
                msg = msgspec.structs.replace(send.msg, acked=operation.request.acked)
                self.out.sends[i] = msgspec.structs.replace(send, msg=msg)


class GossipRefusalForgotten(Gossip):
    """A write that was refused is not remembered as refused."""

    def _refuse(self, request: Request, error: str) -> None:
        self._reply(request, "fail", error=error)


class AnyNumberOfSiblings(Gossip):
    """Writes make siblings without end."""

    def _are_too_many(self, merged: Any, before: Any) -> bool:
        return False


# --- placements ---


class WritesGoToSeveralMembers(Gossip):
    """A write that is not answered at once goes to another member, and so is made twice."""

    def _forward_again(self) -> None:
        for forwarding in self._forwarding.values():
            forwarding.to = self._member_for(forwarding.request)
        super()._forward_again()


class NextBeforeReady(QuorumRegister):
    """A further member is replaced while the one before still copies."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self.recovery is not None:
            placements: Any = self.recovery.placements
            placements.is_complete = lambda number: True


class LostAtOnce(QuorumRegister):
    """Whoever is suspected is lost at once."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self.recovery is not None:
            at_once = msgspec.structs.replace(self.parameters, recover_after_s=1e-6)
            self.recovery._parameters = at_once


class AnybodyProposes(QuorumRegister):
    """Who is no member of a range proposes whom it should move to."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        recovery: Any = self.recovery
        if recovery is not None:
            proposes = recovery.placements.proposes
            recovery._rank = lambda placement: 0
            recovery._may_propose = lambda placement: not proposes(placement.range)


class ResultsLeftBehind(QuorumRegister):
    """A new member copies the keys, and not which requests wrote them."""

    def import_keys(self, contents: Any) -> None:
        decoded = [self._decoded(content) for content in contents]
        super().import_keys([_encode((key, record, [])) for key, record, _ in decoded])


class AnswersTheOldPlacement(QuorumRegister):
    """A replica stores what is written under a placement that it knows to be replaced, and says
    so."""

    def on_commit(self, src: str, msg: Commit) -> None:
        if self.recovery is not None:
            current = self.recovery.placements.of(msg.key)
            if msg.placement < current.number:
                msg = msgspec.structs.replace(msg, placement=current.number)
        super().on_commit(src, msg)


_encode = msgspec.msgpack.Encoder().encode


_DISSERTATION = "Ongaro, dissertation, "

BUGS = (
    Bug(
        name="raft-pre-vote-for-any-log",
        protocol="raft",
        replica=PreVoteForAnyLog,
        source=_DISSERTATION + "9.6",
    ),
    Bug(
        name="raft-old-pre-votes-count",
        protocol="raft",
        replica=OldPreVotesCount,
        source="etcd/raft: pre-votes of an earlier campaign",
    ),
    Bug(
        name="raft-old-timeout-now",
        protocol="raft",
        replica=OldTimeoutNow,
        source=_DISSERTATION + "3.10: a message of an older term is ignored",
    ),
    Bug(
        name="raft-truncate-keeps-members",
        protocol="raft",
        replica=TruncateKeepsMembers,
        source="hashicorp/raft: the configuration of a truncated entry",
    ),
    Bug(
        name="raft-joins-too-soon",
        protocol="raft",
        replica=JoinsTooSoon,
        source=_DISSERTATION + "4.2.1: a new server catches up first",
    ),
    Bug(
        name="raft-refusal-not-on-disk",
        protocol="raft",
        replica=RefusalNotOnDisk,
        source="fail means certainly not applied, crash or no crash",
    ),
    Bug(
        name="raft-refusals-stay-on-disk",
        protocol="raft",
        replica=RefusalsStayOnDisk,
        source="what is forgotten is forgotten on disk, too",
    ),
    Bug(
        name="raft-reads-end-unknown",
        protocol="raft",
        replica=ReadsEndUnknown,
        source="a read changes nothing, so nothing about it is unknown",
    ),
    Bug(
        name="quorum-reader-acknowledges",
        protocol="quorum",
        replica=ReaderAcknowledges,
        source="Lee et al., RIFL, SOSP 2015, section 3: a client acknowledges for itself",
    ),
    Bug(
        name="gossip-refusal-forgotten",
        protocol="gossip",
        replica=GossipRefusalForgotten,
        source="fail means certainly not applied, now or later",
    ),
    Bug(
        name="raft-transfer-never-ends",
        protocol="raft",
        replica=TransferNeverEnds,
        source=_DISSERTATION + "3.10: after an election timeout the leader goes on",
    ),
    Bug(
        name="raft-sends-without-a-window",
        protocol="raft",
        replica=SendsWithoutAWindow,
        source="etcd/raft: a limit of what is in flight",
    ),
    Bug(
        name="gossip-any-number-of-siblings",
        protocol="gossip",
        replica=AnyNumberOfSiblings,
        source="Riak: sibling explosion",
    ),
    Bug(
        name="gossip-writes-go-to-several-members",
        protocol="gossip-placed",
        replica=WritesGoToSeveralMembers,
        source="a write that is handed on is made at one member",
    ),
    Bug(
        name="recovery-next-before-ready",
        protocol="quorum-placed",
        replica=NextBeforeReady,
        source="one member at a time lacks data",
    ),
    Bug(
        name="recovery-lost-at-once",
        protocol="quorum-placed",
        replica=LostAtOnce,
        source="a suspicion may be wrong: it has to last",
    ),
    Bug(
        name="recovery-anybody-proposes",
        protocol="quorum-placed",
        replica=AnybodyProposes,
        source="of two nodes that suspect each other one is put out, and has no say any more",
    ),
    Bug(
        name="recovery-results-left-behind",
        protocol="quorum-placed",
        replica=ResultsLeftBehind,
        source="Lee et al., RIFL, SOSP 2015, section 3: completion records move with the data",
    ),
    Bug(
        name="recovery-answers-the-old-placement",
        protocol="quorum-placed",
        replica=AnswersTheOldPlacement,
        source="Lamport, Malkhi, Zhou 2009: an old configuration is fenced",
    ),
)
