"""Small SVG drawings: only what the charts of a run need.

A comparison may have more than a thousand charts on a page that must stay under 5 MB and open
instantly. So a drawing is a few paths, one per line and one for all marks of a kind, with relative
coordinates in whole pixels. On the page, colours are the CSS variables of the theme;
`Drawing.document` includes the light theme's colours and a font, for a separate file.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

COLOURS = {
    "ink": "#1b1f24",
    "muted": "#57606b",
    "grid": "#dfe3e8",
    "paper": "#fdfdfe",
    "band": "#b98a10",
    "blue": "#1f6fb4",
    "orange": "#c8590f",
    "purple": "#8a4fa3",
    "green": "#1a8562",
    "grey": "#8b949e",
}
"""The light theme. The page has a CSS variable for each name."""

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640, 66, 24, 8, 34
TITLE = 52
"""Pixels from the plot to the title of its y axis."""
KEY_ROW = 18
ROW = 26
BAND_LABELS = 3
STYLE = """
.mark.line { fill: none; stroke-width: 2; }
.mark.thin { stroke-width: 1.2; }
.mark.marks, .key.marks, .net { fill: none; }
.net { stroke: var(--grid); }
.area { fill: var(--blue); opacity: .55; stroke: var(--blue); stroke-width: 1.1; }
.band { fill: var(--band); opacity: .16; }
svg text { fill: var(--muted); }
svg .ink, svg .ink text { fill: var(--ink); }
.x { text-anchor: middle; }
.y { text-anchor: end; }
"""
"""Shared by all drawings: once per page and in each file."""
DASHES = ("", "7 3", "2 3", "9 3 2 3")
Shape: TypeAlias = Literal["dot", "cross", "square"]
Kind: TypeAlias = Literal["linear", "log", "nines"]


class Style(NamedTuple):
    """The look of a series. Lines also differ in dashes and marks in shape, so that colours are not
    needed."""

    colour: str
    dash: int = 0
    shape: Shape = "dot"


class Series(NamedTuple):
    """What was drawn, as values. ``how``: line, steps (each value holds until the next x), points,
    or row (steps of a share in the row of its number)."""

    name: str
    style: Style
    how: Literal["line", "steps", "points", "row"]
    xs: list[float]
    ys: list[float]


class Axis:
    """Maps values to pixels. ``nines``: for a share p in 0..1, with ticks at 1 - p = 1, 0.1, 0.01
    ... ``marked``: the values that get a line, instead of round ones."""

    def __init__(
        self,
        low: float,
        high: float,
        title: str,
        kind: Kind = "linear",
        marked: Sequence[float] = (),
    ) -> None:
        if kind == "log":
            low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
        if high <= low:
            high = low * 10 if kind == "log" else low + 1
        self.title, self.kind, self._marked = title, kind, marked
        self.low, self.high = low, high
        self._low, self._high = self._flat(low), self._flat(high)

    def _flat(self, value: float) -> float:
        if self.kind == "log":
            return math.log10(value)
        if self.kind == "nines":
            return -math.log10(max(1 - value, 1e-9))
        return value

    def at(self, value: float, pixels: float) -> float:
        """The pixel of a value on an axis of this length, clamped to its ends."""
        share = (self._flat(value) - self._low) / (self._high - self._low)
        return min(1.0, max(0.0, share)) * pixels

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Values that get a line, with their labels."""
        if self._marked:
            return [(value, f"{value:,.10g}") for value in self._marked]
        if self.kind == "nines":
            shares = [0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999]
            return [(p, f"{100 * p:g}%") for p in shares if self._flat(p) <= self._high + 1e-9]
        if self.kind == "log":
            powers = range(round(self._low), round(self._high) + 1)
            step = 1 + (len(powers) - 1) // most
            return [(10.0**power, f"{10.0**power:g}") for power in powers[::step]]
        span = self._high - self._low
        rough = span / most
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * f for f in (1, 2, 5, 10) if power * f >= rough * 0.999)
        first = math.ceil(self._low / step - 1e-9)
        values = [step * n for n in range(first, int(self._high / step + 1e-9) + 1)]
        return [(value, f"{value:,.10g}") for value in values]


class Drawing:
    """One chart. Coordinates of the calls are values of the axes; ``y`` may be rows of names.
    ``series`` and ``bands``: what was drawn, as values, for a chart that can be zoomed.

    Bands lie behind everything, bars behind lines, marks and text.
    """

    def __init__(
        self,
        x: Axis,
        y: Axis | Sequence[str],
        *,
        height: int = 150,
        left: int = LEFT,
        width: int = WIDTH,
    ) -> None:
        self._x = x
        self.x, self.y = x, y
        self.series: list[Series] = []
        self.bands: list[tuple[float, float, str]] = []
        self._rows = None if isinstance(y, Axis) else list(y)
        self._y = y if isinstance(y, Axis) else None
        self._left, self._width = left, width
        self._plot_width = width - left - RIGHT
        self._plot_height = height if self._rows is None else ROW * max(1, len(self._rows))
        self._top = TOP
        self._back: list[str] = []
        self._labelled: list[int] = []
        self._bars: dict[tuple[str, int], list[str]] = {}
        self._front: list[str] = []
        self._legend: list[tuple[str, Style, bool]] = []

    # --- what is drawn ---

    def band(self, begin: float, end: float, label: str | None) -> None:
        """A shaded stretch of the x axis, behind everything, with its label above, in the lowest
        row in which there is room; left out where there is none."""
        self.bands.append((begin, end, label or ""))
        x0, x1 = self._px(begin), self._px(end)
        self._back.append(
            f'<path class="band" d="M{x0} 0h{max(1, x1 - x0)}v{self._plot_height}H{x0}z"/>'
        )
        if label is None:
            return
        width = 7 * len(label)
        left = x0 if x0 + width <= self._plot_width + RIGHT else max(0, x1 - width)
        row = next((n for n, end in enumerate(self._labelled) if end <= left), len(self._labelled))
        if row >= BAND_LABELS:
            return
        self._labelled[row : row + 1] = [left + width + 8]
        self._top = max(self._top, 15 * (row + 1) + 3)
        self._back.append(self._text(left, -4 - 15 * row, label, "start"))

    def line(
        self,
        xs: Iterable[float],
        ys: Iterable[float],
        style: Style,
        label: str | None = None,
        *,
        step_to: float | None = None,
    ) -> None:
        """A line through the points; a NaN breaks it. ``step_to``: values hold until the next x,
        the last one until ``step_to``."""
        assert self._y is not None, "a line needs a y axis of values"
        xs, ys = [*xs], [*ys]
        if step_to is None:
            self.series.append(Series(label or "", style, "line", xs, ys))
        else:
            held = (xs + [step_to] * bool(xs), ys + ys[-1:])
            self.series.append(Series(label or "", style, "steps", *held))
        points = [
            None if math.isnan(y) else (self._px(x), self._py(y))
            for x, y in zip(xs, ys, strict=True)
        ]
        end = None if step_to is None else self._px(step_to)
        self._front.append(
            f'<path class="mark line" stroke="{_v(style.colour)}"'
            f'{_dash(style.dash)} d="{_line_path(points, end)}"/>'
        )
        if label is not None:
            self._legend.append((label, style, True))

    def marks(
        self, xs: Iterable[float], ys: Iterable[float], style: Style, label: str | None = None
    ) -> None:
        """A mark at each point."""
        assert self._y is not None, "marks need a y axis of values"
        xs, ys = [*xs], [*ys]
        self.series.append(Series(label or "", style, "points", xs, ys))
        path = _marks_path([(self._px(x), self._py(y)) for x, y in zip(xs, ys, strict=True)], style)
        self._front.append(path)
        if label is not None:
            self._legend.append((label, style, False))

    def bar(
        self,
        row: int,
        begin: float,
        end: float,
        colour: str,
        *,
        thickness: int = 14,
        least: int = 1,
    ) -> None:
        """A bar in a row, at least ``least`` pixels long."""
        x0 = self._px(begin)
        width = max(least, self._px(end) - x0)
        # A thick stroke: so all bars of a kind are one path.
        self._bars.setdefault((colour, thickness), []).append(f"M{x0} {self._row(row)}h{width}")

    def area(self, row: int, xs: Sequence[float], shares: Sequence[float], end: float) -> None:
        """Shares of 0 to 1 as a staircase in a row, filled from its foot; a NaN leaves a gap."""
        foot = ROW * (row + 1) - 3
        name = str((self._rows or [])[row])
        held = ([*xs, end], [*shares, *shares[-1:]])
        self.series.append(Series(name, Style("blue"), "row", *held))
        parts = []
        for x, until, share in zip(xs, [*xs[1:], end], shares, strict=True):
            if not math.isnan(share):
                x0, x1 = self._px(x), self._px(until)
                rise = round((ROW - 5) * min(share, 1.0))
                up = f"v{-rise}h{x1 - x0}v{rise}" if rise else f"h{x1 - x0}"
                parts.append(f"M{x0} {foot}{up}")
        self._front.append(f'<path class="mark area" d="{"".join(parts)}"/>')

    def arrow(self, row: int, begin: float, end: float) -> None:
        """A thin line in a row, with a head at its end."""
        y, x0, x1 = self._row(row), self._px(begin), self._px(end)
        if abs(x1 - x0) < 10:
            return
        back = 5 if x1 < x0 else -5
        self._front.append(
            f'<path class="mark line thin" stroke="{_v("grey")}" '
            f'd="M{x0} {y}H{x1}m{back} -4l{-back} 4l{back} 4"/>'
        )

    def dots(self, row: int, xs: Iterable[float], style: Style, *, size: int = 8) -> None:
        """A mark at each value in a row."""
        y = self._row(row)
        self._front.append(_marks_path([(self._px(x), y) for x in xs], style, size=size))

    def tick(self, row: int, at: float, colour: str = "ink") -> None:
        """A short vertical line in a row."""
        y = self._row(row)
        self._front.append(
            f'<path class="mark line" stroke="{_v(colour)}" d="M{self._px(at)} {y - 11}v22"/>'
        )

    def interval(self, row: float, low: float, middle: float, high: float, style: Style) -> None:
        """A value in a row and its uncertainty, from ``low`` to ``high``."""
        y = round(ROW * (row + 0.5))
        x0, x, x1 = self._px(low), self._px(middle), self._px(high)
        self._front.append(
            f'<path class="mark line" stroke="{_v(style.colour)}" '
            f'd="M{x0} {y}H{x1}M{x0} {y - 4}v8M{x1} {y - 4}v8"/>'
        )
        self._front.append(_marks_path([(x, y)], style, size=8))

    def note(
        self, row: int, at: float, text: str, *, end: bool = False, dy: int = 4, on: str = ""
    ) -> None:
        """Text in a row, starting or ending at a value. ``on``: on a bar of that colour."""
        anchor = "end" if end else "start"
        x = self._px(at) + (-4 if end else 4)
        self._front.append(
            self._text(x, self._row(row) + dy, text, anchor, "paper" if on else "ink")
        )

    def label(self, x: float, y: float, text: str, colour: str, *, below: bool = False) -> None:
        """Text beside a point of a chart with a y axis of values."""
        at, dy = self._px(x), 15 if below else -7
        anchor = "start" if below else "end"
        self._front.append(self._text(at, self._py(y) + dy, text, anchor, colour))

    def key(self, label: str, style: Style, *, line: bool = False) -> None:
        """A legend entry for something drawn without one."""
        self._legend.append((label, style, line))

    # --- as text ---

    def inline(self, label: str) -> str:
        """An ``svg`` element for the page, with a text alternative."""
        return self._svg(f'role="img" aria-label="{html.escape(label, quote=True)}"')

    def document(self, label: str) -> str:
        """A separate SVG file in the light theme's colours."""
        width, height = self._width, self._height()
        head = (
            f'xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" '
            f'aria-label="{html.escape(label, quote=True)}" font-family="sans-serif" font-size="12"'
        )
        paper = f"<style>{STYLE}</style>"
        paper += f'<path fill="{COLOURS["paper"]}" d="M0 0h{width}v{height}H0z"/>'
        text = self._svg(head, paper)
        return re.sub(r"var\(--([a-z]+)\)", lambda match: COLOURS[match[1]], text)

    def png(self, label: str, scale: float = 2.0) -> bytes:
        """A PNG in the light theme's colours."""
        import vl_convert

        return bytes(vl_convert.svg_to_png(self.document(label), scale=scale))

    def _height(self) -> int:
        rows = self._places()[-1][1] + 1 if self._legend else 0
        return self._top + self._plot_height + BOTTOM + (KEY_ROW * rows + 2 if rows else 0)

    def _svg(self, head: str, first: str = "") -> str:
        bars = [
            f'<path class="mark bar" stroke="{_v(colour)}" stroke-width="{thickness}" '
            f'd="{"".join(dict.fromkeys(path))}"/>'
            for (colour, thickness), path in self._bars.items()
        ]
        body = "".join([*self._back, *self._axes(), *bars, *self._front])
        return (
            f'<svg {head} viewBox="0 0 {self._width} {self._height()}">{first}'
            f'<g transform="translate({self._left} {self._top})">{body}{self._keys()}</g></svg>'
        )

    def _axes(self) -> list[str]:
        grid, below, beside = [], [], []
        for value, text in self._x.ticks(10):
            x = self._px(value)
            grid.append(f"M{x} 0v{self._plot_height + 4}")
            below.append(f'<text x="{x}" y="{self._plot_height + 16}">{text}</text>')
        if self._y is not None:
            for value, text in self._y.ticks(5):
                y = self._py(value)
                grid.append(f"M-4 {y}H{self._plot_width}")
                beside.append((y, text))
        else:
            beside = [(self._row(n), html.escape(name)) for n, name in enumerate(self._rows or ())]
        colour = "muted" if self._rows is None else "ink"
        names = "".join(f'<text x="-7" y="{y + 4}">{text}</text>' for y, text in beside)
        return [
            f'<path class="net" d="{"".join(grid)}"/>',
            f'<g class="x">{"".join(below)}</g>',
            f'<g class="y {colour}">{names}</g>',
            self._text(self._plot_width // 2, self._plot_height + 31, self._x.title, "middle"),
            *self._y_title(),
        ]

    def _y_title(self) -> list[str]:
        if self._y is None or not self._y.title:
            return []
        title = html.escape(self._y.title)
        middle = self._plot_height // 2
        place = f'class="x" x="{-middle}" y="{-TITLE}" transform="rotate(-90)"'
        return [f"<text {place}>{title}</text>"]

    def _places(self) -> list[tuple[int, int]]:
        """Where each key of the legend begins: x, and its row."""
        places, x, row = [], 0, 0
        for label, _, _ in self._legend:
            width = 50 + 7 * len(label)
            if x and x + width > self._plot_width + RIGHT:
                x, row = 0, row + 1
            places.append((x, row))
            x += width
        return places

    def _keys(self) -> str:
        parts = []
        foot = self._plot_height + BOTTOM + 12
        for (label, style, is_line), (x, row) in zip(self._legend, self._places(), strict=True):
            y = foot + KEY_ROW * row
            if is_line:
                parts.append(
                    f'<path class="key" stroke="{_v(style.colour)}" stroke-width="2.5"'
                    f'{_dash(style.dash)} d="M{x} {y - 4}h26"/>'
                )
            else:
                parts.append(
                    _marks_path([(x + 12, y - 4)], style, size=9).replace('"mark ', '"key ')
                )
            parts.append(self._text(x + 32, y, label, "start", "ink"))
        return "".join(parts)

    def _px(self, value: float) -> int:
        return round(self._x.at(value, self._plot_width))

    def _py(self, value: float) -> int:
        assert self._y is not None
        return round(self._plot_height - self._y.at(value, self._plot_height))

    def _row(self, number: int) -> int:
        return round(ROW * (number + 0.5))

    def _text(self, x: int, y: int, text: str, anchor: str, colour: str = "muted") -> str:
        where = "" if anchor == "start" else f' text-anchor="{anchor}"'
        look = {"muted": "", "ink": ' class="ink"'}.get(colour, f' style="fill:{_v(colour)}"')
        return f'<text x="{x}" y="{y}"{where}{look}>{html.escape(text)}</text>'


def _v(colour: str) -> str:
    assert colour in COLOURS, colour
    return f"var(--{colour})"


def _dash(number: int) -> str:
    return f' stroke-dasharray="{DASHES[number]}"' if DASHES[number] else ""


def _line_path(points: Sequence[tuple[int, int] | None], step_to: int | None) -> str:
    """A path in relative coordinates; a staircase if ``step_to`` says where it ends."""
    parts: list[str] = []
    before: tuple[int, int] | None = None
    for point in points:
        if point is None:
            before = None
        elif before is None:
            parts.append(f"M{point[0]} {point[1]}")
            before = point
        else:
            dx, dy = point[0] - before[0], point[1] - before[1]
            if step_to is None:
                parts.append(f"l{dx} {dy}")
            else:
                parts.append((f"h{dx}" if dx else "") + (f"v{dy}" if dy else ""))
            before = point
    if step_to is not None and before is not None and step_to > before[0]:
        parts.append(f"H{step_to}")
    # Moves in the same direction are merged; a lone point would not be drawn.
    path = re.sub(
        r"(?:h-?\d+){2,}",
        lambda m: f"h{sum(map(int, re.findall(r'-?[0-9]+', m[0])))}",
        "".join(parts),
    )
    return re.sub(r"(M\d+ -?\d+)(?=M|$)", r"\1h3", path)


_MARK = {"dot": "", "cross": "l{s} {s}m0-{s}l-{s} {s}", "square": "h{s}v{s}h-{s}z"}


def _marks_path(points: Sequence[tuple[int, int]], style: Style, size: int = 5) -> str:
    colour = _v(style.colour)
    unique = sorted(set(points))
    if style.shape == "dot":
        path = "".join(f"M{x} {y}h0" for x, y in unique)
        look = f'stroke="{colour}" stroke-width="{size}" stroke-linecap="round"'
    else:
        half = size // 2
        shape = _MARK[style.shape].format(s=size)
        path = "".join(f"M{x - half} {y - half}{shape}" for x, y in unique)
        look = f'stroke="{colour}" stroke-width="1.5"'
    return f'<path class="mark marks" {look} d="{path}"/>'
