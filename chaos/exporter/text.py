"""Figures of a run or a cluster as OpenMetrics text (version 1.0.0)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.record.run_folder import FaultRecord, NodeRecord

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds of the buckets of latencies, in seconds."""
GAUGES = {
    "term": "Term, or ballot, that the node knows.",
    "commit": "Highest committed index.",
    "applied": "Highest applied index.",
    "last_index": "Highest index in the log.",
}
"""Fields of a node's probe that are numbers, with their help."""
QUEUE = "requests_open"
"""The counter of a node that goes up and down: requests that were not answered yet."""
NO_COUNTERS = (QUEUE, "links_down")


@dataclass
class Histogram:
    """Latencies by bucket, the last one without a bound; seconds from when they were wanted."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a latency."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


@dataclass
class Observed:
    """What is exported. ``about``: labels that say what runs. ``statuses``: the last of each node.
    ``faults``: those that are on; None where nobody can tell. ``latencies``: by operation and
    outcome."""

    about: Mapping[str, str]
    statuses: Mapping[str, NodeRecord]
    faults: Sequence[FaultRecord] | None
    latencies: Mapping[tuple[str, str], Histogram]


def openmetrics(seen: Observed) -> str:
    """The text."""
    lines: list[str] = []
    _family(lines, "run", "info", "What runs.", [(dict(seen.about), 1)], suffix="_info")
    _nodes(lines, seen.statuses)
    if seen.faults is not None:
        on = [({"fault": f.fault, "number": str(f.number)}, 1) for f in seen.faults]
        _family(lines, "fault_on", "gauge", "Faults that are on.", on)
        count: list[tuple[dict[str, str], int]] = [({}, len(seen.faults))]
        _family(lines, "faults_on", "gauge", "How many faults are on.", count)
    _latencies(lines, seen.latencies)
    return "\n".join([*lines, "# EOF"]) + "\n"


def _nodes(lines: list[str], statuses: Mapping[str, NodeRecord]) -> None:
    roles = [
        ({"node": node, "role": str(role)}, 1)
        for node, status in statuses.items()
        if (role := status.probe.get("role")) is not None
    ]
    _family(lines, "node_role", "gauge", "1 for the role that the node has.", roles)
    for name, told in GAUGES.items():
        found = [
            ({"node": node}, value)
            for node, status in statuses.items()
            if isinstance(value := status.probe.get(name), int | float)
        ]
        _family(lines, f"node_{name}", "gauge", told, found)
    open_ = [({"node": n}, s.counters[QUEUE]) for n, s in statuses.items() if QUEUE in s.counters]
    _family(lines, "node_queue", "gauge", "Requests that the node has not answered yet.", open_)
    names = dict.fromkeys(name for status in statuses.values() for name in status.counters)
    for name in (each for each in names if each not in NO_COUNTERS):
        found = [
            ({"node": node}, status.counters[name])
            for node, status in statuses.items()
            if name in status.counters
        ]
        told = "As the node counts since its start."
        _family(lines, f"node_{name}", "counter", told, found, suffix="_total")


def _latencies(lines: list[str], latencies: Mapping[tuple[str, str], Histogram]) -> None:
    name = "capbench_operation_latency_seconds"
    if latencies:
        lines += [
            f"# TYPE {name} histogram",
            f"# UNIT {name} seconds",
            f"# HELP {name} From when an operation was wanted to its answer.",
        ]
    for (op, outcome), found in latencies.items():
        labels, count = {"op": op, "outcome": outcome}, 0
        for bound, own in zip((*map(str, BOUNDS_S), "+Inf"), found.counts, strict=True):
            count += own
            lines.append(f"{name}_bucket{_labels({**labels, 'le': bound})} {count}")
        lines.append(f"{name}_count{_labels(labels)} {count}")
        lines.append(f"{name}_sum{_labels(labels)} {found.sum_s:.6f}")


def _family(
    lines: list[str],
    name: str,
    kind: str,
    told: str,
    samples: Iterable[tuple[Mapping[str, str], float]],
    *,
    suffix: str = "",
) -> None:
    """One kind of figure; nothing without samples."""
    samples = list(samples)
    if samples:
        lines += [f"# TYPE capbench_{name} {kind}", f"# HELP capbench_{name} {told}"]
        lines += [
            f"capbench_{name}{suffix}{_labels(labels)} {value:g}"
            if isinstance(value, float)
            else f"capbench_{name}{suffix}{_labels(labels)} {value}"
            for labels, value in samples
        ]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
