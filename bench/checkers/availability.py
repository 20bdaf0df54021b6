"""How many of the operations wanted were served, how fast, and when service was back.

Only this module defines and computes these figures; reports print them.

- An operation is placed at the time at which it was *wanted*, its intended time, so that a load
  that waits for a slow answer hides nothing (coordinated omission). Without an intended time, as in
  closed loops, it is placed at the time at which it was sent, and the summary says so. Final reads
  are not part of the load.
- It belongs to one window (`bench.checkers.windows`) and, during a partition, to the side of the
  node that was to be asked. So windows and sides add up: before + during + after = all, and
  majority + minority + none = during. *none*: no partition was active, the run does not have the
  node, or the operation was dropped and its node is unknown.
- It was *served* if it ended ok within the service time after it was wanted. The service time is
  the workload's own time-out. A refused CAS is an answer (ok, applied false), so it was served. A
  failed operation was not served, whatever the reason, and even if the protocol does not support
  it: a workload with such operations finds the protocol less available, as its clients would.
- An operation dropped by the load generator was wanted but not served. If the time of the drop is
  unknown (``dropped_unplaced``), it counts nowhere else.
- ``availability`` = served / wanted; ``within_1s`` is the same with a service time of 1 s, if the
  time-out is longer.
- Percentiles are over all wanted operations, by nearest rank: p99 is the least latency that 99% of
  them did not exceed. Operations not served took longer than the service time: a percentile among
  them is None and exceeds ``bound_ms``. ``bound_ms`` is None only if nothing was wanted.
- *Back in*, for each fault: from the beginning of the fault to the end of the first outage
  (`bench.checkers.outages`) that began during it, else of one of no fault that was on already; 0 if
  there was none, open if the outage outlasted the load. During a partition with a majority side
  only operations wanted there count, unless the workload asks the leader: then all do, since it is
  the clients who choose the side. An outage belongs to the fault that was active when it began.
  Faults also hit operations in flight, so a fault owns an outage that began up to `SILENCE_S` (or
  the p99 of *before*) before it, too. Of several faults, the one that began closest to the outage
  owns it.
- *Longest silence*, for each fault: the longest time without an ok answer, however short, while the
  fault was active.

- A load that was stopped early, or lost a client process, ended when that was recorded: windows,
  silences and outages end there, too. Operations still open were not served. ``cut_windows`` names
  the windows that are not as planned: their figures cover what was measured and decide nothing. In
  a run that did not reach its end these are all windows but *before*; and *before* too, unless a
  fault began and the operations wanted until then had their service time.

``recovery_s`` of a run is the longest *back in* of its faults; None if one of them is open, if
there was no fault, or if *during* is cut short.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

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
from bench.record.run_folder import FaultRecord, LoadSummary, Manifest
from bench.record.verdict import (
    Availability,
    AvailabilityCheck,
    FaultFigures,
    Latencies,
    Latency,
    OutageFigures,
    Outcomes,
    Phases,
    Shares,
    Window,
)

T = TypeVar("T")

FINAL_PROCESS_PREFIX = "final"
"""Processes with this prefix did the final reads of a run, which are not part of its load."""

USUAL_TIMEOUT_S = 2.0
"""The service time of a run whose manifest gives none."""
WINDOWS: Final = (*PHASES, *SIDES[1:])
"""The windows and sides that have their own figures."""
_TIMEOUT = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Labels:
    """For each operation, the numbers of its `PHASES` and `SIDES`, and whether it was served."""

    phase: Int8s
    side: Int8s
    served: Bools


@dataclass(frozen=True, slots=True)
class Measured:
    """``operations`` and ``dropped``: the labels of the load's operations and of the dropped ones,
    in the given order; None if the load never started. ``silent``: when no client got an
    answer."""

    details: Availability
    operations: Labels | None
    dropped: Labels | None
    silent: Intervals | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """All wanted operations, dropped ones included. ``answered``: when it ended ok, `NEVER` if it
    did not. ``latency``: `NEVER` if it was not served."""

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
) -> AvailabilityCheck:
    """``verdict`` is valid if figures could be measured, else unknown. ``lost``: the client
    processes that left no summary."""
    began = time.perf_counter()
    details = measure(manifest, records, faults, loads, lost).details
    count = details.operations
    return AvailabilityCheck(
        verdict="valid" if details.windows else "unknown",
        model="none",
        algorithm="intended-time windows",
        operations=count.ok + count.fail + count.info,
        seconds=time.perf_counter() - began,
        summary=_summary(details) if details.windows else "no load to measure",
        details=details,
    )


def measure(
    manifest: Manifest,
    records: Sequence[OperationRecord],
    faults: Sequence[FaultRecord],
    loads: Sequence[LoadSummary],
    lost: Sequence[str] = (),
) -> Measured:
    """The result of `check_availability`, with the label of each operation."""
    in_load = [r for r in records if not r.process.startswith(FINAL_PROCESS_PREFIX)]
    service_s, assumed = service_time(manifest)
    windows: dict[str, Window] = {}
    of_faults: list[FaultFigures] = []
    of_outages: list[OutageFigures] = []
    ended_s = stopped_s = operations = dropped = silent = None
    cut_windows = [] if manifest.complete else list(WINDOWS)
    last_ns = max((wanted_ns(record) for record in in_load), default=0)
    spans = timeline(manifest, faults, last_ns)
    if spans is not None and in_load:
        spans, stopped_ns = _until_stopped(spans, in_load, loads, lost)
        ended_s = spans.after_s(spans.end_ns)
        if stopped_ns is not None:
            stopped_s = spans.after_s(stopped_ns)
        if stopped_ns is not None or not manifest.complete:
            cut_windows = _cut_windows(spans, stopped_ns, service_s)
        asked = _label(in_load, loads, manifest, spans, round(service_s * SECOND_NS))
        windows = _windows(asked, len(in_load), spans, service_s)
        of_faults, of_outages = _faults_and_outages(
            asked, spans, windows, ask_leader=_workload(manifest).get("ask") == "leader"
        )
        cut = len(in_load)
        operations, dropped = _part(asked.labels, slice(cut)), _part(asked.labels, slice(cut, None))
        silent = _silences(asked, np.ones(len(asked.wanted), np.bool_), spans)
    count_dropped = sum(load.dropped for load in loads)
    details = Availability(
        availability=Shares(**_each(windows, lambda w: _share(w.served, w.wanted))),
        within_1s=Shares(**_each(windows, lambda w: _share(w.served_1s, w.wanted))),
        latency_ms=Latencies(
            **(dict.fromkeys(WINDOWS, Latency()) | _each(windows, lambda w: w.latency_ms))
        ),
        throughput=Phases(**_each(windows, lambda w: _share(w.served, w.seconds), PHASES)),
        windows=windows,
        faults=of_faults,
        outages=of_outages,
        recovery_s=None if "during" in cut_windows else _recovery_s(of_faults),
        longest_silence_s=max((fault.longest_silence_s for fault in of_faults), default=None),
        service_s=service_s,
        assumed=assumed,
        operations=Outcomes(**Counter(str(r.outcome) for r in in_load)),
        dropped=count_dropped,
        dropped_unplaced=count_dropped - sum(len(load.dropped_intended_ns) for load in loads),
        without_intended=sum(r.intended_ns is None for r in in_load),
        ended_s=ended_s,
        stopped_s=stopped_s,
        cut_windows=cut_windows,
    )
    return Measured(details, operations, dropped, silent)


def _each(
    windows: Mapping[str, Window], figure: Callable[[Window], T], names: Sequence[str] = WINDOWS
) -> dict[str, T]:
    return {name: figure(windows[name]) for name in names if name in windows}


def _cut_windows(spans: Timeline, stopped_ns: int | None, service_s: float) -> list[str]:
    """The windows that are not as planned, of a load that was cut short."""
    whole_until_ns = NEVER if stopped_ns is None else stopped_ns - round(service_s * SECOND_NS)
    before = bool(spans.faults) and spans.faults[0].start_ns <= whole_until_ns
    return list(WINDOWS[1:] if before else WINDOWS)


def _recovery_s(faults: Sequence[FaultFigures]) -> float | None:
    back = [fault.back_in_s for fault in faults if fault.back_in_s is not None]
    return max(back, default=None) if len(back) == len(faults) else None


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
    """When an operation was wanted; if the history does not say, when it was sent."""
    return record.invoked_ns if record.intended_ns is None else record.intended_ns


def service_time(manifest: Manifest) -> tuple[float, str | None]:
    """The workload's time-out in seconds, and what was assumed for lack of one."""
    found = _workload(manifest)
    match = _TIMEOUT.fullmatch(str(found.get("timeout", "")))
    seconds = found.get("timeout_s") if match is None else float(match[1]) * _SECONDS[match[2]]
    if isinstance(seconds, int | float) and 0 < seconds < 1e6:
        return float(seconds), None
    return USUAL_TIMEOUT_S, f"a service time of {USUAL_TIMEOUT_S:g} s: the manifest has no time-out"


def _workload(manifest: Manifest) -> dict[str, Any]:
    found = manifest.experiment.get("workload")
    return found if isinstance(found, dict) else {}


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
    """Older runs do not say which node a dropped operation was for."""
    count = len(load.dropped_intended_ns)
    return [*load.dropped_nodes, *[""] * count][:count]


def _part(labels: Labels, part: slice) -> Labels:
    return Labels(labels.phase[part], labels.side[part], labels.served[part])


def _windows(asked: _Wanted, sent: int, spans: Timeline, service_s: float) -> dict[str, Window]:
    labels = asked.labels
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
    windows = {}
    for name, (here, segments) in parts.items():
        wanted, seconds = int(here.sum()), spans.seconds(segments)
        if wanted or seconds or name in ("before", "all"):
            served_ns = asked.latency[here & labels.served]
            p10 = percentile_ns(served_ns, wanted, 10)
            windows[name] = Window(
                wanted=wanted,
                served=int((here & labels.served).sum()),
                served_1s=int((here & quick).sum()),
                dropped=int((here & dropped).sum()),
                seconds=seconds,
                latency_ms=_percentiles(served_ns, wanted, service_s),
                p10_ms=None if p10 is None else p10 / 1e6,
            )
    return windows


def _share(some: int, of: float) -> float | None:
    return some / of if of else None


def _percentiles(served_ns: Int64s, wanted: int, service_s: float) -> Latency:
    """Percentiles over ``wanted`` operations; those served took ``served_ns``."""
    p50, p99 = (percentile_ns(served_ns, wanted, percent) for percent in (50, 99))
    return Latency(
        p50=None if p50 is None else p50 / 1e6,
        p99=None if p99 is None else p99 / 1e6,
        bound_ms=service_s * 1e3 if wanted else None,
    )


def percentile_ns(served_ns: Int64s, wanted: int, percent: float) -> int | None:
    """The percentile by nearest rank; None if it exceeds the service time or nothing was
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


def _faults_and_outages(
    asked: _Wanted, spans: Timeline, windows: Mapping[str, Window], *, ask_leader: bool
) -> tuple[list[FaultFigures], list[OutageFigures]]:
    """The figures of each fault, and the outages. Not every protocol can serve a minority side: it
    makes no outage while there is a majority side, unless clients choose the side themselves."""
    has_majority = (spans.sides == MAJORITY).any(axis=1) & (not ask_leader)
    seen = ~((asked.labels.side == MINORITY) & has_majority[spans.segments(asked.wanted)])
    order = np.flatnonzero(seen)
    order = order[np.argsort(asked.wanted[order], kind="stable")]
    wanted = asked.wanted[order]
    all_pauses = _pauses(asked, seen, wanted, spans)
    silent = silences(all_pauses, wanted, spans.start_ns, spans.end_ns)
    found = outages(wanted, asked.labels.served[order], silent, spans.end_ns)
    before_ms = windows["before"].latency_ms.p99 or 0.0
    under_way_ns = max(round(SILENCE_S * SECOND_NS), round(before_ms * 1e6))
    owners = [_owner(outage, spans.faults, under_way_ns) for outage in found]
    of_faults = []
    for span in spans.faults:
        own = [outage for outage, owner in zip(found, owners, strict=True) if owner is span]
        while_on = (asked.wanted >= span.start_ns) & (asked.wanted < span.end_ns)
        was_wanted, served = int(while_on.sum()), int((while_on & asked.labels.served).sum())
        ended_ns = own[0].end_ns if own else _out_until(found, owners, span)
        of_faults.append(
            FaultFigures(
                number=span.record.number,
                begin_s=spans.after_s(span.start_ns),
                wanted=was_wanted,
                served=served,
                availability=_share(served, was_wanted),
                back_in_s=None if ended_ns is None else (ended_ns - span.start_ns) / SECOND_NS,
                outages=len(own),
                longest_silence_s=_longest_s(all_pauses, span),
            )
        )
    of_outages = [
        OutageFigures(
            begin_s=spans.after_s(outage.start_ns),
            end_s=None if outage.end_ns is None else spans.after_s(outage.end_ns),
            fault=None if owner is None else owner.record.number,
        )
        for outage, owner in zip(found, owners, strict=True)
    ]
    return of_faults, of_outages


def _out_until(
    found: Sequence[Outage], owners: Sequence[FaultSpan | None], span: FaultSpan
) -> int | None:
    """The end of an outage of no fault that was on when this one began; its beginning if there was
    none."""
    for outage, owner in zip(found, owners, strict=True):
        is_over = outage.end_ns is not None and outage.end_ns <= span.start_ns
        if owner is None and outage.start_ns < span.start_ns and not is_over:
            return outage.end_ns
    return span.start_ns


def _owner(outage: Outage, faults: Sequence[FaultSpan], under_way_ns: int) -> FaultSpan | None:
    """The fault during which an outage began."""
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


def _summary(details: Availability) -> str:
    had_fault = bool(details.faults)
    shares = details.availability
    parts = [f"served within {details.service_s:g} s: "]
    if had_fault:
        parts[0] += (
            f"before {_in_words(shares.before)}, during {_in_words(shares.during)}, "
            f"after {_in_words(shares.after)}"
        )
        quick, latency = details.within_1s.during, details.latency_ms.during
    else:
        parts[0] += _in_words(shares.before)
        quick, latency = details.within_1s.before, details.latency_ms.before
    if shares.majority is not None or shares.minority is not None:
        parts.append(
            f"majority side {_in_words(shares.majority)}, "
            f"minority side {_in_words(shares.minority)}"
        )
    during = " during" * had_fault
    parts.append(f"within 1 s{during} {_in_words(quick)}, p99{during} {_latency(latency)}")
    if had_fault:
        parts.append(_back_in(details))
    if details.stopped_s is not None:
        parts.append(f"the load stopped after {details.stopped_s:.1f} s, before its planned end")
    if details.without_intended:
        parts.append(
            f"{details.without_intended} operations have no intended time and count from when "
            "they were sent"
        )
    if details.dropped_unplaced:
        parts.append(f"{details.dropped_unplaced} dropped at an unknown time are in no window")
    if details.assumed:
        parts.append(f"assumed: {details.assumed}")
    return "; ".join(parts)


def _in_words(share: float | None) -> str:
    return "-" if share is None else format_share(share)


def _latency(found: Latency) -> str:
    if found.p99 is not None:
        return f"{found.p99:.0f} ms"
    return "-" if found.bound_ms is None else f"> {found.bound_ms / 1000:g} s"


def _back_in(details: Availability) -> str:
    faults, back = details.faults, details.recovery_s
    never = sum(fault.back_in_s is None for fault in faults)
    is_cut = "during" in details.cut_windows
    text = f"back in {back:.1f} s" if back is not None else "never back within the load"
    if is_cut:
        text = "back in: unknown, the run was cut short"
    elif len(faults) > 1:
        text += (
            f" (the worst of {len(faults)} faults)"
            if back is not None
            else (f" after {never} of {len(faults)} faults")
        )
    more = max(fault.outages for fault in faults)
    if more > 1:
        text += f", {more} outages in {'a' if len(faults) > 1 else 'the'} fault"
    text += f", longest silence {details.longest_silence_s:.1f} s"
    outside = sum(outage.fault is None for outage in details.outages)
    if outside:
        text += f", {outside} outage{'s' * (outside > 1)} with no fault active"
    return text
