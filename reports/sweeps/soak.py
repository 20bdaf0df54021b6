"""A soak evaluated: are memory and disk of each process bounded?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from bench.record.soak_file import Soak
from reports.charts.drawing import Axis, Drawing, Style
from reports.formats.figure_page import Figure, write_figures

TOLERANCE = 0.1
"""A process that holds more in the last third than in the middle one, by more than this share, is
not bounded. For a process of 60 MB and five million operations, that is 3.6 bytes per operation."""
LEAST_SAMPLES = 12
"""With fewer samples, growth cannot be evaluated."""
LOOKS = (
    Style("blue"),
    Style("green", 1),
    Style("orange", 2),
    Style("purple", 3),
    Style("ink"),
    Style("grey", 1),
    Style("blue", 2),
    Style("green", 3),
    Style("orange"),
)
MB = 1e6


def table(soak: Soak) -> pd.DataFrame:
    """One row for each stretch and process: ``t_s``, ``operations`` (ended ok so far),
    ``ok_per_s``, ``process``, ``what`` (``memory`` or ``disk``) and ``bytes``, the peak in the
    stretch."""
    rows = []
    for sample in soak.samples:
        for what, found in (("memory", sample.rss_bytes), ("disk", sample.disk_bytes)):
            rows += [
                {
                    "t_s": sample.t_s,
                    "operations": sample.operations,
                    "ok_per_s": sample.ok_per_s,
                    "process": process,
                    "what": what,
                    "bytes": size,
                }
                for process, size in found.items()
            ]
    columns = ["t_s", "operations", "ok_per_s", "process", "what", "bytes"]
    return pd.DataFrame(rows, columns=columns)


def growth(soak: Soak) -> pd.DataFrame:
    """One row for each process and ``what``.

    By operations, not by time: ``middle_bytes`` and ``last_bytes`` are the medians of the middle
    and the last third, ``most_bytes`` the peak; ``bytes_per_operation`` is the slope after the
    first third (least squares). ``bounded``: whether the last third is at most `TOLERANCE` above
    the middle one; None with fewer than `LEAST_SAMPLES` stretches, or if the soak stopped early.
    """
    rows = []
    figures = table(soak)
    for (what, process), data in figures.groupby(["what", "process"], sort=False):
        done = data["operations"] / soak.operations
        middle = data.loc[(done > 1 / 3) & (done <= 2 / 3), "bytes"]
        last = data.loc[done > 2 / 3, "bytes"]
        bounded = None
        if soak.stopped is None and len(data) >= LEAST_SAMPLES:
            bounded = bool(last.median() <= (1 + TOLERANCE) * middle.median())
        after = data[done > 1 / 3]
        slope = np.polyfit(after["operations"], after["bytes"], 1)[0] if len(after) > 1 else np.nan
        rows.append(
            {
                "what": what,
                "process": process,
                "middle_bytes": middle.median(),
                "last_bytes": last.median(),
                "most_bytes": data["bytes"].max(),
                "bytes_per_operation": float(slope),
                "bounded": bounded,
            }
        )
    columns = ["what", "process", "middle_bytes", "last_bytes", "most_bytes"]
    return pd.DataFrame(rows, columns=[*columns, "bytes_per_operation", "bounded"], dtype=object)


def verdict(soak: Soak) -> bool | None:
    """Whether everything is bounded; None: unknown."""
    bounded = list(growth(soak)["bounded"])
    if any(one is False for one in bounded):
        return False
    return None if not bounded or None in bounded else True


WORDS = {True: "bounded", False: "still growing", None: "unknown"}


def first_screen(soak: Soak) -> str:
    """The table for a terminal."""
    seconds = soak.samples[-1].t_s if soak.samples else 0.0
    rate = soak.operations / seconds if seconds else 0.0
    lines = [
        f" {soak.protocol}, {soak.nodes} nodes: {soak.operations:,} operations in {seconds:,.0f} s "
        f"({rate:,.0f}/s), {soak.failed:,} failed, {soak.unanswered:,} were not answered"
        + (f" (the first said: {soak.error})" if soak.error else ""),
        f" {'':<8}{'':<11}{'middle third':>13}{'last third':>12}{'highest':>10}{'per million':>13}",
    ]
    lines += [
        f" {row['what']:<8}{row['process']:<11}{_columns(row)}"
        for row in growth(soak).to_dict("records")
    ]
    if soak.stopped is not None:
        lines.append(f" stopped after {soak.operations:,} of {soak.wanted:,}: {soak.stopped}")
    lines.append(f" memory and disk: {WORDS[verdict(soak)]}")
    return "\n".join(lines)


def _columns(row: dict[Any, Any]) -> str:
    middle, last, most, slope, word = _cells(row)
    return f"{middle:>13}{last:>12}{most:>10}{slope:>13}  {word}"


def _cells(row: dict[Any, Any]) -> list[str]:
    sizes = [f"{row[name] / MB:.1f} MB" for name in ("middle_bytes", "last_bytes", "most_bytes")]
    slope = f"{row['bytes_per_operation']:+.2f} MB"  # Bytes per operation are MB per million.
    return [*sizes, slope, WORDS[row["bounded"]]]


def write_files(folder: Path, soak: Soak) -> Path:
    """Write ``samples.csv`` and ``report.html`` beside ``soak.json``. Returns the page."""
    figures = table(soak)
    figures.to_csv(folder / "samples.csv", index=False)
    machine = soak.hardware
    return write_figures(
        folder / "report.html",
        title=f"Soak of {soak.protocol}",
        tag="live",
        setting=(
            f"{soak.nodes} nodes, {soak.clients} clients, values of {soak.value_bytes} bytes, "
            f"{soak.keys:,} keys · {machine.get('cores')} cores, {machine.get('processor')} · "
            f"{soak.started}"
        ),
        question="Are memory and disk of each process bounded?",
        lines=first_screen(soak).splitlines()[:1] + first_screen(soak).splitlines()[-1:],
        figures=_figures(soak, figures),
        method=[
            "One cluster, fsync on, no faults, a closed loop at the highest rate, in stretches of "
            "a few seconds; a figure is the peak of a stretch, sampled four times a second.",
            "Bounded: the median of the last third of the operations is at most "
            f"{TOLERANCE:.0%} above that of the middle third. The log of a node grows until it is "
            "four times its content and at least 16 MB, and is then rewritten: a sawtooth.",
        ],
    )


def _figures(soak: Soak, figures: pd.DataFrame) -> list[Figure]:
    if figures.empty:
        return []
    grown = growth(soak)
    x = Axis(0, soak.operations / MB, "million operations")
    drawn = []
    for what, title in (("memory", "Memory"), ("disk", "Disk")):
        data = figures[figures["what"] == what]
        y = Axis(0, data["bytes"].max() / MB, "MB, peak of each stretch")
        drawing = Drawing(x, y, height=200)
        for process, look in zip(dict.fromkeys(data["process"]), LOOKS, strict=False):
            own = data[data["process"] == process]
            drawing.line(own["operations"] / MB, own["bytes"] / MB, look, process)
        rows = [
            [row["process"], *_cells(row)]
            for row in grown[grown["what"] == what].to_dict("records")
        ]
        head = ["process", "middle third", "last third", "highest", "per million operations", ""]
        how = "A level line, or a sawtooth whose peaks stay level, is bounded."
        drawn.append(Figure(title, how, [Markup(drawing.inline(title))], head, rows))
    rate = figures.drop_duplicates("operations")
    drawing = Drawing(x, Axis(0, rate["ok_per_s"].max(), "operations/s"))
    drawing.line(rate["operations"] / MB, rate["ok_per_s"], Style("blue"))
    how = "How fast each stretch went: it should not become slower."
    drawn.append(Figure("Rate", how, [Markup(drawing.inline("Rate"))], [], []))
    return drawn
