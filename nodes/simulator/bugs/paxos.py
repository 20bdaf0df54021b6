"""Paxos with one mistake."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from nodes.parts.forwarding import TIMER
from nodes.parts.synod import Ballot, Proposer
from nodes.protocols.paxos import (
    Accept,
    Accepted,
    Command,
    Paxos,
    Prepare,
    Promise,
    Survey,
    SurveyReply,
    Votes,
)
from nodes.simulator.bugs import Bug


def _early(replica: Paxos, kind: type) -> None:
    """Let the messages of one type that were just sent overtake the disk."""
    sends = replica.out.sends
    for i, send in enumerate(sends):
        if type(send.msg) is kind:
            sends[i] = msgspec.structs.replace(send, position=0)


class BallotsShared(Paxos):
    """A ballot is a number only, so that two proposers may have the same."""

    def become_proposer(self) -> None:
        own, self.id = self.id, self.config.nodes[0]
        super().become_proposer()
        self.id = own


class PromiseForgotten(Paxos):
    """A promise is kept in memory only, until there is a vote in its ballot."""

    def _replay(self, index: int, record: Votes) -> None:
        self._acceptor.promise(record.ballot)
        super()._replay(index, record)

    def _promise(self, ballot: Ballot) -> None:
        if ballot.node == self.id:
            super()._promise(ballot)
            return
        self._acceptor.promise(ballot)
        self._highest = max(self._highest, ballot)
        self.upto = self.commit
        self._ack = None


class PromiseBeforeFsync(Paxos):
    """The promise is written, and sent before it is durable."""

    def on_prepare(self, src: str, m: Prepare) -> None:
        super().on_prepare(src, m)
        _early(self, Promise)


class PromisePerBallot(Paxos):
    """An acceptor votes in any ballot that it has promised, however old."""

    def on_accept(self, src: str, m: Accept) -> None:
        if m.ballot < self.promised and self.role == "follower":
            self._acceptor.promised = m.ballot
        super().on_accept(src, m)


class VotesNotFound(Paxos):
    """Votes are looked up under the new ballot, so earlier ones are never found."""

    def _report(self, ballot: Ballot, first: int) -> list[Promise]:
        return [
            msgspec.structs.replace(
                promise, votes=tuple(v for v in promise.votes if v[1] == ballot)
            )
            for promise in super()._report(ballot, first)
        ]


class _AnyVote(Proposer[Command]):
    def report(self, votes: Any) -> None:
        for slot, ballot, value in votes:
            self.votes.setdefault(slot, (ballot, value))


class AnyVoteChosen(Paxos):
    """A proposer goes on with the first vote that it hears of, not with that of the highest
    ballot."""

    def become_proposer(self) -> None:
        super().become_proposer()
        self._proposer = _AnyVote(self.ballot, self.majority)


class ProposerIsNoAcceptor(Paxos):
    """A proposer needs a majority of other nodes: its own promise and votes do not count."""

    def _try_to_lead(self) -> None:
        proposer = self._proposer
        assert proposer is not None
        if len(proposer.promises) >= proposer.quorum:
            votes = self._acceptor.votes
            proposer.report((slot, *vote) for slot, vote in votes.items() if slot > self.commit)
            self.become_leader()

    def _majority_reached(self, own: int, field: Literal["upto", "round"]) -> int:
        return super()._majority_reached(0, field)


class _BySender(dict[Any, set[int]]):
    def setdefault(self, key: Any, default: Any = None) -> set[int]:
        return super().setdefault(key[0], default)


class PartsMixed(Paxos):
    """Parts of two promises of one node, cut in other places, count together as one."""

    def become_proposer(self) -> None:
        super().become_proposer()
        self._parts = _BySender()


class SmallPrepareQuorum(Paxos):
    """Phase 1 is over by one promise too few."""

    def become_proposer(self) -> None:
        super().become_proposer()
        assert self._proposer is not None
        self._proposer.quorum -= 1


class SmallAcceptQuorum(Paxos):
    """A value is chosen by one vote too few."""

    def _majority_reached(self, own: int, field: Literal["upto", "round"]) -> int:
        if field == "round":
            return super()._majority_reached(own, field)
        values = sorted([own, *(progress.upto for progress in self._progress.values())])
        return values[min(len(values) - 1, len(values) - self.majority + 1)]


class AcceptedBeforeFsync(Paxos):
    """A vote is told of before it is durable."""

    def _acknowledge(self, round_: int, missing: bool) -> None:
        super()._acknowledge(round_, missing)
        _early(self, Accepted)


class OwnVoteEarly(Paxos):
    """A leader counts its own vote before it is durable."""

    def end_step(self) -> None:
        if self.role == "leader" and self.upto > self._own_upto:
            self._own_upto = self.upto
            self._acknowledged = True
        super().end_step()


class StaleLeaderRead(Paxos):
    """A leader answers reads without asking whether it still leads."""

    def _begin_round(self) -> None:
        if self._ready:
            reads, self._reads = self._reads, []
            for request, origin in reads:
                self._requests.answer(origin, self._map.read(request))


class ReadBeforeRecovered(Paxos):
    """A new leader answers reads before it knows what its predecessors have chosen."""

    @property
    def _ready(self) -> bool:
        return self.role == "leader"


class CommitBeyondVotes(Paxos):
    """A learner takes its votes of any ballot for what was chosen."""

    def on_accept(self, src: str, m: Accept) -> None:
        super().on_accept(src, m)
        while self.commit < m.commit and self.commit + 1 in self._acceptor.votes:
            self.commit += 1


class RefusedAsFailed(Paxos):
    """A request that was handed on is refused as certainly not applied."""

    def on_timer(self, name: str) -> None:
        if name == TIMER:
            for waiting in self._requests.waiting.values():
                waiting.handed = False
        super().on_timer(name)


class SurveyHearsNobody(Paxos):
    """Asked whether it hears a leader, a node says that it does not."""

    def on_survey(self, src: str, m: Survey) -> None:
        self.out.send(src, SurveyReply(m.number, True, self._highest))


_SKETCH = "protocols.md, Paxos, wrong there"
_SIMPLE = "Lamport, Paxos made simple, "

BUGS = (
    Bug(
        name="paxos-ballots-shared",
        protocol="paxos",
        replica=BallotsShared,
        source=_SKETCH + ": ballots come from a per-node counter",
    ),
    Bug(
        name="paxos-promise-forgotten",
        protocol="paxos",
        replica=PromiseForgotten,
        source=_SKETCH + ": nothing is durable",
    ),
    Bug(
        name="paxos-promise-before-fsync",
        protocol="paxos",
        replica=PromiseBeforeFsync,
        source="a wrong early=True",
    ),
    Bug(
        name="paxos-promise-per-ballot",
        protocol="paxos",
        replica=PromisePerBallot,
        source=_SKETCH + ": promises per ballot, so it never refuses",
    ),
    Bug(
        name="paxos-votes-not-found",
        protocol="paxos",
        replica=VotesNotFound,
        source=_SKETCH + ": accepted values are looked up under the new ballot",
    ),
    Bug(
        name="paxos-any-vote-chosen",
        protocol="paxos",
        replica=AnyVoteChosen,
        source=_SIMPLE + "P2c",
    ),
    Bug(
        name="paxos-proposer-is-no-acceptor",
        protocol="paxos",
        replica=ProposerIsNoAcceptor,
        source=_SKETCH + ": the proposer is not an acceptor",
    ),
    Bug(
        name="paxos-parts-mixed",
        protocol="paxos",
        replica=PartsMixed,
        source="PMMC, 2.3: a promise tells all that its sender has accepted",
    ),
    Bug(
        name="paxos-small-prepare-quorum",
        protocol="paxos",
        replica=SmallPrepareQuorum,
        source="quorum off by one",
    ),
    Bug(
        name="paxos-small-accept-quorum",
        protocol="paxos",
        replica=SmallAcceptQuorum,
        source="quorum off by one",
    ),
    Bug(
        name="paxos-accepted-before-fsync",
        protocol="paxos",
        replica=AcceptedBeforeFsync,
        source="a wrong early=True",
    ),
    Bug(
        name="paxos-own-vote-early",
        protocol="paxos",
        replica=OwnVoteEarly,
        source="a vote counts once it is durable",
    ),
    Bug(
        name="paxos-stale-leader-read",
        protocol="paxos",
        replica=StaleLeaderRead,
        source="van Renesse and Altinbuken, Paxos made moderately complex, 4.5: leases",
    ),
    Bug(
        name="paxos-read-before-recovered",
        protocol="paxos",
        replica=ReadBeforeRecovered,
        source=_SIMPLE + "section 3: a new leader first learns",
    ),
    Bug(
        name="paxos-commit-beyond-votes",
        protocol="paxos",
        replica=CommitBeyondVotes,
        source="a vote in an old ballot is not what was chosen",
    ),
    Bug(
        name="paxos-fail-for-info",
        protocol="paxos",
        replica=RefusedAsFailed,
        source="fail means certainly not applied",
    ),
    Bug(
        name="paxos-basic-votes-not-found",
        protocol="paxos-basic",
        replica=VotesNotFound,
        source=_SKETCH + ": accepted values are looked up under the new ballot",
    ),
    Bug(
        name="paxos-survey-hears-nobody",
        protocol="paxos",
        replica=SurveyHearsNobody,
        source="a node that is cut off from the leader alone deposes it",
    ),
)
