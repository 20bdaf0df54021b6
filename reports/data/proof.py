"""Whether a fault took place: from what was measured while it was on, not from what was planned.

A run whose fault did nothing shows nothing of that fault, however well it went: its verdict is
*unknown*. What no counter, event or operation of a run can show is said to be so, and changes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from bench.record.quantities import plural
from bench.record.run_folder import FaultRecord, NodeRecord
from reports.data.cost import WORDS

if TYPE_CHECKING:
    import pandas as pd

    from reports.data.summary import RunSummary

COUNTED = {
    "partition": "messages_cut",
    "flapping": "messages_cut",
    "message-loss": "messages_lost",
    "duplication": "messages_duplicated",
    "reordering": "messages_held_back",
    "corruption": "frames_corrupted",
}
"""Fault -> the counter of the nodes that shows it. Live nodes do not count what a cut takes: it
shows in what both ends of a link tell."""
OF_LABS = {"messages_lost": "packets_lost"}
"""What is counted in a lab instead."""
STOPS = {
    "crash": ("killed", "exited"),
    "rolling-restart": ("killed", "exited"),
    "pause": ("paused",),
}
"""Fault -> the events that show it."""
MOST_TOLD = 6
"""Of these events, in words."""
BACK = ("restarted", "started", "resumed")
"""The events that end it."""
SLOW = frozenset(("latency", "jitter", "wan", "bandwidth"))
"""Faults that show in how long operations took, at protocols that wait for other nodes."""
SLOWER = 2.0
LEAST_MS = 5.0
"""A median that is so many times as long, and so much longer, shows that links were slow."""
UNANSWERED = frozenset(("requests-lost", "replies-lost"))
SLOWED, SLOWED_US = "messages_slowed", "slowed_us"
"""The counters of what was sent on links that a fault made slower, which simulated nodes have."""
SETTLED_NS = 500_000_000
"""After a cut began, for what was under way."""
PASSED = {"partition": 0.5, "flapping": 0.9}
"""A cut that let more than this share pass was none."""
_SLACK_NS = 1_000_000_000
"""How far from the fault's own stamps an event of it may be: they come from several processes."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a fault. ``took_place``: None where nothing that was recorded shows it."""

    number: int
    fault: str
    took_place: bool | None
    seen: str


def proofs(
    faults: Sequence[FaultRecord],
    records: Sequence[NodeRecord],
    operations: pd.DataFrame,
    origin_ns: int,
    *,
    simulated: bool,
) -> list[Proof]:
    """One for each fault. ``operations``: as in `RunTables`."""
    found = []
    for fault in faults:
        took_place: bool | None
        if fault.applied_ns is None:
            why = f": {fault.error}" if fault.error else ""
            took_place, seen = False, f"it was never applied{why}"
        elif fault.fault in COUNTED:
            took_place, seen = _counted(fault, records) or _passed(fault, records)
        elif fault.fault in STOPS:
            took_place, seen = _stopped(fault, records, origin_ns, certain=simulated)
        elif fault.fault in UNANSWERED:
            took_place, seen = _unanswered(fault, operations, origin_ns)
        elif fault.fault in SLOW and (delays := _delays(fault, records)) is not None:
            took_place, seen = delays
        elif fault.fault in SLOW and not _overlaps(fault, faults):
            took_place, seen = _slowed(fault, operations, origin_ns)
        else:
            took_place, seen = None, "nothing that was recorded shows it or denies it"
        found.append(
            Proof(number=fault.number, fault=fault.fault, took_place=took_place, seen=seen)
        )
    return found


def doubt(summary: RunSummary, found: Sequence[Proof]) -> None:
    """A claim that seemed to hold is unknown if a fault of the run did not take place."""
    missing = [proof for proof in found if proof.took_place is False]
    if summary.verdict == "valid" and missing:
        said = "; ".join(f"fault {proof.number} ({proof.fault}): {proof.seen}" for proof in missing)
        summary.verdict = "unknown"
        summary.reason = f"a fault did not take place, so that nothing was shown: {said}"


def _counted(fault: FaultRecord, records: Sequence[NodeRecord]) -> tuple[bool, str] | None:
    """By what the nodes counted from the last time they told before it to the first after it; None:
    they did not count it."""
    name = COUNTED[fault.fault]
    if not any(name in record.counters for record in records):
        name = OF_LABS.get(name, name)
    found = _meanwhile(fault, records, name, "messages_sent")
    if found is None:
        return None
    hit, sent = found
    return hit > 0, f"{WORDS[name]}: {hit:,}" + (f" of {sent:,} that were sent" if sent else "")


def _passed(fault: FaultRecord, records: Sequence[NodeRecord]) -> tuple[bool | None, str]:
    """By what was sent on its links and heard at their other ends, while it was on for certain.
    Flapping links are up for some of that time: much that passes denies nothing."""
    assert fault.applied_ns is not None
    begin_ns, end_ns = fault.applied_ns + SETTLED_NS, fault.heal_started_ns or math.inf
    told: dict[str, list[NodeRecord]] = {}
    for record in records:
        if (record.sent or record.heard) and begin_ns <= record.t_ns <= end_ns:
            told.setdefault(record.node, []).append(record)
    sent = heard = 0
    for src, dst in fault.links:
        if src in told and dst in told:
            left = told[src][-1].sent.get(dst, 0) - told[src][0].sent.get(dst, 0)
            came = told[dst][-1].heard.get(src, 0) - told[dst][0].heard.get(src, 0)
            if min(left, came) >= 0:  # Else a node began anew.
                sent, heard = sent + left, heard + came
    if fault.fault not in PASSED or not sent:
        return None, f"the nodes did not count it ({WORDS[COUNTED[fault.fault]]})"
    seen = f"of {sent:,} messages sent on the links that were cut, {heard:,} passed"
    if heard <= PASSED[fault.fault] * sent:
        return True, seen
    return (False if fault.fault == "partition" else None), seen


def _delays(fault: FaultRecord, records: Sequence[NodeRecord]) -> tuple[bool, str] | None:
    """By how long messages between nodes took on slower links; None: nobody counted any."""
    hit, took_us = _meanwhile(fault, records, SLOWED, SLOWED_US) or (0, 0)
    if not hit:
        return None
    mean_ms = took_us / hit / 1000
    return True, f"{plural(hit, 'message')} on slower links, which took {mean_ms:.1f} ms on average"


def _meanwhile(
    fault: FaultRecord, records: Sequence[NodeRecord], name: str, other: str
) -> tuple[int, int] | None:
    """What all nodes counted of both while it was on; None if no node counts ``name``."""
    assert fault.applied_ns is not None
    sums = [0, 0]
    counted = False
    for node in sorted({record.node for record in records}):
        told = sorted(
            (r for r in records if r.node == node and name in r.counters), key=lambda r: r.t_ns
        )
        if not told or told[-1].t_ns <= fault.applied_ns:
            continue
        counted = True
        before = [r for r in told if r.t_ns <= fault.applied_ns] or told[:1]
        after = [r for r in told if r.t_ns >= (fault.healed_ns or told[-1].t_ns)] or told[-1:]
        first, last = before[-1].counters, after[0].counters
        for n, each in enumerate((name, other)):
            sums[n] += last.get(each, 0) - first.get(each, 0)
    return (sums[0], sums[1]) if counted else None


def _stopped(
    fault: FaultRecord, records: Sequence[NodeRecord], origin_ns: int, *, certain: bool
) -> tuple[bool | None, str]:
    """By the events of its nodes. ``certain``: every such event is recorded."""
    assert fault.applied_ns is not None
    end_ns = fault.healed_ns if fault.healed_ns is not None else fault.applied_ns
    begin_ns = fault.started_ns if fault.started_ns is not None else fault.applied_ns
    names = STOPS[fault.fault]
    events = [
        record
        for record in records
        if record.kind == "event"
        and record.node in fault.nodes
        and begin_ns - _SLACK_NS <= record.t_ns <= end_ns + _SLACK_NS
    ]
    if not any(record.name in names for record in events):
        return (False if certain else None), f"no node was seen to be {names[0]}"
    told = [
        f"{record.node} {record.name} at {(record.t_ns - origin_ns) / 1e9:.1f} s"
        for record in events
        if record.name in (*names, *BACK)
    ]
    rest = len(told) - MOST_TOLD
    return True, "; ".join(told[:MOST_TOLD]) + (f"; and {rest} more such events" * (rest > 0))


def _overlaps(fault: FaultRecord, faults: Sequence[FaultRecord]) -> bool:
    """Whether another fault was on at some time of this one."""

    def span(each: FaultRecord) -> tuple[int, float]:
        assert each.applied_ns is not None
        return each.applied_ns, math.inf if each.healed_ns is None else each.healed_ns

    begin, end = span(fault)
    others = [each for each in faults if each is not fault and each.applied_ns is not None]
    return any(span(each)[0] < end and span(each)[1] > begin for each in others)


def _span_s(fault: FaultRecord, origin_ns: int) -> tuple[float, float]:
    """When it was on, until its heal began."""
    assert fault.applied_ns is not None
    end_ns = fault.heal_started_ns
    end_s = math.inf if end_ns is None else (end_ns - origin_ns) / 1e9
    return (fault.applied_ns - origin_ns) / 1e9, end_s


def _slowed(
    fault: FaultRecord, operations: pd.DataFrame, origin_ns: int
) -> tuple[bool | None, str]:
    """By how long operations took. It denies nothing: a protocol may not wait for other nodes."""
    ended = operations.dropna(subset=["latency_ms"])
    during = ended[ended["intended_s"].between(*_span_s(fault, origin_ns))]["latency_ms"]
    before = ended[ended["phase"] == "before"]["latency_ms"]
    if not len(during) or not len(before):
        return None, "no operation shows it or denies it"
    was, then = float(before.median()), float(during.median())
    seen = f"the median operation took {then:.1f} ms while it was on, {was:.1f} ms before"
    if then > SLOWER * was and then > was + LEAST_MS:
        return True, seen
    return None, f"{seen}: operations that wait for no other node show nothing"


def _unanswered(
    fault: FaultRecord, operations: pd.DataFrame, origin_ns: int
) -> tuple[bool | None, str]:
    """By the operations that were sent to its nodes while it was on."""
    here = operations[
        operations["node"].astype(str).isin(fault.nodes)
        & operations["invoked_s"].between(*_span_s(fault, origin_ns))
    ]
    lost = int((here["outcome"] != "ok").sum())
    if not len(here):
        return None, f"nothing was asked of {' '.join(fault.nodes)} while it was on"
    seen = f"{lost} of {len(here)} operations sent to {' '.join(fault.nodes)} had no answer"
    return lost > 0, seen
