"""Too much in a message or too little, the same message too often, a pause that is too long, a
table that grows: all goes well, and takes more than was promised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from nodes.contract.replica import Reply
from nodes.parts.forwarding import Forward, Forwarded, Requests
from nodes.parts.synod import Ballot
from nodes.protocols.gossip import Gossip, Record
from nodes.protocols.paxos import Paxos, Promise, Refused
from nodes.protocols.quorum_register import Difference, Digest, QuorumRegister
from nodes.protocols.raft import AppendEntriesReply, PreVote, Raft
from nodes.protocols.raft.progress import PROBE, Progress
from nodes.simulator.bugs import Bug


class HearsForAHeartbeat(Raft):
    """Who has not heard its leader for two heartbeats helps to elect another one."""

    def on_pre_vote(self, src: str, m: PreVote) -> None:
        leader = self.leader
        waited_s = self.env.now() - self._heard_at_s
        if self.role == "follower" and waited_s > 2 * self.parameters.heartbeat_s:
            self.leader = None
        super().on_pre_vote(src, m)
        self.leader = leader


class NewLeaderGrants(Raft):
    """Who leads, and has committed nothing yet, helps to elect another one."""

    def on_pre_vote(self, src: str, m: PreVote) -> None:
        role = self.role
        if role == "leader" and not self._ready:
            self.role, self.leader = "follower", None
            super().on_pre_vote(src, m)
            self.role, self.leader = role, self.id
        else:
            super().on_pre_vote(src, m)


class _InOne(Requests):
    """All answers for a node go in one message."""

    __slots__ = ()

    def send_answers(self) -> None:
        answers: dict[str, list[Reply]] = self.answers
        self.answers = {}
        for origin, replies in answers.items():
            self._out.send(origin, Forwarded(tuple(replies)), early=True)


class AnswersInOneMessage(Raft):
    """However many answers there are for a node, one message has them all."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._requests = _InOne(self.id, self.disk, self.out, self.parameters)


class PromisesInOnePart(Paxos):
    """A promise tells of all votes in one message, however many they are."""

    def _report(self, ballot: Ballot, first: int) -> list[Promise]:
        parts = super()._report(ballot, first)
        votes = tuple(vote for part in parts for vote in part.votes)
        return [Promise(ballot, first, self.commit, 0, 1, votes)]


class LateRefusalsProbeAgain(Raft):
    """Each refusal, also of what the search has left behind, sends the same entries again."""

    def _on_refusal(self, progress: Progress, m: AppendEntriesReply) -> None:
        super()._on_refusal(progress, m)
        if progress.state is PROBE:
            progress.probed = False


class LateRefusalsLengthenPauses(Paxos):
    """Each refusal, also of a ballot of long ago, doubles the next pause."""

    def on_refused(self, src: str, m: Refused) -> None:
        if m.ballot != self.ballot:
            self._preemptions += 1
        super().on_refused(src, m)


class PausesDoNotGrow(Paxos):
    """Whoever wins phase 1 forgets how often it was preempted in phase 2."""

    def _try_to_lead(self) -> None:
        super()._try_to_lead()
        if self.role == "leader":
            self._preemptions = 0


class ProposalsOutliveTheBallot(Paxos):
    """What a leader has proposed stays in its table when it leads no more."""

    def become_follower(self) -> None:
        proposed = self._proposed
        super().become_follower()
        self._proposed = proposed


class ReadsOutliveTheTerm(Raft):
    """Reads whose round nobody confirmed stay with a leader that is deposed."""

    def become_follower(self, term: int, leader: str | None = None) -> None:
        rounds = list(self._rounds) if self.role == "leader" else []
        super().become_follower(term, leader)
        self._rounds.extend(rounds)


class TakesOneOfEach(Paxos):
    """A leader takes one request of each client that it is handed in a message."""

    def on_forward(self, src: str, m: Forward) -> None:
        first = {request.client: request for request in reversed(m.requests)}
        super().on_forward(src, Forward(tuple(first.values())))


class LateAcknowledgementGoesBack(Raft):
    """A late acknowledgement, once the logs are known to meet, takes the leader back to it."""

    def on_append_entries_reply(self, src: str, m: AppendEntriesReply) -> None:
        progress = self._progress.get(src)
        searches = progress is not None and progress.state is PROBE
        super().on_append_entries_reply(src, m)
        if progress is not None and searches and progress.state is not PROBE:
            progress.next = m.index + 1


class SnapshotAnswersOne(Raft):
    """Of several clients that a snapshot has the answers of, one is answered."""

    def _answer_from_map(self) -> None:
        for waiting in list(self._requests.waiting.values()):
            reply = self._map.find(waiting.request)
            if reply is not None:
                self._requests.answer_here(reply)
                return


class TwoMessagesInOne(Gossip):
    """Records of two messages go in one, however large they are."""

    def _portions(self, keys: Sequence[str]) -> Iterator[dict[str, Record]]:
        portions = super()._portions(keys)
        for records in portions:
            yield {**records, **next(portions, {})}


class TwiceTheKeys(QuorumRegister):
    """A message tells the versions of twice as many keys as it may."""

    def on_digest(self, src: str, msg: Digest) -> None:
        self._digest._keys_per_message = 2 * self.parameters.digest_keys + 1
        super().on_digest(src, msg)


class NothingMore(QuorumRegister):
    """When all differences are told a message follows that tells nothing."""

    def on_digest(self, src: str, msg: Digest) -> None:
        before = len(self.out.sends)
        super().on_digest(src, msg)
        if len(self.out.sends) > before + 1:
            self.out.send(src, Difference((), {}))


class PagesAreOneKeyTooLong(QuorumRegister):
    """A page of a transfer has a key more than it may."""

    def range_page(self, key_range: int, after: str) -> tuple[str | None, tuple[bytes, ...]]:
        limits = self.limits
        self.limits = replace(limits, page_keys=limits.page_keys + 1)
        try:
            return super().range_page(key_range, after)
        finally:
            self.limits = limits


_TRANSFER = "Lamport, Malkhi, Zhou 2009, section 2: state transfer"
_EXCHANGE = "Demers et al. 1987, section 1.3: what an exchange costs"
BUGS = (
    Bug(
        name="raft-hears-for-a-heartbeat",
        protocol="raft",
        replica=HearsForAHeartbeat,
        source="Ongaro, dissertation, 4.2.3: within the minimum election timeout of hearing from a"
        " current leader",
    ),
    Bug(
        name="raft-new-leader-grants",
        protocol="raft",
        replica=NewLeaderGrants,
        source="Ongaro, dissertation, 9.6: a leader need not hear one",
    ),
    Bug(
        name="raft-answers-in-one-message",
        protocol="raft",
        replica=AnswersInOneMessage,
        source="a limit that is kept where entries are sent, and nowhere else",
    ),
    Bug(
        name="paxos-promises-in-one-part",
        protocol="paxos",
        replica=PromisesInOnePart,
        source="van Renesse and Altinbuken, PMMC, section 4.2: what a promise tells grows",
    ),
    Bug(
        name="raft-late-refusals-probe-again",
        protocol="raft",
        replica=LateRefusalsProbeAgain,
        source="etcd/raft: MaybeDecrTo ignores a rejection of what is not being probed",
    ),
    Bug(
        name="paxos-late-refusals-lengthen-pauses",
        protocol="paxos-basic",
        replica=LateRefusalsLengthenPauses,
        source="van Renesse and Altinbuken, PMMC, section 3: timeouts grow, and come down again",
    ),
    Bug(
        name="paxos-pauses-do-not-grow",
        protocol="paxos-basic",
        replica=PausesDoNotGrow,
        source="Lamport, Paxos Made Simple, section 2.4: two proposers that preempt each other",
    ),
    Bug(
        name="paxos-proposals-outlive-the-ballot",
        protocol="paxos",
        replica=ProposalsOutliveTheBallot,
        source="state of a leader that outlives its ballot",
    ),
    Bug(
        name="raft-reads-outlive-the-term",
        protocol="raft",
        replica=ReadsOutliveTheTerm,
        source="etcd/raft: reset clears pending reads with every change of the term",
    ),
    Bug(
        name="paxos-takes-one-of-each",
        protocol="paxos",
        replica=TakesOneOfEach,
        source="a client with several requests on their way",
    ),
    Bug(
        name="raft-late-acknowledgement-goes-back",
        protocol="raft",
        replica=LateAcknowledgementGoesBack,
        source="etcd/raft: MaybeUpdate never lowers Next",
    ),
    Bug(
        name="raft-snapshot-answers-one",
        protocol="raft",
        replica=SnapshotAnswersOne,
        source="a loop that ends too soon",
    ),
    Bug(
        name="gossip-two-messages-in-one",
        protocol="gossip",
        replica=TwoMessagesInOne,
        source=_EXCHANGE,
    ),
    Bug(
        name="quorum-tells-of-twice-the-keys",
        protocol="quorum",
        replica=TwiceTheKeys,
        source=_EXCHANGE,
    ),
    Bug(
        name="quorum-tells-of-nothing-more",
        protocol="quorum",
        replica=NothingMore,
        source=_EXCHANGE,
    ),
    Bug(
        name="recovery-pages-are-too-long",
        protocol="quorum-placed",
        replica=PagesAreOneKeyTooLong,
        source=_TRANSFER,
    ),
)
