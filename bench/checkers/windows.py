"""When each fault was active, and to which window and side an operation belongs.

A fault is active from when the nemesis began it until it was healed, or to the end if it never was.
The time of a run has three windows without gaps:

    before   until the first fault begins (everything, if there is no fault)
    during   while at least one fault is active
    after    while no fault is active any more; with repeated faults also between two of them

A *cut* is a fault that leaves groups of nodes. While it is active, the group with a majority of all
nodes is the *majority* side, and all other nodes are the *minority*. With several active cuts, a
group is a set of nodes that none of them separates. Without a majority group all nodes are on the
minority side; without a cut no node is on any side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.record.columns import Bools, Int8s, Int64s
from bench.record.run_folder import FaultRecord, Manifest
from nodes.parts.quorum import majority

PHASES: Final = ("before", "during", "after")
SIDES: Final = ("none", "majority", "minority")
BEFORE, DURING, AFTER = range(3)
NO_SIDE, MAJORITY, MINORITY = range(3)
NEVER: Final = 1 << 62
"""The time of what did not happen: a heal, an answer."""


@dataclass(frozen=True, slots=True)
class FaultSpan:
    """When a fault was active. ``end_ns``: `NEVER` if it was not healed."""

    record: FaultRecord
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """The time of the load, split into segments wherever a fault begins or ends (``edges``; a
    segment begins with its edge). ``phases``: of each segment. ``sides``: of each segment and node;
    the last column is for nodes that the manifest does not name."""

    start_ns: int
    end_ns: int
    faults: list[FaultSpan]
    edges: Int64s
    phases: Int8s
    sides: NDArray[np.int8]

    def segments(self, times_ns: Int64s) -> Int64s:
        """The number of the segment that contains each time."""
        return np.searchsorted(self.edges, times_ns, "right").astype(np.int64)

    def after_s(self, stamp_ns: int) -> float:
        """A timestamp as seconds after the start of the load."""
        return (stamp_ns - self.start_ns) / 1e9

    def seconds(self, chosen: Bools) -> float:
        """The total length of the chosen segments."""
        stamps = np.clip(self.edges, self.start_ns, self.end_ns)
        stamps = np.concatenate(([self.start_ns], stamps, [self.end_ns]))
        return float(np.diff(stamps)[chosen].sum()) / 1e9


def timeline(manifest: Manifest, faults: Sequence[FaultRecord], last_ns: int) -> Timeline | None:
    """The timeline of a run; None if the load never started. ``last_ns``: when the last operation
    was wanted, which ends the load of a run that was cut short."""
    start = manifest.load_started_ns
    if start is None:
        return None
    end = last_ns + 1 if manifest.load_ended_ns is None else manifest.load_ended_ns
    spans = fault_spans(faults)
    edges = sorted({edge for s in spans for edge in (s.start_ns, s.end_ns) if edge != NEVER})
    begins: dict[int, list[FaultSpan]] = {}
    ends: dict[int, list[FaultSpan]] = {}
    for span in spans:
        begins.setdefault(span.start_ns, []).append(span)
        ends.setdefault(span.end_ns, []).append(span)
    on: dict[int, FaultSpan] = {}
    phases = [BEFORE]
    places = np.full((len(edges) + 1, len(manifest.nodes) + 1), NO_SIDE, np.int8)
    for number, edge in enumerate(edges, 1):
        on |= {id(span): span for span in begins.get(edge, [])}
        for span in ends.get(edge, []):
            del on[id(span)]
        phases.append(DURING if on else AFTER)
        found = sides(manifest.nodes, [span.record for span in on.values()])
        if found is not None:
            majority, _ = found
            places[number, :-1] = [
                MAJORITY if majority and node in majority else MINORITY for node in manifest.nodes
            ]
    return Timeline(
        start,
        max(start, end),
        spans,
        np.array(edges, np.int64),
        np.array(phases, np.int8),
        places,
    )


def fault_spans(faults: Sequence[FaultRecord]) -> list[FaultSpan]:
    """When each fault was active, by its beginning. A fault that could not be applied was active
    until its partial effects were undone."""
    spans = []
    for fault in faults:
        start = fault.applied_ns if fault.started_ns is None else fault.started_ns
        if start is None or (fault.applied_ns is None and fault.heal_started_ns is None):
            continue
        end = NEVER if fault.healed_ns is None else max(start, fault.healed_ns)
        spans.append(FaultSpan(fault, start, end))
    return sorted(spans, key=lambda span: span.start_ns)


def sides(
    nodes: Sequence[str], faults: Sequence[FaultRecord]
) -> tuple[list[str] | None, list[str]] | None:
    """The nodes on the majority side (None if no group has a majority) and all others, while
    ``faults`` are active; None if none of them is a cut."""
    cuts = [fault.groups for fault in faults if fault.groups and len(fault.groups) > 1]
    if not cuts:
        return None
    together: dict[tuple[int, ...], list[str]] = {}
    for node in nodes:
        of = [next((n for n, group in enumerate(groups) if node in group), None) for groups in cuts]
        groups_of = tuple(number for number in of if number is not None)
        if len(groups_of) == len(cuts):  # else a cut isolates it
            together.setdefault(groups_of, []).append(node)
    needed = majority(len(nodes))
    most = next((group for group in together.values() if len(group) >= needed), None)
    return most, [node for node in nodes if node not in (most or [])]
