"""An experiment on the page: all protocols in one table and in common charts."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from reports.charts import side_by_side
from reports.charts.view import ChartView
from reports.data import compare
from reports.data.metrics import RunTables, load
from reports.data.repeats import differences
from reports.formats.render import write_report
from tests.reports import synthetic


@pytest.fixture(scope="module")
def group(runs: dict[str, Path]) -> dict[str, list[RunTables]]:
    return {name: [load(runs[f"{name}-leader-partition"])] for name in ("raft", "gossip")}


def by_name(group: dict[str, list[RunTables]]) -> dict[str, ChartView]:
    return {view.name: view for view in side_by_side.charts(group, side_by_side.style_of([*group]))}


def test_every_chart_has_all_protocols_and_the_fault(group: dict[str, list[RunTables]]) -> None:
    views = by_name(group)
    assert set(views) == {"served", "p99", "nines"}
    for view in views.values():
        words = " ".join(map(str, view.data.columns))
        assert "raft" in words
        assert "gossip" in words
        assert len(view.data)
    assert "partition" in views["served"].svg()
    assert "partition" in views["p99"].svg()


def test_each_side_of_the_cut_has_its_row(group: dict[str, list[RunTables]]) -> None:
    data = by_name(group)["served"].data
    cut = data[data["t_s"].between(8, 11)]
    assert (cut["raft minority"] == 0).all()
    assert (cut["raft majority"] == 1).all()
    assert (cut["gossip minority"] == 1).all()
    assert (data[data["t_s"] > 15]["raft minority"] == 1).all(), "no sides: all nodes"


def test_where_everybody_was_served_there_is_no_chart_of_it(runs: dict[str, Path]) -> None:
    healthy = {name: [load(runs[f"{name}-healthy"])] for name in ("raft", "gossip")}
    assert set(by_name(healthy)) == {"p99", "nines"}


def test_repeats_are_taken_together(group: dict[str, list[RunTables]]) -> None:
    once, twice = by_name(group), by_name({**group, "raft": group["raft"] * 2})
    assert "Up to 2 runs of a protocol are taken together." in twice["served"].note
    assert "together" not in once["served"].note
    assert (once["served"].data == twice["served"].data).all().all()


def test_the_table_has_all_figures_of_a_protocol_in_a_row(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    folders = [runs["raft-leader-partition"], runs["gossip-leader-partition"]]
    page = write_report(folders, tmp_path / "report.html").read_text()
    (table,) = re.findall(r'<table class="figures">(.*?)</table>', page, re.DOTALL)
    text = html.unescape(" ".join(re.sub(r"<[^>]+>", " ", table).split()))
    summary = load(folders[0]).summary
    rates = (summary.throughput.before, summary.throughput.during, summary.throughput.after)
    rate = " → ".join(compare.per_second(each) for each in rates)
    during = compare.ratio(summary.availability.during)
    figures = f"{during} 1.000 0.000 {rate} > 2 s 1.2 s"
    assert f"raft claims linearizable ✔ holds linearizable {figures}" in text
    assert "gossip claims eventual ✔ holds" in text
    assert "messages" not in text, "nobody counted"


def test_differences_between_repeated_protocols_are_tested(tmp_path: Path) -> None:
    def cells(count: int) -> list[compare.Cell]:
        summaries = [
            load(made(tmp_path / f"{count}-{name}-{seed}", name, seed=seed).path).summary
            for made in (synthetic.leader_partition,)
            for name in ("raft", "gossip")
            for seed in range(count)
        ]
        return [*compare.matrix(summaries).cells.values()]

    said = differences(cells(4))
    rate = next(line for line in said if line.startswith("served op/s while faults were on"))
    assert rate == ("served op/s while faults were on: raft less than gossip (p = 0.029).")
    few = ["With 3 runs, this test can show none: four of each are needed."]
    assert differences(cells(3)) == few
    assert differences(cells(1)) == []
