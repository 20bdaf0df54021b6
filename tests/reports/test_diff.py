"""What changed between two comparisons, and what makes figures incomparable."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.record.run_folder import Manifest
from reports.data.metrics import load
from reports.data.summary import RunSummary
from reports.formats import diff as differences
from reports.formats.diff import Diff, diff
from tests.reports import synthetic

Run = tuple[RunSummary, Manifest]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = load(synthetic.leader_partition(tmp_path_factory.mktemp("run") / "r", "raft").path)
    return run.summary, run.manifest


def changed(
    run: Run, change: Callable[[RunSummary], None] = lambda _: None, **fields: object
) -> Run:
    summary, manifest = copy.deepcopy(run)
    change(summary)
    for name, value in fields.items():
        setattr(manifest, name, value)
    return summary, manifest


def throughput(value: float) -> Callable[[RunSummary], None]:
    def change(summary: RunSummary) -> None:
        summary.throughput = replace(summary.throughput, during=value)

    return change


def told(found: Diff) -> list[tuple[str, str, str, bool]]:
    return [(c.kind, c.figure, c.direction, c.sure) for c in found.changes]


def test_the_same_run_changed_nothing(measured: Run) -> None:
    found = diff([measured], [measured])
    assert (found.changes, found.notes, found.compared) == ([], [], 1)
    assert "nothing changed in 1 cell" in differences.text(found)


def test_verdicts_come_first_then_availability_throughput_latency(measured: Run) -> None:
    def worse(summary: RunSummary) -> None:
        summary.verdict, summary.measured_model = "invalid", "causal"
        summary.reason = "a stale read"
        summary.availability = replace(summary.availability, during=0.5)
        summary.throughput = replace(summary.throughput, before=10_000.0)
        summary.latency_ms = replace(summary.latency_ms, p99=1.0)
        summary.recovery_s = None

    found = diff([measured], [changed(measured, worse)])
    assert told(found) == [
        ("verdict", "verdict", "worse", True),
        ("verdict", "measured model", "worse", True),
        ("availability", "availability during", "worse", False),
        ("throughput", "throughput before", "better", False),
        ("latency", "latency p99", "better", False),
        ("recovery", "recovery", "worse", False),
    ]
    text = differences.text(found)
    assert "worse     leader-partition raft: verdict holds -> REFUTED: a stale read" in text
    assert "-> never back" in text
    back = diff([changed(measured, worse)], [measured])
    assert [change.direction for change in back.changes][:2] == ["better", "better"]


def test_a_percentile_beyond_the_time_out_is_worse_than_any_number(measured: Run) -> None:
    def p99(value: float | None) -> Run:
        def change(summary: RunSummary) -> None:
            summary.latency_ms = replace(summary.latency_ms, p99=value)

        return changed(measured, change)

    late, quick = p99(None), p99(120.0)
    assert measured[0].latency_ms.p99 is None, "a fifth was cut off"
    assert diff([late], [late]).changes == []
    (worse,) = diff([quick], [late]).changes
    assert (worse.direction, worse.old, worse.new) == ("worse", 120.0, "> 2 s")
    assert worse.words == "latency p99 120 ms -> > 2 s"
    (better,) = diff([late, late], [quick, quick]).changes
    assert (better.direction, better.sure) == ("better", True)
    assert diff([late, quick], [quick, quick]).changes == [], "chance can do that"


def test_small_steps_are_not_told_and_unsure_ones_are_marked(measured: Run) -> None:
    summary, _ = measured
    assert summary.throughput.during is not None
    little = changed(measured, throughput(summary.throughput.during * 1.05))
    assert diff([measured], [little]).changes == []
    more = diff([measured], [changed(measured, throughput(summary.throughput.during * 1.5))])
    assert told(more) == [("throughput", "throughput during", "better", False)]
    assert "may be chance" in differences.text(more)
    assert "may be chance" in differences.markdown(more)


def test_repeats_count_only_where_their_intervals_do_not_meet(measured: Run) -> None:
    def side(*values: float) -> list[Run]:
        return [changed(measured, throughput(value)) for value in values]

    apart = diff(side(100, 101, 102), side(150, 151, 152))
    assert told(apart) == [("throughput", "throughput during", "better", True)]
    assert "may be chance" not in differences.text(apart)
    assert diff(side(50, 100, 150), side(80, 120, 160)).changes == []


def test_what_differs_beside_the_protocols_is_noted(measured: Run) -> None:
    _, manifest = measured
    other = changed(
        measured,
        hardware={"cores": 64},
        capbench_version="9.9",
        seed=8,
        versions={**manifest.versions, "broker": "another"},
        experiment={**manifest.experiment, "duration": "5s"},
    )
    notes = "\n".join(diff([measured], [other]).notes)
    for words in (
        "capbench differs: 0.1.0",
        "hardware differs",
        "cores 64",
        "seed differs: 7 -> 8",
        "broker differs",
        "-> another",
        "experiment leader-partition is not the same",
    ):
        assert words in notes
    assert "toxiproxy" not in notes


def test_cells_of_one_side_and_simulated_ones_are_not_compared(measured: Run) -> None:
    def simulate(summary: RunSummary) -> None:
        summary.simulated = True

    found = diff([measured], [changed(measured, simulate)])
    assert found.compared == 0
    assert found.only_old == ["leader-partition raft"]
    assert found.only_new == ["leader-partition (simulated) raft"]
    assert "only in old: leader-partition raft" in differences.text(found)


def test_markdown_of_a_diff_escapes_names(measured: Run) -> None:
    def evil(summary: RunSummary) -> None:
        summary.protocol = "<b>|x"

    def worse(summary: RunSummary) -> None:
        evil(summary)
        summary.verdict = "unknown"

    text = differences.markdown(
        diff([changed(measured, evil)], [changed(measured, worse)], ("<i>", "b"))
    )
    assert "<b>" not in text
    assert "<i>" not in text
    assert r"&lt;b&gt;\|x" in text


def test_a_run_that_nobody_checked_is_worse_than_a_valid_one(tmp_path: Path) -> None:
    one = synthetic.healthy(tmp_path / "one", "raft")
    two = synthetic.healthy(tmp_path / "two", "raft")
    two.verdict_path.unlink()
    old, new = ([(r.summary, r.manifest)] for r in (load(one.path), load(two.path)))
    (first, *_) = diff(old, new).changes
    assert (first.figure, first.new, first.direction) == ("verdict", "unknown", "worse")
