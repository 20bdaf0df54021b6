"""What holds after every step of Paxos."""

from __future__ import annotations

from typing import Protocol

from nodes.contract.disk import Disk
from nodes.contract.replica import Config, Invariant, InvariantBroken
from nodes.parts.quorum import majority
from nodes.parts.synod import NO_BALLOT, Ballot
from nodes.protocols.paxos.messages import Command, Promised, Votes


class Observed(Protocol):
    """What the invariants look at; see `nodes.protocols.paxos.replica.Paxos`."""

    config: Config
    disk: Disk
    role: str
    ballot: Ballot
    promised: Ballot
    commit: int
    applied: int
    durable_index: int

    @property
    def promise_is_durable(self) -> bool: ...

    def value_at(self, slot: int) -> Command: ...


class OneProposer(Invariant):
    """A ballot has one proposer."""

    name = "one proposer"

    def __init__(self) -> None:
        self._proposers: dict[Ballot, str] = {}

    def observe(self, node: str, replica: Observed) -> None:
        if replica.role != "follower":
            proposer = self._proposers.setdefault(replica.ballot, node)
            if proposer != node:
                raise InvariantBroken(f"ballot {replica.ballot} is of {proposer} and of {node}")


class Agreement(Invariant):
    """One value per slot is chosen and applied; a ballot has one value per slot, which its owner
    proposed; what a majority has voted for, no higher ballot proposes otherwise (*Simple*, P2b)."""

    name = "agreement"
    looks_at = ("disk.position", "durable_index", "applied")

    def __init__(self) -> None:
        self._proposed: dict[tuple[int, Ballot], Command] = {}
        self._voters: dict[tuple[int, Ballot], list[str]] = {}
        self._chosen: dict[int, tuple[Ballot, Command]] = {}
        self._applied: dict[int, Command] = {}
        self._seen: dict[str, tuple[Observed, int, int, int]] = {}

    def observe(self, node: str, replica: Observed) -> None:
        before, cast, counted, applied = self._seen.get(node, (replica, 0, 0, 0))
        if before is not replica:
            cast = counted = applied = 0
        disk = replica.disk
        last, durable = disk.last_index, replica.durable_index
        if last > cast:
            for record in disk.entries(max(cast + 1, disk.first_index), last + 1):
                self._on_cast(node, record)
        if durable > counted:
            for record in disk.entries(max(counted + 1, disk.first_index), durable + 1):
                self._on_durable(node, record, len(replica.config.nodes))
        if replica.applied > applied:
            for slot in range(max(applied, disk_slot(disk)) + 1, replica.applied + 1):
                self._on_applied(node, slot, replica.value_at(slot))
        self._seen[node] = (replica, last, durable, replica.applied)

    def _on_cast(self, node: str, record: Votes) -> None:
        ballot = record.ballot
        for slot, value in enumerate(record.values, record.first):
            key = (slot, ballot)
            known = self._proposed.get(key, self)
            if known is self:
                # A leader sends what was chosen before as well, without voting for it again.
                if ballot.node != node and self._applied.get(slot, self) != value:
                    raise InvariantBroken(
                        f"{node} voted for {value} in slot {slot}, which {ballot.node} did not"
                        f" propose in ballot {ballot}"
                    )
                self._proposed[key] = value
            elif known is not value and known != value:
                raise InvariantBroken(f"slot {slot} of ballot {ballot} has {known} and {value}")
            chosen = self._chosen.get(slot)
            if chosen is not None and ballot > chosen[0] and chosen[1] != value:
                raise InvariantBroken(
                    f"ballot {ballot} proposes {value} in slot {slot}, where ballot {chosen[0]}"
                    f" has chosen {chosen[1]}"
                )

    def _on_durable(self, node: str, record: Votes, nodes: int) -> None:
        for slot, value in enumerate(record.values, record.first):
            voters = self._voters.setdefault((slot, record.ballot), [])
            if node not in voters:
                voters.append(node)
                if len(voters) >= majority(nodes):
                    _, chosen = self._chosen.setdefault(slot, (record.ballot, value))
                    if chosen is not value and chosen != value:
                        raise InvariantBroken(f"slot {slot} has chosen {chosen} and {value}")

    def _on_applied(self, node: str, slot: int, value: Command) -> None:
        first = self._applied.setdefault(slot, value)
        if first is not value and first != value:
            raise InvariantBroken(f"{node} applied {value} in slot {slot}, where {first} was")
        chosen = self._chosen.get(slot)
        if chosen is not None and chosen[1] is not value and chosen[1] != value:
            raise InvariantBroken(f"{node} applied {value} in slot {slot}, not {chosen[1]}")


class Durability(Invariant):
    """Promises and what is known to be chosen never go back; what is durable survives a crash."""

    name = "durability"
    looks_at = ("promised", "commit", "durable_position", "durable_index")

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Observed, Ballot, int]] = {}
        self._floor: dict[str, tuple[Ballot, int]] = {}

    def observe(self, node: str, replica: Observed) -> None:
        promised = replica.promised
        floor, journal = self._floor.get(node, (NO_BALLOT, 0))
        seen = self._seen.get(node)
        if seen is not None and seen[0] is replica:
            floor = max(floor, seen[1])
            if replica.commit < seen[2]:
                raise InvariantBroken(f"commit of {node} fell from {seen[2]} to {replica.commit}")
        elif replica.disk.last_index < journal:
            raise InvariantBroken(
                f"{node} came back with {replica.disk.last_index} of {journal} durable records"
            )
        if promised < floor:
            raise InvariantBroken(f"{node} promised {floor}, and now only {promised}")
        self._seen[node] = (replica, promised, replica.commit)
        if replica.promise_is_durable:
            self._floor[node] = (promised, replica.durable_index)


class MajoritiesAreDurable(Invariant):
    """Whoever leads has a majority of promises, and what it takes for chosen a majority of votes,
    that no crash can take back."""

    name = "majorities are durable"
    looks_at = ("role", "ballot", "commit")

    def __init__(self) -> None:
        self._replicas: dict[str, Observed] = {}
        self._led: dict[str, tuple[Observed, Ballot]] = {}
        # The replica, its commit, and the ballot that it led, when it was last seen.
        self._seen: dict[str, tuple[Observed, int, Ballot | None]] = {}
        # Chosen once is chosen for good: an acceptor that knows it answers so, and a crash that
        # makes it forget what it knew takes nothing back.
        self._chosen: set[int] = set()
        self._journals: dict[str, _Journal] = {}

    def observe(self, node: str, replica: Observed) -> None:
        self._replicas[node] = replica
        if replica.disk.stable is None:
            return
        nodes, commit = replica.config.nodes, replica.commit
        leads = replica.ballot if replica.role == "leader" else None
        before = self._seen.get(node)
        self._seen[node] = (replica, commit, leads)
        if leads is not None and self._led.get(node) != (replica, leads):
            self._led[node] = (replica, leads)
            held = [other for other in nodes if self._promised(other) >= leads]
            if len(held) < majority(len(nodes)):
                raise InvariantBroken(f"{node} leads {leads}, which only {held} promised on disk")
        if before is None or before[0] is not replica:
            return
        # It may have led only until this step, and have taken slots for chosen in it.
        ballot = leads or before[2]
        if ballot is None:
            return
        for slot in range(before[1] + 1, commit + 1):
            if slot in self._chosen:
                continue
            held = [other for other in nodes if self._holds(other, ballot, slot)]
            if len(held) < majority(len(nodes)):
                raise InvariantBroken(
                    f"{node} takes slot {slot} for chosen in {ballot}, which only {held} have on"
                    " disk"
                )
            self._chosen.add(slot)

    def _promised(self, node: str) -> Ballot:
        replica = self._replicas.get(node)
        disk = None if replica is None else replica.disk.stable
        promised: Promised | None = None if disk is None else disk.get("promised")
        return NO_BALLOT if promised is None else promised.ballot

    def _holds(self, node: str, ballot: Ballot, slot: int) -> bool:
        replica = self._replicas.get(node)
        disk = None if replica is None else replica.disk.stable
        if replica is None or disk is None:
            return False
        if disk_slot(disk) >= slot:
            return True
        journal = self._journals.get(node)
        if journal is None or journal.disk is not disk:
            journal = self._journals[node] = _Journal(disk)
        journal.read()
        if journal.commit >= slot or (slot, ballot) in journal.votes:
            return True
        # It may have known before that the slot is chosen; the leader learns it only now.
        return replica.role != "leader" and replica.commit >= slot


class _Journal:
    """What is in the votes on a disk: records are only added at the end, and compacted."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.commit = 0
        self.votes: set[tuple[int, Ballot]] = set()
        self._upto = self._compacted = 0

    def read(self) -> None:
        """Take in what is new."""
        disk = self.disk
        if self._compacted != disk.snapshot_index:
            self._compacted = self._upto = disk.snapshot_index
            self.commit = 0
            self.votes.clear()
        assert self._upto <= disk.last_index, "votes are never truncated"
        for record in disk.entries(self._upto + 1, disk.last_index + 1):
            self.commit = max(self.commit, record.commit)
            ballot = record.ballot
            self.votes.update(
                [(slot, ballot) for slot in range(record.first, record.first + len(record.values))]
            )
        self._upto = disk.last_index


# Its ballot equals no promise, not even NO_BALLOT.
_NO_VOTE: tuple[Ballot, Command] = (Ballot(-1, ""), None)


def disk_slot(disk: Disk) -> int:
    """The last slot of the snapshot on disk; 0 without one."""
    return 0 if disk.snapshot is None else int(disk.snapshot.slot)
