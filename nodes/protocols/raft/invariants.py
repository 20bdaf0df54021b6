"""What holds after every step of Raft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nodes.contract.disk import Disk
from nodes.contract.replica import Invariant, InvariantBroken, Scene
from nodes.protocols.raft.claims import (
    RaftChronicle,
    deciding,
    has_majority,
    stable_term,
)
from nodes.protocols.raft.messages import Entry, HardState


class Observed(Protocol):
    """What the invariants look at; see `nodes.protocols.raft.replica.Raft`."""

    disk: Disk
    role: str
    leader: str | None
    term: int
    vote: str | None
    commit: int
    applied: int
    durable_index: int
    truncated: list[int]
    deciding: tuple[tuple[str, ...], ...]

    @property
    def hard_state_is_durable(self) -> bool: ...

    def term_at(self, index: int) -> int: ...


class ElectionSafety(Invariant):
    """At most one leader in a term (paper, figure 3), and nobody follows another one."""

    name = "election safety"
    looks_at = ("role", "term")

    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}

    def observe(self, node: str, replica: Observed) -> None:
        if replica.role == "leader":
            leader = self._leaders.setdefault(replica.term, node)
            if leader != node:
                raise InvariantBroken(f"term {replica.term} has two leaders: {leader} and {node}")
        if replica.leader is not None and replica.leader != self._leaders.get(replica.term):
            raise InvariantBroken(f"{node} follows {replica.leader} in term {replica.term}")


class LogMatching(Invariant):
    """(index, term) names one entry with one predecessor, so logs that share it are equal up to
    there."""

    name = "log matching"
    looks_at = ("disk.position",)

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Observed, int, int, int]] = {}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        chronicle = scene.common(RaftChronicle)
        chronicle.begin(scene)
        self._chronicle = chronicle
        self._entries, self._memberships = chronicle.entries, chronicle.memberships

    def observe(self, node: str, replica: Observed) -> None:
        # Only what this replica wrote since: from the lowest index that it truncated meanwhile.
        before, seen, truncations, first = self._seen.get(node, (None, 0, 0, 0))
        if before is not replica:
            seen = truncations = 0
        disk = replica.disk
        last, lowest = disk.last_index, disk.first_index
        if (
            last == seen
            and truncations == len(replica.truncated)
            and (before is not replica or first == lowest)
        ):
            return
        start = seen + 1
        if truncations != len(replica.truncated):
            start = min(start, *replica.truncated[truncations:])
        start = max(start, lowest)
        self._seen[node] = (replica, last, len(replica.truncated), lowest)
        if before is replica and first < lowest < start and lowest <= last:
            # A snapshot came under entries that had been there: they must go on from it.
            self._compare(node, replica, lowest, lowest)
        if start <= last:
            self._compare(node, replica, start, last)

    def _compare(self, node: str, replica: Observed, start: int, last: int) -> None:
        previous = replica.term_at(start - 1)
        known = self._entries
        for index, entry in enumerate(replica.disk.entries(start, last + 1), start):
            if entry.members is not None and (index, entry.term) not in known:
                self._chronicle.on_change(node, replica, index, entry)
            first = known.setdefault((index, entry.term), (entry, previous))
            if first[1] != previous or (first[0] is not entry and first[0] != entry):
                raise InvariantBroken(
                    f"entry {index} of term {entry.term} is {first[0]} behind term {first[1]} on "
                    f"one node, and {entry} behind term {previous} on {node}"
                )
            if entry.members is not None and entry.members not in self._memberships:
                self._memberships.append(entry.members)
            if entry.term < previous:
                raise InvariantBroken(f"terms fall from {previous} to {entry.term} in {node}'s log")
            previous = entry.term


class LeaderCompleteness(Invariant):
    """A leader holds every entry that was committed in an earlier term."""

    name = "leader completeness"
    looks_at = ("role", "term", "commit")

    def __init__(self) -> None:
        self._committed: dict[int, tuple[int, int]] = {}
        self._led: dict[str, int] = {}

    def observe(self, node: str, replica: Observed) -> None:
        if replica.role != "leader":
            return
        term = replica.term
        if self._led.get(node) != term:
            self._led[node] = term
            disk = replica.disk
            # With Log Matching, to hold the last one is to hold all before it.
            for earlier, (index, entry_term) in self._committed.items():
                if earlier < term and index > disk.snapshot_index:
                    held = replica.term_at(index) if index <= disk.last_index else None
                    if held != entry_term:
                        raise InvariantBroken(
                            f"{node} leads term {term} without entry {index} of term {entry_term}, "
                            f"committed in term {earlier}"
                        )
        commit = replica.commit
        if commit > self._committed.get(term, (0, 0))[0]:
            self._committed[term] = (commit, replica.term_at(commit))


class StateMachineSafety(Invariant):
    """No two nodes apply different entries at an index, nor answer differently to one. A snapshot,
    taken or installed, is the state after the log up to its entry, with the members and clients'
    answers of then (paper, section 7; dissertation, 6.3)."""

    name = "state machine safety"
    looks_at = ("applied",)

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Observed, int]] = {}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(RaftChronicle)
        self._snapshots: dict[str, int] = {}

    def observe(self, node: str, replica: Observed) -> None:
        before, seen = self._seen.get(node, (None, 0))
        applied = replica.applied
        if before is replica and applied == seen:
            return
        start = max(replica.disk.first_index, seen + 1 if before is replica else 0)
        self._seen[node] = (replica, applied)
        if applied > self._chronicle.reference.index:
            self._chronicle.advance(applied, stable_term(replica.disk, applied))
        if replica.disk.snapshot_index != self._snapshots.get(node, 0):
            self._check_snapshot(node, replica.disk)
            self._chronicle.on_snapshot(node, replica)
        if start > applied:
            return
        entries = replica.disk.entries(start, applied + 1)
        known = self._chronicle.applied[start - 1 : applied]
        if entries != known:
            raise InvariantBroken(
                f"{node} applied {entries} from {start} on, where {known} were applied"
            )

    def _check_snapshot(self, node: str, disk: Disk) -> None:
        self._snapshots[node] = disk.snapshot_index
        # One that was not durable may be forgotten.
        problem = None if disk.snapshot is None else self._chronicle.problem(disk.snapshot)
        if problem is not None:
            raise InvariantBroken(f"{node} has {disk.snapshot}, but {problem}")


class _Seen:
    """Of a node in its present life: its term and vote, ``commit``, and up to where it takes its
    log for ``durable``. ``floor``: the term and vote that were durable last, in any life."""

    __slots__ = ("commit", "durable", "floor", "replica", "state")

    def __init__(self, replica: Observed) -> None:
        self.replica = replica
        self.state = HardState(replica.term, replica.vote)
        self.commit = 0
        self.durable = -1
        self.floor: HardState | None = None


class Durability(Invariant):
    """Term and commit never go back and a term's vote never changes; what is durable survives a
    crash, and up to where a node takes its log for durable its disk has that log: an fsync says
    nothing of entries that have taken the place of those that it wrote."""

    name = "durability"
    looks_at = ("term", "vote", "commit", "durable_index", "durable_position")

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def observe(self, node: str, replica: Observed) -> None:
        seen = self._seen.get(node)
        if seen is None or seen.replica is not replica:
            seen = self._seen[node] = self._in_new_life(node, replica, seen)
        state = seen.state
        if replica.term != state.term or replica.vote != state.vote:
            seen.state = HardState(replica.term, replica.vote)
            self._no_step_back(node, state, seen.state)
        if replica.commit < seen.commit:
            raise InvariantBroken(f"commit of {node} fell from {seen.commit} to {replica.commit}")
        seen.commit = replica.commit
        if seen.durable != replica.durable_index:
            seen.durable = replica.durable_index
            self._check_durable(node, replica)
        if replica.hard_state_is_durable:
            seen.floor = seen.state

    def _in_new_life(self, node: str, replica: Observed, before: _Seen | None) -> _Seen:
        seen = _Seen(replica)
        if before is not None and before.floor is not None:
            seen.floor = before.floor
            self._no_step_back(node, before.floor, seen.state)
            if replica.disk.last_index < before.durable:
                raise InvariantBroken(
                    f"{node} came back with {replica.disk.last_index} of {before.durable} durable"
                    " entries"
                )
        return seen

    def _check_durable(self, node: str, replica: Observed) -> None:
        index, disk = replica.durable_index, self.scene.disks.get(node)
        if disk is None or index <= max(disk.snapshot_index, replica.disk.snapshot_index):
            return
        held = disk.entry(index).term if index <= disk.last_index else None
        if held != replica.disk.entry(index).term:
            raise InvariantBroken(
                f"{node} takes entry {index} of term {replica.disk.entry(index).term} for durable;"
                f" its disk has one of term {held} there"
            )

    @staticmethod
    def _no_step_back(node: str, before: HardState, state: HardState) -> None:
        if state.term < before.term:
            raise InvariantBroken(f"term of {node} fell from {before.term} to {state.term}")
        if state.term == before.term and before.vote not in (None, state.vote):
            raise InvariantBroken(
                f"{node} voted for {before.vote}, then for {state.vote}, in term {state.term}"
            )


class MembersAreTheLogs(Invariant):
    """The memberships of which a majority decides are the last ones of the log, committed or not,
    also after a part of it went or a snapshot came. A leader changes one member at a time, after
    the change before is confirmed and an entry of its own term is committed (dissertation, 4.1, and
    the note of 2015), and adds only who has caught up (4.2.1)."""

    name = "members are those of the log"
    looks_at = ("role", "term")

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, str]] = {}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        # Not with each write: few entries name members, and few writes are snapshots.
        chronicle = scene.common(RaftChronicle)
        chronicle.on_change = self._check_change
        chronicle.on_snapshot = self._check_members

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken."""
        seen = (replica.term, replica.role)
        if self._seen.get(node) == seen:
            return
        self._seen[node] = seen
        self._check_members(node, replica)

    def _check_members(self, node: str, replica: Observed) -> None:
        wanted = deciding(replica.disk, self.scene.nodes)
        if replica.deciding != wanted:
            raise InvariantBroken(
                f"{node} goes by the members {replica.deciding}, and its log says {wanted}"
            )

    def _check_change(self, node: str, replica: Observed, index: int, entry: Entry) -> None:
        """As its leader appends it."""
        disk = replica.disk
        if index <= disk.snapshot_index or not self.scene.disks or entry.members is None:
            return
        before = deciding(disk, self.scene.nodes, index - 1)
        begun = max(
            (
                earlier
                for earlier in range(disk.first_index, index)
                if disk.entry(earlier).members is not None
            ),
            default=0,
        )
        told = f"{node} makes {entry.members} of {before} in entry {index}"
        if begun > replica.commit:
            raise InvariantBroken(f"{told}, and entry {begun} is not committed")
        if entry.members == before[-1]:
            return
        if len(before) > 1:
            raise InvariantBroken(f"{told}, which is not confirmed")
        if replica.term_at(replica.commit) != entry.term:
            raise InvariantBroken(f"{told}, and has committed nothing in term {entry.term}")
        joined = [each for each in entry.members if each not in before[0]]
        left = [each for each in before[0] if each not in entry.members]
        if len(joined) + len(left) != 1:
            raise InvariantBroken(f"{told}: more or less than one node")
        for each in joined:
            held = self.scene.disks[each]
            if max(held.snapshot_index, held.last_index) < replica.commit:
                raise InvariantBroken(
                    f"{told}; {each} holds {held.last_index} entries of {replica.commit}"
                )


class CommitIsSafe(Invariant):
    """What a leader commits is durable on a majority, and no member that lacks it could still be
    elected (paper, 5.4.2 and figure 8). Others take for committed what some leader has committed.

    Whose majority counts is read from the leader's log."""

    name = "a commit is safe"
    looks_at = ("role", "commit")

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Observed, int, bool]] = {}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(RaftChronicle)

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken."""
        index, leads = replica.commit, replica.role == "leader"
        before = self._seen.get(node)
        self._seen[node] = (replica, index, leads)
        if index <= self._chronicle.safe or not self.scene.disks:
            return
        # It may have led only until this step, and have committed in it.
        if not (leads or (before is not None and before[0] is replica and before[2])):
            raise InvariantBroken(
                f"{node} takes entry {index} for committed, and leaders have committed only"
                f" {self._chronicle.safe}"
            )
        self._check(node, index, replica.disk)
        self._chronicle.safe = index

    def agrees(self, disks: Mapping[str, Disk]) -> bool:
        """Whether all logs hold what was committed."""
        index = self._chronicle.safe
        term = self._chronicle.applied_term(index)
        return all(
            disk.snapshot_index >= index
            or (disk.last_index >= index and stable_term(disk, index) == term)
            for disk in disks.values()
        )

    def _check(self, leader: str, index: int, log: Disk) -> None:
        term, nodes = stable_term(log, index), self.scene.nodes
        changed = len(self._chronicle.memberships) > 1
        memberships: tuple[tuple[str, ...], ...] = (nodes,)
        if changed:
            # What was confirmed in the same step decides on later entries only.
            both = (*deciding(log, nodes, index), *deciding(log, nodes))
            memberships = tuple(dict.fromkeys(both))
        last: dict[str, tuple[int, int]] = {}
        holders: list[str] = []
        for member in dict.fromkeys(each for members in memberships for each in members):
            disk = self.scene.disks[member]
            last[member] = (stable_term(disk, disk.last_index), disk.last_index)
            # What a snapshot covers was committed before.
            if disk.snapshot_index >= index or (
                disk.last_index >= index and stable_term(disk, index) == term
            ):
                holders.append(member)
        if not has_majority(holders, memberships):
            raise InvariantBroken(
                f"{leader} committed entry {index} of term {term}, which is durable on {holders}"
            )
        for member in last:
            if member not in holders:
                voters = [other for other in last if last[other] <= last[member]]
                if has_majority(voters, memberships):
                    raise InvariantBroken(
                        f"{leader} committed entry {index} of term {term}, but {member} lacks it, "
                        f"and {voters} could elect it: (last term, last index) are {last}"
                    )


class ElectionsAreWon(Invariant):
    """Whoever leads has the votes of a majority of the members, by its own log: votes that left
    those who gave them (see `nodes.protocols.raft.claims.VotesStand`), and so cannot be
    forgotten."""

    name = "elections are won"
    looks_at = ("role", "term")

    def __init__(self) -> None:
        self._led: dict[str, int] = {}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(RaftChronicle)

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken."""
        term = replica.term
        if replica.role != "leader" or self._led.get(node) == term or not self.scene.disks:
            return
        self._led[node] = term
        self._chronicle.logs[term] = replica.disk
        state: HardState = self.scene.disks[node].get("hard_state", HardState(0, None))
        if (state.term, state.vote) != (term, node):
            raise InvariantBroken(f"{node} leads term {term}, and has {state} on disk")
        voters = self._chronicle.voters.get((term, node), {node})
        # Its first entry, of this step, names no members.
        memberships = deciding(replica.disk, self.scene.nodes)
        if not has_majority(voters, memberships):
            raise InvariantBroken(
                f"{node} leads term {term} by the votes of {sorted(voters)}, of {memberships}"
            )
