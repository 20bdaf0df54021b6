"""The cycle of an anomaly as a drawing."""

from __future__ import annotations

import html
import math
from typing import Final

from bench.record.printable import printable
from bench.record.transactions.verdict import Anomaly, Edge
from bench.record.witness import shown

_WIDTH: Final = 640
_RADIUS: Final = 22
"""Of a transaction."""
_LINE: Final = 16
_SHOWN_OPERATIONS: Final = 6


def svg(anomaly: Anomaly) -> str:
    """A self-contained ``<svg>`` element that takes its colours from the page: transactions on a
    circle, edges as arrows with their kind, key and values, and what each transaction did."""
    size = len(anomaly.transactions)
    ring = 70 + 22 * size
    middle = ring + _RADIUS + 30
    lines = _legend(anomaly)
    height = 2 * middle + _LINE * (len(lines) + 1)
    places = [
        (
            _WIDTH / 2 + ring * math.sin(2 * math.pi * place / size),
            middle - ring * math.cos(2 * math.pi * place / size),
        )
        for place in range(size)
    ]
    title = html.escape(f"{anomaly.name}: each transaction comes before the next")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">',
        f"<title>{title}</title>",
    ]
    for edge in anomaly.edges:
        parts += _arrow(edge, places[edge.source], places[edge.target])
    for vertex, (x, y) in zip(anomaly.transactions, places, strict=True):
        parts += [
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{_RADIUS}" fill-opacity="0.15" '
            'stroke="currentColor"/>',
            f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">T{vertex.id}</text>',
        ]
    for number, line in enumerate(lines):
        y = 2 * middle + _LINE * number
        parts.append(f'<text x="16" y="{y}">{html.escape(line)}</text>')
    return "\n".join([*parts, "</svg>"])


def _arrow(edge: Edge, one: tuple[float, float], two: tuple[float, float]) -> list[str]:
    """An arrow, bent to its left, so that two between the same transactions lie side by side."""
    (x, y), (u, v) = one, two
    far = math.hypot(u - x, v - y) or 1.0
    along, across = ((u - x) / far, (v - y) / far), (-(v - y) / far, (u - x) / far)
    bend = -0.18 * far
    start = (x + along[0] * _RADIUS, y + along[1] * _RADIUS)
    end = (u - along[0] * (_RADIUS + 3), v - along[1] * (_RADIUS + 3))
    turn = ((x + u) / 2 + across[0] * bend, (y + v) / 2 + across[1] * bend)
    dx, dy = end[0] - turn[0], end[1] - turn[1]
    long = math.hypot(dx, dy) or 1.0
    dx, dy = dx / long, dy / long
    tip = " ".join(
        f"L{end[0] - 8 * dx + side * 4 * dy:.0f},{end[1] - 8 * dy - side * 4 * dx:.0f} "
        f"M{end[0]:.0f},{end[1]:.0f}"
        for side in (1, -1)
    )
    dash = ' stroke-dasharray="5 3"' if edge.kind in ("process", "realtime") else ""
    label = html.escape(_label(edge))
    return [
        f'<path d="M{start[0]:.0f},{start[1]:.0f} Q{turn[0]:.0f},{turn[1]:.0f} '
        f'{end[0]:.0f},{end[1]:.0f} {tip}" fill="none" stroke="currentColor"{dash}/>',
        f'<text x="{turn[0]:.0f}" y="{turn[1] + 4:.0f}" text-anchor="middle">{label}</text>',
    ]


def _label(edge: Edge) -> str:
    if edge.key is None:
        return edge.kind
    key = printable(edge.key, 16)
    if edge.kind == "wr":
        return f"wr {key}={_short(edge.after)}"
    return f"{edge.kind} {key}: {_short(edge.before)} → {_short(edge.after)}"


def _short(value: object) -> str:
    return printable(shown(value), 18)  # type: ignore[arg-type]


def _legend(anomaly: Anomaly) -> list[str]:
    lines = []
    for vertex in anomaly.transactions:
        done = [
            f"{name} {printable(key, 16)} {_short(value)}"
            for name, key, value in vertex.operations[:_SHOWN_OPERATIONS]
        ]
        if len(vertex.operations) > _SHOWN_OPERATIONS:
            done.append("…")
        who = printable(vertex.process, 24)
        lines.append(f"T{vertex.id}, {who}, {vertex.outcome}: {', '.join(done)}")
    return lines
