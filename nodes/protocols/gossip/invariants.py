"""What holds after every step of gossip."""

from __future__ import annotations

from typing import Any, Protocol

from nodes.contract.disk import Disk
from nodes.contract.replica import Env, Invariant, InvariantBroken
from nodes.parts.vector_clock import covers
from nodes.protocols.gossip.messages import Record, Sibling
from nodes.protocols.gossip.policies import Policy

_MILLISECOND = 1 << 16
"""Of a stamp; below it is the count of the events in one."""


class Observed(Protocol):
    """What the invariants look at; see `nodes.protocols.gossip.replica.Gossip`."""

    env: Env
    disk: Disk
    policy: Policy
    records: dict[str, Record]
    changed: list[str]
    durable_position: int


class _PerKey(Invariant):
    """Compares each key that changed with what the same replica held before."""

    def __init__(self) -> None:
        self._watched: dict[str, Observed] = {}
        self._before: dict[str, dict[str, Any]] = {}

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken."""
        policy, records = replica.policy, replica.records
        if self._watched.get(node) is not replica:
            # After a crash a replica may know less: writes that were not durable are gone.
            self._watched[node] = replica
            self._before[node] = {
                key: self.look(policy, record.siblings) for key, record in records.items()
            }
            return
        before = self._before[node]
        for key in replica.changed:
            record = records.get(key)
            now = self.look(policy, () if record is None else record.siblings)
            old = before.get(key)
            if old is not None:
                broken = self.compare(policy, old, now)
                if broken is not None:
                    raise InvariantBroken(f"{node} key {key!r}: {broken}")
            before[key] = now

    def look(self, policy: Policy, siblings: tuple[Sibling, ...]) -> Any:
        """What to compare of a key."""
        raise NotImplementedError

    def compare(self, policy: Policy, old: Any, now: Any) -> str | None:
        """What is wrong with ``now`` after ``old``, or None."""
        raise NotImplementedError


class OnlyDominatedVersionsDisappear(_PerKey):
    """A version that a replica held is there, or a version that supersedes it is."""

    name = "only dominated versions disappear"
    looks_at = ("disk.position",)

    def look(self, policy: Policy, siblings: tuple[Sibling, ...]) -> tuple[Sibling, ...]:
        """All versions."""
        return siblings

    def compare(self, policy: Policy, old: Any, now: Any) -> str | None:
        """What is wrong with ``now`` after ``old``, or None."""
        lost = policy.missing(now, old)
        return None if lost is None else f"{lost} disappeared; present: {now}"


class ClockNeverGoesBack(_PerKey):
    """What a replica knows of a key only grows."""

    name = "a key's clock never goes back"
    looks_at = ("disk.position",)

    def look(self, policy: Policy, siblings: tuple[Sibling, ...]) -> dict[str, int]:
        """The clock, as it was then: whoever changes a version in place does not change it."""
        return policy.clock(siblings)

    def compare(self, policy: Policy, old: Any, now: Any) -> str | None:
        """What is wrong with ``now`` after ``old``, or None."""
        return f"clock {old} went back to {now}" if policy.lacks(now, old) else None


class DotNamesOneVersion(Invariant):
    """In the whole cluster, and over crashes, a dot of a key has one past, value and request."""

    name = "a dot names one version"
    looks_at = ("disk.position",)

    def __init__(self) -> None:
        self._watched: dict[str, Observed] = {}
        self._seen: dict[tuple[str, str, int], tuple[Any, ...]] = {}

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken."""
        restarted = self._watched.get(node) is not replica
        self._watched[node] = replica
        records, seen = replica.records, self._seen
        for key in records if restarted else replica.changed:
            record = records.get(key)
            for s in () if record is None else record.siblings:
                content = (s.past, s.value, s.deleted, s.client, s.sequence)
                known = seen.get((key, s.node, s.counter))
                if known != content:
                    # A dot that never left its node may be given again after a crash.
                    if known and (s.node != node or self._elsewhere(node, key, s)):
                        raise InvariantBroken(
                            f"{node} key {key!r}: dot ({s.node}, {s.counter}) is {content} and"
                            f" {known}"
                        )
                    # A copy of the past: the object itself would change together with what it
                    # shows.
                    seen[key, s.node, s.counter] = (dict(s.past), *content[1:])

    def _elsewhere(self, node: str, key: str, s: Sibling) -> bool:
        others = (r for n, r in self._watched.items() if n != node and key in r.records)
        return any(
            covers(r.policy.clock(r.records[key].siblings), s.node, s.counter) for r in others
        )


class DurableVersionsStay(Invariant):
    """What was durable at a node before a crash, so everything that it acknowledged, is present
    there afterwards, or superseded by what is."""

    name = "every acknowledged write is present, dominated or a sibling"

    def __init__(self) -> None:
        self._watched: dict[str, Observed] = {}
        self._waiting: dict[str, list[tuple[int, str, tuple[Sibling, ...]]]] = {}
        self._durable: dict[str, dict[str, tuple[Sibling, ...]]] = {}

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken."""
        durable = self._durable.setdefault(node, {})
        waiting = self._waiting.setdefault(node, [])
        if self._watched.get(node) is not replica:
            self._watched[node] = replica
            waiting.clear()
            for key, siblings in durable.items():
                now = replica.records.get(key, Record(())).siblings
                lost = replica.policy.missing(now, siblings)
                if lost is not None:
                    raise InvariantBroken(f"{node} key {key!r}: lost {lost}; present: {now}")
        position = replica.disk.position
        for key in replica.changed:
            waiting.append((position, key, replica.records[key].siblings))
        done = 0
        while done < len(waiting) and waiting[done][0] <= replica.durable_position:
            _, key, siblings = waiting[done]
            known = durable.get(key, ())
            if replica.policy.missing(siblings, known) is None:
                durable[key] = siblings
            else:
                durable[key] = replica.policy.merge(known, siblings)
            done += 1
        del waiting[:done]


class StampsFollowTheClock(Invariant):
    """Under lww the stamp of a new write is no earlier than the wall clock of its node, and it is
    later only as far as somebody's stamp was (Kulkarni et al. 2014, theorems 1 to 3). A counter
    alone is in order as well, and then of two writes that know nothing of each other the winner has
    nothing to do with time."""

    name = "a stamp follows the wall clock"
    looks_at = ("disk.position",)

    def __init__(self) -> None:
        self._own: dict[str, int] = {}
        self._highest = 0

    def is_needed(self) -> bool:
        """See `Invariant`."""
        parameters = self.scene.parameters
        return bool(parameters.conflict == "lww")

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken. The clock stands still during a step."""
        highest = self._highest
        for key in replica.changed:
            stamp = replica.records[key].siblings[0].counter
            if replica.records[key].siblings[0].node == node and stamp > self._own.get(node, 0):
                self._own[node] = stamp
                wall = int(replica.env.wall() * 1000) * _MILLISECOND
                if not wall <= stamp < max(wall, highest) + _MILLISECOND:
                    raise InvariantBroken(
                        f"{node} key {key!r}: the stamp {stamp} of a new write, where the clock"
                        f" says {wall} and the latest stamp was {highest}"
                    )
            self._highest = max(self._highest, stamp)
