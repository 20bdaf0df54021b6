"""The sweep over live protocols: its table, charts and page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from bench.record.sweep_file import DIMENSIONS, Point, Sweep, SweepRow
from reports.charts.drawing import Axis, Drawing, Style
from reports.formats.figure_page import Figure, write_figures
from reports.sweeps.sweep_model import PREDICTED, predictions

TITLES = {
    "nodes": ("Nodes", "nodes"),
    "value_bytes": ("Size of a value", "bytes of each written value, logarithmic"),
    "clients": ("Clients", "most operations in flight, logarithmic"),
    "proxied": ("Toxiproxy", "0: direct, 1: a Toxiproxy on every link"),
    "coalesced": ("Coalescing", "0: one message per PUBLISH, 1: as it is"),
}
PANELS = {
    "ok_per_s": "operations/s",
    "latency_ms_p50": "p50, ms (the model: mean)",
    "latency_ms_p99": "p99, ms",
    "cpu_us": "CPU of all processes, µs per operation",
}
MODELLED = {"ok_per_s": "model_per_s", "latency_ms_p50": "model_ms_mean"}
"""Column -> the column with the model's prediction."""
LOOKS = (Style("blue"), Style("green", 1), Style("orange", 2), Style("purple", 3), Style("ink", 1))
PARTS = {
    "busiest_node": ("the busiest node", "blue"),
    "other_nodes": ("the other nodes", "green"),
    "broker": ("broker", "orange"),
    "toxiproxy": ("Toxiproxy", "purple"),
    "load": ("load", "grey"),
}
"""The parts of the CPU time: columns ``cpu_us_<name>``."""


def table(sweep: Sweep) -> pd.DataFrame:
    """One row per point, in the order of measurement.

    Columns: those of `bench.record.sweep_file.Point` and `SweepRow` (NaN if there is no figure;
    ``missing`` says why), without the figures of single processes: ``cpu_us`` is the sum, and
    ``cpu_us_busiest_node``, ``cpu_us_other_nodes``, ``cpu_us_broker``, ``cpu_us_toxiproxy`` and
    ``cpu_us_load`` are its parts; ``rss_bytes_node`` is that of the largest node.
    ``theory_messages``, ``theory_fsyncs``: of an operation without coalescing, see
    `reports.sweeps.model.shape`. ``model_per_s``, ``model_ms_mean``, ``model_publishes``: predicted
    by `reports.sweeps.model` (NaN without a prediction); ``calibrates``: whether this point is one
    of those that give the model's costs.
    """
    columns = [*Point.__struct_fields__, *SweepRow.__struct_fields__[1:-2]]
    columns += ["cpu_us", *(f"cpu_us_{part}" for part in PARTS), "rss_bytes_node"]
    figures = pd.DataFrame([_flat(row) for row in sweep.rows], columns=columns)
    # A column without any figure would have type object.
    figures = figures.astype({name: float for name in columns if name in FIGURES})
    return figures.join(pd.DataFrame(predictions(sweep), columns=PREDICTED, index=figures.index))


FIGURES = {
    *("ok_per_s", "latency_ms_p50", "latency_ms_p99", "messages", "publishes", "bytes", "fsyncs"),
    *("log_bytes", "fsync_us", "forwarded", "other_cores", "cpu_us", "rss_bytes_node"),
    *(f"cpu_us_{part}" for part in PARTS),
}
"""Columns of `table` that are NaN if there is no figure."""


def _flat(row: SweepRow) -> dict[str, Any]:
    flat: dict[str, Any] = {name: getattr(row.point, name) for name in Point.__struct_fields__}
    for name in SweepRow.__struct_fields__[1:-2]:
        flat[name] = getattr(row, name)
    if row.missing is None:
        nodes = [row.cpu_us[name] for name in row.cpu_us if name not in PARTS]
        flat |= {
            "cpu_us": sum(row.cpu_us.values()),
            "cpu_us_busiest_node": max(nodes),
            "cpu_us_other_nodes": sum(nodes) - max(nodes),
            **{f"cpu_us_{name}": row.cpu_us.get(name, 0.0) for name in list(PARTS)[2:]},
            "rss_bytes_node": max(b for name, b in row.rss_bytes.items() if name not in PARTS),
        }
    return flat


def processes(sweep: Sweep) -> pd.DataFrame:
    """One row per point and process: ``process``, ``cpu_us`` per operation, ``rss_bytes`` (NaN for
    the load generator)."""
    rows = [
        {
            **{name: getattr(row.point, name) for name in Point.__struct_fields__},
            "process": process,
            "cpu_us": cpu_us,
            "rss_bytes": row.rss_bytes.get(process),
        }
        for row in sweep.rows
        for process, cpu_us in row.cpu_us.items()
    ]
    return pd.DataFrame(rows, columns=[*Point.__struct_fields__, "process", "cpu_us", "rss_bytes"])


def of_dimension(figures: pd.DataFrame, dimension: str | None) -> pd.DataFrame:
    """The base points, and the rows that differ from them only in ``dimension`` (None: in
    nothing)."""
    base = Point(protocol="")
    others = [name for name in DIMENSIONS if name != dimension]
    keep = pd.Series(True, index=figures.index)
    for name in others:
        keep &= figures[name] == getattr(base, name)
    return figures[keep].sort_values(dimension, kind="stable") if dimension else figures[keep]


# --- files ---


def write_files(folder: Path, sweep: Sweep) -> Path:
    """Write ``points.csv``, ``processes.csv`` and ``report.html`` beside ``sweep.json``. Returns
    the page."""
    figures = table(sweep)
    figures.to_csv(folder / "points.csv", index=False)
    processes(sweep).to_csv(folder / "processes.csv", index=False)
    base = Point(protocol="")
    machine = sweep.hardware
    return write_figures(
        folder / "report.html",
        title="What an operation costs",
        tag="live",
        setting=(
            f"base point: {base.nodes} nodes, {base.value_bytes} bytes, {base.clients} clients, "
            f"direct links · {machine.get('cores')} cores, {machine.get('processor')}, load "
            f"{machine.get('load')} at the start · {sweep.started}"
        ),
        question="How do throughput, latency and cost grow?",
        lines=plain_lines(figures),
        figures=_figures(figures),
        method=method_lines(sweep),
    )


def _figures(figures: pd.DataFrame) -> list[Figure]:
    drawn = [dimension_figure(figures, name) for name in DIMENSIONS if _varies(figures, name)]
    if of_dimension(figures, None)["missing"].isna().any():
        drawn.insert(0, cpu_figure(figures))
    if _varies(figures[figures["missing"].isna()], "clients"):
        drawn.insert(0, load_figure(figures))
    return drawn


def _varies(figures: pd.DataFrame, dimension: str) -> bool:
    return of_dimension(figures, dimension)[dimension].nunique() > 1


# --- charts ---


def cpu_figure(figures: pd.DataFrame) -> Figure:
    """The CPU time of an operation at the base point, by process."""
    base = of_dimension(figures, None)
    base = base[base["missing"].isna()]
    names = list(base["protocol"])
    drawing = Drawing(Axis(0, base["cpu_us"].max() * 1.12, "CPU µs per operation"), names)
    for row, values in enumerate(base.to_dict("records")):
        begin = 0.0
        for part, (_, colour) in PARTS.items():
            end = begin + values[f"cpu_us_{part}"]
            if end > begin:
                drawing.bar(row, begin, end, colour)
            begin = end
        drawing.note(row, begin, f"{begin:.0f}")
    for part, (text, colour) in PARTS.items():
        if base[f"cpu_us_{part}"].any():
            drawing.key(text, Style(colour, shape="square"))
    title = "Whose CPU time, at the base point"
    how = (
        "A bar is the CPU time of one operation, over all processes. The machine's cores divided "
        "by it give the highest possible rate."
    )
    return Figure(title, how, [Markup(drawing.inline(title))], *_numbers(base, ["nodes"]))


def load_figure(figures: pd.DataFrame) -> Figure:
    """Latency against throughput, one line for each protocol."""
    data = of_dimension(figures, "clients")
    data = data[data["missing"].isna()].sort_values(["protocol", "clients"], kind="stable")
    p99 = data["latency_ms_p99"]
    drawing = Drawing(
        Axis(0, data["ok_per_s"].max(), "operations/s"),
        Axis(p99.min(), p99.max(), "p99 in ms, logarithmic", "log"),
        height=220,
    )
    for protocol, look in zip(dict.fromkeys(data["protocol"]), LOOKS, strict=False):
        own = data[data["protocol"] == protocol]
        drawing.line(own["ok_per_s"], own["latency_ms_p99"], look, protocol)
        drawing.marks(own["ok_per_s"], own["latency_ms_p99"], look)
    title = "Latency against throughput"
    how = (
        "A mark is a number of clients, the next one along the line is more of them: where a line "
        "turns upwards, more clients only wait longer. Further right and lower is better."
    )
    columns = ["protocol", TITLES["clients"][0], "operations/s", "p50, ms", "p99, ms"]
    rows = [
        [row["protocol"], f"{int(row['clients']):,}"]
        + [number(row[name]) for name in ("ok_per_s", "latency_ms_p50", "latency_ms_p99")]
        for row in data.to_dict("records")
    ]
    return Figure(title, how, [Markup(drawing.inline(title))], columns, rows)


def dimension_figure(figures: pd.DataFrame, dimension: str) -> Figure:
    """Throughput, latency and CPU time along one dimension."""
    data = of_dimension(figures, dimension)
    title, axis = TITLES[dimension]
    values = data[dimension].astype(float)
    kind: Any = "log" if dimension in ("value_bytes", "clients") else "linear"
    x = Axis(values.min(), values.max(), axis, kind, marked=sorted(set(values)))
    panels = []
    for field, text in PANELS.items():
        known = data[data["missing"].isna()]
        if known.empty:
            continue
        is_latency = field.startswith("latency")
        drawn = [field, MODELLED[field]] if field in MODELLED else [field]
        low, high = known[drawn].min().min(), known[drawn].max().max()
        y = Axis(low, high, f"{text}, logarithmic", "log") if is_latency else Axis(0, high, text)
        drawing = Drawing(x, y, height=130)
        for protocol, look in zip(dict.fromkeys(data["protocol"]), LOOKS, strict=False):
            own = known[known["protocol"] == protocol]
            drawing.line(own[dimension].astype(float), own[field], look, protocol)
            drawing.marks(own[dimension].astype(float), own[field], look)
            if field in MODELLED:
                said = own[own[MODELLED[field]].notna()]
                cross = Style(look.colour, shape="cross")
                drawing.marks(said[dimension].astype(float), said[MODELLED[field]], cross)
        if field in MODELLED and known[MODELLED[field]].notna().any():
            drawing.key("the model", Style("muted", shape="cross"))
        panels.append(Markup(drawing.inline(f"{title}: {text}")))
    how = (
        "From the top: throughput (higher is better), median and 99th percentile of latency, and "
        "the CPU time of one operation over all processes (lower is better). "
        "Crosses: the model, calibrated at three points of each protocol."
    )
    return Figure(title, how, panels, *_numbers(data, [dimension]))


HEAD = {
    "ok_per_s": "operations/s",
    "latency_ms_p50": "p50, ms",
    "latency_ms_p99": "p99, ms",
    "messages": "messages",
    "publishes": "PUBLISHes",
    "bytes": "bytes",
    "fsyncs": "fsyncs",
    "fsync_us": "an fsync, µs",
    "cpu_us": "CPU µs",
    "cpu_us_busiest_node": "busiest node",
    "cpu_us_broker": "broker",
    "cpu_us_load": "load",
    "other_cores": "busy with others, cores",
    "model_per_s": "model: operations/s",
    "model_ms_mean": "model: mean, ms",
}
"""Column -> its heading on the page. From ``messages`` to ``load``: per operation."""


def _numbers(data: pd.DataFrame, first: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    columns = [*(TITLES[name][1].split(",")[0] for name in first), "protocol", *HEAD.values()]
    columns += ["not answered or failed"]
    rows = []
    for row in data.to_dict("records"):
        cells = [f"{int(row[name]):,}" for name in first] + [row["protocol"]]
        if isinstance(row["missing"], str):
            cells += ["missing"] + [""] * (len(HEAD) - 1) + [row["missing"]]
        else:
            cells += [number(row[name]) for name in HEAD]
            cells += [f"{row['failed'] + row['unanswered']:,}"]
        rows.append(cells)
    return columns, rows


def number(value: float) -> str:
    """A number for people."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# --- as text ---


def plain_lines(figures: pd.DataFrame) -> list[str]:
    """One line per dimension: throughput at its ends; and what is missing."""
    lines = []
    for dimension in DIMENSIONS:
        data = of_dimension(figures, dimension)
        if not _varies(figures, dimension):
            continue
        title, axis = TITLES[dimension]
        low, high = int(data[dimension].min()), int(data[dimension].max())
        halves = []
        for protocol in dict.fromkeys(data["protocol"]):
            own = data[data["protocol"] == protocol]
            rates = dict(zip(own[dimension].astype(int), own["ok_per_s"], strict=True))
            first, last = (float(rates.get(end, math.nan)) for end in (low, high))
            if not math.isnan(first + last):
                halves.append(f"{protocol} {first:,.0f} → {last:,.0f} ({last / first:.2f} times)")
        unit = axis if dimension in ("proxied", "coalesced") else axis.split(",")[0]
        lines.append(
            f"{title} ({unit}; {low:,} → {high:,}): operations/s {'; '.join(halves) or 'missing'}."
        )
    missing = figures["missing"].notna().sum()
    if missing:
        lines.append(f"{missing} of {len(figures)} points are missing: the tables say why.")
    return lines


def first_screen(sweep: Sweep) -> str:
    """The table for a terminal, one line per point."""
    heads = ("nodes", "bytes", "clients", "op/s", "p50 ms", "p99 ms", "PUBLISHes", "fsyncs", "CPU")
    lines = [f" {'':<10}" + "".join(f"{head:>10}" for head in heads)]
    for row in table(sweep).to_dict("records"):
        where = f"{row['nodes']:>10}{row['value_bytes']:>10,}{row['clients']:>10,}"
        name = row["protocol"] + " *" * row["proxied"] + " 1" * (not row["coalesced"])
        if isinstance(row["missing"], str):
            lines.append(f" {name:<10}{where}   missing: {row['missing']}")
            continue
        shown = ("ok_per_s", "latency_ms_p50", "latency_ms_p99", "publishes", "fsyncs", "cpu_us")
        cells = "".join(f"{number(row[column]):>10}" for column in shown)
        lost = row["failed"] + row["unanswered"]
        lines.append(f" {name:<10}{where}{cells}{f'  {lost:,} failed' if lost else ''}")
    lines.append(
        " PUBLISHes, fsyncs and CPU µs are per operation; *: a Toxiproxy on every link; "
        "1: one message per PUBLISH"
    )
    return "\n".join(lines)


def method_lines(sweep: Sweep) -> list[str]:
    """How it was measured, and what the terms mean."""
    lines = [
        f"Each point is a new cluster on this one machine, loaded for {sweep.seconds:g} s after "
        f"{sweep.warm_up_s:g} s of warm-up, fsync on, no faults; 1,000 keys are written in turn, "
        "at all nodes in turn. Absolute figures hold only for this machine.",
        "The load is a closed loop: each client waits for its reply and thinks for 1 ms (a single "
        "client does not think). It slows down with the cluster: the latencies are not those of "
        "users who arrive when they like.",
        "Messages: those between nodes as the protocol sends them, one of which may carry many "
        "operations, and a request and a reply for each operation. PUBLISHes: the MQTT "
        "packets in which they reached the broker. Bytes: their payload. Fsyncs: of all nodes "
        "together. A failed or unanswered operation is in no rate and no latency.",
        "The model (reports/sweeps/model.py): the costs of a PUBLISH, an operation and a byte come "
        "from three points (one client, the base point, 16 KiB), the time of an fsync from each "
        "point; all other predictions follow from the number of messages in theory. There are none "
        "for proxied points.",
        "Busy with others: cores used by anything else on the machine. The model has only the "
        "rest.",
        "The busiest node: the leader, if there is one. The load generator shares the machine and "
        "its cores with the cluster.",
    ]
    if sweep.calibration is not None:
        rates = "; ".join(
            f"{rate:,.0f} messages/s of {size:,} bytes"
            for size, rate in sweep.calibration.broker_messages_per_s.items()
        )
        lines.append(
            f"In the same run, the broker alone: {rates}; an append with its fdatasync: "
            f"{sweep.calibration.fsync_us:,.0f} µs (median)."
        )
    return lines
