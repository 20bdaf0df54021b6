"""The charts of a run with an x axis other than the load's time: percentiles, phases, single
operations, and the nodes' counters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.checkers.availability import percentile_ns
from bench.record.quantities import format_share
from reports.charts.drawing import Axis, Drawing, Style
from reports.charts.view import LEAST_MS, LONG_NAMES, OUTCOMES, ChartView, simulated
from reports.data.compare import milliseconds
from reports.data.metrics import RunTables
from reports.data.summary import cut

PHASES = {"before": Style("green"), "during": Style("orange", 1), "after": Style("blue", 2)}
SHARES = [0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 0.99999]
TIMELINE_S = 1.2
TIMELINE_ROWS = 12
TIMELINE_OPERATIONS = 240


def percentiles(run: RunTables) -> ChartView:
    """The percentile curve of all wanted operations in each phase, on an axis of nines. It ends at
    the share served."""
    rows = [
        {"phase": phase, "share": share, "latency_ms": latency_ms}
        for phase in PHASES
        for share, latency_ms in zip(SHARES, curve([run], phase), strict=True)
        if not math.isnan(latency_ms)
    ]
    data = pd.DataFrame(rows, columns=["phase", "share", "latency_ms"])
    highest = data["share"].max() if len(data) else 0.9
    low, high = (data["latency_ms"].min(), data["latency_ms"].max()) if len(data) else (1, 10)
    drawing = Drawing(
        Axis(0, max(0.9, highest), "share of wanted operations that took no longer", "nines"),
        Axis(low, high, "ms, logarithmic", "log"),
    )
    for phase, style in PHASES.items():
        own = data[data["phase"] == phase]
        if len(own):
            drawing.line(own["share"], own["latency_ms"], style, phase)
    return ChartView(
        name="percentiles",
        title=f"Latency to the last nines{simulated(run)}",
        how="Each step to the right leaves a tenth of the operations; a line that climbs late has "
        "few slow ones, and the faster line below is the better phase.",
        note="Of all that was wanted in the phase; a line ends at the share that was served within "
        f"{run.summary.service_s:g} s, or where there are too few operations.",
        chart=drawing,
        data=data.pivot(index="share", columns="phase", values="latency_ms").reset_index()
        if len(data)
        else data,
    )


def curve(runs: Sequence[RunTables], phase: str | None) -> list[float]:
    """The latency (ms) at each of `SHARES` of the wanted operations; NaN if it was not served, or
    if there are too few operations to say."""
    latencies, wanted = [], 0
    for run in runs:
        own, lost = run.operations, run.dropped
        if phase is not None:
            own, lost = own[own["phase"] == phase], lost[lost["phase"] == phase]
        wanted += len(own) + len(lost)
        latencies.append(own.loc[own["served"], "latency_ms"].to_numpy() * 1e6)
    served_ns = np.rint(np.concatenate(latencies)).astype(np.int64)
    found = []
    for share in SHARES:
        # 99.9% means something for a thousand operations, and nothing for a hundred.
        enough = wanted * (1 - share) >= 1
        value_ns = percentile_ns(served_ns, wanted, 100 * share) if enough else None
        found.append(math.nan if value_ns is None else max(value_ns / 1e6, LEAST_MS))
    return found


def phases(run: RunTables) -> ChartView:
    """Throughput before, during and after the faults, with its uncertainty in this run."""
    rows = []
    for phase in PHASES:
        own = run.windows[(run.windows["phase"] == phase) & (run.windows["side"] == "all")]
        if not len(own) or not own["seconds"].iloc[0]:
            continue
        seconds, count = float(own["seconds"].iloc[0]), float(own["served"].iloc[0])
        # Counts of independent arrivals vary by their square root; twice that covers 95%.
        spread = 2 * np.sqrt(count)
        rows.append(
            {
                "phase": phase,
                "ok_per_s": count / seconds,
                "low": max(0.0, count - spread) / seconds,
                "high": (count + spread) / seconds,
                "availability": own["availability"].iloc[0],
                "p99": milliseconds(own["latency_ms_p99"].iloc[0], run.summary.service_s * 1e3),
            }
        )
    data = pd.DataFrame(rows, columns=["phase", "ok_per_s", "low", "high", "availability", "p99"])
    names = [f"{row['phase']} {_share(row['availability'])}" for row in rows] or ["no phase"]
    highest = data["high"].max() if len(data) else 1.0
    drawing = Drawing(Axis(0, highest, f"served op/s{simulated(run)}"), names, left=LONG_NAMES)
    for number, row in enumerate(rows):
        style = PHASES[str(row["phase"])]
        drawing.interval(number, row["low"], row["ok_per_s"], row["high"], style)
    return ChartView(
        name="phases",
        title=f"Before, during and after{simulated(run)}",
        how="The mark is the number of operations served per second in that phase, with the share "
        "served beside it; the whiskers show how far chance alone moves it.",
        note="Whiskers: 95% for independent arrivals within this run; runs that were repeated have "
        "intervals over their repeats in the table of repeats.",
        chart=drawing,
        shares=("availability",),
        data=data.round({"ok_per_s": 3, "low": 3, "high": 3}),
    )


def _share(value: float | None) -> str:
    return "" if value is None or value != value else f"({format_share(value)} available)"


def timeline(run: RunTables) -> ChartView:
    """Single operations of some clients from just before the first fault until service was back, a
    row per client process."""
    applied = run.faults["applied_s"].dropna()
    begin = max(0.0, float(applied.min()) - TIMELINE_S / 4) if len(applied) else 0.0
    back_s = [s for s in run.faults["back_in_s"].dropna() if not math.isinf(s)][:1]
    end = min(run.end_s, begin + TIMELINE_S + sum(back_s))
    operations = run.operations.dropna(subset=["invoked_s"])
    until = operations["completed_s"].fillna(run.end_s)
    here = operations[(operations["invoked_s"] < end) & (until > begin)].sort_values("invoked_s")
    total = len(here)
    processes = sorted((str(each) for each in pd.unique(here["process"])), key=_natural)
    # So many clients that all of their operations are drawn.
    counts = here["process"].value_counts().reindex(processes).cumsum()
    shown = processes[: max(1, min(TIMELINE_ROWS, int((counts <= TIMELINE_OPERATIONS).sum())))]
    here = here[here["process"].isin(shown)][:TIMELINE_OPERATIONS]
    drawing = Drawing(
        Axis(begin, end, "seconds after the load began"),
        [cut(name, 28) for name in shown] or ["nobody"],
        left=LONG_NAMES,
    )
    for label, at, healed in zip(
        run.faults["label"], run.faults["applied_s"], run.faults["healed_s"], strict=True
    ):
        if at == at and at < end and not healed < begin:
            drawing.band(max(at, begin), end if healed != healed else min(healed, end), label)
    rows = {name: number for number, name in enumerate(shown)}
    for process, outcome, since, ended in zip(
        here["process"], here["outcome"], here["invoked_s"], here["completed_s"], strict=True
    ):
        colour = OUTCOMES[outcome].colour
        stop = end if ended != ended else min(ended, end)
        drawing.bar(rows[process], max(since, begin), stop, colour, thickness=12, least=2)
    for outcome, style in OUTCOMES.items():
        if (here["outcome"] == outcome).any():
            drawing.key(outcome, Style(style.colour))
    return ChartView(
        name="timeline",
        title="Operations of single clients",
        how="A row is a client process, a bar one operation from when it was sent to when it was "
        "answered: long bars are the ones that waited.",
        note=f"{len(here)} of {total} operations between {begin:.2f} s and {end:.2f} s"
        + (f", {len(shown)} of {len(processes)} processes." if processes else "."),
        chart=drawing,
        data=here[
            ["process", "id", "op", "key", "node", "outcome", "invoked_s", "completed_s"]
        ].head(20),
    )


def _natural(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)
