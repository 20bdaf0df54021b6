"""Paxos itself, without messages and without a disk: ballots, acceptors and proposers; sans-I/O.

Sources: L. Lamport, "The Part-Time Parliament" (ACM TOCS, 1998), sections 2 and 3; "Paxos Made
Simple" (2001), section 2.

Instances of consensus are numbered; each *slot* comes to have one value. An acceptor makes one
promise for all of its slots, so that one phase 1 prepares any number of them; for a single decree
there is a single slot. The caller sends the messages, and writes to disk: **a promise, and a vote,
must be durable before anybody is told of it.**
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from nodes.contract.bounds import Count

V = TypeVar("V")


class Ballot(NamedTuple):
    """Ballots are ordered by round, then by node, and belong to that node alone: no two proposers
    share one."""

    round: Count
    node: str

    def __str__(self) -> str:
        return f"{self.round}.{self.node}"

    def next_of(self, node: str) -> Ballot:
        """The lowest ballot of ``node`` in a later round."""
        return Ballot(self.round + 1, node)


NO_BALLOT = Ballot(0, "")
"""Below all others; nobody's."""


class Acceptor(Generic[V]):
    """Remembers the highest promise, and the last vote of each slot: (ballot, value)."""

    def __init__(self, promised: Ballot = NO_BALLOT) -> None:
        self.promised = promised
        self.votes: dict[int, tuple[Ballot, V]] = {}

    def promise(self, ballot: Ballot) -> bool:
        """Phase 1b: promise to vote in no ballot below this one. False: a higher one has been
        promised."""
        if ballot < self.promised:
            return False
        self.promised = ballot
        return True

    def accept(self, ballot: Ballot, first: int, values: Sequence[V]) -> bool:
        """Phase 2b: vote for ``values`` in the slots from ``first`` on. That implies the promise.
        False: a higher ballot has been promised, and nothing changed."""
        if not self.promise(ballot):
            return False
        votes = self.votes
        for slot, value in enumerate(values, first):
            votes[slot] = (ballot, value)
        return True


class Proposer(Generic[V]):
    """One ballot, from the side of its owner. ``quorum``: how many acceptors are a majority, the
    owner's own counted like any other, when its promise or vote is durable."""

    def __init__(self, ballot: Ballot, quorum: int) -> None:
        self.ballot = ballot
        self.quorum = quorum
        self.promises: set[str] = set()
        self.votes: dict[int, tuple[Ballot, V]] = {}
        """Of each slot the vote of the highest ballot that was reported."""
        self._accepted: dict[int, set[str]] = {}

    def report(self, votes: Iterable[tuple[int, Ballot, V]]) -> None:
        """Votes (slot, ballot, value) that an acceptor has cast. `on_promise` comes after all of
        its votes are reported."""
        for slot, ballot, value in votes:
            known = self.votes.get(slot)
            if known is None or ballot > known[0]:
                self.votes[slot] = (ballot, value)

    def on_promise(self, acceptor: str) -> bool:
        """Whether a majority has promised now, and phase 2 may begin."""
        self.promises.add(acceptor)
        return len(self.promises) >= self.quorum

    def choose(self, slot: int, own: V) -> V:
        """What this ballot must propose in ``slot``: the value of the highest vote, for it may be
        chosen already, and ``own`` only where no vote was reported ("Paxos Made Simple", P2c)."""
        assert len(self.promises) >= self.quorum, "phase 1 is not over"
        known = self.votes.get(slot)
        return own if known is None else known[1]

    def on_accepted(self, acceptor: str, slot: int) -> bool:
        """Whether a majority has voted for the proposal of ``slot`` now, so that it is chosen."""
        voters = self._accepted.setdefault(slot, set())
        voters.add(acceptor)
        return len(voters) >= self.quorum
