"""The charts of an experiment: each has all protocols over one time axis, with the faults shaded.
Repeats of a protocol are combined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from reports.charts.charts import MOST_BINS, TABLE_BINS, bin_width_s, served_share, time_edges
from reports.charts.charts_of_runs import SHARES, curve
from reports.charts.drawing import LEFT, Axis, Drawing, Style
from reports.charts.view import LEAST_MS, ChartView, log_ms
from reports.data.compare import Matrix
from reports.data.metrics import RunTables
from reports.data.summary import cut

STYLES = (
    Style("blue"),
    Style("orange", 1, "cross"),
    Style("green", 2, "square"),
    Style("purple", 3),
    Style("ink", 0, "cross"),
    Style("blue", 1, "square"),
    Style("orange", 2),
    Style("green", 3, "cross"),
)
"""Of protocols, in their order on the page."""
NAMES = 130
"""Pixels for protocol names."""

Group = Mapping[str, Sequence[RunTables]]
"""Protocol -> its runs in the experiment."""


def charts(group: Group, styles: Mapping[str, Style]) -> Iterator[ChartView]:
    """The meaningful charts, for the protocols that have operations; none of a single run."""
    group = {
        name: runs
        for name, all_of in group.items()
        if (runs := [r for r in all_of if len(r.operations)])
    }
    if len(_all(group)) < 2:
        return
    served = who_was_served(group)
    if served is not None:
        yield served
    yield over_time(group, styles)
    yield to_the_last_nines(group, styles)


def group_of(grid: Matrix, experiment: str, tables: Mapping[int, RunTables]) -> Group:
    """The runs of an experiment. ``tables``: by the id of their summaries."""
    cells = sorted(grid.column(experiment), key=lambda cell: grid.protocols.index(cell.protocol))
    return {cell.protocol: [tables[id(run)] for run in cell.runs] for cell in cells}


def style_of(names: Sequence[str]) -> dict[str, Style]:
    """A style per protocol, the same in all charts of a page."""
    return {name: STYLES[number % len(STYLES)] for number, name in enumerate(names)}


def who_was_served(group: Group) -> ChartView | None:
    """The share served over time, one row per protocol; None if everything was served."""
    every = [run for runs in group.values() for run in runs]
    if all(run.operations["served"].all() and not len(run.dropped) for run in every):
        return None
    end_s = _end(group)
    parted = {
        name: any((run.operations["side"] == "minority").any() for run in runs)
        for name, runs in group.items()
    }
    rows = [
        (name, side)
        for name in group
        for side in (("majority", "minority") if parted[name] else ("all",))
    ]

    def share(width_s: float) -> pd.DataFrame:
        edges = time_edges(end_s, width_s)
        columns = {}
        for name, side in rows:
            there, at_all = (served_share(group[name], edges, each) for each in (side, "all"))
            columns[_row(name, side)] = np.where(np.isnan(there), at_all, there)
        return pd.DataFrame({"t_s": edges[:-1]} | columns)

    width_s = bin_width_s(end_s, MOST_BINS)
    data = share(width_s)
    names = [_row(name, side) for name, side in rows]
    drawing = _drawing(group, [cut(name, 24) for name in names], left=NAMES + 50)
    for number, name in enumerate(names):
        drawing.area(number, [*data["t_s"]], [*data[name]], end_s)
    return ChartView(
        name="served",
        title="Who was served, and when",
        how="A full row means that all that was wanted in that moment was served in time, an empty "
        "one that nothing was; a gap, that nothing was wanted there.",
        note=f"Bins of {width_s:g} s by the time at which the operation was wanted."
        + (
            " A cut has two rows, for the nodes of each side; before and after, both are all nodes."
            if any(parted.values())
            else ""
        )
        + _together(group),
        chart=drawing,
        data=share(bin_width_s(end_s, TABLE_BINS)),
        shares=tuple(names),
    )


def _row(name: str, side: str) -> str:
    return name if side == "all" else f"{name} {side}"


def over_time(group: Group, styles: Mapping[str, Style]) -> ChartView:
    """p99 of ok operations over time."""
    end_s = _end(group)

    def p99(width_s: float) -> pd.DataFrame:
        frames = {}
        for name, runs in group.items():
            ok = pd.concat([run.operations[run.operations["outcome"] == "ok"] for run in runs])
            ok = ok.dropna(subset=["latency_ms"])
            bins = (ok["intended_s"] // width_s).astype(int)
            frames[name] = ok["latency_ms"].clip(lower=LEAST_MS).groupby(bins).quantile(0.99)
        data = pd.DataFrame(frames)
        return data.assign(t_s=data.index * width_s)[["t_s", *group]]

    width_s = bin_width_s(end_s, MOST_BINS // 2)
    data = p99(width_s)
    drawing = _drawing(group, log_ms(pd.concat([data[name] for name in group])))
    for name in group:
        drawing.line(data["t_s"] + width_s / 2, data[name], styles[name], name)
    return ChartView(
        name="p99",
        title="p99 of what ended ok",
        how="Lower is better; where a line has a gap, nobody was served.",
        note=f"Bins of {width_s:g} s by the time at which an operation was wanted. Those that were "
        "not served are in the next chart only." + _together(group),
        chart=drawing,
        data=p99(bin_width_s(end_s, TABLE_BINS)),
    )


def to_the_last_nines(group: Group, styles: Mapping[str, Style]) -> ChartView:
    """The percentile curve of the operations wanted during faults, or in the whole load."""
    phase = (
        "during" if any((r.operations["phase"] == "during").any() for r in _all(group)) else None
    )
    data = pd.DataFrame(
        {"share": SHARES} | {name: curve(runs, phase) for name, runs in group.items()}
    ).dropna(how="all", subset=list(group))
    highest = float(data["share"].max()) if len(data) else 0.9
    values = pd.concat([data[name] for name in group])
    drawing = Drawing(
        Axis(0, max(0.9, highest), "share of wanted operations that took no longer", "nines"),
        log_ms(values),
    )
    for name in group:
        own = data[["share", name]].dropna()
        if len(own):
            drawing.line(own["share"], own[name], styles[name], name)
    return ChartView(
        name="nines",
        title="Latency to the last nines" + (" while faults were on" if phase else ""),
        how="Each step to the right leaves a tenth of the operations; the lower line is the faster "
        "protocol there.",
        note="Of all that was wanted: a line ends at the share that was served within the "
        "time-out, or where there are too few operations to say more." + _together(group),
        chart=drawing,
        data=data,
        shares=("share",),
    )


# --- parts ---


def _all(group: Group) -> list[RunTables]:
    return [run for runs in group.values() for run in runs]


def _end(group: Group) -> float:
    return max(run.end_s for run in _all(group))


def _together(group: Group) -> str:
    repeated = max(len(runs) for runs in group.values())
    return f" Up to {repeated} runs of a protocol are taken together." if repeated > 1 else ""


def _drawing(group: Group, y: Axis | Sequence[str], *, left: int = LEFT) -> Drawing:
    """A drawing over the seconds of the load, with the faults of the first run that had any: the
    plan is the same for all."""
    end_s = _end(group)
    drawing = Drawing(Axis(0, end_s, "seconds after the load began"), y, left=left)
    faulty = next((run for run in _all(group) if len(run.faults)), None)
    if faulty is not None:
        faults = faulty.faults.dropna(subset=["applied_s"])
        for fault, begin, healed in zip(
            faults["fault"], faults["applied_s"], faults["healed_s"].fillna(end_s), strict=True
        ):
            drawing.band(begin, healed, str(fault))
    return drawing
