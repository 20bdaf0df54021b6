"""The cycle of an anomaly: transactions as boxes, and why each comes before the next as arrows."""

from __future__ import annotations

import html
import math
from typing import Final

from bench.record.printable import printable
from bench.record.transactions.verdict import Anomaly, Edge, EdgeKind, Vertex
from bench.record.witness import shown
from reports.charts.drawing import WIDTH, Axis, Drawing

COLOURS_OF_EDGES: Final[dict[EdgeKind, str]] = {
    "ww": "blue",
    "wr": "green",
    "rw": "orange",
    "process": "grey",
    "realtime": "grey",
}
_BOX: Final = 30
"""Height of a transaction."""
_LINE: Final = 17
_WIDE: Final = 190
"""From the middle to the outermost transactions."""
_MOST_OPERATIONS: Final = 6
"""Of a transaction in the legend."""


class Graph(Drawing):
    """A drawing that has no axes."""

    def __init__(self, anomaly: Anomaly) -> None:
        super().__init__(Axis(0, 1, ""), [])
        self._anomaly = anomaly
        size = len(anomaly.transactions)
        self._tall = 0 if size == 2 else 24 + 20 * size
        self._middle = self._tall + 80
        self._lines = [_told(vertex) for vertex in anomaly.transactions]

    def _height(self) -> int:
        return 2 * self._middle + _LINE * len(self._lines) + 8

    def _svg(self, head: str, first: str = "") -> str:
        places = self._places_of_boxes()
        parts = [
            _arrow(edge, places[edge.source], places[edge.target]) for edge in self._anomaly.edges
        ]
        for vertex, (x, y) in zip(self._anomaly.transactions, places, strict=True):
            parts.append(_box(vertex, x, y))
        for number, line in enumerate(self._lines):
            y = round(2 * self._middle + _LINE * (number + 0.5))
            parts.append(f'<text class="ink" x="12" y="{y}">{html.escape(line)}</text>')
        return f'<svg {head} viewBox="0 0 {WIDTH} {self._height()}">{first}{"".join(parts)}</svg>'

    def _places_of_boxes(self) -> list[tuple[float, float]]:
        """Two side by side, more on an ellipse, the first one on top."""
        size = len(self._anomaly.transactions)
        begin = math.pi / 2 if size == 2 else 0.0
        angles = [2 * math.pi * place / size - begin for place in range(size)]
        return [
            (WIDTH / 2 + _WIDE * math.sin(angle), self._middle - self._tall * math.cos(angle))
            for angle in angles
        ]


def _wide(vertex: Vertex) -> int:
    return max(46, 8 * len(_name(vertex)) + 14)


def _name(vertex: Vertex) -> str:
    return f"T{vertex.id}"


def _box(vertex: Vertex, x: float, y: float) -> str:
    wide = _wide(vertex)
    return (
        f'<rect x="{x - wide / 2:.0f}" y="{y - _BOX / 2:.0f}" width="{wide}" height="{_BOX}" '
        'rx="7" style="fill:var(--paper);stroke:var(--ink)"/>'
        f'<text class="x ink" x="{x:.0f}" y="{y + 4:.0f}">{_name(vertex)}</text>'
    )


def _arrow(edge: Edge, one: tuple[float, float], two: tuple[float, float]) -> str:
    """An arrow, bent to its left, so that two between the same transactions lie side by side."""
    (x, y), (u, v) = one, two
    far = math.hypot(u - x, v - y) or 1.0
    along, across = ((u - x) / far, (v - y) / far), ((v - y) / far, -(u - x) / far)
    bend = min(90.0, 0.24 * far)
    turn = ((x + u) / 2 + across[0] * bend, (y + v) / 2 + across[1] * bend)
    start, end = _beside(one, turn), _beside(two, turn)
    dx, dy = end[0] - turn[0], end[1] - turn[1]
    long = math.hypot(dx, dy) or 1.0
    dx, dy = dx / long, dy / long
    tip = " ".join(
        f"M{end[0]:.0f} {end[1]:.0f}L{end[0] - 9 * dx + side * 4 * dy:.0f} "
        f"{end[1] - 9 * dy - side * 4 * dx:.0f}"
        for side in (1, -1)
    )
    colour = f"var(--{COLOURS_OF_EDGES[edge.kind]})"
    dash = ' stroke-dasharray="6 4"' if edge.kind in ("process", "realtime") else ""
    label, wide = _label(edge), 7 * len(_label(edge))
    at_x = (start[0] + end[0]) / 4 + turn[0] / 2
    at_y = (start[1] + end[1]) / 4 + turn[1] / 2 - 11 * along[0] + 4
    # Beside a steep curve, above or below a flat one.
    at_x += (wide / 2 + 8) * across[0] * abs(along[1])
    at_x = min(max(at_x, wide / 2 + 4), WIDTH - wide / 2 - 4)
    return (
        f'<path d="M{start[0]:.0f} {start[1]:.0f}Q{turn[0]:.0f} {turn[1]:.0f} '
        f'{end[0]:.0f} {end[1]:.0f}" fill="none" stroke-width="1.8" style="stroke:{colour}"{dash}/>'
        f'<path d="{tip}" fill="none" stroke-width="1.8" style="stroke:{colour}"/>'
        f'<text class="x ink" x="{at_x:.0f}" y="{at_y:.0f}" style="paint-order:stroke;'
        f'stroke:var(--paper);stroke-width:4px;stroke-linejoin:round">{html.escape(label)}</text>'
    )


def _beside(box: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """Where a line from the middle of a box leaves it."""
    dx, dy = towards[0] - box[0], towards[1] - box[1]
    out = 1 / max(abs(dx) / 34, abs(dy) / (_BOX / 2 + 4), 1e-9)
    return box[0] + dx * out, box[1] + dy * out


def _label(edge: Edge) -> str:
    if edge.key is None:
        return edge.kind
    key = printable(edge.key, 16)
    if edge.kind == "wr":
        return f"wr {key}={_short(edge.after)}"
    return f"{edge.kind} {key}: {_short(edge.before)} → {_short(edge.after)}"


def _short(value: object) -> str:
    return printable(shown(value), 16)  # type: ignore[arg-type]


def _told(vertex: Vertex) -> str:
    done = [
        f"{name} {printable(key, 16)} {_short(value)}"
        for name, key, value in vertex.operations[:_MOST_OPERATIONS]
    ]
    if len(vertex.operations) > _MOST_OPERATIONS:
        done.append("…")
    who = printable(vertex.process, 24)
    return f"{_name(vertex)}, {who}, {vertex.outcome}: {', '.join(done)}"
