"""What the next retry, heartbeat or election makes good, and what costs more than it has to: all is
well soon, and it was to be well at once."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from nodes.protocols.gossip import Gossip, Rumour
from nodes.protocols.paxos import Paxos, Promise
from nodes.protocols.quorum_register import QuorumRegister, Record
from nodes.protocols.raft import AppendEntriesReply, Raft
from nodes.simulator.bugs import Bug


class MissedUntilTheNextBeat(Raft):
    """What a follower has missed goes there with the next heartbeat, not at once."""

    def on_append_entries_reply(self, src: str, m: AppendEntriesReply) -> None:
        super().on_append_entries_reply(src, m)
        if not m.success:
            self._more_to_send = False


class StandsLate(Raft):
    """A follower waits for a whole timeout more before it stands for election."""

    def _set_election_timer(self) -> None:
        super()._set_election_timer()
        self._election_timeout_s += self.parameters.election_timeout_max_s
        self.out.set_timer("election", self._election_timeout_s)


class AcceptsWithTheNextBeat(Paxos):
    """Values leave for one of the acceptors with the next heartbeat only."""

    def _replicate(self) -> None:
        every, kept = self._progress, dict(self._progress)
        if not self._contact_all and len(kept) > 2:
            kept.pop(max(kept))
        self._progress = kept
        super()._replicate()
        self._progress = every


class BeginsASlotTooFar(Paxos):
    """An acceptor is believed one slot further than it says in its promise: the first values that
    go there are refused, and the next ones begin in the right place."""

    def on_promise(self, src: str, m: Promise) -> None:
        super().on_promise(src, structs.replace(m, upto=m.upto + 1))


class BeginsAnEntryTooFar(Raft):
    """A leader that begins believes all others one entry further than it is itself: the first
    entries that go there are refused, and the next ones begin in the right place."""

    def become_leader(self) -> None:
        super().become_leader()
        for progress in self._progress.values():
            progress.next += 1


class ForgetsItsOwnCopy(QuorumRegister):
    """A read that finds a quorum does not count its own copy, and writes back."""

    def _commit(self, number: int, operation: Any, record: Record) -> None:
        if operation.is_read:
            operation.holders.pop(self.id, None)
        super()._commit(number, operation, record)


class PassesNothingOn(Gossip):
    """Who is told a rumour tells nobody: what its writer did not reach waits for anti-entropy."""

    def on_rumour(self, src: str, msg: Rumour) -> None:
        self._absorb(msg.records)


BUGS = (
    Bug(
        name="raft-missed-until-the-next-beat",
        protocol="raft",
        replica=MissedUntilTheNextBeat,
        source="Raft paper, 5.3: after a rejection the leader retries",
    ),
    Bug(
        name="raft-stands-late",
        protocol="raft",
        replica=StandsLate,
        source="Raft paper, 5.2: the election timeout",
    ),
    Bug(
        name="paxos-accepts-with-the-next-beat",
        protocol="paxos",
        replica=AcceptsWithTheNextBeat,
        source="Lamport, Paxos Made Simple, section 2: what a leader sends it sends to all",
    ),
    Bug(
        name="paxos-begins-a-slot-too-far",
        protocol="paxos",
        replica=BeginsASlotTooFar,
        source="PMMC, section 4.2: what an acceptor has is told in its promise",
    ),
    Bug(
        name="raft-begins-an-entry-too-far",
        protocol="raft",
        replica=BeginsAnEntryTooFar,
        source="Raft paper, 5.3: nextIndex begins just after the last entry of the leader's log",
    ),
    Bug(
        name="quorum-forgets-its-own-copy",
        protocol="quorum",
        replica=ForgetsItsOwnCopy,
        source="Attiya, Bar-Noy and Dolev 1995: a read that finds a quorum need not write",
    ),
    Bug(
        name="gossip-passes-nothing-on",
        protocol="gossip",
        replica=PassesNothingOn,
        source="Demers et al. 1987, section 1.4: who hears a rumour spreads it",
    ),
)
