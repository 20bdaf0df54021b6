"""A failing seed becomes a short transcript and a diagram that can be looked at."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from nodes.registry import Protocol
from nodes.simulator.faults import Fault
from nodes.simulator.simulate import simulate
from nodes.simulator.story import Arrow, Moment, Story
from reports.charts.message_diagram import MOST_ARROWS, Diagram, page
from tests.chaos.test_simulate import BUG, capbench

pytestmark = pytest.mark.long

NODES = ["n1", "n2", "n3"]
NASTY = '<script>alert("1")</script> & </pre> \x00 \x1b[31m'


def drawn(story: Story, text: str = "plain") -> tuple[str, ET.Element]:
    """A page and its SVG."""
    html = page(
        Diagram(
            title=text,
            message=text,
            command=text,
            facts=[text],
            nodes=NODES,
            story=story,
            transcript=[text],
        )
    )
    found = re.search(r"<svg.*</svg>", html, re.DOTALL)
    assert found is not None
    return html, ET.fromstring(found[0])


def of_class(svg: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in svg.iter() if name in (element.get("class") or "").split()]


def arrow(src: str, dst: str, sent_s: float, arrived_s: float | None, **fields: str) -> Arrow:
    wanted = {"label": "Ping", "text": "Ping()", "fate": "arrived", **fields}
    return Arrow(src=src, dst=dst, sent_s=sent_s, arrived_s=arrived_s, **wanted)  # type: ignore[arg-type]


def test_shrinking_prints_a_short_story_and_writes_its_diagram(tmp_path: Path) -> None:
    found = next(seed for seed in range(1, 50) if simulate(_bug(), seed).alarms)
    command = ("simulate", "--protocol", BUG, "--seed", str(found), "--shrink")
    code, out, err = capbench(*command, cwd=tmp_path)
    assert code == 4
    assert "Traceback" not in err
    lines = out.splitlines()
    assert lines[0] == f"{BUG}, seed {found}"
    assert len(lines) < 250
    assert any(line.startswith("ALARM invariant: ") for line in lines)
    assert f"again: capbench {' '.join(command)}" in out
    name = lines[-1].removeprefix("message diagram: ")
    assert name == f"results/simulate/{BUG}-{found}/diagram.html"
    html = (tmp_path / name).read_text()
    assert "ALARM invariant" in html
    assert re.findall(r'(?:src|href)="', html) == [], "nothing is loaded from elsewhere"

    _, again, _ = capbench(*command, cwd=tmp_path, hash_seed=9)
    assert again == out
    assert (tmp_path / name).read_text() == html


def _bug() -> Protocol:
    from chaos.seeds.simulate import find_protocol

    return find_protocol(BUG)


# --- the story of a run ---


def test_a_story_has_every_message_and_what_became_of_it() -> None:
    tape = [
        Fault(at_s=0.5, kind="partition", for_s=0.5, args={"groups": "isolate", "nodes": ["n1"]}),
        Fault(at_s=0.5, kind="message-loss", for_s=2.0, args={"share": 0.3}),
        Fault(at_s=0.5, kind="duplication", for_s=2.0, args={"share": 0.5}),
        Fault(at_s=1.2, kind="crash", for_s=0.3, args={"nodes": ["n2"]}),
        Fault(at_s=1.6, kind="pause", for_s=0.2, args={"nodes": ["n3"]}),
    ]
    result = simulate("raft", 3, nodes=3, duration_s=2.0, tape=tape, trace=True, finish=False)
    assert result.story is not None
    between = [a for a in result.story.arrows if a.src in NODES and a.dst in NODES]
    fates = Counter(a.fate for a in between)
    counters = result.counters
    assert fates["arrived"] == counters["messages_delivered"]
    assert fates["lost"] == counters["messages_lost"] > 0
    assert fates["cut"] == counters["messages_cut"] > 0
    copies = len(between) - counters["messages_sent"]
    assert copies > 0, "a second copy is an arrow of its own"
    for a in between:
        assert a.arrived_s is None or a.arrived_s >= a.sent_s
    requests = [a for a in result.story.arrows if a.dst in NODES and a.src not in NODES]
    assert len(requests) >= len(result.history)
    told = Counter(m.what for m in result.story.moments)
    assert (told["fault"], told["crash"], told["pause"]) == (5, 1, 1)
    assert told["start"] == 3 + 1
    assert simulate("raft", 3, nodes=3, duration_s=2.0, tape=tape).story is None


# --- the diagram ---


def test_what_came_is_an_arrow_and_what_did_not_is_a_cross() -> None:
    story = Story(
        arrows=[
            arrow("n1", "n2", 1.0, 1.1),
            arrow("n1", "n3", 1.0, None, fate="lost"),
            arrow("n2", "n3", 1.2, 1.4, fate="cut"),
            arrow("n2", "n1", 2.2, 2.3),
            arrow("n3", "n1", 2.9, None, fate="under way"),
        ],
        moments=[Moment(2.0, "n1", "crash", "n1 CRASHES"), Moment(2.5, "n1", "start", "n1 starts")],
    )
    _, svg = drawn(story)
    arrows = [element for element in svg.iter() if element.get("marker-end")]
    assert len(arrows) == 2
    assert len(of_class(svg, "cross")) == 2 * 3
    assert len(of_class(svg, "open")) == 1
    assert [head.text for head in of_class(svg, "head")] == NODES
    (down,) = of_class(svg, "down")
    first = arrows[0]
    assert float(first.get("y1", "")) < float(first.get("y2", "")), "time runs downwards"
    y = float(down.get("y", ""))
    assert float(first.get("y2", "")) < y
    ends = {float(element.get("y2", "")) for element in of_class(svg, "lost")}
    assert any(y < end < y + float(down.get("height", "")) for end in ends), "nobody was there"


def test_faults_are_bars_from_begin_to_heal() -> None:
    moments = [
        Moment(0.0, "n1", "start", "n1 starts"),
        Moment(1.0, "", "fault", "FAULT 1 partition {} for 1 s"),
        Moment(1.5, "", "fault", "FAULT 2 crash {} for 9 s"),
        Moment(2.0, "", "heal", "HEAL 1"),
        Moment(3.0, "", "alarm", "ALARM invariant: broken"),
    ]
    _, svg = drawn(Story(arrows=[arrow("c1", "n1", 0.5, 0.6)], moments=moments))
    one, two = of_class(svg, "fault")

    def ends(bar: ET.Element) -> tuple[float, float]:
        top = float(bar.get("y", ""))
        return top, top + float(bar.get("height", ""))

    assert ends(one)[0] < ends(two)[0] < ends(one)[1] < ends(two)[1]
    assert one.get("x") != two.get("x")
    (line,) = of_class(svg, "alarm-line")
    assert float(line.get("y1", "")) == ends(two)[1]
    assert "c1" in [head.text for head in of_class(svg, "head")]


def test_everything_is_escaped() -> None:
    story = Story(
        arrows=[arrow("<c>1", "n1", 0.1, 0.2, label=NASTY, text=NASTY)],
        moments=[
            Moment(0.1, "n1", "mark", f"n1 MARK {NASTY}"),
            Moment(0.1, "", "fault", f"FAULT 1 {NASTY}"),
            Moment(0.3, "", "alarm", NASTY),
        ],
    )
    html, _ = drawn(story, NASTY)
    assert "<script" not in html
    assert html.count("</pre>") == 1
    assert "&lt;script&gt;" in html
    assert "\x00" not in html
    assert "\x1b" not in html


def test_of_a_long_story_the_end_is_drawn() -> None:
    count = MOST_ARROWS + 50
    arrows = [arrow("n1", "n2", float(i), i + 0.5, label=f"m{i}") for i in range(count)]
    html, svg = drawn(Story(arrows=arrows, moments=[Moment(0.0, "n1", "start", "n1 starts")]))
    assert "The first 50 messages are not drawn" in html
    labels = [label.text for label in of_class(svg, "label")]
    assert labels == [f"m{i}" for i in range(50, count)]
