"""A history that was cut short: what a missing operation might explain is unknown, in every
print-out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from bench.checkers import check_run
from bench.record.history import OperationRecord
from bench.record.run_folder import RunFolder
from bench.record.verdict import Verdict
from chaos.commands.main import main
from tests.checkers.test_verdict import Run

ACCUSATIONS = re.compile(r"not linearizable|refuted|invalid|REFUTED|stale answers|nobody wrote")


def from_nowhere(run: Run) -> None:
    run.add("read", "never")


def lost_by_a_deletion(run: Run) -> None:
    """Null after a write: a missing deletion explains it."""
    run.add("write", "w", "n1")
    run.add("read", None, "n2")


def lost_in_one_process(run: Run) -> None:
    """The same for program order, sessions and staleness."""
    lost_by_a_deletion(run)
    for record in run.records[-2:]:
        record.process = "c"


def cas_from_nowhere(run: Run) -> None:
    run.add("cas", "new")
    run.records[-1].expected = "never"


def two_cas_of_null(run: Run) -> None:
    for value in ("a", "b"):
        run.add("cas", value)
        run.records[-1].expected = None


MISLEADING: list[Callable[[Run], None]] = [
    from_nowhere,
    lost_by_a_deletion,
    lost_in_one_process,
    cas_from_nowhere,
    two_cas_of_null,
]


@pytest.mark.parametrize("claim", ["linearizable", "causal", "eventual"])
@pytest.mark.parametrize("what", MISLEADING)
def test_what_a_missing_operation_explains_is_unknown(
    tmp_path: Path, what: Callable[[Run], None], claim: str
) -> None:
    whole = Run(tmp_path / "whole", claim=claim)  # type: ignore[arg-type]
    what(whole)
    whole.fill()
    assert any(check.verdict == "invalid" for check in whole.verdict().checks)
    run = Run(tmp_path / "cut", claim=claim)  # type: ignore[arg-type]
    what(run)
    run.fill()
    verdict = run.verdict(cut=True)
    assert (verdict.verdict, verdict.measured_model) == ("unknown", "unknown")
    assert "the history was cut short" in verdict.reason
    assert {check.verdict for check in verdict.checks} == {"unknown"}


def stale(run: Run) -> None:
    run.add("write", "old", "n1")
    run.add("write", "new", "n1")
    run.add("read", "old", "n2")


def refused_match(run: Run) -> None:
    run.add("cas", "new")
    run.records[-1].expected = run.records[-1].seen = "v"
    run.records[-1].applied = False


@pytest.mark.parametrize(("what", "claim"), [(stale, "linearizable"), (refused_match, "eventual")])
def test_what_nothing_explains_stays_a_proof(
    tmp_path: Path, what: Callable[[Run], None], claim: str
) -> None:
    run = Run(tmp_path / "run", claim=claim)  # type: ignore[arg-type]
    what(run)
    run.fill()
    assert run.verdict(cut=True).verdict == "invalid"


def test_without_all_final_reads_replicas_need_not_have_diverged(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", claim="eventual")
    run.fill()
    run.verdict()
    path = run.folder.history_dir / "final.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    other = msgspec.json.decode(lines[0], type=OperationRecord)
    other.value = 7
    path.write_bytes(b"".join([msgspec.json.encode(other) + b"\n", *lines[1:]]))
    assert check_run(run.folder).verdict == "invalid"
    (run.folder.load_dir / "final.json").unlink()
    assert check_run(run.folder).verdict == "unknown"


def cut_by_a_lost_client(folder: RunFolder) -> None:
    """It was killed before it wrote anything."""
    (folder.load_dir / "load-2.started").write_text("{}")


def cut_in_a_line(folder: RunFolder) -> None:
    path = folder.history_dir / "load.jsonl"
    path.write_bytes(path.read_bytes()[:-3])


def cut_between_lines(folder: RunFolder) -> None:
    path = folder.history_dir / "load.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))


def cut_to_nothing(folder: RunFolder) -> None:
    (folder.history_dir / "load.jsonl").unlink()


CUTS = [cut_by_a_lost_client, cut_in_a_line, cut_between_lines, cut_to_nothing]


@pytest.mark.parametrize("cut", CUTS)
def test_where_operations_are_missing_the_history_is_cut(
    tmp_path: Path, cut: Callable[[RunFolder], None]
) -> None:
    run = Run(tmp_path / "run", claim="linearizable")
    run.fill()
    assert run.verdict().verdict == "valid"
    assert not run.folder.cut_short()
    cut(run.folder)
    assert run.folder.cut_short()
    assert check_run(run.folder).verdict == "unknown"


@pytest.mark.parametrize("form", ["md", "json", "junit"])
def test_no_print_out_accuses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    run = Run(tmp_path / "run", claim="eventual")
    for what in MISLEADING[:3]:
        what(run)
    run.fill()
    run.verdict(cut=True)
    said = capbench(monkeypatch, capsys, "check", run.folder.path, code=5)
    assert not ACCUSATIONS.search(said), said
    assert "the history was cut short" in said
    assert run.folder.verdict() == check_again(run.folder)
    said = capbench(monkeypatch, capsys, "report", run.folder.path, "-f", form)
    said = said.replace("REFUTED = a counterexample is shown", "")
    said = said.replace("holds = the claim was not refuted", "")
    assert not ACCUSATIONS.search(said), said


def test_the_page_does_not_accuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run", claim="eventual")
    for what in MISLEADING[:3]:
        what(run)
    run.fill()
    run.verdict(cut=True)
    capbench(monkeypatch, capsys, "report", run.folder.path)
    page = run.folder.report_path.read_text()
    for accusation in (
        "not linearizable",
        "nobody wrote",
        "counterexample is below",
        "stale answers",
    ):
        assert accusation not in page
    assert "the history was cut short" in page


def check_again(folder: RunFolder) -> Verdict:
    again = check_run(folder)
    before = folder.verdict()
    assert before is not None
    again.checks = [
        replace(new, seconds=old.seconds)
        for new, old in zip(again.checks, before.checks, strict=True)
    ]
    return again


def capbench(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: object,
    code: int = 0,
) -> str:
    monkeypatch.setattr(sys, "argv", ["capbench", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == code
    told = capsys.readouterr()
    return told.out + told.err
