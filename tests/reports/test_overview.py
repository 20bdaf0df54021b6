"""The heat map: what a cell shows, and that a browser sorts it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.record.run_folder import RunFolder
from reports.charts.cap_map import cap_map
from reports.charts.side_by_side import style_of
from reports.data import compare
from reports.data.metrics import load
from reports.data.summary import RunSummary
from reports.formats import render
from reports.formats.overview import heat_map
from reports.formats.render import write_loaded, write_report
from tests import browser
from tests.reports import synthetic


def changed(run: RunSummary, **fields: Any) -> RunSummary:
    return msgspec.structs.replace(run, **fields)


def shares(run: RunSummary, **fields: float) -> RunSummary:
    return changed(run, availability=msgspec.structs.replace(run.availability, **fields))


@pytest.fixture
def parted(summaries: list[RunSummary]) -> RunSummary:
    return next(s for s in summaries if (s.protocol, s.experiment) == ("raft", "leader-partition"))


def test_a_cell_of_repeats_shows_the_worst_and_opens_it(parted: RunSummary) -> None:
    runs = [
        shares(parted, majority=0.9, minority=0.5),
        changed(shares(parted, majority=0.95, minority=0.4), verdict="unknown"),
        shares(parted, majority=0.8, minority=0.6),
    ]
    (spot,) = heat_map(compare.matrix(runs)).spots.values()
    assert spot.cell.verdict == "unknown"
    assert spot.run is runs[1]
    assert spot.fills == [("majority", 0.8), ("minority", 0.4)]
    assert spot.number == "0.400"


def test_rows_stand_by_claim_and_columns_by_kind_of_fault(summaries: list[RunSummary]) -> None:
    heat = heat_map(compare.matrix(summaries))
    assert [(row.name, row.begins) for row in heat.rows] == [("raft", True), ("gossip", True)]
    assert [group for group, _ in heat.groups] == ["no fault", "links cut", "other faults"]
    assert heat.columns[0].name == "healthy"


def test_the_kind_is_that_of_the_planned_faults(parted: RunSummary) -> None:
    def planned(*faults: str) -> str:
        plan = {f"schedule.{n}.fault": fault for n, fault in enumerate(faults, 1)}
        run = changed(parted, plan=msgspec.structs.replace(parted.plan, experiment=plan))
        ((kind, _),) = heat_map(compare.matrix([run])).groups
        return kind

    assert planned("crash") == "nodes stopped"
    assert planned("latency", "message-loss") == "links slow or lossy"
    assert planned("clock", "partition") == "several kinds"
    assert planned("a fault of tomorrow") == "other faults"


SORTED = """
<script>
const names = () => [...document.querySelectorAll(".heat tbody tr")]
  .map(row => [row.getBoundingClientRect().top, row.className.slice(0, 2)])
  .sort((one, other) => one[0] - other[0]).map(each => each[1]);
const columns = () => [...document.querySelectorAll(".heat tbody tr:first-child td")]
  .map(cell => [cell.getBoundingClientRect().left, cell.className.slice(0, 2)])
  .sort((one, other) => one[0] - other[0]).map(each => each[1]);
const seen = {first: names(), columns: columns()};
document.getElementById("rows-1").click();
seen.by_name = names();
document.getElementById("columns-2").click();
seen.worst = columns();
seen.kinds = getComputedStyle(document.querySelector(".kinds")).display;
location.hash = "#run-2";
setTimeout(() => {
  seen.open = document.getElementById("run-2").closest("details").open;
  const note = document.createElement("pre");
  note.id = "probe"; note.textContent = JSON.stringify(seen);
  document.body.append(note);
}, 200);
</script>
"""


def test_a_browser_sorts_the_map_and_a_cell_opens_its_run(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    page = write_report(list(runs.values()), tmp_path / "report.html").read_text()
    page = page.replace('<details class="one" open>', '<details class="one">')
    seen = browser.probe(
        page, SORTED, tmp_path, "--window-size=1600,1000", "--virtual-time-budget=5000"
    )
    assert seen["first"] == ["r0", "r1"]
    assert seen["by_name"] == ["r1", "r0"], "gossip, raft"
    assert seen["columns"] == ["c0", "c1", "c2"]
    assert seen["worst"][0] == "c1", "the partition"
    assert seen["kinds"] == "none", "a heading over what is no group any more"
    assert seen["open"], "it was folded"


FITS = """
<script>
const heat = document.querySelector(".heat").getBoundingClientRect();
const note = document.createElement("pre");
note.id = "probe";
note.textContent = JSON.stringify({wide: document.documentElement.scrollWidth, inner: innerWidth,
  cells: document.querySelectorAll(".heat .spot").length, right: heat.right, tall: heat.height});
document.body.append(note);
</script>
"""


def test_eight_protocols_in_22_experiments_fit_on_a_screen(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "MOST_CHART_BYTES", 0)
    one = load(runs["raft-leader-partition"])
    many = [
        replace(one, summary=changed(one.summary, experiment=f"isolate-{e}", protocol=f"raft-{p}"))
        for e in range(22)
        for p in range(8)
    ]
    page = write_loaded(many, tmp_path / "report.html").read_text()
    seen = browser.probe(page, FITS, tmp_path, "--window-size=1280,1000")
    assert seen["cells"] == 8 * 22
    assert seen["right"] <= seen["inner"]
    assert seen["wide"] <= seen["inner"]
    assert seen["tall"] < 600


NARROW = """
<script>
const spots = [...document.querySelectorAll(".heat .spot")];
const note = document.createElement("pre");
note.id = "probe";
note.textContent = JSON.stringify({inner: innerWidth, page: document.documentElement.scrollWidth,
  spots: spots.length, spilling: spots.filter(a => a.scrollWidth > a.clientWidth).length});
document.body.append(note);
</script>
"""


def test_on_a_phone_nothing_spills_out_of_its_cell(runs: dict[str, Path], tmp_path: Path) -> None:
    page = write_report(list(runs.values()), tmp_path / "report.html").read_text()
    assert "heat roomy" in page
    # Chromium has no window narrower than 500 pixels.
    narrow = '<body style="width: 420px">'
    page = page.replace("<body>", narrow).replace("max-width: 720px", "max-width: 7200px")
    seen = browser.probe(page, NARROW, tmp_path, "--window-size=600,900")
    assert seen["spots"] == len(runs)
    assert seen["spilling"] == 0
    assert seen["page"] <= seen["inner"]


def test_what_is_unknown_or_refuted_is_told_in_words_and_never_green(tmp_path: Path) -> None:
    folder = synthetic.healthy(tmp_path / "cut", "raft")
    manifest = folder.manifest()
    manifest.complete = False
    folder.write_manifest(manifest)
    verdict = RunFolder(folder.path).verdict()
    assert verdict is not None
    verdict.verdict, verdict.reason = "unknown", "the run was cut short"
    folder.write_verdict(verdict)
    page = write_report([folder.path], tmp_path / "report.html").read_text()
    (spot,) = re.findall(r'<a class="spot (\w+)"[^>]*title="([^"]*)"', page)
    assert spot[0] == "unknown"
    assert "the run was cut short" in spot[1]


def test_the_cap_map_has_what_was_measured_and_leaves_out_what_is_unknown(
    summaries: list[RunSummary],
) -> None:
    grid = compare.matrix(summaries)
    view = cap_map(grid, style_of(grid.protocols))
    assert view is not None
    rows = view.data.set_index(["protocol", "experiment"])
    assert rows.loc[("raft", "leader-partition"), "during"] == 0
    assert rows.loc[("raft", "leader-partition"), "measured"] == "linearizable"
    assert rows.loc[("gossip", "leader-partition"), "during"] == 1
    assert ("raft", "healthy") not in rows.index, "it has no fault"
    unknown = [
        changed(run, verdict="unknown", measured_model="unknown")
        if (run.protocol, run.experiment) == ("raft", "leader-partition")
        else run
        for run in summaries
    ]
    grid = compare.matrix(unknown)
    view = cap_map(grid, style_of(grid.protocols))
    assert view is not None
    assert "1 unknown cells are not on the map" in view.note
    assert json.loads(view.data.to_json(orient="records"))
    assert not ((view.data["protocol"] == "raft") & (view.data["kind"] == "links cut")).any()
