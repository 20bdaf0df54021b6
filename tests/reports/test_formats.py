"""Markdown, JUnit XML, CSV, PNG and SVG of the same runs."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.record.run_folder import RunFolder
from bench.record.verdict import Verdict
from reports.data.cases import RunCases, cases_of
from reports.data.metrics import RunTables, load
from reports.formats.export import file_name, write_charts, write_csv
from reports.formats.junit import junit
from reports.formats.markdown import escape, markdown
from tests.reports import synthetic

EVIL = "</td><script>alert(1)</script>|`x`](y)*_\x00\x1b\ud800&\"'"
OBJECTIVES = {
    "before": {"availability": ">= 0.999"},
    "during": {"availability.majority": ">= 0.9999", "p99": "<= 100ms"},
    "after": {"recovery": "<= 5s"},
    "always": {"consistency": "claimed"},
}


def run_of(folder: RunFolder, **changes: object) -> tuple[str, RunTables]:
    manifest = folder.manifest()
    manifest.experiment["objectives"] = changes.pop("objectives", OBJECTIVES)
    for name, value in changes.items():
        setattr(manifest, name, value)
    folder.write_manifest(manifest)
    return folder.path.name, load(folder.path)


@pytest.fixture(scope="module")
def run_cases(tmp_path_factory: pytest.TempPathFactory) -> list[RunCases]:
    """raft under a partition; gossip that claims too much; a run that nobody checked."""
    root = tmp_path_factory.mktemp("runs")
    good = synthetic.leader_partition(root / "good", "raft")
    bad = synthetic.leader_partition(root / "bad", "gossip", claim="linearizable")
    unknown = synthetic.healthy(root / "unknown", "raft")
    unknown.verdict_path.unlink()
    return cases_of([run_of(good), run_of(bad), run_of(unknown)])


def endings(run: RunCases) -> dict[str, str]:
    return {case.name.removeprefix("objective: "): case.ending for case in run.cases}


def test_cases_are_the_claim_and_each_objective(run_cases: list[RunCases]) -> None:
    good, bad, unknown = map(endings, run_cases)
    assert good == {
        "claim: linearizable": "kept",
        "before availability >= 0.999": "kept",
        "during availability.majority >= 0.9999": "kept",
        "during p99 <= 100ms": "broken",
        "after recovery <= 5s": "kept",
        "always consistency claimed": "kept",
    }
    assert bad["claim: linearizable"] == bad["always consistency claimed"] == "broken"
    assert unknown["claim: linearizable"] == unknown["always consistency claimed"] == "unknown"
    assert unknown["after recovery <= 5s"] == "not measured"


# --- JUnit ---


def assert_is_junit(text: str) -> ET.Element:
    """The structure that Jenkins, GitLab and pytest's own files share."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    for counted in (root, *root):
        cases = list(counted.iter("testcase"))
        assert int(counted.attrib["tests"]) == len(cases) > 0
        for attribute, tag in (
            ("failures", "failure"),
            ("errors", "error"),
            ("skipped", "skipped"),
        ):
            assert int(counted.attrib[attribute]) == sum(c.find(tag) is not None for c in cases)
    for suite in root:
        assert suite.tag == "testsuite"
        assert float(suite.attrib["time"]) > 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        tags = [child.tag for child in suite]
        assert tags[0] == "properties"
        assert set(tags[1:]) <= {"testcase", "system-out"}
        for case in suite.iter("testcase"):
            assert set(case.attrib) == {"classname", "name", "time"}
            assert len(case) == 1
            if case[0].tag != "system-out":
                assert case[0].attrib["message"]
    return root


def test_junit_has_a_case_per_claim_and_objective(run_cases: list[RunCases]) -> None:
    root = assert_is_junit(junit(run_cases))
    assert [suite.attrib["name"] for suite in root] == ["good", "bad", "unknown"]
    found = {
        (suite.attrib["name"], case.attrib["name"]): case[0].tag
        for suite in root
        for case in suite.iter("testcase")
    }
    assert len(found) == 18
    assert found["good", "claim: linearizable"] == "system-out"
    assert found["bad", "claim: linearizable"] == "failure"
    assert found["unknown", "claim: linearizable"] == "error"
    assert found["unknown", "objective: after recovery <= 5s"] == "skipped"
    assert found["good", "objective: during p99 <= 100ms"] == "failure"
    (claim,) = [c for c in root[1].iter("testcase") if c.attrib["name"].startswith("claim")]
    assert "then" in (claim[0].text or ""), "the witness in a sentence"


def test_junit_is_well_formed_whatever_names_hold(tmp_path: Path) -> None:
    _, run = run_of(synthetic.healthy(tmp_path / "run", "raft"))
    run.summary.experiment = run.summary.protocol = run.summary.reason = EVIL
    run.summary.missing.append(EVIL)
    root = assert_is_junit(junit(cases_of([(EVIL, run)])))
    assert "<script>" in root[0].attrib["name"]
    assert not re.search("[\x00\x1b\ud800]", junit(cases_of([(EVIL, run)])))


# --- Markdown ---


def test_markdown_says_verdict_and_figures_in_words(run_cases: list[RunCases]) -> None:
    text = markdown(run_cases)
    (gossip,) = [line for line in text.splitlines() if line.startswith("| **gossip**")]
    assert "**REFUTED**<br>measured eventual" in gossip
    assert "majority 1.000, minority 1.000" in gossip
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({row.count(" | ") for row in rows}) == 1
    assert "BROKE its claim" in text
    assert "**missed** good: during p99" in text
    assert "**not measured** unknown: after recovery" in text
    others = ("- **missed**", "- **not measured**", "- **unknown**")
    listed = sum(line.startswith(others) for line in text.splitlines())
    assert listed == 6
    assert f"{15 - listed} of 15 met." in text


def test_markdown_shows_names_as_they_are(tmp_path: Path) -> None:
    _, run = run_of(synthetic.healthy(tmp_path / "run", "raft"))
    run.summary.experiment = run.summary.protocol = EVIL
    text = markdown(cases_of([(EVIL, run)]), EVIL)
    assert "<script" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert escape("a\n| b") == r"a \| b"


# --- files ---


def test_csv_has_the_tables_and_the_numbers_of_each_chart(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    names = ("raft-leader-partition", "gossip-leader-partition", "gossip-healthy")
    loaded = [(name, load(runs[name])) for name in names]
    written = write_csv(loaded, tmp_path / "out")
    assert {path.name for path in written} == {path.name for path in (tmp_path / "out").iterdir()}
    rows = list(csv.DictReader((tmp_path / "out" / "operations.csv").read_text().splitlines()))
    assert len(rows) == 3600
    assert {row["run"] for row in rows} == {name for name, _ in loaded}
    assert (tmp_path / "out" / "raft-leader-partition-availability.csv").exists()
    assert (tmp_path / "out" / "runs.csv").read_text().count("\n") == 4
    head = (tmp_path / "out" / "leader-partition-served.csv").read_text().splitlines()[0]
    assert head == "t_s,raft majority,raft minority,gossip majority,gossip minority"
    (cap, *_) = csv.DictReader((tmp_path / "out" / "cap-map.csv").read_text().splitlines())
    assert (cap["protocol"], cap["measured"]) == ("raft", "linearizable")


def test_each_chart_is_written_as_png_and_svg(runs: dict[str, Path], tmp_path: Path) -> None:
    written = write_charts([("a/../b", load(runs["raft-leader-partition"]))], tmp_path)
    names = {path.name for path in written}
    assert {f"{name[:-4]}.svg" for name in names if name.endswith(".png")} == {
        name for name in names if name.endswith(".svg")
    }
    for path in written:
        assert path.parent == tmp_path
        data = path.read_bytes()
        assert len(data) > 1000
        assert data.startswith(b"\x89PNG" if path.suffix == ".png" else b"<svg")


@pytest.mark.parametrize(
    ("name", "made"),
    [("../../etc", "etc"), (EVIL, "td-script-alert-1-script-x-y-_"), ("", "run"), ("é", "run")],
)
def test_file_names_stay_in_their_folder(name: str, made: str) -> None:
    assert file_name(name) == made


def test_runs_without_operations_and_verdicts_have_every_format(tmp_path: Path) -> None:
    folder = RunFolder.create(
        tmp_path / "run", synthetic.manifest(synthetic.Shape("raft", "healthy"))
    )
    folder.write_verdict(
        Verdict(claim="linearizable", verdict="unknown", measured_model="unknown", reason="nothing")
    )
    runs = [run_of(folder)]
    assert_is_junit(junit(cases_of(runs)))
    assert "no operations" in markdown(cases_of(runs))
    assert len(write_csv(runs, tmp_path / "out")) >= 6
    assert write_charts(runs, tmp_path / "out") == []
