"""Availability: how many of the operations that the workload wanted ended ok, per window.

Measured from *intended* send times, so that a load that waits for a slow answer hides nothing
(coordinated omission). The windows:

    before   load start .. the first fault starts (the whole load where there is no fault)
    during   a fault is applied .. its heal starts (the union over all faults)
    after    the last fault is healed .. load end

- An operation belongs to the window that its intended time is in.
- *Straddlers*: an answer that came only after the window was over is no answer of that window: a
  cut-off side that answers after the heal was not available. But what was wanted a moment before
  the end could not have been answered in time. So an operation that was still open at the end
  counts as not available if it had waited for longer than 99% of those that were answered ok in the
  window (for any time, if none was), and else as a straddler: in neither ``ok`` nor ``total``, and
  counted. The window that ends with the load has none: nothing changes there.
- Operations that the load generator dropped were wanted and not served: they are in ``total``.
- Sides: of a fault with groups, the *majority* is the group that holds a majority of all nodes, the
  *minority* everybody else; an operation is on the side of the node that it was sent to. A dropped
  operation was sent to no node, so dropped ones are laid to the sides in the proportion of the
  others.
- Final reads are no part of the load.

``recovery_s``: from the time the first fault was applied until the majority side (all nodes if
there is no partition) served again: the first instant from which, for one full second, at least 99%
of the operations that were intended there ended ok, and there was no *silence*. A silence is a time
without any ok answer, of `SILENCE_S` at least (at low rates: of ten times the mean gap between
intended operations); without it a protocol that lets operations wait through an election, and
answers them all in the end, would seem undisturbed. 0.0: never disturbed; None: no fault, or never
recovered within the load. ``longest_silence_s``: on that side, between the first fault and the last
heal.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.checkers.columns import Bools, Int64s
from bench.history import OperationRecord
from bench.run_folder import Check, FaultRecord, LoadSummary, Manifest

FINAL_PROCESS_PREFIX = "final"
"""Processes whose name starts so did the final reads of a run: they are no part of its load."""

SECOND_NS = 1_000_000_000
RECOVERED_SHARE = 0.99
SILENCE_S = 0.25
_FAR = 1 << 62


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open interval. ``changes_at_end``: a fault or a heal ends it, not the load."""

    start_ns: int
    end_ns: int
    changes_at_end: bool


@dataclass(frozen=True, slots=True)
class Windows:
    """When the run was healthy, disturbed, and healthy again. ``during``: disjoint, by time."""

    before: Window
    during: list[Window]
    after: Window | None


@dataclass(frozen=True, slots=True)
class _Load:
    """The operations of the load, by intended time."""

    intended: Int64s
    completed: Int64s  # `_FAR` if never
    ok: Bools
    node: NDArray[np.str_]
    dropped: Int64s


def windows(manifest: Manifest, faults: Sequence[FaultRecord], last_ns: int) -> Windows | None:
    """The windows of a run, None if its load never started. ``last_ns``: when the last operation
    was intended, for a run that was cut short."""
    start = manifest.load_started_ns
    if start is None:
        return None
    end = manifest.load_ended_ns if manifest.load_ended_ns is not None else last_ns + 1
    end = max(start, end)
    struck = [f for f in faults if f.started_ns is not None or f.applied_ns is not None]
    if not struck:
        return Windows(Window(start, end, False), [], None)
    first = min(f.started_ns if f.started_ns is not None else f.applied_ns or 0 for f in struck)
    intervals = sorted(
        (f.applied_ns, f.heal_started_ns if f.heal_started_ns is not None else end)
        for f in struck
        if f.applied_ns is not None
    )
    during: list[Window] = []
    for applied, healing in intervals:
        low, high = max(applied, start), min(healing, end)
        if high <= low:
            continue
        if during and low <= during[-1].end_ns:
            high = max(high, during[-1].end_ns)
            during[-1] = Window(during[-1].start_ns, high, high < end)
        else:
            during.append(Window(low, high, high < end))
    after = None
    healed = [f.healed_ns for f in struck]
    if all(h is not None for h in healed):
        last_heal = max(h for h in healed if h is not None)
        if last_heal < end:
            after = Window(max(last_heal, start), end, False)
    return Windows(Window(start, min(max(first, start), end), True), during, after)


def sides(manifest: Manifest, fault: FaultRecord) -> tuple[list[str] | None, list[str]] | None:
    """The nodes on the majority side (None if no group has a majority) and all others; None where
    the fault is no partition."""
    if not fault.groups or len(fault.groups) < 2:
        return None
    needed = len(manifest.nodes) // 2 + 1
    majority = next((group for group in fault.groups if len(group) >= needed), None)
    return majority, [node for node in manifest.nodes if node not in (majority or [])]


def check_availability(
    manifest: Manifest,
    records: Sequence[OperationRecord],
    faults: Sequence[FaultRecord],
    loads: Sequence[LoadSummary],
) -> Check:
    """Figures in ``details``; ``verdict`` is valid where they could be measured, else unknown.

    ``availability``: before, during, after, majority, minority (0..1, None where there is no such
    window). ``throughput``: ok operations per second before, during, after. ``windows``: per
    window ok, total, straddlers, dropped, seconds. ``recovery_s``, ``recovery_after_heal_s`` (the
    same from the last heal, over all nodes), ``longest_silence_s``. ``operations``: ok, fail, info
    of the load. ``dropped``, ``dropped_unplaced`` (of which no time is known).
    """
    began = time.perf_counter()
    in_load = [r for r in records if not r.process.startswith(FINAL_PROCESS_PREFIX)]
    load = _load(in_load, loads)
    last = int(load.intended[-1]) if len(load.intended) else 0
    spans = windows(manifest, faults, last)
    outcomes = {name: sum(r.outcome == name for r in in_load) for name in ("ok", "fail", "info")}
    dropped = sum(summary.dropped for summary in loads)
    details: dict[str, Any] = {
        "availability": dict.fromkeys(("before", "during", "after", "majority", "minority")),
        "throughput": dict.fromkeys(("before", "during", "after")),
        "windows": {},
        "recovery_s": None,
        "recovery_after_heal_s": None,
        "longest_silence_s": None,
        "operations": outcomes,
        "dropped": dropped,
        "dropped_unplaced": dropped - len(load.dropped),
    }
    measured = spans is not None and len(in_load) > 0
    if spans is not None and measured:
        _measure(details, manifest, faults, load, spans)
    return Check(
        name="availability",
        verdict="valid" if measured else "unknown",
        model="none",
        algorithm="intended-time windows",
        operations=len(in_load),
        seconds=time.perf_counter() - began,
        summary=_summary(details, bool(spans and spans.during))
        if measured
        else "no load to measure",
        details=details,
    )


def _load(records: Sequence[OperationRecord], loads: Sequence[LoadSummary]) -> _Load:
    intended = np.array(
        [r.invoked_ns if r.intended_ns is None else r.intended_ns for r in records], np.int64
    )
    order = np.argsort(intended, kind="stable")
    completed = np.array(
        [_FAR if r.completed_ns is None else r.completed_ns for r in records], np.int64
    )
    ok = np.array([r.outcome == "ok" for r in records], np.bool_)
    node = np.array([r.node or "" for r in records], np.str_)
    dropped = np.array(sorted(t for s in loads for t in s.dropped_intended_ns), np.int64)
    return _Load(intended[order], completed[order], ok[order], node[order], dropped)


def _measure(
    details: dict[str, Any],
    manifest: Manifest,
    faults: Sequence[FaultRecord],
    load: _Load,
    spans: Windows,
) -> None:
    everywhere = np.ones(len(load.intended), np.bool_)
    after = [] if spans.after is None else [spans.after]
    named = {"before": [spans.before], "during": spans.during, "after": after}
    for name, some in named.items():
        if some:
            counts = _count(load, some, everywhere)
            details["windows"][name] = counts
            details["availability"][name] = _share(counts)
            if counts["seconds"] > 0:
                details["throughput"][name] = counts["ok"] / counts["seconds"]

    side = everywhere
    cut = [(fault, sides(manifest, fault)) for fault in faults if fault.applied_ns is not None]
    for name in ("majority", "minority"):
        total = {"ok": 0, "total": 0.0, "straddlers": 0, "dropped": 0.0, "seconds": 0.0}
        found = False
        for fault, groups in cut:
            nodes = None if groups is None else groups[0] if name == "majority" else groups[1]
            interval = windows(manifest, [fault], int(load.intended[-1]))
            if not nodes or interval is None or not interval.during:
                continue
            found = True
            for key, amount in _count(
                load, interval.during, np.isin(load.node, np.array(nodes, np.str_))
            ).items():
                total[key] += amount
        if found:
            details["windows"][name] = total
            details["availability"][name] = _share(total)
    applied = [f.applied_ns for f in faults if f.applied_ns is not None]
    if not applied:
        return
    first = min(applied)
    partitions = [groups for _, groups in cut if groups is not None and groups[0]]
    if partitions:
        side = np.isin(load.node, np.array(partitions[0][0], np.str_))
    end = manifest.load_ended_ns
    end = int(load.intended[-1]) + 1 if end is None else end
    silent_until = spans.after.start_ns if spans.after else end
    details["recovery_s"] = _served_again_s(load, side, first, silent_until, end)
    details["longest_silence_s"] = (
        float(_gaps(load, side, first, silent_until)[1].max()) / SECOND_NS
    )
    if spans.after is not None:
        details["recovery_after_heal_s"] = _served_again_s(load, everywhere, silent_until, end, end)


def _gaps(load: _Load, side: Bools, from_ns: int, until_ns: int) -> tuple[Int64s, Int64s]:
    """Where the times without an ok answer on ``side`` end, and how long they are."""
    answers = load.completed[side & load.ok]
    answers = np.sort(answers[(answers >= from_ns) & (answers <= until_ns)])
    ends = np.concatenate((answers, [until_ns]))
    return ends, np.diff(np.concatenate(([from_ns], ends)))


def _served_again_s(
    load: _Load, side: Bools, from_ns: int, until_ns: int, load_ended_ns: int
) -> float | None:
    """See ``recovery_s`` in the header; silences count between ``from_ns`` and ``until_ns``."""
    wanted = int(((load.intended >= from_ns) & (load.intended < until_ns))[side].sum())
    usual_ns = (until_ns - from_ns) / wanted if wanted else 0.0
    ends, lengths = _gaps(load, side, from_ns, until_ns)
    silent = lengths >= max(SILENCE_S * SECOND_NS, 10 * usual_ns)
    silences = np.stack((ends[silent] - lengths[silent], ends[silent]))
    return recovery_s(
        load.intended[side], load.ok[side], load.dropped, from_ns, load_ended_ns, silences
    )


def _count(load: _Load, parts: Sequence[Window], side: Bools) -> dict[str, Any]:
    ok = total = straddlers = 0
    dropped = seconds = 0.0
    for part in parts:
        low, high = np.searchsorted(load.intended, (part.start_ns, part.end_ns)).tolist()
        here = side[low:high]
        late = np.zeros(high - low, np.bool_)
        if part.changes_at_end:
            ends = load.completed[low:high]
            late = (ends > part.end_ns) & (ends != _FAR)
        answered = here & load.ok[low:high] & ~late
        took = load.completed[low:high][answered] - load.intended[low:high][answered]
        usual_ns = float(np.quantile(took, 0.99)) if len(took) else 0.0
        in_flight = late & (part.end_ns - load.intended[low:high] <= usual_ns)
        ok += int(answered.sum())
        total += int((here & ~in_flight).sum())
        straddlers += int((here & in_flight).sum())
        lost = np.searchsorted(load.dropped, (part.start_ns, part.end_ns))
        share = int(here.sum()) / (high - low) if high > low else float(side.all())
        dropped += share * float(lost[1] - lost[0])
        seconds += (part.end_ns - part.start_ns) / SECOND_NS
    return {
        "ok": ok,
        "total": total + dropped,
        "straddlers": straddlers,
        "dropped": dropped,
        "seconds": seconds,
    }


def _share(counts: dict[str, Any]) -> float | None:
    return counts["ok"] / counts["total"] if counts["total"] else None


def recovery_s(
    intended: Int64s,
    ok: Bools,
    dropped: Int64s,
    from_ns: int,
    load_ended_ns: int,
    silences: Int64s,
) -> float | None:
    """Seconds from ``from_ns`` until the first instant from which one full second of operations
    ended ok (99%) without a silence; None if there is no such second before the load ended.
    ``intended`` is sorted; a second in which nothing was intended shows nothing. ``silences``:
    their starts and ends, by time."""
    times = np.concatenate((intended, dropped))
    good = np.concatenate((ok, np.zeros(len(dropped), np.bool_)))
    order = np.argsort(times, kind="stable")
    times, good = times[order], good[order]
    starts = np.concatenate(([from_ns], times[~good] + 1, silences[1]))
    starts = np.unique(starts[(starts >= from_ns) & (starts + SECOND_NS <= load_ended_ns)])
    low = np.searchsorted(times, starts)
    high = np.searchsorted(times, starts + SECOND_NS)
    counted = np.concatenate(([0], np.cumsum(good)))
    wanted = high - low
    # Silences are disjoint: one meets the second if it begins before its end and ends after its
    # start.
    begun = np.searchsorted(silences[0], starts + SECOND_NS)
    over = np.searchsorted(silences[1], starts, side="right")
    recovered = (
        (wanted > 0) & (counted[high] - counted[low] >= RECOVERED_SHARE * wanted) & (begun == over)
    )
    if not recovered.any():
        return None
    return float(starts[np.argmax(recovered)] - from_ns) / SECOND_NS


def _summary(details: dict[str, Any], disturbed: bool) -> str:
    share = details["availability"]

    def text(name: str) -> str:
        return "-" if share[name] is None else f"{share[name]:.3f}"

    if not disturbed:
        return f"{text('before')} of the wanted operations ended ok"
    parts = f"before {text('before')}, during {text('during')}, after {text('after')}"
    if share["majority"] is not None or share["minority"] is not None:
        parts += f"; majority side {text('majority')}, minority side {text('minority')}"
    recovery = details["recovery_s"]
    back = "never back within the load" if recovery is None else f"back in {recovery:.1f} s"
    return f"{parts}; {back}"
