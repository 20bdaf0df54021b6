"""The drawing of a message diagram: it fits a screen, and its texts can be read."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from nodes.simulator.story import Arrow, Moment, Story
from reports.charts.message_diagram import Diagram, page

NODES = ["n1", "n2", "n3"]


def drawing(story: Story) -> ET.Element:
    html = page(Diagram("title", "message", "command", [], NODES, story, []))
    start = html.index("<svg")
    svg = html[start : html.index("</svg>") + 6]
    return ET.fromstring(svg.replace(' xmlns="http://www.w3.org/2000/svg"', ""))


def arrow(src: str, dst: str, at_s: float, label: str = "Message") -> Arrow:
    made = Arrow(src=src, dst=dst, label=label, text=label, sent_s=at_s, arrived_s=at_s + 0.001)
    made.fate = "arrived"
    return made


def test_many_clients_stand_closer_so_that_the_nodes_are_in_sight() -> None:
    few = drawing(Story([arrow(f"c{i}", "n1", float(i)) for i in range(1, 3)]))
    many = drawing(Story([arrow(f"c{i}", "n1", float(i)) for i in range(1, 9)]))
    assert float(few.attrib["width"]) < 1100
    assert float(many.attrib["width"]) <= 1250
    heads = {t.text: float(t.attrib["x"]) for t in many.iter("text") if t.get("class") == "head"}
    assert list(heads) == sorted(heads, key=lambda name: heads[str(name)])
    assert heads["c2"] - heads["c1"] < heads["n2"] - heads["n1"]


def test_no_line_runs_over_a_label_and_no_label_over_another() -> None:
    moments = [
        *(Moment(0.002, "n2", "mark", f"n2 MARK {what}") for what in ("become_leader", "elected")),
        Moment(0.0041, "", "alarm", "ALARM it failed"),
    ]
    arrows = [arrow("n1", "n2", 0.001), arrow("n3", "n2", 0.0011), arrow("n3", "n2", 0.0012)]
    last = Arrow(src="n3", dst="n2", label="Late", text="", sent_s=0.004)
    svg = drawing(Story([*arrows, last], moments))
    parts = list(svg.iter())
    grounds = [parts.index(part) for part in parts if part.get("class") == "ground"]
    assert min(grounds) > max(parts.index(part) for part in parts if part.tag == "line")
    boxes = []
    for text in svg.iter("text"):
        if text.get("class") in ("label", "mark", "alarm-label"):
            x, width = float(text.attrib["x"]), 6.0 * len(text.text or "")
            left = x - width if text.get("text-anchor") == "end" else x
            boxes.append((left, left + width, float(text.attrib["y"]), text.text))
    assert len(boxes) == 7
    for i, (left, right, y, name) in enumerate(boxes):
        for other in boxes[:i]:
            apart = right <= other[0] or other[1] <= left or abs(y - other[2]) >= 8.5
            assert apart, f"{name} lies on {other[3]}"
