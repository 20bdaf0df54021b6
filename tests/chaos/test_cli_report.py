"""`capbench report` as typed: formats, where they go, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from bench.record.run_folder import RunFolder
from tests.chaos.test_cli_compare import typed
from tests.reports import synthetic


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("old", "new"):
        synthetic.healthy(tmp_path / name / "runs" / "healthy-raft", "raft")
    synthetic.leader_partition(
        tmp_path / "new" / "runs" / "leader-partition-gossip", "gossip", claim="linearizable"
    )
    return tmp_path


Printed = Callable[[], str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return lambda: capsys.readouterr().out


def test_text_formats_go_to_standard_output_or_a_file(place: Path, printed: Printed) -> None:
    assert typed("report", "new", "--format", "md") == 0
    text = printed()
    assert text.startswith("## ")
    assert typed("report", "new", "--format", "md", "-o", "deep/summary.md") == 0
    assert printed() == ""
    assert (place / "deep/summary.md").read_text() == text
    assert typed("report", "new", "-f", "junit", "-o", "junit.xml") == 0
    assert ET.parse(place / "junit.xml").getroot().attrib["failures"] == "1"
    assert typed("report", "new", "--json") == 0
    told: Any = msgspec.json.decode(printed())
    assert [run["protocol"] for run in told["runs"]] == ["raft", "gossip"]
    assert told["report"] is None


def test_files_go_into_a_folder(place: Path, printed: Printed) -> None:
    assert typed("report", "old", "-f", "csv") == 0
    assert (place / "results" / "report" / "operations.csv").exists()
    assert typed("report", "old", "-f", "png", "-o", "charts") == 0
    assert len(list((place / "charts").glob("*.png"))) >= 4
    assert "files in charts" in printed()


def test_the_page_goes_where_it_is_asked_for(place: Path, printed: Printed) -> None:
    for arguments, page in (
        (("old",), "old/report.html"),
        (("old", "new"), "report.html"),
        (("old", "-o", "page.html"), "page.html"),
        (("old", "-o", "folder/"), "folder/report.html"),
    ):
        assert typed("report", *arguments) == 0
        assert (place / page).read_text().startswith("<!doctype html>")
        assert f" report: {page}" in printed()


def test_a_run_that_cannot_be_read_is_said_and_left_out(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "new/runs/healthy-raft/manifest.json").write_text("{")
    assert typed("report", "new", "-f", "md") == 0
    said = capsys.readouterr()
    assert "left out: new/runs/healthy-raft/manifest.json" in said.err
    assert "gossip" in said.out
    assert typed("report", "new") == 0
    assert "new/runs/healthy-raft/manifest.json" in (place / "new/report.html").read_text()


def test_diff_tells_a_claim_that_broke_by_its_exit_code(place: Path, printed: Printed) -> None:
    assert typed("report", "--diff", "old", "new") == 0
    assert "only in new: leader-partition gossip" in printed()
    (place / "new/runs/healthy-raft/verdict.json").unlink()
    assert typed("report", "--diff", "old", "new") == 5
    assert "verdict holds -> unknown" in printed()
    told = typed("report", "--diff", "old", "new", "--json")
    assert told == 5
    found: Any = msgspec.json.decode(printed())
    assert found["changes"][0]["figure"] == "verdict"
    assert typed("report", "--diff", "new", "old", "--format", "md", "-o", "diff.md") == 0
    assert (place / "diff.md").read_text().startswith("## What changed")
    bad, good = place / "bad/healthy-raft", place / "good/healthy-raft"
    synthetic.leader_partition(good, "gossip", seed=3)
    synthetic.leader_partition(bad, "gossip", seed=3, claim="linearizable")
    assert typed("report", "--diff", "good", "bad") == 4
    assert "REFUTED" in printed()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "report: name a run folder"),
        (("nowhere",), "nowhere: no such folder"),
        (("empty",), "empty: no run in it"),
        (("old", "-f", "pdf"), "unknown format 'pdf'; use html, md, json, csv, png, junit, hdr"),
        (("old", "-f", "md", "--json"), "exclude each other"),
        (("old", "-f", "md", "-o", "new"), "-o new: is a folder; name a file"),
        (("old", "-f", "csv", "-o", "file"), "-o file: is a file; csv needs a folder"),
        (("old", "--diff"), "--diff takes two folders, OLD and NEW, not 1"),
        (("old", "new", "--diff", "-f", "png"), "unknown format 'png'; use text, md, json"),
    ],
)
def test_mistakes_are_one_line(
    place: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "empty").mkdir()
    (place / "file").write_text("")
    assert typed("report", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_compare_makes_one_folder_with_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed("compare", "--target", "sim", "--protocol", "raft", "-o", "report/") == 0
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "runs"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


CASE = Path(__file__).parents[1] / "cases" / "10-different-plans-pooled-as-repeats"


def test_files_of_one_name_with_different_plans_are_two_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a.yaml", "b.yaml"), 1):
        copy = tmp_path / str(number) / "exp.yaml"
        copy.parent.mkdir()
        copy.write_text((CASE / name).read_text())
        typed("run", str(copy), "--target", "sim", "--out", "both")
    capsys.readouterr()
    assert typed("report", "both", "-f", "md") == 0
    said = capsys.readouterr().out
    assert "repeats (medians)" not in said
    assert "| exp · plan 1 (simulated) | exp · plan 2 (simulated) |" in said
    assert "plan 1 has nodes 3, " in said
    assert typed("report", "both", "--json") == 0
    assert msgspec.json.decode(capsys.readouterr().out)["repeats"] == []


def test_repeats_on_the_terminal_are_as_wide_as_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        synthetic.leader_partition(tmp_path / "runs" / f"{seed}", "raft", seed=seed)
    assert typed("report", "runs") == 0
    said = printed()
    assert "leader-partition raft, 2 runs: " in said
    assert max(map(len, said.splitlines())) <= 120


def test_the_terminal_names_the_objectives_that_were_missed(place: Path, printed: Printed) -> None:
    folder = RunFolder(place / "old/runs/healthy-raft")
    manifest = folder.manifest()
    manifest.experiment["objectives"] = {"before": {"throughput": ">= 900/s"}}
    folder.write_manifest(manifest)
    assert typed("report", "old") == 0
    assert "objective missed: healthy-raft: before throughput >= 900/s: missed, 60" in printed()
