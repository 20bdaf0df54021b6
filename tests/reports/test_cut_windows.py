"""A run that did not come to its end: its figures end where its load did, and decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from bench.checkers import check_run
from bench.record.history import HistoryWriter
from bench.record.run_folder import LoadSummary, RunFolder, write_json
from reports.data import compare
from reports.data.cases import cases_of
from reports.data.metrics import RunTables, load
from reports.data.repeats import repeats
from reports.data.rows import fault_rows
from reports.formats.junit import junit
from reports.formats.markdown import markdown
from reports.formats.render import write_report
from tests.reports import synthetic

OBJECTIVES = {
    "before": {"availability": ">= 0.999", "p99": "<= 1ms"},
    "during": {"availability": ">= 0.1", "availability.minority": ">= 0.1", "throughput": ">= 1/s"},
    "after": {"recovery": "<= 5s", "availability": ">= 0.999"},
    "always": {"consistency": "claimed"},
}
STOPPED_S = 8.5
"""The cut begins at 6 s, and should have been healed at 14 s."""


def interrupted(folder: RunFolder) -> None:
    """As an interrupt leaves it: the client wrote its summary, and there are no final reads."""
    kept = [r for r in folder.operations() if r.invoked_ns < synthetic.ns(STOPPED_S)]
    (folder.history_dir / "load.jsonl").unlink()
    with HistoryWriter(folder.history_dir / "load.jsonl") as history:
        for record in kept:
            history.append(record)
    (folder.history_dir / "final.jsonl").unlink(missing_ok=True)
    (folder.load_dir / "final.json").unlink(missing_ok=True)
    fault = folder.faults()[0]
    fault.healed_ns = synthetic.ns(STOPPED_S)
    folder.append_fault(fault)
    (summary,) = folder.loads()
    changed = {"ended_ns": synthetic.ns(STOPPED_S), "stopped_early": True, "invoked": len(kept)}
    write_json(folder.load_dir / "load.json", msgspec.structs.replace(summary, **changed))
    _incomplete(folder)


def lost(folder: RunFolder) -> None:
    """The client was killed, and left no summary."""
    interrupted(folder)
    (folder.load_dir / "load.json").unlink()


def failed(folder: RunFolder) -> None:
    """The load came to its end, the run did not."""
    _incomplete(folder)


def _incomplete(folder: RunFolder) -> None:
    manifest = folder.manifest()
    manifest.complete = False
    folder.write_manifest(manifest)


def stopped_in_a_whole_run(folder: RunFolder) -> None:
    """Only the client knows that it was stopped."""
    interrupted(folder)
    manifest = folder.manifest()
    manifest.complete = True
    folder.write_manifest(manifest)


ENDINGS: list[Callable[[RunFolder], None]] = [interrupted, lost, failed, stopped_in_a_whole_run]


def run_of(path: Path, end: Callable[[RunFolder], None], protocol: str = "raft") -> RunTables:
    """A run that was to keep its objectives, and how it ended; its verdict is of before."""
    folder = synthetic.leader_partition(path, protocol)
    manifest = folder.manifest()
    manifest.experiment["objectives"] = OBJECTIVES
    folder.write_manifest(manifest)
    end(folder)
    folder.write_verdict(check_run(folder))
    return load(folder.path)


@pytest.mark.parametrize("end", ENDINGS)
def test_a_run_that_did_not_come_to_its_end_is_unknown_in_every_print_out(
    tmp_path: Path, end: Callable[[RunFolder], None]
) -> None:
    run = run_of(tmp_path / "run", end)
    assert run.summary.verdict == "unknown"
    assert "there was too little load" not in run.summary.reason
    found = {result.asked: result.word for result in run.summary.objectives}
    assert found == {
        "before availability >= 0.999": "met",
        "before p99 <= 1ms": "missed",
        "during availability >= 0.1": "unknown",
        "during availability.minority >= 0.1": "unknown",
        "during throughput >= 1/s": "unknown",
        "after recovery <= 5s": "unknown",
        "after availability >= 0.999": "unknown",
        "always consistency claimed": "unknown",
    }
    judged = cases_of([("run", run)])
    write_report([run.folder], tmp_path / "report.html")
    texts = [
        compare.first_screen([run.summary]),
        markdown(judged),
        junit(judged),
        (tmp_path / "report.html").read_text(),
    ]
    for text in texts:
        assert "unknown" in text
        assert "not back" not in text
        assert "never back" not in text
        assert "in not back" not in text
    assert "holds *" not in texts[0]
    assert 'failures="1" errors="7"' in texts[2]


@pytest.mark.parametrize("end", [interrupted, lost])
def test_windows_silences_and_outages_end_where_the_load_ended(
    tmp_path: Path, end: Callable[[RunFolder], None]
) -> None:
    run = run_of(tmp_path / "run", end)
    assert run.end_s == pytest.approx(STOPPED_S, abs=0.05)
    during = run.windows[(run.windows["phase"] == "during") & (run.windows["side"] == "all")]
    assert during["seconds"].item() == pytest.approx(STOPPED_S - 6, abs=0.05)
    (fault,) = run.summary.faults
    assert fault.longest_silence_s <= STOPPED_S - 6
    assert run.summary.recovery_s is None
    assert any("the load stopped after 8." in text for text in run.missing)


def test_what_was_open_just_before_a_fault_when_the_load_stopped_leaves_before_unknown(
    tmp_path: Path,
) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "raft")
    interrupted(folder)
    (summary,) = folder.loads()
    early: LoadSummary = msgspec.structs.replace(summary, ended_ns=synthetic.ns(6.5))
    write_json(folder.load_dir / "load.json", early)
    assert "before" in load(folder.path).summary.cut_windows


def test_a_run_that_was_cut_is_no_figure_among_whole_ones(tmp_path: Path) -> None:
    whole = run_of(tmp_path / "whole", lambda folder: None).summary
    cut = run_of(tmp_path / "cut", interrupted).summary
    cell = compare.Cell("raft", "leader-partition", [cut, whole])
    assert cell.word == "unknown 1/2"
    assert cell.figure("availability.during") == whole.availability.during
    assert cell.figure("availability.majority") == whole.availability.majority
    (repeated,) = repeats([cut, whole])
    assert repeated.availability["during"].runs == 1
    assert repeated.availability["before"].runs == 2
    alone = compare.Cell("raft", "leader-partition", [cut])
    assert alone.figure("availability.during") == cut.availability.during
    said = compare.plain_line([alone])
    assert "(the run was cut short)" in said
    other = compare.Cell("raft", "other", [msgspec.structs.replace(whole, experiment="other")])
    assert "in other, it served none of the minority's" in compare.plain_line([alone, other])


def test_a_verdict_of_before_is_not_believed(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", interrupted)
    assert run.verdict is not None
    old = msgspec.structs.replace(run.verdict, verdict="valid", schema_version=2)
    RunFolder(run.folder).write_verdict(old)
    assert load(run.folder).summary.verdict == "unknown"


def test_a_violation_that_was_seen_stays_one(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "gossip", claim="linearizable")
    failed(folder)
    assert check_run(folder).verdict == "invalid"


def test_a_model_is_not_met_where_the_verdict_is_unknown(tmp_path: Path) -> None:
    folder = synthetic.healthy(tmp_path / "run", "raft")
    manifest = folder.manifest()
    manifest.experiment["objectives"] = {"always": {"consistency": "causal"}}
    folder.write_manifest(manifest)
    failed(folder)
    folder.write_verdict(check_run(folder))
    (result,) = load(folder.path).summary.objectives
    assert result.word == "unknown"


def test_the_page_has_no_not_back_of_a_fault_that_was_cut(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", interrupted)
    assert "not back" not in str(fault_rows(run))
