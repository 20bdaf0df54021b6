"""The CAP map: how available each protocol was during faults, against its measured consistency.
Consistency, availability, partitions: the theorem, drawn from measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from bench.record.quantities import format_share
from reports.charts.drawing import RIGHT, Axis, Drawing, Style
from reports.charts.view import ChartView
from reports.data import kinds
from reports.data.compare import MODEL_WORDS, SIMULATED, STRENGTH, Cell, Matrix
from reports.data.summary import cut

NAMES, WIDTH = 236, 530
LETTER = 7.8
"""Pixels: a narrow drawing, so that its words can be read on a phone."""


def cap_map(grid: Matrix, styles: Mapping[str, Style]) -> ChartView | None:
    """One row per protocol and measured model, the strongest first; one mark per experiment with
    faults. None if no such experiment has a verdict."""
    rows = [row for name in grid.protocols for row in _rows(name, grid.row(name))]
    rows.sort(key=lambda row: (-STRENGTH.index(str(row["measured"])), row["protocol"]))
    if not rows:
        return None
    data = pd.DataFrame(rows)
    places = list(dict.fromkeys(zip(data["measured"], data["protocol"], strict=True)))
    names = [cut(f"{MODEL_WORDS.get(model, model)} · {name}", 31) for model, name in places]
    drawing = Drawing(Axis(0, 1, "share served under faults"), names, left=NAMES, width=WIDTH)
    for number, (model, name) in enumerate(places):
        own = data[(data["measured"] == model) & (data["protocol"] == name)]
        _row_of(drawing, number, own, styles[name])
    is_cut = data["kind"] == kinds.CUT
    if is_cut.any():
        drawing.key("coloured: links were cut", Style("blue"))
    if not is_cut.all():
        drawing.key("grey: other faults", Style("grey"))
    unknown = sum(cell.verdict == "unknown" for cell in grid.cells.values())
    return ChartView(
        name="cap-map",
        title="The CAP map",
        how="Right is available, up is consistent: each mark is one experiment, its row is the "
        "model that was measured there. An arrow leads from what was served before the faults to "
        "the cut in which least was served.",
        note="The share is that of the worse side of a cut, in the worst run; the model is the "
        "strongest that was not refuted."
        + (f" {unknown} unknown cells are not on the map." if unknown else ""),
        chart=drawing,
        data=data,
        shares=("before", "during", "stale_reads"),
    )


def _row_of(drawing: Drawing, number: int, own: pd.DataFrame, style: Style) -> None:
    cuts, others = own[own["kind"] == kinds.CUT], own[own["kind"] != kinds.CUT]
    drawing.dots(number, others["during"], Style("grey"), size=5)
    if not len(cuts):
        return
    least = cuts.sort_values("during").iloc[0]
    if not math.isnan(least["before"]):
        drawing.arrow(number, least["before"], least["during"])
    drawing.dots(number, cuts["during"], style)
    if least["during"] < 1:
        name, share = str(least["experiment"]), format_share(least["during"])
        plot = WIDTH - NAMES - RIGHT
        left = least["during"] * plot
        right = plot + RIGHT - left
        at_end = len(f"{name} {share}") * LETTER > right and left > right
        room = int(max(left, right) / LETTER) - len(share) - 1
        told = f"{cut(name, max(6, room))} {share}"
        drawing.note(number, least["during"], told, end=at_end, dy=-4)


def _rows(name: str, cells: Sequence[Cell]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for cell in cells:
        sides = (cell.least(f"availability.{side}") for side in ("during", "majority", "minority"))
        shares = [share for share in sides if share is not None]
        if not shares or cell.measured not in STRENGTH or cell.verdict == "unknown":
            continue
        before = cell.figure("availability.before")
        stale = cell.figure("stale_reads.fraction")
        rows.append(
            {
                "protocol": name,
                "experiment": cell.experiment.removesuffix(SIMULATED),
                "kind": kinds.kind(cell.runs[0]),
                "measured": cell.measured,
                "before": math.nan if before is None else before,
                "during": min(shares),
                "stale_reads": math.nan if stale is None else stale,
            }
        )
    return rows
