"""How much of what the workload wanted was served, how fast, and when service was back.

This is the one place that defines and computes these figures; reports print them.

- An operation belongs to the time at which it was *wanted*: its intended time, so that a load that
  waits for a slow answer hides nothing (coordinated omission). Where the history has no intended
  time, which is so in closed loops, it is the time at which it was sent, and the summary says so.
  Final reads are no part of the load.
- It belongs to one window (`bench.checkers.windows`) and, while a cut is on, to the side of the
  node at which it was wanted. So windows and sides add up: before + during + after = all, and
  majority + minority + none = during. *none* is what was wanted while no cut was on, at a node that
  the run does not have, or what was dropped for a node that is not known.
- It was *served* if it ended ok within the service time, counted from when it was wanted. The
  service time is the workload's own time-out. A refused CAS is an answer (ok, applied false), so it
  was served. What failed was not served, whatever the reason: also an operation that the protocol
  does not support was wanted. A workload that asks for such operations finds the protocol less
  available, which is what its clients find.
- What the load generator dropped was wanted and not served. Of dropped operations whose time is not
  known (``dropped_unplaced``) nothing else is counted.
- ``availability`` = served / wanted; ``within_1s`` is the same for a service time of 1 s, where the
  time-out is longer.
- Percentiles are over all that was wanted, by nearest rank: p99 is the least latency that 99% of
  the wanted operations did not exceed. What was not served took longer than the service time: where
  the percentile falls there, it is None, and ``bound_ms`` says what it is longer than. ``bound_ms``
  is None only where nothing was wanted.
- *Back in*, for each fault: from the begin of the fault to the end of the first outage
  (`bench.checkers.outages`) that began in it; 0 if none did, and open if it did not end within the
  load. While a cut is on that leaves a majority side, only what was wanted on that side counts. An
  outage is that of the fault that was on when it began. Operations that were under way when a fault
  struck are hit by it, so an outage that began just before, by `SILENCE_S` at most (or the p99 of
  *before*), is that fault's, too. Of several faults it is the one that began nearest to it.
- *Longest silence*, for each fault: the longest of the silences, and shorter pauses, in which it
  was on, from its begin at the earliest.

- A load that was stopped early, or lost a client process, ended where that was recorded: windows,
  silences and outages end there, too. What was open then was not served. ``cut_windows`` names the
  windows that are not what was planned: their figures are what there is, and decide nothing. In a
  run that did not come to its end these are all but *before*, and *before* too, unless a fault
  began and what was wanted until then had its time.

``recovery_s`` of a run is the longest *back in* of its faults: None if one of them is open, or if
there was no fault, or *during* is cut.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from bench.checkers.outages import (
    SECOND_NS,
    SILENCE_S,
    Intervals,
    Outage,
    outages,
    pauses,
    silences,
)
from bench.checkers.windows import (
    DURING,
    MAJORITY,
    MINORITY,
    NEVER,
    NO_SIDE,
    PHASES,
    SIDES,
    FaultSpan,
    Timeline,
    timeline,
)
from bench.record.columns import Bools, Int8s, Int64s
from bench.record.history import OperationRecord
from bench.record.quantities import format_share
from bench.record.run_folder import Check, FaultRecord, LoadSummary, Manifest

FINAL_PROCESS_PREFIX = "final"
"""Processes whose name starts so did the final reads of a run: they are no part of its load."""

USUAL_TIMEOUT_S = 2.0
"""The service time of a run whose manifest names none."""
WINDOWS: Final = (*PHASES, *SIDES[1:])
"""Those that have figures of their own."""
_TIMEOUT = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Labels:
    """Where each operation belongs: numbers of `PHASES` and `SIDES`, and whether it was served."""

    phase: Int8s
    side: Int8s
    served: Bools


@dataclass(frozen=True, slots=True)
class Measured:
    """``details``: as in `check_availability`. ``operations`` and ``dropped``: the labels of the
    load's operations and of those that were dropped, in the order in which they were given; None
    where the load never started. ``silent``: when nobody at all got an answer."""

    details: dict[str, Any]
    operations: Labels | None
    dropped: Labels | None
    silent: Intervals | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """All that the load wanted, what was dropped included; ``answered``: when it ended ok, `NEVER`
    if it did not. ``latency``: `NEVER` if it was not served."""

    wanted: Int64s
    answered: Int64s
    latency: Int64s
    labels: Labels


def check_availability(
    manifest: Manifest,
    records: Sequence[OperationRecord],
    faults: Sequence[FaultRecord],
    loads: Sequence[LoadSummary],
    lost: Sequence[str] = (),
) -> Check:
    """Figures in ``details``; ``verdict`` is valid where they could be measured, else unknown.
    ``lost``: the client processes that left no summary.

    ``windows``: for each window and side (before, during, after, all; majority, minority, none
    while a cut was on): wanted, served, served_1s, dropped (of those wanted), seconds.
    ``availability``, ``within_1s`` (0..1), ``latency_ms`` (p50, p99, bound_ms): for before, during,
    after, majority and minority; None where there is no such window, or nothing was wanted in it.
    ``throughput``: served operations per second before, during, after. ``service_s``; ``assumed``:
    what of it the folder did not say. ``faults``: for each fault that was on number, begin_s (after
    the load began), wanted, served, availability, back_in_s (None: open), outages (how many began
    in it), longest_silence_s. ``outages``: all, with begin_s, end_s (None: open) and fault (None:
    none). ``recovery_s``, ``longest_silence_s``. ``operations``: ok, fail, info of the load.
    ``dropped``, ``dropped_unplaced``. ``without_intended``: operations that have no intended time.
    ``ended_s``: when the load ended; ``stopped_s``: from when on not all clients went on (None:
    all did); ``cut_windows``.
    """
    began = time.perf_counter()
    details = measure(manifest, records, faults, loads, lost).details
    count = sum(details["operations"].values())
    measured = bool(details["windows"])
    return Check(
        name="availability",
        verdict="valid" if measured else "unknown",
        model="none",
        algorithm="intended-time windows",
        operations=count,
        seconds=time.perf_counter() - began,
        summary=_summary(details) if measured else "no load to measure",
        details=details,
    )


def measure(
    manifest: Manifest,
    records: Sequence[OperationRecord],
    faults: Sequence[FaultRecord],
    loads: Sequence[LoadSummary],
    lost: Sequence[str] = (),
) -> Measured:
    """What `check_availability` finds, with the label of each operation."""
    in_load = [r for r in records if not r.process.startswith(FINAL_PROCESS_PREFIX)]
    service_s, assumed = service_time(manifest)
    dropped = sum(summary.dropped for summary in loads)
    placed = sum(len(summary.dropped_intended_ns) for summary in loads)
    details: dict[str, Any] = {
        "availability": dict.fromkeys(WINDOWS),
        "within_1s": dict.fromkeys(WINDOWS),
        "latency_ms": {name: _percentiles(_NOTHING, 0, service_s) for name in WINDOWS},
        "throughput": dict.fromkeys(PHASES),
        "windows": {},
        "faults": [],
        "outages": [],
        "recovery_s": None,
        "longest_silence_s": None,
        "service_s": service_s,
        "assumed": assumed,
        "operations": {n: sum(r.outcome == n for r in in_load) for n in ("ok", "fail", "info")},
        "dropped": dropped,
        "dropped_unplaced": dropped - placed,
        "without_intended": sum(r.intended_ns is None for r in in_load),
        "ended_s": None,
        "stopped_s": None,
        "cut_windows": [] if manifest.complete else list(WINDOWS),
    }
    last_ns = max((wanted_ns(record) for record in in_load), default=0)
    spans = timeline(manifest, faults, last_ns)
    if spans is None or not in_load:
        return Measured(details, None, None, None)
    spans, stopped_ns = _until_stopped(spans, in_load, loads, lost)
    details["ended_s"] = (spans.end_ns - spans.start_ns) / SECOND_NS
    if stopped_ns is not None:
        details["stopped_s"] = (stopped_ns - spans.start_ns) / SECOND_NS
    whole_until_ns = NEVER if stopped_ns is None else stopped_ns - round(service_s * SECOND_NS)
    if stopped_ns is not None or not manifest.complete:
        before = bool(spans.faults) and spans.faults[0].start_ns <= whole_until_ns
        details["cut_windows"] = list(WINDOWS[1:] if before else WINDOWS)
    asked = _label(in_load, loads, manifest, spans, round(service_s * SECOND_NS))
    _count_windows(details, asked, len(in_load), spans)
    _measure_faults(details, asked, spans)
    cut = len(in_load)
    silent = _silences(asked, np.ones(len(asked.wanted), np.bool_), spans)
    return Measured(
        details, _part(asked.labels, slice(cut)), _part(asked.labels, slice(cut, None)), silent
    )


def _until_stopped(
    spans: Timeline,
    records: Sequence[OperationRecord],
    loads: Sequence[LoadSummary],
    lost: Sequence[str],
) -> tuple[Timeline, int | None]:
    """The timeline until the last client process ended, and when the first stopped early."""
    own = [load for load in loads if not load.client.startswith(FINAL_PROCESS_PREFIX)]
    stops = [load.ended_ns for load in own if load.stopped_early]
    for client in lost:
        if not client.startswith(FINAL_PROCESS_PREFIX):
            own_records = [r for r in records if r.process.partition(".")[0] == client]
            stops.append(max(wanted_ns(r) + 1 for r in own_records or records))
    stops = [min(max(stop, spans.start_ns), spans.end_ns) for stop in stops]
    if not stops:
        return spans, None
    if all(load.stopped_early for load in own):
        spans = replace(spans, end_ns=max(stops))
    return spans, min(stops)


def wanted_ns(record: OperationRecord) -> int:
    """When an operation was wanted; when it was sent, if the history does not tell."""
    return record.invoked_ns if record.intended_ns is None else record.intended_ns


def service_time(manifest: Manifest) -> tuple[float, str | None]:
    """The time-out of the workload in seconds, and what had to be assumed."""
    workload = manifest.experiment.get("workload")
    found = workload if isinstance(workload, dict) else {}
    match = _TIMEOUT.fullmatch(str(found.get("timeout", "")))
    seconds = found.get("timeout_s") if match is None else float(match[1]) * _SECONDS[match[2]]
    if isinstance(seconds, int | float) and 0 < seconds < 1e6:
        return float(seconds), None
    return USUAL_TIMEOUT_S, f"a service time of {USUAL_TIMEOUT_S:g} s: the manifest has no time-out"


# -- operations, windows and sides -----------------------------------------------------------------


def _label(
    records: Sequence[OperationRecord],
    loads: Sequence[LoadSummary],
    manifest: Manifest,
    spans: Timeline,
    service_ns: int,
) -> _Wanted:
    lost = [time_ns for load in loads for time_ns in load.dropped_intended_ns]
    lost_at = [name for load in loads for name in _nodes_of_dropped(load)]
    wanted = np.array([*map(wanted_ns, records), *lost], np.int64)
    answered = np.full(len(wanted), NEVER, np.int64)
    answered[: len(records)] = [
        NEVER if r.outcome != "ok" or r.completed_ns is None else r.completed_ns for r in records
    ]
    latency = np.where(answered == NEVER, NEVER, answered - wanted)
    served = latency <= service_ns
    latency[~served] = NEVER
    column = {name: number for number, name in enumerate(manifest.nodes)}
    nodes = np.array(
        [*(column.get(r.node or "", -1) for r in records), *(column.get(n, -1) for n in lost_at)],
        np.int64,
    )
    segment = spans.segments(wanted)
    labels = Labels(spans.phases[segment], spans.sides[segment, nodes], served)
    return _Wanted(wanted, answered, latency, labels)


def _nodes_of_dropped(load: LoadSummary) -> list[str]:
    """Runs of before do not tell at which node a dropped operation was wanted."""
    count = len(load.dropped_intended_ns)
    return [*load.dropped_nodes, *[""] * count][:count]


def _part(labels: Labels, part: slice) -> Labels:
    return Labels(labels.phase[part], labels.side[part], labels.served[part])


def _count_windows(details: dict[str, Any], asked: _Wanted, sent: int, spans: Timeline) -> None:
    labels, service_s = asked.labels, details["service_s"]
    quick = asked.latency <= min(SECOND_NS, round(service_s * SECOND_NS))
    dropped = np.arange(len(asked.wanted)) >= sent
    on_side = spans.sides[:, :-1]
    parts = {
        name: (labels.phase == number, spans.phases == number) for number, name in enumerate(PHASES)
    }
    parts["all"] = (np.ones_like(quick), np.ones_like(spans.phases, np.bool_))
    if on_side.any():
        parts |= {
            SIDES[number]: (labels.side == number, (on_side == number).any(axis=1))
            for number in (MAJORITY, MINORITY)
        }
        parts["none"] = (
            (labels.phase == DURING) & (labels.side == NO_SIDE),
            (spans.phases == DURING) & ~on_side.any(axis=1),
        )
    for name, (here, segments) in parts.items():
        wanted, served = int(here.sum()), int((here & labels.served).sum())
        seconds = spans.seconds(segments)
        if not (wanted or seconds or name in ("before", "all")):
            continue
        latency = _percentiles(asked.latency[here & labels.served], wanted, service_s)
        in_time = int((here & quick).sum())
        details["windows"][name] = {
            "wanted": wanted,
            "served": served,
            "served_1s": in_time,
            "dropped": int((here & dropped).sum()),
            "seconds": seconds,
            "latency_ms": latency,
        }
        if name in WINDOWS:
            details["availability"][name] = _share(served, wanted)
            details["within_1s"][name] = _share(in_time, wanted)
            details["latency_ms"][name] = latency
        if name in PHASES and seconds:
            details["throughput"][name] = served / seconds


def _share(some: int, of: int) -> float | None:
    return some / of if of else None


_NOTHING: Int64s = np.zeros(0, np.int64)


def _percentiles(served_ns: Int64s, wanted: int, service_s: float) -> dict[str, float | None]:
    """Of ``wanted`` operations, of which those that were served took ``served_ns``."""
    found: dict[str, float | None] = {}
    for percent in (50, 99):
        value = percentile_ns(served_ns, wanted, percent)
        found[f"p{percent}"] = None if value is None else value / 1e6
    found["bound_ms"] = service_s * 1e3 if wanted else None
    return found


def percentile_ns(served_ns: Int64s, wanted: int, percent: float) -> int | None:
    """The percentile by nearest rank; None if it is longer than the service time, or if nothing was
    wanted."""
    rank = max(1, int(np.ceil(round(wanted * percent / 100, 6))))
    if rank > len(served_ns):
        return None
    return int(np.partition(served_ns, rank - 1)[rank - 1])


# -- faults and outages ----------------------------------------------------------------------------


def _silences(asked: _Wanted, seen: Bools, spans: Timeline) -> Intervals:
    wanted = np.sort(asked.wanted[seen])
    return silences(_pauses(asked, seen, wanted, spans), wanted, spans.start_ns, spans.end_ns)


def _pauses(asked: _Wanted, seen: Bools, wanted: Int64s, spans: Timeline) -> Intervals:
    answers = asked.answered[seen]
    return pauses(wanted, np.sort(answers[answers != NEVER]), spans.end_ns)


def _measure_faults(details: dict[str, Any], asked: _Wanted, spans: Timeline) -> None:
    """A side without a majority cannot be served by every protocol, so it makes no outage, as long
    as there is a side with one."""
    has_majority = (spans.sides == MAJORITY).any(axis=1)
    seen = ~((asked.labels.side == MINORITY) & has_majority[spans.segments(asked.wanted)])
    order = np.flatnonzero(seen)
    order = order[np.argsort(asked.wanted[order], kind="stable")]
    wanted = asked.wanted[order]
    all_pauses = _pauses(asked, seen, wanted, spans)
    silent = silences(all_pauses, wanted, spans.start_ns, spans.end_ns)
    found = outages(wanted, asked.labels.served[order], silent, spans.end_ns)
    before_ms = details["latency_ms"]["before"]["p99"] or 0.0
    under_way_ns = max(round(SILENCE_S * SECOND_NS), round(before_ms * 1e6))
    owners = [_owner(outage, spans.faults, under_way_ns) for outage in found]

    def seconds(stamp_ns: int) -> float:
        return (stamp_ns - spans.start_ns) / SECOND_NS

    for span in spans.faults:
        own = [outage for outage, owner in zip(found, owners, strict=True) if owner is span]
        while_on = (asked.wanted >= span.start_ns) & (asked.wanted < span.end_ns)
        counts = int(while_on.sum()), int((while_on & asked.labels.served).sum())
        ended_ns = own[0].end_ns if own else span.start_ns
        details["faults"].append(
            {
                "number": span.record.number,
                "begin_s": seconds(span.start_ns),
                "wanted": counts[0],
                "served": counts[1],
                "availability": _share(counts[1], counts[0]),
                "back_in_s": None if ended_ns is None else (ended_ns - span.start_ns) / SECOND_NS,
                "outages": len(own),
                "longest_silence_s": _longest_s(all_pauses, span),
            }
        )
    details["outages"] = [
        {
            "begin_s": seconds(outage.start_ns),
            "end_s": None if outage.end_ns is None else seconds(outage.end_ns),
            "fault": None if owner is None else owner.record.number,
        }
        for outage, owner in zip(found, owners, strict=True)
    ]
    if spans.faults and "during" not in details["cut_windows"]:
        back = [fault["back_in_s"] for fault in details["faults"]]
        details["recovery_s"] = None if None in back else max(back)
    if spans.faults:
        details["longest_silence_s"] = max(f["longest_silence_s"] for f in details["faults"])


def _owner(outage: Outage, faults: Sequence[FaultSpan], under_way_ns: int) -> FaultSpan | None:
    """The fault in which an outage began."""
    possible = [
        span
        for span in faults
        if span.start_ns <= outage.start_ns < span.end_ns
        or (
            outage.start_ns < span.start_ns <= outage.start_ns + under_way_ns
            and (outage.end_ns is None or span.start_ns < outage.end_ns)
        )
    ]
    return min(possible, key=lambda s: abs(s.start_ns - outage.start_ns), default=None)


def _longest_s(found: Intervals, span: FaultSpan) -> float:
    here = found.chosen((found.ends > span.start_ns) & (found.starts < span.end_ns))
    lengths = here.ends - np.maximum(here.starts, span.start_ns)
    return int(lengths.max(initial=0)) / SECOND_NS


# -- in words --------------------------------------------------------------------------------------


def _summary(details: dict[str, Any]) -> str:
    had_fault = bool(details["faults"])
    shares = details["availability"]
    parts = [f"served within {details['service_s']:g} s: "]
    if had_fault:
        parts[0] += ", ".join(f"{name} {_in_words(shares[name])}" for name in PHASES)
    else:
        parts[0] += _in_words(shares["before"])
    if shares["majority"] is not None or shares["minority"] is not None:
        both = (f"{name} side {_in_words(shares[name])}" for name in ("majority", "minority"))
        parts.append(", ".join(both))
    phase = "during" if had_fault else "before"
    parts.append(
        f"within 1 s{' during' * had_fault} {_in_words(details['within_1s'][phase])}, "
        f"p99{' during' * had_fault} {_latency(details['latency_ms'][phase])}"
    )
    if had_fault:
        parts.append(_back_in(details))
    if details["stopped_s"] is not None:
        parts.append(f"the load stopped after {details['stopped_s']:.1f} s, before its planned end")
    if details["without_intended"]:
        parts.append(
            f"{details['without_intended']} operations have no intended time and count from when "
            "they were sent"
        )
    if details["dropped_unplaced"]:
        parts.append(f"{details['dropped_unplaced']} dropped at an unknown time are in no window")
    if details["assumed"]:
        parts.append(f"assumed: {details['assumed']}")
    return "; ".join(parts)


def _in_words(share: float | None) -> str:
    return "-" if share is None else format_share(share)


def _latency(found: dict[str, float | None]) -> str:
    if found["p99"] is not None:
        return f"{found['p99']:.0f} ms"
    return "-" if found["bound_ms"] is None else f"> {found['bound_ms'] / 1000:g} s"


def _back_in(details: dict[str, Any]) -> str:
    faults, back = details["faults"], details["recovery_s"]
    never = sum(fault["back_in_s"] is None for fault in faults)
    is_cut = "during" in details["cut_windows"]
    text = f"back in {back:.1f} s" if back is not None else "never back within the load"
    if is_cut:
        text = "back in: unknown, the run was cut short"
    elif len(faults) > 1:
        text += (
            f" (the worst of {len(faults)} faults)"
            if back is not None
            else (f" after {never} of {len(faults)} faults")
        )
    more = max(fault["outages"] for fault in faults)
    if more > 1:
        text += f", {more} outages in {'a' if len(faults) > 1 else 'the'} fault"
    text += f", longest silence {details['longest_silence_s']:.1f} s"
    outside = sum(outage["fault"] is None for outage in details["outages"])
    if outside:
        text += f", {outside} outage{'s' * (outside > 1)} while no fault was on"
    return text
