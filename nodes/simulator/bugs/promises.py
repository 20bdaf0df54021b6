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
)
