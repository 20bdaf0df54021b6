"""A message diagram of a traced simulation: a self-contained HTML page with an SVG.

Time runs downwards, with one lifeline per client and node. An arrow is a message that arrived; a
cross ends one that was lost, cut, or reached a node that was down. Bars on the left are faults;
bars on a lifeline show when the node was down or paused. Time is not to scale: events do not
overlap, and silence is short.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree as ET

from bench.record.files import write_whole
from nodes.simulator.story import Arrow, Happening, Story

T = TypeVar("T")

MOST_ARROWS = 600
"""Of a longer schedule only the end is drawn, where it fails."""

_TOP, _LEFT, _COLUMN, _LANE = 46, 86, 196, 18
_LEAST_COLUMN, _WIDTH = 64, 1240
"""The least distance of clients, and the page width above which they move closer together."""
_LETTER, _ROW = 6.1, 10
_LEAST_GAP, _MOST_GAP = 12.0, 44.0

_STYLE = """
:root { color-scheme: light; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #1c2126; background: #fff; }
h1 { font-size: 1.25rem; margin: 0 0 .4rem; }
.alarm { color: #a3122a; font-weight: 600; overflow-wrap: anywhere; }
code, pre { font: 12px/1.45 ui-monospace, monospace; }
ul { margin: .6rem 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
pre { overflow-x: auto; background: #f5f6f8; padding: .8rem; }
.figure { overflow-x: auto; }
svg { display: block; font: 10px ui-monospace, monospace; }
.head { font-size: 13px; font-weight: 700; text-anchor: middle; }
.life { stroke: #9aa4af; stroke-width: 1; }
.time { fill: #6a737d; text-anchor: end; }
.message { stroke: #1f5fa8; } .client { stroke: #56606b; }
.lost { stroke: #b3261e; stroke-dasharray: 4 3; }
.open { stroke-dasharray: 1 3; }
.cross { stroke: #b3261e; stroke-width: 2; }
.ground { fill: #fff; fill-opacity: .85; }
.label { fill: #1c2126; } .mark { fill: #4b2a86; font-style: italic; }
.dot { fill: #4b2a86; }
.down { fill: #b3261e; fill-opacity: .55; } .paused { fill: #c98a00; fill-opacity: .55; }
.fault { fill: #e8a33d; fill-opacity: .65; } .number { text-anchor: middle; font-weight: 700; }
.phase { stroke: #56606b; stroke-dasharray: 6 4; } .alarm-line { stroke: #a3122a; }
.line-label { fill: #56606b; } .alarm-label { fill: #a3122a; font-weight: 700; }
"""


@dataclass(frozen=True)
class Diagram:
    """The content of a page. ``command``: reproduces the run; ``facts``: about the run, one per
    line; ``nodes``: in order."""

    title: str
    message: str
    command: str
    facts: list[str]
    nodes: list[str]
    story: Story
    transcript: list[str]


def write_diagram(path: Path, diagram: Diagram) -> None:
    """Write the page, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page(diagram).encode())


def page(diagram: Diagram) -> str:
    """The page; foreign text is escaped."""
    html = ET.Element("html", lang="en")
    head = ET.SubElement(html, "head")
    ET.SubElement(head, "meta", charset="utf-8")
    ET.SubElement(head, "meta", name="viewport", content="width=device-width")
    ET.SubElement(head, "title").text = _clean(diagram.title)
    ET.SubElement(head, "style").text = _STYLE
    body = ET.SubElement(html, "body")
    ET.SubElement(body, "h1").text = _clean(diagram.title)
    ET.SubElement(body, "p", {"class": "alarm"}).text = _clean(diagram.message)
    again = ET.SubElement(body, "p")
    again.text = "Again: "
    ET.SubElement(again, "code").text = _clean(diagram.command)
    facts = ET.SubElement(body, "ul")
    for fact in diagram.facts:
        ET.SubElement(facts, "li").text = _clean(fact)
    ET.SubElement(body, "p").text = (
        "Time runs downwards, not to scale. An arrow is a message that arrived, a cross ends one "
        "that did not. Bars: faults (left), a node that was down or paused (on its line). Point at "
        "anything to see all of it."
    )
    drawing = _Drawing(diagram)
    if drawing.left_out:
        note = f"The first {drawing.left_out} messages are not drawn; the transcript has them."
        ET.SubElement(body, "p").text = note
    figure = ET.SubElement(body, "div", {"class": "figure"})
    figure.append(drawing.svg)
    ET.SubElement(body, "h2").text = "Transcript"
    ET.SubElement(body, "pre").text = _clean("\n".join(diagram.transcript))
    return "<!doctype html>\n" + ET.tostring(html, encoding="unicode", method="html") + "\n"


def svg_document(diagram: Diagram) -> str:
    """The drawing alone as an SVG file with a white background."""
    svg = _Drawing(diagram).svg
    style = ET.Element("style")
    style.text = _STYLE + "svg { background: #fff; }"
    svg.insert(0, style)
    return ET.tostring(svg, encoding="unicode")


class _Drawing:
    """The SVG. ``left_out``: how many messages it does not show."""

    def __init__(self, diagram: Diagram) -> None:
        story = diagram.story
        arrows = [arrow for arrow in story.arrows if arrow.src != arrow.dst]
        self.left_out = max(0, len(arrows) - MOST_ARROWS)
        self._arrows = arrows[self.left_out :]
        since_s = self._arrows[0].sent_s if self._arrows and self.left_out else 0.0
        self._moments = [moment for moment in story.moments if moment.at_s >= since_s]
        self._all_moments = story.moments
        self._nodes = diagram.nodes
        self._since_s = since_s
        times = {since_s}
        times.update(moment.at_s for moment in self._moments)
        for arrow in self._arrows:
            times.update(t for t in (arrow.sent_s, arrow.arrived_s) if t is not None)
        self._times = sorted(times)
        self._ys: dict[float, float] = {}
        marks = [moment for moment in self._moments if moment.what == "mark"]
        across = [moment for moment in self._moments if moment.what in ("phase", "alarm")]
        stacked = list(_stacked([(moment, (moment.who, moment.at_s)) for moment in marks]))
        lines = list(_stacked([(moment, moment.at_s) for moment in across]))
        # Text below a moment takes its own row.
        rows: dict[float, int] = {}
        for moment, row in stacked + lines:
            rows[moment.at_s] = max(rows.get(moment.at_s, 0), row + 1)
        y = float(_TOP + 14)
        for before_s, now_s in pairwise([self._times[0], *self._times]):
            gap = _LEAST_GAP + 60 * (now_s - before_s) ** 0.5
            y += min(_MOST_GAP, gap) if now_s > before_s else 0.0
            y += _ROW * rows.get(before_s, 0) if now_s > before_s else 0.0
            self._ys[now_s] = y
        self._bottom = y + 18 + _ROW * rows.get(self._times[-1], 0)
        bars = list(self._faults())
        clients = {_lifeline(arrow.src) for arrow in self._arrows}
        clients |= {_lifeline(arrow.dst) for arrow in self._arrows}
        x = float(_LEFT + len(bars) * _LANE + _COLUMN / 2)
        left = _WIDTH - x - (len(self._nodes) - 0.4) * _COLUMN
        others = sorted(clients - set(self._nodes), key=_natural)
        room = min(_COLUMN, max(_LEAST_COLUMN, left / max(1, len(others))))
        self._xs: dict[str, float] = {}
        for name in (*others, *self._nodes):
            self._xs[name] = x
            x += room if name in others else _COLUMN
        width = x - 0.4 * _COLUMN
        height = self._bottom + 40
        size = {"width": f"{width:.0f}", "height": f"{height:.0f}"}
        self.svg = ET.Element("svg", {**size, "role": "img", "xmlns": "http://www.w3.org/2000/svg"})
        ET.SubElement(self.svg, "title").text = _clean(diagram.title)
        self._arrow_heads()
        self._clock()
        for lane, (number, start_s, end_s, text) in enumerate(bars):
            self._fault(lane, number, start_s, end_s, text)
        for name, x in self._xs.items():
            self._line(x, _TOP, x, self._bottom, "life")
            self._text(x, _TOP - 12, name, "head")
        for node in self._nodes:
            self._states(node)
        # Labels come last, so that no line crosses them.
        self._labels = ET.Element("g")
        for moment, row in lines:
            self._across(self._ys[moment.at_s], row, moment.text, moment.what)
        for arrow in self._arrows:
            self._message(arrow)
        for moment, row in stacked:
            self._mark(moment.who, moment.at_s, row, moment.text.split(" MARK ", 1)[-1])
        self.svg.append(self._labels)

    # --- parts ---

    def _clock(self) -> None:
        last = -100.0
        for time_s, y in self._ys.items():
            if y - last >= 2 * _LEAST_GAP:
                self._text(_LEFT - 12, y + 3, f"{time_s:.4f} s", "time")
                last = y

    def _faults(self) -> Iterator[tuple[str, float, float, str]]:
        """Number, start, end and text of each fault in the part that is drawn."""
        healed: dict[str, float] = {}
        for moment in self._all_moments:
            if moment.what == "heal":
                healed[moment.text.split()[1]] = moment.at_s
        for moment in self._all_moments:
            if moment.what == "fault":
                number = moment.text.split()[1]
                end_s = healed.get(number, self._times[-1])
                if end_s >= self._since_s:
                    yield number, max(moment.at_s, self._since_s), end_s, moment.text

    def _fault(self, lane: int, number: str, start_s: float, end_s: float, text: str) -> None:
        x = _LEFT + lane * _LANE
        self._bar(x, self._ys[start_s], self._ys[end_s], 12, "fault", text)
        self._text(x + 6, self._ys[start_s] - 4, number, "number")

    def _states(self, node: str) -> None:
        """When the node was down or paused."""
        begins: dict[Happening, str] = {"crash": "down", "pause": "paused"}
        state, since_s, why = "", 0.0, ""
        for moment in [m for m in self._all_moments if m.who == node]:
            if moment.what in (*begins, "start", "resume"):
                self._state(node, state, since_s, moment.at_s, why)
                state = begins.get(moment.what, "")
                since_s, why = moment.at_s, moment.text
        self._state(node, state, since_s, self._times[-1], why)

    def _state(self, node: str, state: str, since_s: float, end_s: float, why: str) -> None:
        if state and end_s >= self._since_s:
            top = self._ys[max(since_s, self._since_s)]
            self._bar(self._xs[node] - 4, top, self._ys[end_s], 8, state, why)
            self._text(self._xs[node] + 8, top + 9, state, "alarm-label")

    def _is_down(self, node: str, at_s: float) -> bool:
        down = False
        for moment in self._all_moments:
            if moment.who == node and moment.at_s <= at_s and moment.what in ("crash", "start"):
                down = moment.what == "crash"
        return down

    def _message(self, arrow: Arrow) -> None:
        src, dst = _lifeline(arrow.src), _lifeline(arrow.dst)
        x1, x2 = self._xs[src], self._xs[dst]
        y1 = self._ys[arrow.sent_s]
        y2 = self._bottom if arrow.arrived_s is None else self._ys[arrow.arrived_s]
        kind = "message" if src in self._nodes and dst in self._nodes else "client"
        unheard = arrow.fate == "arrived" and self._is_down(dst, arrow.arrived_s or 0.0)
        if arrow.fate in ("lost", "cut"):
            part = 0.4 if arrow.arrived_s is None else 0.8
            y2 = y1 + 9 if arrow.arrived_s is None else y2
            x2, y2 = x1 + (x2 - x1) * part, y1 + (y2 - y1) * part
        group = ET.SubElement(self.svg, "g")
        fate = "arrived at a node that is down" if unheard else arrow.fate
        whole = f"{arrow.src} -> {arrow.dst} at {arrow.sent_s:.6f} s, {fate}: {arrow.text}"
        ET.SubElement(group, "title").text = _clean(whole)
        if arrow.fate in ("lost", "cut") or unheard:
            self._line(x1, y1, x2, y2, "lost", group)
            self._line(x2 - 4, y2 - 4, x2 + 4, y2 + 4, "cross", group)
            self._line(x2 - 4, y2 + 4, x2 + 4, y2 - 4, "cross", group)
        else:
            style = kind if arrow.fate == "arrived" else f"{kind} open"
            self._line(x1, y1, x2, y2, style, group).set("marker-end", f"url(#{kind})")
        anchor, shift = ("end", -9) if x2 > x1 else ("start", 9)
        label = arrow.label if len(arrow.label) <= 24 else arrow.label[:23] + "…"
        self._label(x2 + shift, y2 - 3, label, "label", anchor, whole)

    def _mark(self, node: str, at_s: float, row: int, text: str) -> None:
        x, y = self._xs[node], self._ys[at_s]
        size = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3", "class": "dot"}
        dot = ET.SubElement(self.svg, "circle", size)
        ET.SubElement(dot, "title").text = _clean(text)
        self._label(x + 7, y + 9 + row * _ROW, text.split(" ")[0], "mark", "start", text)

    def _across(self, y: float, row: int, text: str, what: str) -> None:
        style = "alarm-line" if what == "alarm" else "phase"
        self._line(_LEFT, y, max(self._xs.values()) + 60, y, style)
        label = text if len(text) <= 120 else text[:119] + "…"
        self._text(
            _LEFT + 4, y + 11 + row * 12, label, "alarm-label" if what == "alarm" else "line-label"
        )

    # --- shapes ---

    def _arrow_heads(self) -> None:
        definitions = ET.SubElement(self.svg, "defs")
        for kind, colour in (("message", "#1f5fa8"), ("client", "#56606b")):
            marker = ET.SubElement(
                definitions,
                "marker",
                {
                    "id": kind,
                    "viewBox": "0 0 8 8",
                    "refX": "8",
                    "refY": "4",
                    "markerWidth": "7",
                    "markerHeight": "7",
                    "orient": "auto",
                },
            )
            ET.SubElement(marker, "path", d="M0,0 L8,4 L0,8 z", fill=colour)

    def _line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        style: str,
        parent: ET.Element | None = None,
    ) -> ET.Element:
        ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        attributes = {name: f"{value:.1f}" for name, value in ends.items()}
        where = self.svg if parent is None else parent
        return ET.SubElement(where, "line", {**attributes, "class": style})

    def _bar(self, x: float, y1: float, y2: float, width: float, style: str, text: str) -> None:
        size = {"x": x, "y": y1, "width": width, "height": max(4.0, y2 - y1)}
        attributes = {name: f"{value:.1f}" for name, value in size.items()}
        bar = ET.SubElement(self.svg, "rect", {**attributes, "class": style})
        ET.SubElement(bar, "title").text = _clean(text)

    def _label(self, x: float, y: float, text: str, style: str, anchor: str, whole: str) -> None:
        """A text on a white background that hides lines behind it; ``whole``: the full text, for
        the tooltip."""
        group = ET.SubElement(self._labels, "g")
        ET.SubElement(group, "title").text = _clean(whole)
        width = _LETTER * len(text)
        left = x - width if anchor == "end" else x
        size = {"x": left, "y": y - 7.5, "width": width, "height": 9.5}
        ground = {name: f"{value:.1f}" for name, value in size.items()}
        ET.SubElement(group, "rect", {**ground, "class": "ground"})
        self._text(x, y, text, style, group).set("text-anchor", anchor)

    def _text(
        self, x: float, y: float, text: str, style: str, parent: ET.Element | None = None
    ) -> ET.Element:
        where = self.svg if parent is None else parent
        at = {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": style}
        element = ET.SubElement(where, "text", at)
        element.text = _clean(text)
        return element


def _stacked(items: Sequence[tuple[T, object]]) -> Iterator[tuple[T, int]]:
    """Each item, with the number of earlier items at the same place."""
    before: Counter[object] = Counter()
    for item, place in items:
        yield item, before[place]
        before[place] += 1


def _lifeline(name: str) -> str:
    """The lifeline of a process: replaced processes (c1-1, c1-2 ...) share their client's."""
    return name.split("-", 1)[0]


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _clean(text: str) -> str:
    """``text`` without the control characters that HTML forbids."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\U0010ffff]", "�", text)
