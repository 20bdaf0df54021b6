"""The page: what it says, that nothing leaves it, and that a browser draws it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.record.history import HistoryWriter, OperationRecord
from bench.record.quantities import format_share
from bench.record.run_folder import BadRunFolder, RunFolder, write_json
from nodes.simulator.story import Arrow, Fate, Moment, Story
from reports.charts.anomaly import Messages
from reports.charts.charts import charts
from reports.data.metrics import load
from reports.data.repeats import repeats
from reports.data.summary import witness_of
from reports.formats import render
from reports.formats.render import write_report
from tests import browser
from tests.reports import synthetic

pytestmark = pytest.mark.long

EVIL = "</td><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"


@pytest.fixture(scope="module")
def page(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    bench = benchmarks_in(folder)
    out = folder / "sub" / "report.html"
    folders = list(runs.values())
    assert write_report(folders, out, title="Two protocols", benchmarks=bench) == out
    return out


def benchmarks_in(folder: Path) -> Path:
    """What `make bench` leaves, with names that are no HTML."""
    bench = folder / "bench" / "latest.json"
    bench.parent.mkdir()
    figure = {"name": "codec <b>", "value": 12345.0, "unit": "frames/CPU s", "ratio": 1.5}
    bench.write_text(json.dumps([{**figure, "compared_with": "json", "goal": 10_000}]))
    (bench.parent / "hardware.json").write_text(json.dumps({"cores": 2, "processor": "a <i>"}))
    return bench


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether tags were closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_is_well_formed_small_and_asks_no_network_for_anything(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    assert len(text) < 5_000_000
    for tag, attributes in parsed.tags:
        assert tag not in ("iframe", "object", "embed")
        for name in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,"
    assert not re.search(r"url\((?!#)|@import|https?://", text)


def scripts(text: str) -> list[str]:
    """What the page would execute; data is not."""
    found = re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)
    for attributes, body in found:
        if attributes == ' type="application/json"':
            assert json.loads(body)["series"]
    return [body for attributes, body in found if attributes != ' type="application/json"']


def test_the_page_runs_one_script_and_its_policy_allows_no_other(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    (script,) = scripts(text)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f"\"{policy}; script-src 'sha256-{digest}'\"" in text
    assert "Permission is hereby granted, free of charge" in script, "uPlot's licence"


def test_a_page_without_charts_has_no_script(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "r", synthetic.manifest(synthetic.Shape("raft", "x")))
    text = write_report([folder.path], tmp_path / "report.html").read_text()
    assert scripts(text) == []
    assert "script-src" not in text


EXPLORE = """
<script>
const wait = (ms = 300) => new Promise(done => setTimeout(done, ms));
const until = async holds => { for (let n = 0; n < 300000 && !holds(); n++) await wait(10); };
const at = (over, kind, share) => {
  const box = over.getBoundingClientRect();
  return new MouseEvent(kind, {bubbles: true, button: 0, movementX: 5,
    clientX: box.left + share * box.width, clientY: box.top + box.height / 2});
};
const drag = (over, from, to) => {
  for (const [kind, share] of [["move", from], ["down", from], ["move", to], ["up", to]])
    (kind === "up" ? document : over).dispatchEvent(at(over, "mouse" + kind, share));
};
(async () => {
  const section = document.querySelector("#experiment-2");
  const drawings = () => [...section.querySelectorAll(".drawing.live")];
  // They come to life when they are seen, which takes frames; a busy machine has few.
  await until(() => drawings().length === 3);
  await wait();
  const live = drawings();
  const shown = () => live.map(each => [...each.querySelectorAll("button")].filter(b => !b.hidden)
    .map(b => b.textContent));
  const seen = {live: live.length, titles: live.map(each =>
    each.querySelector(".plot").getAttribute("aria-label")), before: shown()};
  drag(live[1].querySelector(".u-over"), 0.25, 0.5);
  await wait();
  seen.zoomed = shown();
  const over = live[1].querySelector(".u-over");
  over.dispatchEvent(at(over, "mousemove", 0.5));
  await wait();
  seen.values = live.map(each => each.querySelector(".keys").textContent);
  live[1].querySelector(".back").click();
  const key = live[1].querySelector("button.key");
  key.click();
  await wait();
  seen.after = shown();
  seen.pressed = key.getAttribute("aria-pressed");
  const note = document.createElement("pre");
  note.id = "probe"; note.textContent = JSON.stringify(seen);
  document.body.append(note);
})();
</script>
"""


def test_charts_can_be_zoomed_together_and_read_and_series_hidden(
    page: Path, tmp_path: Path
) -> None:
    options = (
        "--window-size=1300,20000",
        "--virtual-time-budget=3600000",
        "--run-all-compositor-stages-before-draw",
    )
    seen = browser.probe(page.read_text(encoding="utf-8"), EXPLORE, tmp_path, *options)
    assert seen["live"] == 3
    assert seen["titles"][1] == "p99 of what ended ok, interactive"
    ends = [["show all"] if "show all" in keys else [] for keys in seen["zoomed"]]
    assert ends == [["show all"], ["show all"], []], "both over time, not the percentiles"
    assert seen["after"][0][0].startswith(seen["before"][0][0])
    assert all("show all" not in keys for keys in seen["after"])
    served, p99, _ = seen["values"]
    assert re.match(r"\d+(\.\d+)? s", p99)
    assert re.search(r"raft\d", p99)
    assert re.search(r"gossip\d", p99)
    moments = [float(keys.partition(" s")[0]) for keys in (served, p99)]
    assert abs(moments[0] - moments[1]) <= 0.5, "the same moment in both, in bins of 0.5 s"
    assert seen["pressed"] == "false"


def test_every_link_and_reference_has_its_target_and_ids_are_unique(page: Path) -> None:
    tags = Page(page.read_text(encoding="utf-8")).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        href = attributes.get("href") or ""
        if href.startswith("#"):
            assert href[1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids


def test_the_first_screen_says_who_stayed_available_and_who_consistent(page: Path) -> None:
    text = Page(page.read_text(encoding="utf-8")).text
    assert "stayed consistent; in leader-partition, it served none of the minority's" in text
    assert "gave stale answers in leader-partition, as its claim (eventual) allows" in text
    assert "Why it is not linearizable (its claim, eventual, allows this)" in text
    for figure in ("majority 1.000 minority 0.000", "majority 1.000 minority 1.000"):
        assert figure in text
    assert "simulated" not in text


def test_every_chart_has_a_name_a_sentence_and_its_numbers(
    page: Path, runs: dict[str, Path]
) -> None:
    of_runs = sum(len(list(charts(load(path)))) for path in runs.values())
    of_experiments = 2 + 3 + 2  # who was served is a chart only where not everybody was
    parsed = Page(page.read_text(encoding="utf-8"))
    figures = sum(tag == "figure" for tag, _ in parsed.tags)
    drawings = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert figures == len(drawings) == of_runs + of_experiments + 1, "and the CAP map"
    assert all(each["role"] == "img" and each["aria-label"] for each in drawings)
    assert parsed.text.count("The numbers:") == figures


def test_benchmarks_are_shown_with_their_machine(runs: dict[str, Path], tmp_path: Path) -> None:
    bench = benchmarks_in(tmp_path)

    def text() -> str:
        out = write_report([runs["raft-healthy"]], tmp_path / "r.html", benchmarks=bench)
        return Page(out.read_text()).text

    said = text()
    for words in ("Benchmarks", "codec <b>", "12,345", "frames/CPU s", "a <i>", "10,000"):
        assert words in said, words
    bench.write_text("[{]")
    assert "Benchmarks" not in text(), "what cannot be read is not shown"


def test_html_in_the_data_stays_text(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "gossip", keys=[EVIL, "k1"], seed=3)
    manifest = folder.manifest()
    manifest.protocol = manifest.experiment_name = EVIL
    manifest.experiment["shows"] = EVIL
    manifest.notes = manifest.command = [EVIL]
    manifest.versions[EVIL] = manifest.hardware[EVIL] = EVIL
    manifest.parameters = {EVIL: [EVIL]}
    folder.write_manifest(manifest)
    fault = folder.faults()[0]
    fault.error, fault.groups = EVIL, [["n1"], [EVIL]]
    folder.append_fault(fault)
    with HistoryWriter(folder.history_dir / "load.jsonl") as writer:
        for number in range(2):
            writer.append(
                OperationRecord(
                    process=EVIL,
                    id=900_000 + number,
                    op="write",
                    key=EVIL,
                    outcome="fail",
                    invoked_ns=synthetic.ns(3 + number),
                    completed_ns=synthetic.ns(3.1 + number),
                    value=EVIL,
                    node="n1",
                    error=EVIL,
                )
            )
    out = write_report([folder.path, tmp_path / EVIL.replace("/", "")], tmp_path / "x.html", EVIL)
    text = out.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    tags = {tag for tag, _ in parsed.tags}
    assert "img" not in tags
    (ours,) = scripts(text)
    assert "alert" not in ours
    for _, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")]
    assert parsed.text.count("<script>alert(1)</script>") > 10


def test_a_run_of_nothing_and_a_folder_of_nothing_are_reported(tmp_path: Path) -> None:
    shape = synthetic.Shape("raft", "healthy")
    folder = RunFolder.create(tmp_path / "run", synthetic.manifest(shape))
    out = write_report([folder.path, tmp_path / "nowhere"], tmp_path / "report.html")
    text = Page(out.read_text(encoding="utf-8")).text
    assert "no operations: the load left no history" in text
    assert "? unknown" in text
    assert "Left out:" in text
    assert "nowhere" in text
    assert "✔" not in text
    with pytest.raises(BadRunFolder, match="nowhere"):
        write_report([tmp_path / "nowhere"], tmp_path / "report.html")


def test_simulated_is_said_at_the_rates(tmp_path: Path) -> None:
    folders = [
        synthetic.latency(tmp_path / name, name, simulated=True).path for name in ("raft", "gossip")
    ]
    text = Page(write_report(folders, tmp_path / "r.html").read_text()).text
    for words in (
        "latency-50ms simulated",
        "ok op/s (simulated)",
        "Rate (simulated)",
        "operations/s (simulated)",
        "All rates are simulated",
    ):
        assert words in text


def test_a_page_of_one_run_says_nothing_twice(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "raft")
    manifest = folder.manifest()
    manifest.experiment["shows"] = "what a cut does"
    folder.write_manifest(manifest)
    text = Page(write_report([folder.path], tmp_path / "r.html").read_text()).text
    assert text.count("what a cut does") == 2, "at the run, and in the experiment as validated"
    assert "By experiment" not in text
    assert "The experiment as validated" in text


def test_charts_that_do_not_fit_are_left_out_and_said_so(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "MOST_CHART_BYTES", 100)
    folders = [runs["raft-healthy"], runs["raft-healthy"], runs["gossip-healthy"]]
    text = write_report(folders, tmp_path / "r.html").read_text()
    _, _, of_runs = text.partition('<div id="runs">')
    assert of_runs.count("<figure>") == len(list(charts(load(folders[0]))))
    assert text.count("were left out to keep the page small") == 2


# -- in a browser ------------------------------------------------------------------------------

PROBE = """
<script>
const seen = {images: [...document.querySelectorAll("img")].map(
    i => ({complete: i.complete, width: i.naturalWidth, height: i.naturalHeight})),
  drawings: [], resources: performance.getEntriesByType("resource").length,
  wide: document.documentElement.scrollWidth, inner: innerWidth};
for (const svg of document.querySelectorAll("svg")) {
  const box = svg.getBoundingClientRect();
  // Data only: neither the legend nor the bands of the faults.
  const marks = [...svg.querySelectorAll(".mark")];
  let drawn = 0, inked = 0;
  for (const mark of marks) {
    const size = mark.getBBox(), style = getComputedStyle(mark);
    const parts = mark.getAttribute("d").split("M").length - 1;
    drawn += parts;
    if (style.stroke.startsWith("rgb") && parseFloat(style.strokeWidth) > 1
        && size.width + size.height >= 0) inked += parts;
  }
  seen.drawings.push({label: svg.getAttribute("aria-label"), width: box.width,
    height: box.height, marks: drawn, inked: inked});
}
seen.ink = getComputedStyle(document.querySelector("svg .y text")).fill;
const note = document.createElement("pre");
note.id = "probe"; note.textContent = JSON.stringify(seen);
document.body.append(note);
</script>
"""


def look(page: Path, tmp_path: Path, *options: str) -> dict[str, Any]:
    """What the probe makes of the page."""
    return browser.probe(page.read_text(encoding="utf-8"), PROBE, tmp_path, *options)


def test_a_browser_draws_every_chart_and_loads_nothing(page: Path, tmp_path: Path) -> None:
    seen = look(page, tmp_path, "--window-size=1300,900")
    assert seen["resources"] == 0
    assert len(seen["drawings"]) == page.read_text().count("<figure>")
    for drawing in seen["drawings"]:
        assert drawing["width"] > 500, drawing
        assert drawing["height"] > 50, drawing
        least = 2 if drawing["label"] == "Faults" else 1  # the bar and the tick
        assert drawing["inked"] >= least, drawing
    points = [d for d in seen["drawings"] if d["label"].startswith("Each operation")]
    assert all(drawing["inked"] > 250 for drawing in points)


def test_a_browser_draws_the_messages_around_an_anomaly(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["gossip-leader-partition"], folder)
    fates: tuple[Fate, ...] = ("arrived", "cut", "arrived")
    arrows = [
        Arrow(src="n1", dst="n2", label="Rumour", text=EVIL, sent_s=i, arrived_s=i + 0.1, fate=fate)
        for i, fate in enumerate(fates)
    ]
    moments = [Moment(0.5, "n1", "mark", f"asked-1 {EVIL}")]
    around = [line.operation.id for line in witness_of(RunFolder(folder).verdict())]
    kept = Messages(nodes=["n1", "n2"], story=Story(arrows, moments), total=9, witness=around)
    write_json(folder / "messages.json", kept)
    page = write_report([folder], tmp_path / "report.html")
    assert "3 of 9 messages between n1, n2" in Page(page.read_text()).text
    (drawn,) = look(page, tmp_path, "--window-size=1300,900")["images"]
    assert drawn["complete"]
    assert drawn["width"] > 300
    assert drawn["height"] > 100
    source = re.search(r'src="data:image/svg\+xml;base64,([^"]*)"', page.read_text())
    assert source is not None
    svg = ElementTree.fromstring(base64.b64decode(source[1]))
    assert "script" not in {element.tag.rpartition("}")[2] for element in svg.iter()}


def test_it_fits_a_phone_and_follows_the_dark_theme(page: Path, tmp_path: Path) -> None:
    light = look(page, tmp_path, "--window-size=500,900")
    assert light["wide"] <= light["inner"]
    dark = look(page, tmp_path, "--window-size=1300,900", "--blink-settings=preferredColorScheme=0")
    assert light["ink"] != dark["ink"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_to_object_to(page: Path, tmp_path: Path, theme: str) -> None:
    options = ["--window-size=1300,900"]
    if theme == "dark":
        options.append("--blink-settings=preferredColorScheme=0")
    found = browser.axe(page.read_text(encoding="utf-8"), tmp_path, *options)
    assert found["violations"] == []
    assert {"color-contrast", "document-title", "html-has-lang", "region"} <= set(found["passes"])


# --- objectives and repeats ---


def with_objectives(folder: Path, **wanted: dict[str, str]) -> Path:
    run = RunFolder(folder)
    manifest = run.manifest()
    manifest.experiment["objectives"] = wanted
    run.write_manifest(manifest)
    return folder


def test_a_missed_objective_is_shown_in_the_overview_and_beside_its_run(tmp_path: Path) -> None:
    folder = with_objectives(
        synthetic.leader_partition(tmp_path / "run", "raft").path,
        before={"availability": ">= 0.5"},
        during={"availability": ">= 0.999", "throughput": ">= 900/s"},
        always={"consistency": "claimed"},
    )
    summary = load(folder).summary
    other = synthetic.leader_partition(tmp_path / "other", "gossip").path
    text = write_report([folder, other], tmp_path / "report.html").read_text()
    overview, _, _ = text.partition('<div id="runs">')
    assert summary.availability.during is not None
    measured = format_share(summary.availability.during)
    assert overview.count('<p class="missed">') == 2
    assert f"objective during availability &gt;= 0.999: missed, {measured}" in overview
    said = Page(text).text
    assert f"during availability >= 0.999 {measured} missed" in said
    assert "before availability >= 0.5 1.000 met" in said
    assert "always consistency claimed linearizable claimed, linearizable measured met" in said


def test_repeats_that_missed_an_objective_are_counted(tmp_path: Path) -> None:
    made = [synthetic.healthy(tmp_path / f"{seed}", "raft", seed=seed).path for seed in (1, 2)]
    for folder, least in zip(made, ("1/s", "900/s"), strict=True):
        with_objectives(folder, before={"throughput": f">= {least}"})
    with_objectives(made[0], before={"throughput": ">= 900/s"})
    overview = write_report(made, tmp_path / "r.html").read_text().partition('<div id="runs">')[0]
    assert "missed in 2 of 2 runs" in overview


def test_the_table_of_repeats_has_median_and_interval_of_each_figure(tmp_path: Path) -> None:
    made = [
        synthetic.leader_partition(tmp_path / f"{seed}", "raft", seed=seed).path
        for seed in (1, 2, 3)
    ]
    page = write_report([*made], tmp_path / "report.html").read_text()
    section = re.search(
        r'<section class="part" aria-labelledby="repeats">(.*?)</section>', page, re.DOTALL
    )
    assert section is not None
    said = Page(section[1]).text
    (one,) = repeats([load(folder).summary for folder in made])
    during = one.throughput["during"]
    assert during.low is not None
    assert during.high is not None
    figures = f"3 {during.median:.0f} {during.mean:.0f} {during.low:.0f} to {during.high:.0f}"
    assert "leader-partition raft 3: 3 holds ok op/s before 3 " in said
    assert f"ok op/s during {figures}" in said
    for figure in ("availability majority 3 1.000", "availability minority 3 0.000", "back in, s"):
        assert figure in said
    titles = re.findall(r"<h2 id=.run-.*?>(.*?)</h2>", page)
    assert titles == [f"raft · leader-partition, run {number}" for number in (1, 2, 3)]
    alone = write_report(made[:1], tmp_path / "alone.html").read_text()
    assert "Repeats" not in alone


def test_runs_of_two_plans_are_two_columns_of_the_page(tmp_path: Path) -> None:
    made = [synthetic.healthy(tmp_path / f"{seed}", "raft", seed=seed).path for seed in (1, 2)]
    run = RunFolder(made[1])
    manifest = run.manifest()
    manifest.experiment["duration"] = "<b>9s</b>"
    run.write_manifest(manifest)
    page = write_report(made, tmp_path / "report.html").read_text()
    assert "healthy · plan 1</th>" in page
    assert "raft · healthy · plan 2" in page
    assert "plan 2 has duration &lt;b&gt;9s&lt;/b&gt;" in page
    assert "<b>9s" not in page
    assert 'id="repeats"' not in page
