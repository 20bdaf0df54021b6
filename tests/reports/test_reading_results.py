"""The example of docs/READING_RESULTS.md is what the code makes of the history it describes."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from bench.checkers.verdict import check_run
from bench.record.quantities import format_share
from reports.charts.charts import charts
from reports.data.metrics import RunTables, load
from tests.known import PARTITION

DOCS = Path(__file__).parents[2] / "docs"
DRAWING = DOCS / "images" / "availability.svg"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunTables:
    folder = PARTITION.write(tmp_path_factory.mktemp("known") / "partition")
    folder.write_verdict(check_run(folder))
    return load(folder.path)


def test_the_drawing_is_that_of_the_code(run: RunTables, request: pytest.FixtureRequest) -> None:
    """``--rewrite-transcripts`` writes it."""
    (view,) = [view for view in charts(run) if view.name == "availability"]
    if request.config.getoption("--rewrite-transcripts"):
        DRAWING.write_text(view.svg(), encoding="utf-8")
    assert DRAWING.read_text(encoding="utf-8") == view.svg()


def test_the_figures_of_the_example_are_those_of_the_code(run: RunTables) -> None:
    text = (DOCS / "READING_RESULTS.md").read_text()
    rows = {
        row["phase"] if row["side"] == "all" else row["side"]: row
        for row in run.windows.to_dict("records")
    }
    for name in ("during", "majority", "minority"):
        row = rows[name]
        (line,) = re.findall(rf"^ +{name} +(\d+) +(\d+) +([\d.]+) +([\d.]+)$", text, re.MULTILINE)
        told = (int(line[0]), int(line[1]), line[2], line[3])
        shares = (format_share(row["availability"]), format_share(row["within_1s"]))
        assert told == (row["wanted"], row["served"], *shares)
    (fault,) = run.summary.faults
    assert f"back in {fault.back_in_s:g} s" in text
    assert f"{fault.longest_silence_s:g} s" in text
    majority = rows["majority"]
    assert f"{majority['latency_ms_p50']:g} ms    {majority['latency_ms_p99']:g} ms" in text
    assert math.isinf(rows["minority"]["latency_ms_p50"])


@pytest.mark.parametrize(
    "figure",
    ["Windows", "Sides", "Availability", "Percentiles", "Outage", "Back in", "Longest silence"],
)
def test_each_figure_is_defined_in_two_sentences(figure: str) -> None:
    section = (DOCS / "READING_RESULTS.md").read_text().split("## The figures")[1].split("\n## ")[0]
    (paragraph,) = [p for p in section.split("\n\n") if p.startswith(f"**{figure}.**")]
    said = " ".join(paragraph.split()).removeprefix(f"**{figure}.** ")
    assert len(re.findall(r"\.(?= [A-Z]|$)", said)) == 2, said
