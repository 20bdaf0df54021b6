"""What every nemesis does with faults, whatever the cluster: resolve each when it begins, apply it,
let it change, undo it, and count those that overlap."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from nodes.faults.base import Fault, Resolved
from nodes.faults.capabilities import Cluster, TakesOrders, Wanted
from nodes.faults.injected import Injected
from nodes.faults.processes import each


@dataclass(frozen=True)
class PlannedFault:
    """An entry of a schedule. ``number`` counts from 0 in order of time; times are seconds after
    the start of the load."""

    number: int
    at_s: float
    heal_at_s: float
    fault: Fault


_ENDS = {
    "crash": "restart",
    "pause": "resume",
    "unplug": "plug",
    "crash_broker": "restart_broker",
    "pause_broker": "resume_broker",
}
"""What faults begin through capabilities, and what ends it."""
_BEGINS = {end: begin for begin, end in _ENDS.items()}


class _Counted(Cluster):
    """The cluster as overlapping faults see it: a node restarts when the last fault that crashed it
    ends, and resumes when the last one that paused it ends; likewise the broker. (Links count for
    themselves.) Everything else, capabilities included, is the cluster's own."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._on: Counter[tuple[str, ...]] = Counter()
        self._gone: set[str] = set()
        self._injected: set[tuple[str, int]] = set()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name in _ENDS:
            return partial(self._begin, name, method)
        return partial(self._end, _BEGINS[name], method) if name in _BEGINS else method

    def leader(self) -> str | None:
        return self._cluster.leader()

    def can(self, capability: type[Wanted]) -> Wanted:
        self._cluster.can(capability)
        return cast(Wanted, self)

    def abandon(self, node: str) -> None:
        self._gone.add(node)

    def inject(self, node: str, number: int, injected: Injected) -> None:
        self._injected.add((node, number))
        self._cluster.can(TakesOrders).inject(node, number, injected)

    def withdraw(self, node: str, number: int) -> None:
        self._cluster.can(TakesOrders).withdraw(node, number)
        self._injected.discard((node, number))

    def _begin(self, what: str, begin: Callable[..., None], *whom: str) -> None:
        self._on[what, *whom] += 1
        begin(*whom)

    def _end(self, what: str, end: Callable[..., None], *whom: str) -> None:
        # The count drops only on success: what failed is tried again at the end.
        if self._on[what, *whom] == 1 and not self._stays(what, *whom):
            end(*whom)
        self._on[what, *whom] = max(0, self._on[what, *whom] - 1)

    def _stays(self, what: str, *whom: str) -> bool:
        return what == "crash" and self._gone.issuperset(whom)

    def end_all(self) -> None:
        """Undo all that is left, the broker (who needs no name) first, since nothing works without
        it. All is tried; the first failure is raised."""
        ends: list[Callable[[], None]] = [
            partial(getattr(self._cluster, _ENDS[what]), *whom)
            for what, *whom in sorted(self._on, key=len)
            if self._on[what, *whom] and not self._stays(what, *whom)
        ]
        self._on.clear()
        ends += [partial(self.withdraw, *injected) for injected in sorted(self._injected)]
        each(ends, lambda end: end())


class ActiveFaults:
    """The faults that are on at a cluster. Whatever the cluster raises is raised."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = _Counted(cluster)
        self._on: dict[int, tuple[Fault, Resolved]] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._on

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._on))

    def resolve(self, number: int, fault: Fault, rng: random.Random) -> Resolved:
        """The fault ``number`` is about to begin; `end` undoes whatever comes of it."""
        resolved = fault.resolve(self._cluster, rng)
        self._on[number] = fault, resolved
        return resolved

    def apply(self, number: int) -> None:
        """Begin it."""
        fault, resolved = self._on[number]
        fault.apply(self._cluster, resolved)

    def beats(self, number: int, for_s: float) -> Sequence[float]:
        """When to call `beat`: seconds after its start."""
        fault, resolved = self._on[number]
        return fault.beats(resolved, for_s)

    def beat(self, number: int, beat: int) -> None:
        """The next step of a fault that changes while active."""
        fault, resolved = self._on[number]
        self._on[number] = fault, fault.beat(self._cluster, resolved, beat)

    def end(self, number: int) -> None:
        """Undo it."""
        fault, resolved = self._on.pop(number)
        fault.undo(self._cluster, resolved)

    def undo_leftovers(self) -> Iterator[Exception]:
        """Once more from scratch, for whatever a failed undo has left behind. All is tried; what
        failed is returned."""
        for last_resort in (self._cluster.links.heal_all, self._cluster.end_all):
            try:
                last_resort()
            except Exception as error:
                yield error
