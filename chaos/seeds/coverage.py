"""What the seeds of a gate have reached: branches, messages, marks and faults.

Every `TRACE_EVERY`-th seed is run a second time under a tracer, so the others are as fast as ever,
and what a seed gives is the same. The tracer looks only for branches that no seed has reached yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import msgspec

from bench.paths import ROOT
from chaos.seeds.branches import branches_of, modules_of, name_of, traced
from chaos.seeds.simulate import Stop, Workers, find_protocol, gather
from chaos.seeds.unreached import UNREACHED
from nodes.simulator.simulate import simulate

TRACE_EVERY = 50
"""The first traced seeds take some ten times as long as others."""
ENOUGH_SEEDS = 200
"""Traced ones of each protocol, for a branch that none of them reached to count: a gate of 10,000
seeds has so many."""


class Coverage(msgspec.Struct):
    """Of ``seeds`` traced seeds of a protocol. ``reached``: by file, the numbers of the branches
    (`branches_of`). ``messages``: how many of each type were handled; ``marks``, ``faults``: how
    often each happened, zeroes for those that are there to happen."""

    seeds: int = 0
    reached: dict[str, list[int]] = {}
    messages: dict[str, int] = {}
    marks: dict[str, int] = {}
    faults: dict[str, int] = {}

    def add(self, more: Coverage) -> None:
        """What other seeds reached."""
        self.seeds += more.seeds
        for file, numbers in more.reached.items():
            self.reached[file] = sorted({*self.reached.get(file, ()), *numbers})
        for mine, others in (
            (self.messages, more.messages),
            (self.marks, more.marks),
            (self.faults, more.faults),
        ):
            for name, count in others.items():
                mine[name] = mine.get(name, 0) + count


def cover(
    name: str, seeds: Sequence[int], known: Mapping[str, Collection[int]] = MappingProxyType({})
) -> Coverage:
    """Trace seeds of a protocol; a task of a worker. ``known``: by file, the branches that others
    reached; they need not be in what is returned."""
    protocol = find_protocol(name)
    replica = protocol.replica
    paths = modules_of(cast("Any", replica))
    coverage = Coverage()
    handlers = {kind.__name__: getattr(replica, on) for kind, on in replica._handlers.items()}
    for seed in seeds:
        result, steps = traced(
            paths,
            lambda seed=seed: simulate(protocol, seed),  # type: ignore[misc]
            {path: known.get(name_of(path), ()) for path in paths},
        )
        faults = {
            counter.removeprefix("fault "): count
            for counter, count in result.counters.items()
            if counter.startswith("fault ")
        }
        coverage.add(
            Coverage(
                1,
                {
                    name_of(path): [
                        number
                        for number, branch in enumerate(branches_of(path))
                        if branch.is_reached(steps.lines[str(path)])
                    ]
                    for path in paths
                },
                {kind: steps.calls.get(on.__code__, 0) for kind, on in handlers.items()},
                Counter(mark.name for mark in result.marks),
                faults,
            )
        )
    return coverage


def sweep_coverage(name: str, seeds: range, workers: Workers, into: Coverage) -> Stop:
    """Trace those of ``seeds`` whose turn it is, and add what they reach."""
    chosen = [seed for seed in seeds if seed % TRACE_EVERY == 1]

    def on_result(_: int, found: Coverage) -> bool:
        into.add(found)
        return True

    return gather(
        workers, ((name, [seed], dict(into.reached)) for seed in chosen), cover, on_result
    )


class Total(msgspec.Struct):
    """Of one file, by all protocols that stand on it: its branches, and those never reached.
    ``excused``: unreached, with a reason (`chaos.seeds.unreached`)."""

    file: str
    branches: int
    unreached: list[str]
    excused: list[str]


def totals(covered: Iterable[Coverage]) -> list[Total]:
    """By file."""
    reached: dict[str, set[int]] = {}
    for coverage in covered:
        for file, numbers in coverage.reached.items():
            reached.setdefault(file, set()).update(numbers)
    found: list[Total] = []
    for file in sorted(reached):
        branches = branches_of(Path(ROOT / file))
        missed = [b.name for number, b in enumerate(branches) if number not in reached[file]]
        found.append(
            Total(
                file,
                len(branches),
                [name for name in missed if name not in UNREACHED],
                [name for name in missed if name in UNREACHED],
            )
        )
    return found
