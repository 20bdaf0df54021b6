"""The charts of a run: Altair definitions, drawn by vl-convert without a browser.

Every chart has the load's seconds on its x axis and the faults as shaded, labelled bands. Time is
cut into at most `MOST_BINS` bins, and single operations are sampled down to ``most_points``: the
chart says so. Colours are the light theme's; the page maps each to a CSS variable (`COLOURS`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from bench.run_folder import WitnessLine
from reports.metrics import RunTables
from reports.summary import cut, witness_of

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 760
HEIGHT = 190
ROW_HEIGHT = 30
MOST_BINS = 80
TABLE_BINS = 20
BIN_WIDTHS_S = [0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600]

INK = "#1b1f24"
MUTED = "#57606b"
GRID = "#dfe3e8"
PAPER = "#fdfdfe"
BAND = "#b98a10"
BLUE = "#1f6fb4"
ORANGE = "#c8590f"
PURPLE = "#8a4fa3"
GREEN = "#1a8562"
GREY = "#8b949e"
COLOURS = {
    "ink": INK,
    "muted": MUTED,
    "grid": GRID,
    "paper": PAPER,
    "band": BAND,
    "blue": BLUE,
    "orange": ORANGE,
    "purple": PURPLE,
    "green": GREEN,
    "grey": GREY,
}
OUTCOMES = {"ok": BLUE, "fail": ORANGE, "info": PURPLE, "dropped": GREY}
SIDES = {"all": INK, "majority": BLUE, "minority": ORANGE}
ROLES = {
    "leader": BLUE,
    "candidate": ORANGE,
    "pre-candidate": PURPLE,
    "follower": GRID,
    "stopped": INK,
}

Drawing: TypeAlias = alt.LayerChart | alt.FacetChart


@dataclass(frozen=True)
class ChartView:
    """A chart and what a reader needs beside it. ``how``: one sentence on how to read it. ``note``:
    what was binned or sampled. ``data``: the numbers behind it, as few rows as a person reads."""

    name: str
    title: str
    how: str
    note: str
    chart: Drawing
    data: pd.DataFrame

    def svg(self) -> str:
        """As an SVG document, in the colours of the light theme."""
        return str(vl_convert.vegalite_to_svg(self.chart.to_dict(), allowed_base_urls=[]))

    def png(self, scale: float = 2.0) -> bytes:
        """As a PNG."""
        spec = self.chart.to_dict()
        return bytes(vl_convert.vegalite_to_png(spec, scale=scale, allowed_base_urls=[]))


def charts(run: RunTables, *, most_points: int = 600) -> Iterator[ChartView]:
    """The charts for which the run has data, in reading order."""
    if witness_of(run.verdict):
        yield witness(run, witness_of(run.verdict))
    if len(run.operations):
        yield rate(run)
        yield availability(run)
        yield latency_quantiles(run)
        yield latency_points(run, most_points)
    if len(run.faults):
        yield fault_gantt(run)
    if (run.nodes["role"] == "leader").any():
        yield roles(run)


def bin_width_s(span_s: float, most: int) -> float:
    """The narrowest bin that gives at most ``most`` bins."""
    return next((w for w in BIN_WIDTHS_S if span_s / w <= most), span_s / most)


def rate(run: RunTables) -> ChartView:
    """Operations that ended per second, by outcome."""

    def count(width_s: float) -> pd.DataFrame:
        edges = _edges(run, width_s)
        middles = edges[:-1] + width_s / 2
        rows = []
        for outcome in ("ok", "fail", "info"):
            ended = run.operations.loc[run.operations["outcome"] == outcome, "completed_s"]
            if outcome == "ok" or len(ended):
                counts, _ = np.histogram(ended.dropna(), edges)
                rows.append(
                    pd.DataFrame({"t_s": middles, "outcome": outcome, "rate": counts / width_s})
                )
        return pd.concat(rows)

    width_s = bin_width_s(run.end_s, MOST_BINS)
    data = count(width_s)
    lines = (
        alt.Chart(data)
        .mark_line(interpolate="step", strokeWidth=1.8)
        .encode(
            x=_time(run),
            y=alt.Y("rate:Q", title=f"operations/s{_simulated(run)}", scale=alt.Scale(zero=True)),
            color=_colour("outcome", OUTCOMES, data),
            strokeDash=_dash("outcome", data),
        )
    )
    return ChartView(
        name="rate",
        title=f"Rate{_simulated(run)}",
        how="Each line counts the operations that ended in one way per second; a dip of ok in a "
        "shaded band is what the fault cost.",
        note=f"Counted in bins of {width_s:g} s by the time they ended.",
        chart=_framed(run, [lines]),
        data=_wide(count(bin_width_s(run.end_s, TABLE_BINS)), "outcome", "rate"),
    )


def availability(run: RunTables) -> ChartView:
    """ok / intended over time, per side of a partition where there is one."""

    def share(width_s: float) -> pd.DataFrame:
        edges = _edges(run, width_s)
        middles = edges[:-1] + width_s / 2
        operations = run.operations[~run.operations["straddles"]]
        sides = [s for s in ("majority", "minority") if (operations["side"] == s).any()]
        rows = []
        for side in sides or ["all"]:
            here = operations if side == "all" else operations[operations["side"] == side]
            asked, _ = np.histogram(here["intended_s"], edges)
            if side == "all":
                asked = asked + np.histogram(run.dropped_s, edges)[0]
            served = (here["outcome"] == "ok") & ~here["overdue"]
            ok, _ = np.histogram(here.loc[served, "intended_s"], edges)
            rows.append(
                pd.DataFrame(
                    {
                        "t_s": middles,
                        "side": side,
                        "availability": np.where(asked > 0, ok / np.maximum(asked, 1), np.nan),
                    }
                )
            )
        return pd.concat(rows)

    width_s = bin_width_s(run.end_s, MOST_BINS // 2)
    data = share(width_s)
    lines = (
        alt.Chart(data)
        .mark_line(interpolate="step", strokeWidth=2.2)
        .encode(
            x=_time(run),
            y=alt.Y(
                "availability:Q", title="ok / wanted", scale=alt.Scale(domain=[0, 1.02], nice=False)
            ),
            color=_colour("side", SIDES, data),
            strokeDash=_dash("side", data),
        )
    )
    sided = (data["side"] != "all").any()
    straddlers = int(run.operations["straddles"].sum())
    late = (
        f" Left out: {straddlers} that were in flight at the end of a phase." if straddlers else ""
    )
    return ChartView(
        name="availability",
        title="Availability" + (" on each side of the cut" if sided else ""),
        how="1 means that every operation wanted in that moment ended ok, 0 that none did"
        + ("; majority and minority are the nodes that were asked." if sided else "."),
        note=f"Bins of {width_s:g} s by the time at which the operation was wanted." + late,
        chart=_framed(run, [lines]),
        data=_wide(share(bin_width_s(run.end_s, TABLE_BINS)), "side", "availability"),
    )


QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "worst": 1.0}


def latency_quantiles(run: RunTables) -> ChartView:
    """Quantiles of the latency of ok operations over time."""

    def quantiles(width_s: float) -> pd.DataFrame:
        done = run.operations.loc[run.operations["outcome"] == "ok", ["intended_s", "latency_ms"]]
        bins = np.floor(done["intended_s"] / width_s) * width_s + width_s / 2
        grouped = done.groupby(bins.rename("t_s"))["latency_ms"]
        rows = [
            grouped.quantile(q).rename("latency_ms").reset_index().assign(quantile=name)
            for name, q in QUANTILES.items()
        ]
        return pd.concat(rows)

    width_s = bin_width_s(run.end_s, MOST_BINS // 2)
    data = quantiles(width_s)
    shades = {"p50": BLUE, "p90": GREEN, "p99": ORANGE, "worst": GREY}
    lines = (
        alt.Chart(data)
        .mark_line(strokeWidth=1.8)
        .encode(
            x=_time(run),
            y=_latency(),
            color=_colour("quantile", shades, data),
            strokeDash=_dash("quantile", data),
        )
    )
    return ChartView(
        name="latency-quantiles",
        title=f"Latency of ok operations{_simulated(run)}",
        how="Half of the operations were faster than p50, 99 of 100 faster than p99; the scale is "
        "logarithmic and counts from the moment the operation was wanted.",
        note=f"Bins of {width_s:g} s by the time at which the operation was wanted.",
        chart=_framed(run, [lines]),
        data=_wide(quantiles(bin_width_s(run.end_s, TABLE_BINS)), "quantile", "latency_ms"),
    )


def latency_points(run: RunTables, most_points: int) -> ChartView:
    """The latency of single operations by outcome; a sample where there are many."""
    ended = run.operations.dropna(subset=["latency_ms"])
    sample = _sample(ended, most_points)
    data = sample[["intended_s", "latency_ms", "outcome"]].assign(
        latency_ms=sample["latency_ms"].clip(lower=0.01).round(3),
        intended_s=sample["intended_s"].round(3),
        outcome=sample["outcome"].astype(str),
    )
    present = [o for o in OUTCOMES if (data["outcome"] == o).any()]
    points = (
        alt.Chart(data)
        .mark_point(size=14, strokeWidth=1.1, opacity=0.75)
        .encode(
            x=_time(run, "intended_s"),
            y=_latency(),
            color=_colour("outcome", OUTCOMES, data),
            shape=alt.Shape(
                "outcome:N",
                scale=alt.Scale(
                    domain=present,
                    range=[{"ok": "circle", "fail": "square", "info": "cross"}[o] for o in present],
                ),
                legend=alt.Legend(title=None),
            ),
        )
    )
    counts = ended["outcome"].value_counts()
    parts = [
        f"{(data['outcome'] == outcome).sum()} of {counts[outcome]} {outcome}"
        for outcome in present
    ]
    note = f"Shown: {', '.join(parts)}"
    note += ", drawn at random within each outcome." if len(sample) < len(ended) else "."
    rows = [
        {"outcome": o, "operations": int(counts[o])}
        | {
            f"{name}_ms": float(ended.loc[ended["outcome"] == o, "latency_ms"].quantile(q))
            for name, q in QUANTILES.items()
        }
        for o in present
    ]
    return ChartView(
        name="latency-points",
        title=f"Each operation{_simulated(run)}",
        how="One mark is one operation: how long it took, and how it ended (info: nobody knows "
        "whether it was applied).",
        note=note,
        chart=_framed(run, [points]),
        data=pd.DataFrame(rows),
    )


def fault_gantt(run: RunTables) -> ChartView:
    """When each fault was on."""
    faults = run.faults
    data = pd.DataFrame(
        {
            "fault": faults["number"].astype(str) + ": " + faults["label"],
            "from_s": faults["applied_s"],
            "to_s": faults["healed_s"].fillna(run.end_s),
            "state": np.where(
                faults["applied_s"].isna(),
                "never applied",
                np.where(faults["healed_s"].isna(), "not healed", "healed"),
            ),
        }
    )
    rows = alt.Y("fault:N", title=None, sort=list(data["fault"]), axis=alt.Axis(labelLimit=260))
    bars = (
        alt.Chart(data.dropna(subset=["from_s"]))
        .mark_bar(height=14, color=BAND, opacity=0.85)
        .encode(x=_time(run, "from_s"), x2="to_s:Q", y=rows)
    )
    planned = (
        alt.Chart(faults.assign(fault=data["fault"]))
        .mark_tick(thickness=2, size=22, color=INK)
        .encode(x=_time(run, "planned_s"), y=rows)
    )
    return ChartView(
        name="faults",
        title="Faults",
        how="A bar is the time in which a fault was on; the tick is when it was planned.",
        note="",
        chart=_framed(run, [bars, planned], rows=len(data), bands=False),
        data=data.round(3),
    )


def roles(run: RunTables) -> ChartView:
    """Who was what, and when: roles and terms of every node."""
    data = role_spans(run)
    shades = {r: ROLES.get(r, GREEN) for r in dict.fromkeys([*ROLES, *data["role"]])}
    rows = alt.Y("node:N", title=None, sort=run.manifest.nodes)
    bars = (
        alt.Chart(data)
        .mark_bar(height=18)
        .encode(
            x=_time(run, "from_s"),
            x2="to_s:Q",
            y=rows,
            color=_colour("role", shades, data),
        )
    )
    led = data[(data["role"] == "leader") & (data["to_s"] - data["from_s"] > run.end_s / 25)]
    terms = (
        alt.Chart(led.assign(text=["" if pd.isna(t) else f"term {t:g}" for t in led["term"]]))
        .mark_text(align="left", dx=4, color=PAPER, fontWeight="bold")
        .encode(x=_time(run, "from_s"), y=rows, text="text:N")
    )
    return ChartView(
        name="roles",
        title="Leaders and terms",
        how="A row is a node, its colour is its role; two leaders at once are normal while one of "
        "them is cut off and in an older term.",
        note="As the nodes told: events, and status in between.",
        chart=_framed(run, [bars, terms], rows=len(run.manifest.nodes)),
        data=data.round(3),
    )


def role_spans(run: RunTables) -> pd.DataFrame:
    """Columns node, role, term, from_s, to_s: the roles of each node, cut to the load's time."""
    spans = []
    told = run.nodes[run.nodes["role"].notna()].sort_values("t_s", kind="stable")
    for node, records in told.groupby("node", sort=False):
        changed = (records["role"] != records["role"].shift()) | (
            records["term"].ffill().fillna(-1) != records["term"].ffill().shift().fillna(-1)
        )
        starts = records[changed]
        ends = [*starts["t_s"].iloc[1:], run.end_s]
        for role, term, from_s, to_s in zip(
            starts["role"], starts["term"], starts["t_s"], ends, strict=True
        ):
            if to_s > 0 and from_s < run.end_s:
                spans.append((node, role, term, max(from_s, 0.0), min(to_s, run.end_s)))
    return pd.DataFrame(spans, columns=["node", "role", "term", "from_s", "to_s"])


def witness(run: RunTables, lines: Sequence[WitnessLine]) -> ChartView:
    """The operations of a witness as intervals, one row each, in order of invocation."""
    stamps = [line.operation.invoked_ns for line in lines]
    ends = [line.operation.completed_ns for line in lines]
    first, last = min(stamps), max([*stamps, *(end for end in ends if end is not None)])
    unit_ns, unit = (1e9, "s") if last - first > 2e9 else (1e6, "ms")
    span = max((last - first) / unit_ns, 1e-3)
    margin = span * 0.05
    rows = []
    for number, line in enumerate(lines, 1):
        record = line.operation
        ended_ns = record.completed_ns
        rows.append(
            {
                "row": f"{number}. {record.process} → {record.node or '?'}",
                "operation": cut(line.role, 90),
                "begin": (record.invoked_ns - first) / unit_ns,
                "end": span + margin if ended_ns is None else (ended_ns - first) / unit_ns,
                "outcome": "open" if ended_ns is None else record.outcome,
            }
        )
    data = pd.DataFrame(rows)
    x = alt.X(
        "begin:Q",
        title=f"{unit} after the first began, {run.seconds(first):.3f} s into the load",
        scale=alt.Scale(domain=[-margin, span + margin], nice=False),
        axis=alt.Axis(tickCount=8),
    )
    y = alt.Y("row:N", title=None, sort=list(data["row"]), axis=alt.Axis(labelLimit=200))
    # An operation can be a thousand times shorter than the story: it stays a visible mark.
    drawn = data.assign(end=np.maximum(data["end"], data["begin"] + span * 0.004))
    shades = {**OUTCOMES, "open": GREY}
    bars = (
        alt.Chart(drawn)
        .mark_bar(height=10, yOffset=9)
        .encode(x=x, x2="end:Q", y=y, color=_colour("outcome", shades, drawn))
    )
    right = drawn["begin"] > span * 0.55
    sides: list[tuple[Any, Literal["left", "right"], str]] = [
        (~right, "left", "begin"),
        (right, "right", "end"),
    ]
    texts = [
        alt.Chart(drawn[mask])
        .mark_text(align=align, dy=-8, color=INK, limit=440)
        .encode(x=alt.X(f"{at}:Q"), y=y, text="operation:N")
        for mask, align, at in sides
        if mask.any()
    ]
    return ChartView(
        name="witness",
        title="The witness, drawn",
        how="Each row is one operation from its begin to its end, in order: no single order of "
        "them all explains what they returned.",
        note="Very short operations are drawn wider than they were.",
        chart=_framed(run, [bars, *texts], rows=len(data), row_height=46, bands=False),
        data=data.rename(columns={"begin": f"begin_{unit}", "end": f"end_{unit}"}).round(6),
    )


# -- parts ----------------------------------------------------------------------------------------


def _simulated(run: RunTables) -> str:
    return " (simulated)" if run.manifest.simulated else ""


def _time(run: RunTables, field: str = "t_s") -> alt.X:
    return alt.X(
        f"{field}:Q",
        title="seconds after the load began",
        scale=alt.Scale(domain=[0, run.end_s], nice=False, clamp=True),
        axis=alt.Axis(tickCount=10),
    )


def _latency() -> alt.Y:
    return alt.Y(
        "latency_ms:Q",
        title="ms, logarithmic",
        scale=alt.Scale(type="log", nice=True),
        axis=alt.Axis(values=[10.0**power for power in range(-3, 8)], format="~"),
    )


def _colour(field: str, shades: dict[str, str], data: pd.DataFrame) -> alt.Color:
    present = [name for name in shades if (data[field] == name).any()]
    return alt.Color(
        f"{field}:N",
        scale=alt.Scale(domain=present, range=[shades[name] for name in present]),
        legend=alt.Legend(title=None),
    )


def _dash(field: str, data: pd.DataFrame) -> alt.StrokeDash:
    """Lines differ by their dashes too, so that nobody needs the colours."""
    present = list(dict.fromkeys(data[field]))
    dashes = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3]]
    return alt.StrokeDash(
        f"{field}:N",
        scale=alt.Scale(domain=present, range=dashes[: len(present)]),
        legend=alt.Legend(title=None),
    )


def _edges(run: RunTables, width_s: float) -> Any:
    return np.arange(0.0, run.end_s + width_s, width_s)


def _wide(data: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    order = list(dict.fromkeys(data[column]))
    return data.pivot(index="t_s", columns=column, values=value)[order].reset_index()


def _sample(operations: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most ``most`` rows, half of them for outcomes other than ok, which are the rare ones."""
    if len(operations) <= most:
        return operations
    is_ok = operations["outcome"] == "ok"
    others, fine = operations[~is_ok], operations[is_ok]
    few = min(len(others), most // 2)
    return pd.concat(
        [
            others.sample(few, random_state=1),
            fine.sample(min(len(fine), most - few), random_state=1),
        ]
    )


def _framed(
    run: RunTables,
    layers: Sequence[alt.Chart],
    *,
    rows: int | None = None,
    row_height: int = ROW_HEIGHT,
    bands: bool = True,
) -> Drawing:
    """The layers with the faults behind them, in the common size and style."""
    shading: list[alt.Chart] = []
    faults = run.faults.dropna(subset=["applied_s"])
    if bands and len(faults):
        spans = faults.assign(
            from_s=faults["applied_s"],
            to_s=faults["healed_s"].fillna(run.end_s),
            text=[label if len(label) <= 40 else label[:39] + "…" for label in faults["label"]],
            row=range(len(faults)),
        )[["from_s", "to_s", "text", "row"]]
        base = alt.Chart(spans)
        shading.append(
            base.mark_rect(color=BAND, opacity=0.16).encode(x=_time(run, "from_s"), x2="to_s:Q")
        )
        labels = spans[spans["row"] < 4]
        shading += [
            alt.Chart(labels[labels["row"] == row])
            .mark_text(align="left", baseline="bottom", dx=2, dy=-2 - 13 * row, color=MUTED)
            .encode(x=_time(run, "from_s"), y=alt.value(0), text="text:N")
            for row in labels["row"]
        ]
    height = HEIGHT if rows is None else rows * row_height
    chart = alt.layer(*shading, *layers).properties(width=WIDTH, height=height)
    styled: Drawing = (
        chart.configure(
            background="transparent",
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
            aria=False,
            font="system-ui, sans-serif",
            padding={"left": 16, "top": 4, "right": 16, "bottom": 4},
        )
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=MUTED,
            titleColor=MUTED,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            gridColor=GRID,
            domainColor=GREY,
            tickColor=GREY,
        )
        .configure_legend(
            orient="bottom",
            labelColor=INK,
            labelFontSize=13,
            symbolStrokeWidth=2.5,
            symbolSize=160,
        )
        .configure_text(fontSize=12, font="system-ui, sans-serif")
    )
    return styled
