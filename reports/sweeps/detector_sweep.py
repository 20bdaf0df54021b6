"""The sweep over failure detectors: its file, table, charts and page.

The measures are those of Chen, Toueg, Aguilera, "On the quality of service of failure detectors",
IEEE Transactions on Computers 51(5), 2002: detection time, rate of mistakes, duration of a mistake,
and the share of time in which a healthy node is trusted (here its complement).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
from markupsafe import Markup

from reports.charts.drawing import Axis, Drawing, Style
from reports.formats.figure_page import Figure, write_figures

STYLES = {"counting": Style("blue"), "phi": Style("orange", 1, "square")}
RAREST_PER_H = 0.01
"""Lower rates, and 0, are drawn here: the axis is logarithmic."""
FACTORS = {
    "latency": ("Latency", "one-way latency, s"),
    "jitter": ("Jitter", "median of the heavy-tailed delay, s"),
    "loss": ("Loss", "share of heartbeats lost"),
    "flapping": ("Flapping links", "share of the time a link is down"),
}
TRADE_OFF = "trade-off: "


class DetectorRow(msgspec.Struct, kw_only=True):
    """One detector in one run.

    ``setting``: timeout in seconds (counting) or threshold of phi. ``observed_s``: how long healthy
    nodes watched each other, summed over pairs; in that time there were ``mistakes`` suspicions,
    which lasted ``suspected_s`` in total; ``mistakes_s``: the duration of each that began and ended
    in that time. ``detections_s``: from a crash to the lasting suspicion of each observer;
    ``suspected_before``: observers whose lasting suspicion began before the crash, which says
    nothing about speed; ``undetected``: observers that did not suspect the node when it came back.
    ``trusts_s``: from then until trust; ``untrusted``: observers that still suspected it at the
    end.
    """

    factor: str
    value: float
    detector: str
    setting: float
    seed: int
    observed_s: float = 0.0
    mistakes: int = 0
    suspected_s: float = 0.0
    mistakes_s: list[float] = []
    detections_s: list[float] = []
    suspected_before: int = 0
    undetected: int = 0
    trusts_s: list[float] = []
    untrusted: int = 0


class Sweep(msgspec.Struct, kw_only=True):
    """``sweep.json``."""

    schema: int = 1
    simulated: bool = True
    seed: int
    nodes: int
    heartbeat_every_s: float
    check_every_s: float
    flap_period_s: float
    counting: dict[str, Any]
    phi: dict[str, Any]
    plan: dict[str, Any]
    rows: list[DetectorRow]


def load_sweep(path: Path) -> Sweep:
    """Read ``sweep.json``. Raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(path.read_bytes(), type=Sweep)


def table(sweep: Sweep) -> pd.DataFrame:
    """One row for each network and detector, over all seeds.

    ``false_per_h``: mistakes per hour in which one node watches another; ``upper_per_h``: the rate,
    or if none was seen its 95 % upper bound (three in the time observed). ``suspected``: share of
    the time. Times are mean seconds; NaN if there are no values.
    """
    rows = []
    keys = ("factor", "value", "detector", "setting")
    groups: dict[tuple[Any, ...], list[DetectorRow]] = {}
    for row in sweep.rows:
        groups.setdefault(tuple(getattr(row, key) for key in keys), []).append(row)
    for key, members in groups.items():
        hours = sum(row.observed_s for row in members) / 3600
        mistakes = sum(row.mistakes for row in members)
        detections = [s for row in members for s in row.detections_s]
        trusts = [s for row in members for s in row.trusts_s]
        lasted = [s for row in members for s in row.mistakes_s]
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "observed_h": hours,
                "mistakes": mistakes,
                "false_per_h": mistakes / hours if hours else math.nan,
                "upper_per_h": max(mistakes, 3) / hours if hours else math.nan,
                "suspected": sum(row.suspected_s for row in members) / hours / 3600
                if hours
                else math.nan,
                "mistake_s": _mean(lasted),
                "detect_s": _mean(detections),
                "detect_worst_s": max(detections, default=math.nan),
                "suspected_before": sum(row.suspected_before for row in members),
                "undetected": sum(row.undetected for row in members),
                "trust_s": _mean(trusts),
                "untrusted": sum(row.untrusted for row in members),
            }
        )
    return pd.DataFrame(rows)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


# --- as text ---


def first_screen(path: Path) -> str:
    """The table for a terminal: one line for each network and detector."""
    sweep = load_sweep(path)
    figures = table(sweep)
    lines = [f" detector sweep, simulated, seed {sweep.seed}"]
    head = ("", "", "detector", "detected", "worst", "false/h", "suspected", "trusted again")
    lines.append(" {:<9}{:>6}  {:<9}{:>21}{:>9}{:>9}{:>11} {:>17}".format(*head))
    for row in figures[figures["factor"].isin(list(FACTORS))].to_dict("records"):
        detected, worst, false, suspected, _, trusted, _ = _cells(row)
        lines.append(
            f" {row['factor']:<9}{row['value']:>6g}  {row['detector']:<9}{detected:>21}{worst:>9}"
            f"{false:>9}{suspected:>11} {trusted:>17}"
        )
    return "\n".join(lines)


HEAD = (
    "detected after, mean",
    "worst",
    "false suspicions per hour",
    "time suspected",
    "a mistake lasts",
    "trusted again after",
    "hours watched",
)


def _cells(row: dict[Any, Any]) -> list[str]:
    missed = f" ({row['undetected']} missed)" if row["undetected"] else ""
    never = f" ({row['untrusted']} never)" if row["untrusted"] else ""
    none_seen = f"<\u00a0{row['upper_per_h']:.2g}" if row["observed_h"] else "–"
    before = f" ({row['suspected_before']} before)" if row["suspected_before"] else ""
    return [
        _seconds(row["detect_s"]) + before + missed,
        _seconds(row["detect_worst_s"]),
        f"{row['false_per_h']:.3g}" if row["mistakes"] else none_seen,
        _share(row["suspected"]),
        _seconds(row["mistake_s"]),
        _seconds(row["trust_s"]) + never,
        f"{row['observed_h']:.0f}",
    ]


def _share(value: float) -> str:
    return f"{value:.2%}" if value >= 0.0001 else "<\u00a00.01%" if value else "0"


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f} s"


# --- charts ---


def factor_figure(figures: pd.DataFrame, factor: str) -> Figure:
    """Detection, mistakes and trust against one property of the network."""
    data = figures[figures["factor"] == factor]
    title, axis = FACTORS[factor]
    x = Axis(0, data["value"].max(), axis)
    panels = []
    for field, text in (
        ("detect_s", "crash detected after, s (mean)"),
        ("false_per_h", "false suspicions per hour, logarithmic"),
        ("trust_s", "trusted again after, s (mean)"),
    ):
        most = data[field].max()
        y = Axis(RAREST_PER_H, max(1.0, most), text, "log")
        if field != "false_per_h":
            y = Axis(0, most if most == most else 1.0, text)
        drawing = Drawing(x, y, height=110)
        for detector, style in STYLES.items():
            own = data[data["detector"] == detector]
            values = own[field] if y.kind == "linear" else own[field].clip(lower=RAREST_PER_H)
            drawing.line(own["value"], values, style, detector)
            known = values.notna()
            drawing.marks(own["value"][known], values[known], style)
        panels.append(Markup(drawing.inline(f"{title}: {text}")))
    rows = [[f"{row['value']:g}", row["detector"], *_cells(row)] for row in data.to_dict("records")]
    how = (
        "From the top: how soon a crash is noticed (lower is faster); how often a healthy node is "
        f"suspected (lower is better; never is drawn at {RAREST_PER_H:g}); how soon a node that is "
        "back is trusted."
    )
    return Figure(title, how, panels, [axis, "detector", *HEAD], rows)


def trade_off_figure(figures: pd.DataFrame, factor: str) -> Figure:
    """Detection time against the rate of mistakes, along the setting of each detector."""
    data = figures[figures["factor"] == factor].sort_values(["detector", "setting"])
    name = factor.removeprefix(TRADE_OFF)
    value = data["value"].iloc[0]
    network = {
        "jitter": f"a median jitter of {value:g} s",
        "loss": f"{value:.0%} of the heartbeats lost",
    }.get(name, f"{name} {value:g}")
    texts = [
        f"{s:g} s" if d == "counting" else f"φ {s:g}"
        for s, d in zip(data["setting"], data["detector"], strict=True)
    ]
    seen = data.assign(text=texts).dropna(subset=["detect_s"])
    least = max(RAREST_PER_H, seen["upper_per_h"].min())
    drawing = Drawing(
        Axis(0, seen["detect_s"].max() * 1.08, "crash detected after, s (mean)"),
        Axis(least, seen["upper_per_h"].max(), "false suspicions per hour, logarithmic", "log"),
        height=280,
    )
    for detector, style in STYLES.items():
        own = seen[seen["detector"] == detector]
        drawing.line(own["detect_s"], own["upper_per_h"], style, detector)
        for is_seen, shape in ((True, style.shape), (False, "cross")):
            part = own[(own["mistakes"] > 0) == is_seen]
            marked = style._replace(shape=shape)
            drawing.marks(part["detect_s"], part["upper_per_h"], marked)
        for x, y, text in zip(own["detect_s"], own["upper_per_h"], own["text"], strict=True):
            drawing.label(x, y, text, style.colour, below=detector == "phi")
    drawing.key("none seen: at most this", Style("muted", 0, "cross"))
    title = f"The trade-off, with {network}"
    how = (
        "Each point is one setting: the timeout of the counting detector, the threshold of phi. "
        "Down and to the left is better; a detector is the better one where its curve runs below."
    )
    rows = [[row["text"], row["detector"], *_cells(row)] for row in seen.to_dict("records")]
    drawn = [Markup(drawing.inline(title))]
    return Figure(title, how, drawn, ["setting", "detector", *HEAD], rows)


# --- the page ---


def write_page(data: Path, out: Path) -> Path:
    """Make the page of a ``sweep.json``; returns ``out``."""
    sweep = load_sweep(data)
    figures = table(sweep)
    present = list(dict.fromkeys(figures["factor"]))
    drawn = [factor_figure(figures, factor) for factor in FACTORS if factor in present]
    drawn += [trade_off_figure(figures, f) for f in present if f.startswith(TRADE_OFF)]
    return write_figures(
        out,
        title="Failure detectors compared",
        tag="simulated",
        setting=(
            f"{sweep.nodes} nodes, a heartbeat every {sweep.heartbeat_every_s:g} s, a check every "
            f"{sweep.check_every_s:g} s, seed {sweep.seed}"
        ),
        question="How soon is a crash noticed, and how often is a healthy node suspected?",
        lines=plain_lines(figures),
        figures=drawn,
        method=method_lines(sweep),
    )


def plain_lines(figures: pd.DataFrame) -> list[str]:
    """One line per factor: the figures of its calmest and its worst network."""
    lines = []
    for factor, (title, axis) in FACTORS.items():
        data = figures[figures["factor"] == factor]
        halves = []
        for detector in STYLES:
            rows = data[data["detector"] == detector].sort_values("value").to_dict("records")
            if rows:
                calm, worst = _cells(rows[0]), _cells(rows[-1])
                halves.append(
                    f"{detector} detects a crash after {_change(calm[0], worst[0])}, suspects a"
                    f" healthy node {_change(calm[2], worst[2])} times an hour and"
                    f" {_change(calm[3], worst[3])} of the time"
                )
        if halves:
            low, high = data["value"].min(), data["value"].max()
            lines.append(f"{title} ({axis}: {low:g} → {high:g}): {'; '.join(halves)}.")
    return lines


def _change(first: str, last: str) -> str:
    return first if first == last else f"{first} → {last}"


def method_lines(sweep: Sweep) -> list[str]:
    """How it was measured, and what the terms mean."""
    plan, counting, phi = sweep.plan, sweep.counting, sweep.phi
    return [
        "Everything here is simulated, in virtual time: the same detectors and the same protocol "
        "as on live nodes, on a model of the network. Absolute figures of a real network differ.",
        f"Each network: {plan['runs']} seeds, in each {plan['warm_up_s']:g} s to warm up, then "
        f"{plan['observe_s']:g} s without a crash, then {plan['crashes']} crashes, each node down "
        f"for {plan['detect_s']:g} s. All detectors see the same arrivals.",
        "A crash is detected when an observer begins the suspicion that lasts until the restart. "
        "Observers that already suspected the node (“before”) say nothing about speed, and are "
        "counted separately.",
        "An hour is an hour in which one node watches one other. A suspicion of a node that runs "
        "counts as false, even if its link is down: what is best there is a matter of taste, "
        "but flickering helps nobody. “< x”: none was seen, and with 95 % confidence the rate is "
        "below x.",
        f"Counting: silent for more than {counting['timeout_s']:g} s adds {counting['rise']:g} at "
        f"each check, else {counting['fall']:g} is taken away; suspected from "
        f"{counting['suspicion_threshold']:g} until 0.",
        f"Phi accrual (Hayashibara et al., SRDS 2004): threshold {phi['threshold']:g}, the last "
        f"{phi['window']} intervals, deviation at least {phi['min_deviation_s']:g} s, acceptable "
        f"pause {phi['acceptable_pause_s']:g} s; intervals long enough for a suspicion are not "
        "learned.",
        f"Flapping: each directed link is down for that share of every {sweep.flap_period_s:g} s, "
        "at a phase of its own. Measures: Chen, Toueg, Aguilera, “On the quality of service of "
        "failure detectors”, 2002.",
    ]
