"""What holds after every step of Paxos."""

from __future__ import annotations

from typing import Protocol

from nodes.contract.disk import Disk
from nodes.contract.replica import Config, Invariant, InvariantBroken, Scene
from nodes.parts.claims import outnumber
from nodes.parts.synod import NO_BALLOT, Ballot
from nodes.protocols.paxos.claims import PaxosChronicle, disk_slot
from nodes.protocols.paxos.messages import Command, Promised, Votes


class Observed(Protocol):
    """What the invariants look at; see `nodes.protocols.paxos.replica.Paxos`."""

    config: Config
    disk: Disk
    role: str
    leader: str | None
    ballot: Ballot
    promised: Ballot
    commit: int
    applied: int
    durable_index: int

    @property
    def promise_is_durable(self) -> bool: ...

    def value_at(self, slot: int) -> Command: ...


class OneProposer(Invariant):
    """A ballot has one proposer, and whoever follows follows that of the highest ballot that it has
    promised: requests that are handed to another one are in vain."""

    name = "one proposer"
    looks_at = ("role", "ballot", "promised")

    def __init__(self) -> None:
        self._proposers: dict[Ballot, str] = {}

    def observe(self, node: str, replica: Observed) -> None:
        if replica.role != "follower":
            proposer = self._proposers.setdefault(replica.ballot, node)
            if proposer != node:
                raise InvariantBroken(f"ballot {replica.ballot} is of {proposer} and of {node}")
        if replica.leader not in (None, replica.promised.node):
            raise InvariantBroken(
                f"{node} follows {replica.leader}, and has promised {replica.promised}"
            )


class Agreement(Invariant):
    """One value per slot is chosen and applied; a ballot has one value per slot, which its owner
    proposed; what a majority has voted for, no higher ballot proposes otherwise (*Simple*, P2b)."""

    name = "agreement"
    looks_at = ("disk.position", "durable_index", "applied")

    def __init__(self) -> None:
        self._voters: dict[tuple[int, Ballot], list[str]] = {}
        self._chosen: dict[int, tuple[Ballot, Command]] = {}
        self._applied: dict[int, Command] = {}
        self._seen: dict[str, tuple[Observed, int, int, int]] = {}
        self._snapshots: dict[str, int] = {}
        self._newest: dict[int, tuple[Ballot, Command]] = {}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(PaxosChronicle)
        self._chronicle.begin(scene)
        self._proposed = self._chronicle.proposed

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
            self._advance(min(disk_slot(disk), replica.applied))
            for slot in range(max(applied, disk_slot(disk)) + 1, replica.applied + 1):
                self._on_applied(node, slot, replica.value_at(slot))
        if disk.snapshot_index != self._snapshots.get(node, 0):
            self._check_snapshot(node, disk)
        self._seen[node] = (replica, last, durable, replica.applied)

    def _advance(self, slot: int) -> None:
        """The first who applies them may have compacted them in the same step."""
        reference = self._chronicle.reference
        while reference.index < slot:
            newest = self._newest.get(reference.index + 1)
            if newest is None:
                raise InvariantBroken(f"slot {reference.index + 1} was applied without a vote")
            # No higher ballot than that which chose it can have proposed otherwise.
            value = self._applied.setdefault(reference.index + 1, newest[1])
            reference.apply(value)

    def _check_snapshot(self, node: str, disk: Disk) -> None:
        self._snapshots[node] = disk.snapshot_index
        # One that was not durable may be forgotten.
        problem = None if disk.snapshot is None else self._chronicle.problem(disk.snapshot)
        if problem is not None:
            raise InvariantBroken(f"{node} has {disk.snapshot}, but {problem}")

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
                newest = self._newest.get(slot)
                if newest is None or ballot > newest[0]:
                    self._newest[slot] = ballot, value
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
                if 2 * len(voters) > nodes:
                    _, chosen = self._chosen.setdefault(slot, (record.ballot, value))
                    if chosen is not value and chosen != value:
                        raise InvariantBroken(f"slot {slot} has chosen {chosen} and {value}")

    def _on_applied(self, node: str, slot: int, value: Command) -> None:
        if slot == self._chronicle.reference.index + 1:
            self._chronicle.reference.apply(value)
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
        self._led: dict[str, tuple[Observed, Ballot]] = {}
        # The replica, its commit, and the ballot that it led, when it was last seen.
        self._seen: dict[str, tuple[Observed, int, Ballot | None]] = {}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(PaxosChronicle)
        self._chronicle.begin(scene)

    def observe(self, node: str, replica: Observed) -> None:
        if not self.scene.disks:
            return
        nodes, commit = self.scene.nodes, replica.commit
        leads = replica.ballot if replica.role == "leader" else None
        before = self._seen.get(node)
        self._seen[node] = (replica, commit, leads)
        if leads is not None and self._led.get(node) != (replica, leads):
            self._led[node] = (replica, leads)
            held = [other for other in nodes if self._promised(other) >= leads]
            if not outnumber(held, nodes):
                raise InvariantBroken(f"{node} leads {leads}, which only {held} promised on disk")
        if commit <= self._chronicle.safe:
            return
        # It may have led only until this step, and have taken slots for chosen in it.
        ballot = leads
        if before is not None and before[0] is replica:
            ballot = leads or before[2]
        if ballot is None or before is None:
            raise InvariantBroken(
                f"{node} takes slot {commit} for chosen, and leaders only {self._chronicle.safe}"
            )
        self._check_chosen(node, ballot, commit)
        self._chronicle.safe = commit

    def _check_chosen(self, node: str, ballot: Ballot, commit: int) -> None:
        on_disk = []
        for other, journal in self._chronicle.journals.items():
            journal.catch_up()
            on_disk.append((other, disk_slot(journal.disk), journal.votes))
        for slot in range(self._chronicle.safe + 1, commit + 1):
            vote = (slot, ballot)
            held = [other for other, upto, votes in on_disk if upto >= slot or vote in votes]
            if 2 * len(held) <= len(on_disk):
                raise InvariantBroken(
                    f"{node} takes slot {slot} for chosen in {ballot}, which only {held} have on"
                    " disk"
                )

    def _promised(self, node: str) -> Ballot:
        promised: Promised | None = self.scene.disks[node].get("promised")
        return NO_BALLOT if promised is None else promised.ballot


# Its ballot equals no promise, not even NO_BALLOT.
_NO_VOTE: tuple[Ballot, Command] = (Ballot(-1, ""), None)
