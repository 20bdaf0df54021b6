"""The heat map of a comparison: all cells on one screen, grouped, sortable without a script.

Rows are grouped by claim, columns by kind of fault. Other orders are CSS: the page has the position
of each row and column in each order, and radio buttons that switch between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.record.quantities import format_share
from reports.data import kinds
from reports.data.compare import (
    AND_SIMULATED,
    MODEL_WORDS,
    SIMULATED,
    STRENGTH,
    WORDS,
    Cell,
    Matrix,
)
from reports.data.summary import RunSummary

T = TypeVar("T")
ROOMY = 5
"""Up to so many experiments, cells have text."""
FEW = 3
"""Up to so many, they are side by side on a phone."""
UPRIGHT = 12
"""With more experiments than this, their names are vertical."""
LETTERS = {
    "linearizable": "L",
    "sequential": "S",
    "causal": "C",
    "eventual": "E",
    "none": "–",
    "unknown": "?",
}
"""The measured model, in a small cell."""
ROW_ORDERS = ("claim", "name", "availability", "cost")
COLUMN_ORDERS = ("kind of fault", "name", "worst first")


@dataclass(frozen=True)
class Spot:
    """A cell of the map. ``fills``: the least share served during faults over the runs: of all, or
    of the majority and the minority side of a partition. ``run``: the worst run, which a click
    opens. ``number``: the least of the shares, if it is below 1."""

    cell: Cell
    run: RunSummary
    fills: list[tuple[str, float | None]]
    letter: str
    number: str
    words: str


@dataclass(frozen=True)
class Line:
    """A row or column: its name, its position in each other order, whether it begins a group."""

    name: str
    group: str
    begins: bool
    places: list[int]


@dataclass(frozen=True)
class HeatMap:
    """``simulated``: whether all runs are, which the page then says only once."""

    rows: list[Line]
    columns: list[Line]
    groups: list[tuple[str, int]]
    spots: dict[tuple[str, str], Spot]
    simulated: bool

    @property
    def roomy(self) -> bool:
        """Whether cells have text."""
        return len(self.columns) <= ROOMY

    @property
    def has_gaps(self) -> bool:
        """Whether a protocol did not run in an experiment."""
        return len(self.spots) < len(self.rows) * len(self.columns)

    @property
    def has_missed(self) -> bool:
        """Whether a cell missed an objective."""
        return any(spot.cell.missed() for spot in self.spots.values())

    @property
    def few(self) -> bool:
        """Whether all columns fit on a phone, or leave room for the CAP map beside them."""
        return len(self.columns) <= FEW

    @property
    def upright(self) -> bool:
        """Whether column names are vertical."""
        return len(self.columns) > UPRIGHT

    def said_once(self, text: str) -> str:
        """``text`` without *(simulated)* if all runs are: the page says so at its head."""
        if not self.simulated:
            return text
        return text.replace(SIMULATED, "").replace(f"{AND_SIMULATED})", ")")


def heat_map(grid: Matrix) -> HeatMap:
    """The map of a comparison."""
    spots = {key: _spot(cell) for key, cell in grid.cells.items()}
    claims = {name: grid.row(name)[0].claim for name in grid.protocols}
    kind = {name: kinds.kind(grid.column(name)[0].runs[0]) for name in grid.experiments}
    rows = sorted(grid.protocols, key=lambda name: (-_strength(claims[name]), name))
    columns = sorted(grid.experiments, key=lambda name: (kinds.ORDER.index(kind[name]), name))
    by_row: list[Callable[[str], tuple[float, str]]] = [
        lambda name: (0, name),
        lambda name: (_least(spots, 0, name), name),
        lambda name: (_cheap(grid.row(name)), name),
    ]
    by_column: list[Callable[[str], tuple[float, str]]] = [
        lambda name: (0, name),
        lambda name: (_trouble(grid.column(name)) + _least(spots, 1, name), name),
    ]
    return HeatMap(
        rows=_lines(rows, claims, by_row),
        columns=_lines(columns, kind, by_column),
        groups=[
            (group, sum(kind[name] == group for name in columns))
            for group in kinds.ORDER
            if group in kind.values()
        ],
        spots=spots,
        simulated=all(cell.simulated for cell in grid.cells.values()),
    )


def _lines(
    names: Sequence[str],
    group: dict[str, str],
    orders: Sequence[Callable[[str], tuple[float, str]]],
) -> list[Line]:
    places = [{name: n for n, name in enumerate(sorted(names, key=order))} for order in orders]
    return [
        Line(
            name=name,
            group=group[name],
            begins=number == 0 or group[names[number - 1]] != group[name],
            places=[place[name] for place in places],
        )
        for number, name in enumerate(names)
    ]


def _spot(cell: Cell) -> Spot:
    if cell.has_sides:
        fills = [(side, cell.least(f"availability.{side}")) for side in ("majority", "minority")]
    else:
        phase = "during" if cell.has_fault else "before"
        fills = [("available", cell.least(f"availability.{phase}"))]
    known = [share for _, share in fills if share is not None]
    least = min(known, default=None)
    run = min(cell.runs, key=lambda run: (_BAD[run.verdict], _served(run)))
    measured = MODEL_WORDS.get(cell.measured, cell.measured)
    shares = ", ".join(
        f"{name} {'unknown' if share is None else format_share(share)}" for name, share in fills
    )
    words = [f"{cell.protocol}, {cell.experiment}: {cell.word}", f"measured {measured}", shares]
    words += [f"objective {text}" for text in cell.missed()]
    if cell.verdict != "valid":
        words.append(run.reason)
    return Spot(
        cell=cell,
        run=run,
        fills=fills,
        letter=LETTERS.get(cell.measured, "?"),
        number="" if least is None or least == 1 else format_share(least),
        words="; ".join(words),
    )


_BAD = {"invalid": 0, "unknown": 1, "valid": 2}


def _served(run: RunSummary) -> float:
    shares = (run.availability.minority, run.availability.during, run.availability.before)
    return next((share for share in shares if share is not None), 0.0)


def _strength(model: str) -> int:
    return STRENGTH.index(model) if model in STRENGTH else -1


def _least(spots: dict[tuple[str, str], Spot], part: int, name: str) -> float:
    shares = [
        share
        for key, spot in spots.items()
        if key[part] == name
        for _, share in spot.fills
        if share is not None
    ]
    return min(shares, default=0.0)


def _cheap(cells: Sequence[Cell]) -> float:
    """Messages per operation without faults, only for the order."""
    calm = [cell for cell in cells if kinds.kind(cell.runs[0]) == kinds.NONE] or cells
    values = [value for cell in calm if (value := cell.figure("cost.messages")) is not None]
    return min(values, default=math.inf)


def _trouble(cells: Sequence[Cell]) -> float:
    """A sort key: lower if more is refuted or unknown."""
    return -2.0 * sum(2 - _BAD[cell.verdict] for cell in cells) / len(WORDS)
