"""The charts of a run over the time of its load.

Every chart has the load's seconds on its x axis and the faults as shaded, labelled bands. Time is
split into at most `MOST_BINS` bins, and single operations are sampled down to ``most_points``; the
chart says so. Charts with another x axis are in `reports.charts.charts_of_runs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.checkers.outages import SILENCE_S
from bench.record.verdict import WorkloadCheck
from reports.charts.drawing import LEFT, Axis, Drawing, Style
from reports.charts.quiet import all_served, steady_leader
from reports.charts.view import LEAST_MS, LONG_NAMES, OUTCOMES, ChartView, log_ms, simulated
from reports.charts.witnesses import witnesses
from reports.data.metrics import RunTables
from reports.data.summary import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BINS = 80
TABLE_BINS = 20
LEAST_SHOWN = 20
"""Operations of each outcome that are drawn, if there are so many."""
BIN_WIDTHS_S = [0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600]

SIDES = {"all": Style("ink"), "majority": Style("blue"), "minority": Style("orange", 1)}
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "worst": 1.0}
_SHARES = np.array([*QUANTILES.values()])
QUANTILE_STYLES = {
    "p50": Style("blue"),
    "p90": Style("green", 1),
    "p99": Style("orange", 2),
    "worst": Style("purple", 3),
}
ROLES = {
    "leader": "blue",
    "candidate": "orange",
    "pre-candidate": "purple",
    "follower": "grid",
    "stopped": "ink",
}


def charts(run: RunTables, *, most_points: int = 600) -> Iterator[ChartView]:
    """The charts that say something, in reading order; `quiet.sentences` has the rest."""
    from reports.charts import charts_of_runs as more

    yield from witnesses(run)
    yield from totals(run)
    if len(run.operations):
        yield rate(run)
        if not all_served(run):
            yield availability(run)
        yield latency_quantiles(run)
        yield latency_points(run, most_points)
        yield more.percentiles(run)
        if len(run.faults):
            yield more.phases(run)
            yield more.timeline(run)
    # A single fault is the shaded band of every chart.
    if len(run.faults) > 1 or run.faults["applied_s"].isna().any():
        yield fault_gantt(run)
    if (run.nodes["role"] == "leader").any() and steady_leader(run) is None:
        yield roles(run)


def bin_width_s(span_s: float, most: int) -> float:
    """The narrowest bin that gives at most ``most`` bins."""
    return next((w for w in BIN_WIDTHS_S if span_s / w <= most), span_s / most)


def rate(run: RunTables) -> ChartView:
    """Operations ended per second, by outcome."""

    def count(width_s: float) -> pd.DataFrame:
        edges = time_edges(run.end_s, width_s)
        rows = []
        for outcome in OUTCOMES:
            ended = run.operations.loc[run.operations["outcome"] == outcome, "completed_s"]
            if outcome == "ok" or len(ended):
                counts, _ = np.histogram(ended.dropna(), edges)
                rows.append(
                    pd.DataFrame({"t_s": edges[:-1], "outcome": outcome, "rate": counts / width_s})
                )
        return pd.concat(rows)

    width_s = bin_width_s(run.end_s, MOST_BINS)
    data = count(width_s)
    drawing = over_time(run, Axis(0, data["rate"].max(), f"operations/s{simulated(run)}"))
    _steps(drawing, run, data, "outcome", "rate", OUTCOMES)
    return ChartView(
        name="rate",
        title=f"Rate{simulated(run)}",
        how="Each line is the number of operations per second with one outcome; a dip of ok in a "
        "shaded band is the cost of the fault.",
        note=f"Counted in bins of {width_s:g} s by the time they ended.",
        chart=drawing,
        data=_wide(count(bin_width_s(run.end_s, TABLE_BINS)), "outcome", "rate"),
    )


def availability(run: RunTables) -> ChartView:
    """served / wanted over time, in total and per side during a partition, and when nothing was
    served."""
    sides = [s for s in SIDES if (run.operations["side"] == s).any()]

    def share(width_s: float) -> pd.DataFrame:
        edges = time_edges(run.end_s, width_s)
        return pd.concat(
            pd.DataFrame(
                {"t_s": edges[:-1], "side": side, "availability": served_share([run], edges, side)}
            )
            for side in ("all", *sides)
        )

    width_s = bin_width_s(run.end_s, MOST_BINS // 2)
    data = share(width_s)
    drawing = over_time(run, Axis(0, 1.02, "served / wanted"))
    _steps(drawing, run, data, "side", "availability", SIDES)
    longest = max((end - begin for begin, end in run.silences), default=0.0)
    silences = (
        f" Nobody at all got an answer in {len(run.silences)} "
        f"stretch{'es' if len(run.silences) != 1 else ''} of at least {SILENCE_S:g} s, the longest "
        f"{longest:.1f} s."
        if run.silences
        else ""
    )
    return ChartView(
        name="availability",
        title="Availability" + (" on each side of the cut" if sides else ""),
        how="1 means that every operation wanted in that moment ended ok within "
        f"{run.summary.service_s:g} s, 0 that none did"
        + ("; majority and minority are the nodes at which they were wanted." if sides else "."),
        note=f"Bins of {width_s:g} s by the time at which the operation was wanted." + silences,
        chart=drawing,
        data=_wide(share(bin_width_s(run.end_s, TABLE_BINS)), "side", "availability"),
        shares=("all", *sides),
    )


def served_share(runs: Sequence[RunTables], edges: Any, side: str = "all") -> Any:
    """served / wanted of all ``runs`` together in each bin; NaN where nothing was wanted."""
    asked = served = np.zeros(len(edges) - 1, dtype=np.int64)
    for run in runs:
        here, lost = run.operations, run.dropped["intended_s"]
        if side != "all":
            here, lost = here[here["side"] == side], lost[run.dropped["side"] == side]
        asked = asked + np.histogram(here["intended_s"], edges)[0] + np.histogram(lost, edges)[0]
        served = served + np.histogram(here.loc[here["served"], "intended_s"], edges)[0]
    return np.where(asked > 0, served / np.maximum(asked, 1), np.nan)


def latency_quantiles(run: RunTables) -> ChartView:
    """Latency quantiles of ok operations over time."""
    ok = run.operations[run.operations["outcome"] == "ok"].dropna(subset=["latency_ms"])

    def quantiles(width_s: float) -> pd.DataFrame:
        if not len(ok):
            return pd.DataFrame({"t_s": [0.0], "quantile": ["p50"], "latency_ms": [np.nan]})
        bins = (ok["intended_s"] // width_s).astype(int)
        quantiles = ok["latency_ms"].clip(lower=LEAST_MS).groupby(bins).quantile(_SHARES)
        data = quantiles.rename_axis(["bin", "q"]).rename("latency_ms").reset_index()
        names = {q: name for name, q in QUANTILES.items()}
        return data.assign(t_s=data["bin"] * width_s, quantile=data["q"].map(names))

    width_s = bin_width_s(run.end_s, MOST_BINS // 2)
    data = quantiles(width_s)
    drawing = over_time(run, log_ms(data["latency_ms"]))
    for name, style in QUANTILE_STYLES.items():
        own = data[data["quantile"] == name]
        drawing.line(own["t_s"] + width_s / 2, own["latency_ms"], style, name)
    return ChartView(
        name="latency-quantiles",
        title=f"Latency of what ended ok{simulated(run)}",
        how="p99 means that 99 of 100 operations took no longer than that; where lines part, some "
        "operations waited.",
        note=f"Bins of {width_s:g} s by the time at which the operation was wanted, from when it "
        "was wanted.",
        chart=drawing,
        data=_wide(quantiles(bin_width_s(run.end_s, TABLE_BINS)), "quantile", "latency_ms"),
    )


def latency_points(run: RunTables, most_points: int) -> ChartView:
    """The latency of single operations by outcome; a sample if there are many."""
    ended = run.operations.dropna(subset=["latency_ms"])
    sample = _sample(ended, most_points)
    drawing = over_time(run, log_ms(ended["latency_ms"]))
    counts = ended["outcome"].value_counts()
    present = [outcome for outcome in OUTCOMES if counts.get(outcome, 0)]
    parts = []
    for outcome in present:
        own = sample[sample["outcome"] == outcome]
        drawing.marks(
            own["intended_s"], own["latency_ms"].clip(lower=LEAST_MS), OUTCOMES[outcome], outcome
        )
        parts.append(f"{len(own)} of {counts[outcome]} {outcome}")
    note = f"Shown: {', '.join(parts)}"
    if len(sample) < len(ended):
        note += ", drawn at random; of each outcome the same share, but for rare ones"
    note += "."
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
        title=f"Each operation{simulated(run)}",
        how="One mark is one operation: how long it took, and how it ended (info: it is "
        "unknown whether it was applied).",
        note=note,
        chart=drawing,
        data=pd.DataFrame(rows, columns=["outcome", "operations", *(f"{q}_ms" for q in QUANTILES)]),
    )


def totals(run: RunTables) -> Iterator[ChartView]:
    """What the reads of a bank add up to, over time."""
    details = next(
        (
            check.details.model.details
            for check in (run.verdict.checks if run.verdict else ())
            if isinstance(check, WorkloadCheck) and check.details.model is not None
        ),
        {},
    )
    if "totals" not in details:
        return
    stamps, amounts = zip(*details["totals"], strict=True)
    data = pd.DataFrame({"t_s": map(run.seconds, stamps), "total": amounts})
    is_wrong = data["total"] != details["total"]
    low, high = data["total"].min(), data["total"].max()
    room = max(1, (high - low) // 8)
    drawing = over_time(run, Axis(low - room, high + room, "sum of all accounts"))
    drawing.line([0, run.end_s], [details["total"]] * 2, Style("ink", 1), "what there is")
    for own, style, label in (
        (data[~is_wrong], OUTCOMES["ok"], "adds up"),
        (data[is_wrong], OUTCOMES["fail"], "wrong"),
    ):
        if len(own):
            drawing.marks(own["t_s"], own["total"], style, label)
    some = f"{len(data)} of {details['reads']} reads" if len(data) < details["reads"] else ""
    yield ChartView(
        name="totals",
        title=f"The bank's total{simulated(run)}",
        how="One mark is one read of all accounts: what they add up to. Transfers only move money, "
        f"so all must be on the line of {details['total']}.",
        note=f"Shown: {some}." if some else "",
        chart=drawing,
        data=data[is_wrong].head(TABLE_BINS) if is_wrong.any() else data.tail(1),
    )


def fault_gantt(run: RunTables) -> ChartView:
    """When each fault was active."""
    faults = run.faults
    names = faults["number"].astype(str) + ": " + faults["label"]
    state = np.where(
        faults["applied_s"].isna(),
        "never applied",
        np.where(faults["healed_s"].isna(), "not healed", "healed"),
    )
    data = pd.DataFrame(
        {
            "fault": names,
            "from_s": faults["applied_s"],
            "to_s": faults["healed_s"].fillna(run.end_s),
            "state": state,
        }
    )
    drawing = Drawing(_time(run), [cut(name, 28) for name in names], left=LONG_NAMES)
    for row, (begin, end, planned) in enumerate(
        zip(data["from_s"], data["to_s"], faults["planned_s"], strict=True)
    ):
        if not np.isnan(begin):
            drawing.bar(row, begin, end, "band")
        drawing.tick(row, planned)
    return ChartView(
        name="faults",
        title="Faults",
        how="A bar is the time in which a fault was active; the tick is when it was planned.",
        note="",
        chart=drawing,
        data=data.round(3),
    )


def roles(run: RunTables) -> ChartView:
    """The role and term of every node over time."""
    data = role_spans(run)
    nodes = list(run.manifest.nodes)
    drawing = over_time(run, nodes)
    shades = {role: ROLES.get(role, "green") for role in dict.fromkeys([*ROLES, *data["role"]])}
    for node, role, term, begin, end in data.itertuples(index=False):
        if node in nodes:
            row = nodes.index(node)
            drawing.bar(row, begin, end, shades[role], thickness=18)
            if role == "leader" and end - begin > run.end_s / 12 and not pd.isna(term):
                drawing.note(row, begin, f"term {term:g}", on="blue")
    for role, colour in shades.items():
        if (data["role"] == role).any():
            drawing.key(role, Style(colour, 0, "dot"))
    return ChartView(
        name="roles",
        title="Leaders and terms",
        how="A row is a node, its colour is its role; two leaders at once are normal while one of "
        "them is cut off and in an older term.",
        note="As the nodes reported: events, and status in between.",
        chart=drawing,
        data=data.round(3),
    )


def role_spans(run: RunTables) -> pd.DataFrame:
    """Columns node, role, term, from_s, to_s: the roles of each node during the load."""
    spans = []
    known = run.nodes[run.nodes["role"].notna()].sort_values("t_s", kind="stable")
    for node, records in known.groupby("node", sort=False):
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


# -- parts ----------------------------------------------------------------------------------------


def over_time(run: RunTables, y: Axis | Sequence[str]) -> Drawing:
    """A drawing over the seconds of the load, with the faults behind it."""
    drawing = Drawing(_time(run), y, left=LEFT)
    faults = run.faults.dropna(subset=["applied_s"])
    ends = faults["healed_s"].fillna(run.end_s)
    for begin, end, label in zip(faults["applied_s"], ends, faults["label"], strict=True):
        drawing.band(begin, end, cut(label, 40))
    return drawing


def _time(run: RunTables) -> Axis:
    return Axis(0, run.end_s, "seconds after the load began")


def _steps(
    drawing: Drawing,
    run: RunTables,
    data: pd.DataFrame,
    column: str,
    value: str,
    styles: dict[str, Style],
) -> None:
    present = list(dict.fromkeys(data[column]))
    for name in present:
        own = data[data[column] == name]
        label = name if present != ["all"] else None
        drawing.line(own["t_s"], own[value], styles[name], label, step_to=run.end_s)


def time_edges(end_s: float, width_s: float) -> Any:
    """The bounds of bins from 0 to ``end_s``."""
    return np.arange(0.0, end_s + width_s, width_s)


def _wide(data: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    order = list(dict.fromkeys(data[column]))
    return data.pivot(index="t_s", columns=column, values=value)[order].reset_index()


def _sample(operations: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most ``most`` rows, of each outcome the same share, so that the picture is that of the
    whole; but for an outcome that is rare, `LEAST_SHOWN` if there are so many."""
    if len(operations) <= most:
        return operations
    parts = []
    for _, own in operations.groupby("outcome", observed=True):
        share = round(most * len(own) / len(operations))
        parts.append(own.sample(min(len(own), max(share, LEAST_SHOWN)), random_state=1))
    return pd.concat(parts)
