"""The kinds of experiments, by their faults, to group a large table."""

from __future__ import annotations

import re
from typing import Final

from reports.data.summary import RunSummary

NONE, CUT, LINKS, NODES, DISKS, SEVERAL, OTHER = (
    "no fault",
    "links cut",
    "links slow or lossy",
    "nodes stopped",
    "disks and clocks",
    "several kinds",
    "other faults",
)
ORDER: Final = (NONE, CUT, LINKS, NODES, DISKS, SEVERAL, OTHER)
"""The order of the groups."""
_FAULTS = {
    CUT: "partition flapping disconnect network-disconnect broker-disconnect stall reset",
    LINKS: "latency jitter bandwidth slow-close wan message-loss duplication reordering corruption "
    "qos-1 requests-lost replies-lost",
    NODES: "crash pause rolling-restart crash-point broker-restart broker-pause",
    DISKS: "slow-fsync fsync-error full-disk torn-write bit-flip clock",
}
KIND_OF: Final = {fault: kind for kind, faults in _FAULTS.items() for fault in faults.split()}
"""Fault -> its kind."""
_FAULT = re.compile(r"schedule\.\d+\.fault")


def faults_of(run: RunSummary) -> list[str]:
    """The names of the faults in the run's experiment, without duplicates."""
    plan = run.plan.experiment
    return list(dict.fromkeys(plan[name] for name in plan if _FAULT.fullmatch(name)))


def kind(run: RunSummary) -> str:
    """The kind of the run's experiment."""
    found = {KIND_OF.get(fault, OTHER) for fault in faults_of(run)}
    if not found:
        if run.availability.majority is not None or run.availability.minority is not None:
            return CUT
        return NONE if run.availability.during is None else OTHER
    return found.pop() if len(found) == 1 else SEVERAL
