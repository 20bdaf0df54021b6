"""What holds after every step of Raft."""

from __future__ import annotations

from typing import Protocol

from nodes.contract.disk import Disk
from nodes.contract.replica import Invariant, InvariantBroken
from nodes.parts.quorum import is_majority
from nodes.protocols.raft.messages import Entry, HardState


class Observed(Protocol):
    """What the invariants look at; see `nodes.protocols.raft.replica.Raft`."""

    disk: Disk
    role: str
    term: int
    vote: str | None
    commit: int
    applied: int
    durable_index: int
    truncated: list[int]

    @property
    def hard_state_is_durable(self) -> bool: ...

    @property
    def voters(self) -> list[str]: ...

    @property
    def deciding(self) -> tuple[tuple[str, ...], ...]: ...

    def term_at(self, index: int) -> int: ...


class ElectionSafety(Invariant):
    """At most one leader in a term (paper, figure 3)."""

    name = "election safety"
    looks_at = ("role", "term")

    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}

    def observe(self, node: str, replica: Observed) -> None:
        if replica.role == "leader":
            leader = self._leaders.setdefault(replica.term, node)
            if leader != node:
                raise InvariantBroken(f"term {replica.term} has two leaders: {leader} and {node}")


class LogMatching(Invariant):
    """(index, term) names one entry with one predecessor, so logs that share it are equal up to
    there."""

    name = "log matching"
    looks_at = ("disk.position",)

    def __init__(self) -> None:
        self._entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        self._seen: dict[str, tuple[Observed, int, int, int]] = {}

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
            first = known.setdefault((index, entry.term), (entry, previous))
            if first[1] != previous or (first[0] is not entry and first[0] != entry):
                raise InvariantBroken(
                    f"entry {index} of term {entry.term} is {first[0]} behind term {first[1]} on "
                    f"one node, and {entry} behind term {previous} on {node}"
                )
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
    """No two nodes apply different entries at an index, nor answer differently to one."""

    name = "state machine safety"
    looks_at = ("applied",)

    def __init__(self) -> None:
        self._applied: dict[int, Entry] = {}
        self._seen: dict[str, tuple[Observed, int]] = {}

    def observe(self, node: str, replica: Observed) -> None:
        before, seen = self._seen.get(node, (None, 0))
        applied = replica.applied
        if before is replica and applied == seen:
            return
        start = max(replica.disk.first_index, seen + 1 if before is replica else 0)
        self._seen[node] = (replica, applied)
        if start > applied:
            return
        known = self._applied
        for index, entry in enumerate(replica.disk.entries(start, applied + 1), start):
            first = known.setdefault(index, entry)
            if first is not entry and first != entry:
                raise InvariantBroken(
                    f"{node} applied {entry} at {index}, where {first} was applied"
                )


class Durability(Invariant):
    """Term and commit never go back and a term's vote never changes; what is durable survives a
    crash."""

    name = "durability"
    looks_at = ("term", "vote", "commit", "durable_index", "durable_position")

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Observed, HardState, int]] = {}
        self._floor: dict[str, tuple[HardState, int]] = {}

    def observe(self, node: str, replica: Observed) -> None:
        seen = self._seen.get(node)
        if seen is not None and seen[0] is replica:
            state = seen[1]
            if replica.term != state.term or replica.vote != state.vote:
                state = HardState(replica.term, replica.vote)
                self._no_step_back(node, seen[1], state)
            if replica.commit < seen[2]:
                raise InvariantBroken(f"commit of {node} fell from {seen[2]} to {replica.commit}")
        else:
            state = HardState(replica.term, replica.vote)
            floor, index = self._floor.get(node, (state, 0))
            self._no_step_back(node, floor, state)
            if replica.disk.last_index < index:
                raise InvariantBroken(
                    f"{node} came back with {replica.disk.last_index} of {index} durable entries"
                )
        self._seen[node] = (replica, state, replica.commit)
        if replica.hard_state_is_durable:
            self._floor[node] = (state, replica.durable_index)
        elif node in self._floor:
            self._floor[node] = (self._floor[node][0], replica.durable_index)

    @staticmethod
    def _no_step_back(node: str, before: HardState, state: HardState) -> None:
        if state.term < before.term:
            raise InvariantBroken(f"term of {node} fell from {before.term} to {state.term}")
        if state.term == before.term and before.vote not in (None, state.vote):
            raise InvariantBroken(
                f"{node} voted for {before.vote}, then for {state.vote}, in term {state.term}"
            )


class CommitIsSafe(Invariant):
    """What a leader commits is durable on a majority, and no member that lacks it could still be
    elected (paper, 5.4.2 and figure 8)."""

    name = "a commit is safe"
    looks_at = ("role", "commit")

    def __init__(self) -> None:
        self._replicas: dict[str, Observed] = {}
        self._commit: tuple[Observed | None, int] = (None, 0)

    def observe(self, node: str, replica: Observed) -> None:
        self._replicas[node] = replica
        index = replica.commit
        if replica.role != "leader" or self._commit == (replica, index):
            return
        before, self._commit = self._commit, (replica, index)
        stable = replica.disk.stable is not None
        if stable and before[0] is replica and index > replica.disk.snapshot_index:
            self._check(node, index, replica.term_at(index), replica.deciding)

    def _check(
        self, leader: str, index: int, term: int, deciding: tuple[tuple[str, ...], ...]
    ) -> None:
        last: dict[str, tuple[int, int]] = {}
        holders: list[str] = []
        for member in dict.fromkeys(each for members in deciding for each in members):
            replica = self._replicas.get(member)
            disk = None if replica is None else replica.disk.stable
            if disk is None:
                last[member] = (0, 0)
                continue
            last[member] = (stable_term(disk, disk.last_index), disk.last_index)
            # What a snapshot covers was committed before.
            if disk.snapshot_index >= index or (
                disk.last_index >= index and stable_term(disk, index) == term
            ):
                holders.append(member)
        if not any(is_majority(holders, members) for members in deciding):
            raise InvariantBroken(
                f"{leader} committed entry {index} of term {term}, which is durable on {holders}"
            )
        for member in last:
            if member not in holders:
                voters = [other for other in last if last[other] <= last[member]]
                if any(is_majority(voters, members) for members in deciding):
                    raise InvariantBroken(
                        f"{leader} committed entry {index} of term {term}, but {member} lacks it, "
                        f"and {voters} could elect it: (last term, last index) are {last}"
                    )


class VotesAreDurable(Invariant):
    """Whoever elected a leader cannot forget it: the votes are on disk."""

    name = "votes are durable"
    looks_at = ("role", "term")

    def __init__(self) -> None:
        self._replicas: dict[str, Observed] = {}
        self._led: dict[str, int] = {}

    def observe(self, node: str, replica: Observed) -> None:
        self._replicas[node] = replica
        if replica.role != "leader" or self._led.get(node) == replica.term:
            return
        self._led[node] = replica.term
        if replica.disk.stable is None:
            return
        for voter in replica.voters:
            disk = self._replicas[voter].disk.stable
            assert disk is not None
            known: HardState = disk.get("hard_state", HardState(0, None))
            if known.term < replica.term or (known.term == replica.term and known.vote != node):
                raise InvariantBroken(
                    f"{node} leads term {replica.term} by a vote of {voter}, which has only {known}"
                    " on disk"
                )


def stable_term(disk: Disk, index: int) -> int:
    """Term of the entry at ``index`` of a disk that nobody runs on."""
    if index == disk.snapshot_index:
        return 0 if disk.snapshot is None else int(disk.snapshot.term)
    return int(disk.entry(index).term)
