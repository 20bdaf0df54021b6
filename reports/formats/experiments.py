"""The experiments on the page: each with a table and charts of all protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.charts import side_by_side
from reports.charts.drawing import Style
from reports.data import compare, cost, kinds, repeats
from reports.data.folders import SENSELESS
from reports.data.metrics import RunTables
from reports.formats.drawn import Figure, figure


@dataclass(frozen=True)
class Row:
    """A protocol in the table of an experiment. Figures are text; ``between``: the intervals of
    those that have one."""

    cell: compare.Cell
    rate: str
    p99: str
    back_in: str
    costs: list[str]
    between: dict[str, str]


@dataclass(frozen=True)
class Experiment:
    """``costs``: what was counted. ``differences``: between protocols over their
    repeats, in sentences. ``trouble``: why charts are missing."""

    anchor: str
    name: str
    kind: str
    shows: str
    validated: dict[str, Any]
    rows: list[Row]
    has_fault: bool
    has_sides: bool
    costs: list[cost.Column]
    differences: list[str]
    figures: list[Figure]
    trouble: str


def experiments(
    grid: compare.Matrix,
    tables: Mapping[int, RunTables],
    styles: Mapping[str, Style],
    *,
    most_bytes: int,
) -> list[Experiment]:
    """The experiments in the order of the heat map. ``tables``: by the id of their summaries.
    ``most_bytes``: of all charts; further charts are left out, which the page says."""
    size = 0
    found = []
    kind = {name: kinds.kind(grid.column(name)[0].runs[0]) for name in grid.experiments}
    order = sorted(grid.experiments, key=lambda name: (kinds.ORDER.index(kind[name]), name))
    for number, name in enumerate(order, 1):
        cells = sorted(grid.column(name), key=lambda cell: grid.protocols.index(cell.protocol))
        runs = side_by_side.group_of(grid, name, tables)
        figures: list[Figure] = []
        trouble = "left out to keep the page small"
        if size <= most_bytes:
            figures, trouble = _figures(runs, styles)
            size += sum(each.size for each in figures)
        first = next(iter(runs.values()))[0]
        counted = cost.counted(cells)
        found.append(
            Experiment(
                anchor=f"experiment-{number}",
                name=name,
                kind=kind[name],
                shows=str(first.manifest.experiment.get("shows", "")).strip(),
                validated=first.manifest.experiment,
                rows=[_row(cell, counted) for cell in cells],
                has_fault=any(cell.has_fault for cell in cells),
                has_sides=any(cell.has_sides for cell in cells),
                costs=counted,
                differences=repeats.differences(cells),
                figures=figures,
                trouble=trouble,
            )
        )
    return found


def _figures(
    runs: Mapping[str, Sequence[RunTables]], styles: Mapping[str, Style]
) -> tuple[list[Figure], str]:
    try:
        views = side_by_side.charts(runs, styles)
        return [figure(view, numbers=True) for view in views], ""
    except SENSELESS as error:
        return [], f"{type(error).__name__}: {error}"


def _row(cell: compare.Cell, counted: Sequence[cost.Column]) -> Row:
    phases = ("before", "during", "after") if cell.has_fault else ("before",)
    rates = [compare.per_second(cell.figure(f"throughput.{phase}")) for phase in phases]
    return Row(
        cell=cell,
        rate=" → ".join(rates),
        p99=cell.latency("p99"),
        back_in=cell.back_in,
        costs=cost.row(cell, counted),
        between=intervals_of(cell),
    )


def intervals_of(cell: compare.Cell) -> dict[str, str]:
    """The intervals of figures that have one: figure -> ``38 to 45``."""
    if len(cell.runs) < 2:
        return {}
    one: Any = repeats.of(cell)
    phase = "during" if cell.has_fault else "before"
    found = {
        "rate": one.throughput.get(phase),
        "available": one.availability.get(phase),
        "majority": one.availability.get("majority"),
        "minority": one.availability.get("minority"),
        # The interval of some runs is none of a median over all.
        "p99": None if one.over_time_out else one.latency_ms_p99,
        "back_in": None if one.never_back else one.recovery_s,
    }
    told = {name: repeats.between(name, each) for name, each in found.items()}
    told |= {name: repeats.between_costs(each) for name, each in one.cost.items()}
    return {name: text for name, text in told.items() if text}
