"""A sweep as Markdown tables, as in docs/PERFORMANCE.md; ratios where possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from bench.record.sweep_file import DIMENSIONS, Point, Sweep
from reports.formats.markdown import escape, table
from reports.sweeps.model import shape
from reports.sweeps.sweep import TITLES, number, of_dimension
from reports.sweeps.sweep import table as figures_of


def tables(sweep: Sweep) -> str:
    """The base point, one client against theory, growth along each dimension, and the model."""
    figures = figures_of(sweep)
    machine = sweep.hardware
    lines = [
        escape(
            f"{machine.get('cores')} cores, {machine.get('processor')}, kernel "
            f"{machine.get('kernel')}, Python {machine.get('python')}; {sweep.started}; "
            f"{sweep.seconds:g} s each"
        )
    ]
    missing = figures["missing"].notna().sum()
    if missing:
        lines += ["", f"{missing} of {len(figures)} points are missing."]
    parts: list[tuple[str, Callable[[pd.DataFrame], list[str]]]] = [
        ("Base point", base_table),
        ("One client, against theory", theory_table),
        ("Growth: throughput relative to the base point", growth_table),
        ("Growth: p50 relative to the base point", latency_table),
        ("Growth: CPU per operation relative to the base point", cpu_table),
        ("Model: its throughput relative to the measured one", model_table),
    ]
    for title, make in parts:
        lines += ["", f"### {title}", "", *make(figures)]
    return "\n".join(lines) + "\n"


def base_table(figures: pd.DataFrame) -> list[str]:
    """The base point of each protocol, per operation unless stated otherwise."""
    head = {
        "ok_per_s": "operations/s",
        "latency_ms_p50": "p50, ms",
        "latency_ms_p99": "p99, ms",
        "publishes": "PUBLISHes",
        "bytes": "bytes",
        "fsyncs": "fsyncs",
        "fsync_us": "an fsync, µs",
        "cpu_us": "CPU µs, all",
        "cpu_us_busiest_node": "busiest node",
        "cpu_us_broker": "broker",
        "cpu_us_load": "load",
        "other_cores": "cores busy with others",
    }
    rows = _known(of_dimension(figures, None))
    return table(
        ["protocol", *head.values()],
        ([escape(row["protocol"]), *(number(row[name]) for name in head)] for row in rows),
    )


def theory_table(figures: pd.DataFrame) -> list[str]:
    """One client: counts against theory without coalescing."""
    rows = _known(figures[(figures["clients"] == 1)])
    return table(
        ["protocol", "asks the leader", "messages", "theory", "PUBLISHes", "fsyncs", "theory"],
        (
            [
                escape(row["protocol"]),
                _asks_leader(row),
                number(row["messages"]),
                number(row["theory_messages"]),
                number(row["publishes"]),
                number(row["fsyncs"]),
                number(row["theory_fsyncs"]),
            ]
            for row in rows
        ),
    )


def _asks_leader(row: dict[Any, Any]) -> str:
    if shape(row["protocol"], row["nodes"], 1.0) == shape(row["protocol"], row["nodes"], 0.0):
        return "no leader"
    return "no" if row["forwarded"] else "yes"


def growth_table(figures: pd.DataFrame) -> list[str]:
    """Throughput along each dimension."""
    return _along(figures, lambda row, base: row["ok_per_s"] / base["ok_per_s"])


def latency_table(figures: pd.DataFrame) -> list[str]:
    """Median latency along each dimension."""
    return _along(figures, lambda row, base: row["latency_ms_p50"] / base["latency_ms_p50"])


def cpu_table(figures: pd.DataFrame) -> list[str]:
    """CPU time of all processes along each dimension."""
    return _along(figures, lambda row, base: row["cpu_us"] / base["cpu_us"])


def model_table(figures: pd.DataFrame) -> list[str]:
    """The model's throughput along each dimension; points that give its costs are in brackets."""
    return _along(figures, lambda row, _: row["model_per_s"] / row["ok_per_s"], mark=True)


def _along(
    figures: pd.DataFrame,
    figure: Callable[[pd.Series, pd.Series], float],
    *,
    mark: bool = False,
) -> list[str]:
    """One column per value of each dimension, one row per protocol."""
    base = Point(protocol="")
    columns = [
        (dimension, value)
        for dimension in DIMENSIONS
        for value in sorted(map(int, of_dimension(figures, dimension)[dimension].unique()))
        if value != getattr(base, dimension)
    ]
    rows = []
    for protocol in dict.fromkeys(figures["protocol"]):
        own = figures[figures["protocol"] == protocol]
        found = of_dimension(own, None)
        at_base = pd.Series(math.nan, own.columns) if found.empty else found.iloc[0]
        cells = []
        for dimension, value in columns:
            found = of_dimension(own, dimension)
            found = found[found[dimension] == value]
            cells.append(_cell(found, at_base, figure, mark=mark))
        rows.append([escape(protocol), *cells])
    return table(["protocol", *(_named(*column) for column in columns)], rows)


def _cell(
    found: pd.DataFrame,
    base: pd.Series,
    figure: Callable[[pd.Series, pd.Series], float],
    *,
    mark: bool,
) -> str:
    if found.empty or isinstance(found.iloc[0]["missing"], str):
        return "missing"
    value = float(figure(found.iloc[0], base))
    if math.isnan(value):
        return "–"
    return f"({value:.2f})" if mark and found.iloc[0]["calibrates"] else f"{value:.2f}"


def _named(dimension: str, value: int) -> str:
    if dimension == "proxied":
        return "Toxiproxy"
    if dimension == "coalesced":
        return "one message per PUBLISH"
    if dimension == "value_bytes":
        return f"{value:,} B"
    return f"{value:,} {TITLES[dimension][0].lower().removesuffix('s')}{'s' * (value > 1)}"


def _known(figures: pd.DataFrame) -> Iterable[dict[Any, Any]]:
    return figures[figures["missing"].isna()].to_dict("records")
