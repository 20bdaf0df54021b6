"""Availability per window and side: what belongs where, and what counts as not available."""

from __future__ import annotations

from typing import Any

import pytest

from bench.checkers.availability import check_availability, sides, windows
from bench.history import OperationRecord
from bench.run_folder import FaultRecord, LoadSummary, Manifest
from nodes.effects import Outcome

S = 1_000_000_000


def manifest(end_s: float | None = 10, nodes: int = 5) -> Manifest:
    return Manifest(
        capbench_version="0",
        experiment_name="e",
        experiment={},
        protocol="p",
        claim="none",
        nodes=[f"n{i + 1}" for i in range(nodes)],
        target="t",
        seed=1,
        started_utc="",
        load_started_ns=0,
        load_ended_ns=None if end_s is None else int(end_s * S),
    )


def op(
    intended_s: float,
    took_s: float | None = 0.01,
    *,
    outcome: Outcome = "ok",
    node: str = "n1",
    sent_late_s: float = 0.0,
    process: str = "c",
) -> OperationRecord:
    at = int(intended_s * S)
    return OperationRecord(
        process=process,
        id=0,
        op="read",
        key="k",
        outcome=outcome,
        intended_ns=at,
        invoked_ns=at + int(sent_late_s * S),
        completed_ns=None if took_s is None else at + int(took_s * S),
        node=node,
    )


def fault(
    start_s: float, heal_s: float | None, *, number: int = 0, groups: list[list[str]] | None = None
) -> FaultRecord:
    """Takes 0.1 s to apply and 0.1 s to heal."""
    return FaultRecord(
        number=number,
        fault="f",
        groups=groups,
        planned_ns=int(start_s * S),
        started_ns=int(start_s * S),
        applied_ns=int((start_s + 0.1) * S),
        heal_started_ns=None if heal_s is None else int(heal_s * S),
        healed_ns=None if heal_s is None else int((heal_s + 0.1) * S),
    )


def dropped(*at_s: float, unplaced: int = 0) -> LoadSummary:
    return LoadSummary(
        client="c",
        started_ns=0,
        ended_ns=10 * S,
        offered_per_s=None,
        intended=0,
        invoked=0,
        dropped=len(at_s) + unplaced,
        dropped_intended_ns=[int(t * S) for t in at_s],
    )


def details(
    records: list[OperationRecord],
    faults: list[FaultRecord] | None = None,
    loads: list[LoadSummary] | None = None,
    **options: Any,
) -> dict[str, Any]:
    return check_availability(manifest(**options), records, faults or [], loads or []).details


def test_without_faults_everything_is_before() -> None:
    got = details([op(1), op(2, outcome="info"), op(9.999, 5)])
    assert got["availability"] == {
        "before": 2 / 3,
        "during": None,
        "after": None,
        "majority": None,
        "minority": None,
    }
    assert got["throughput"]["before"] == pytest.approx(0.2)
    assert (got["recovery_s"], got["operations"]) == (None, {"ok": 2, "fail": 0, "info": 1})


def test_the_intended_time_decides_where_an_operation_belongs() -> None:
    late = op(2.995, 2.0, sent_late_s=1.9)  # wanted before the fault, sent and answered during it
    got = details([late, op(1)], [fault(3, 6)])
    assert got["windows"]["before"] == {
        "ok": 1,
        "total": 1,
        "straddlers": 1,
        "dropped": 0,
        "seconds": 3.0,
    }
    assert got["windows"]["during"]["total"] == 0


def test_an_answer_after_the_heal_is_none() -> None:
    in_vain = [op(5, 1.5), op(5, 1.5, outcome="info"), op(5, None, outcome="info")]
    in_flight = [op(5.995, 1.5), op(5.995, 0.1, outcome="info")]
    counts = details([op(4), *in_vain, *in_flight], [fault(3, 6)])["windows"]["during"]
    assert (counts["ok"], counts["total"], counts["straddlers"]) == (1, 4, 2)


def test_where_nothing_was_answered_in_time_nobody_is_a_straddler() -> None:
    counts = details([op(5.999, 1.5)], [fault(3, 6)])["windows"]["during"]
    assert (counts["ok"], counts["total"], counts["straddlers"]) == (0, 1, 0)


def test_while_a_fault_comes_or_goes_nothing_is_counted() -> None:
    got = details([op(3.05), op(6.05), op(3.2), op(6.2)], [fault(3, 6)])
    totals = {name: counts["total"] for name, counts in got["windows"].items()}
    assert totals == {"before": 0, "during": 1, "after": 1}


def test_dropped_operations_are_not_available() -> None:
    got = details([op(1), op(4)], [fault(3, 6)], [dropped(1.5, 4.5, 4.6, unplaced=2)])
    assert got["availability"]["before"] == 1 / 2
    assert got["availability"]["during"] == 1 / 3
    assert (got["dropped"], got["dropped_unplaced"]) == (5, 2)


def test_final_reads_are_no_load() -> None:
    got = details([op(1, outcome="fail"), op(9, process="final-1")])
    assert got["availability"]["before"] == 0


def test_sides() -> None:
    cut = fault(3, 6, groups=[["n5"], ["n1", "n2", "n3", "n4"]])
    records = [
        op(4, node="n1"),
        op(4, node="n5", outcome="info"),
        op(4, node="n4"),
        op(8, node="n5"),
    ]
    got = details(records, [cut], [dropped(4.5, 4.5, 4.5)])
    assert got["availability"]["majority"] == 2 / 4  # two of the three dropped ones are laid to it
    assert got["availability"]["minority"] == 0


@pytest.mark.parametrize(
    ("groups", "want"),
    [
        (None, None),
        ([["n1", "n2", "n3", "n4", "n5"]], None),
        ([["n1", "n2"], ["n3", "n4", "n5"]], (["n3", "n4", "n5"], ["n1", "n2"])),
        ([["n1", "n2"], ["n3", "n4"], ["n5"]], (None, ["n1", "n2", "n3", "n4", "n5"])),
        ([["n1", "n2", "n3"], ["n4"]], (["n1", "n2", "n3"], ["n4", "n5"])),
    ],
)
def test_the_majority_is_of_all_nodes(groups: list[list[str]] | None, want: object) -> None:
    assert sides(manifest(), fault(3, 6, groups=groups)) == want


def test_a_partition_without_a_majority() -> None:
    cut = fault(3, 6, groups=[["n1", "n2"], ["n3", "n4"], ["n5"]])
    got = details([op(4, outcome="info"), op(4, node="n5")], [cut])["availability"]
    assert (got["majority"], got["minority"]) == (None, 0.5)


def test_several_faults() -> None:
    found = windows(manifest(), [fault(1, 3), fault(2, 4, number=1), fault(6, 7, number=2)], 0)
    assert found is not None
    assert [(w.start_ns / S, w.end_ns / S) for w in found.during] == [(1.1, 4), (6.1, 7)]
    assert (found.before.end_ns / S, found.after.start_ns / S if found.after else 0) == (1, 7.1)


def test_a_fault_that_was_never_healed() -> None:
    found = windows(manifest(), [fault(3, None)], 0)
    assert found is not None
    assert [(w.start_ns / S, w.end_ns / S) for w in found.during] == [(3.1, 10)]
    assert found.after is None


def test_a_run_that_was_cut_short_ends_with_its_last_operation() -> None:
    got = details([op(1), op(4)], end_s=None)
    assert got["windows"]["before"]["seconds"] == pytest.approx(4)


def test_without_load_there_is_nothing_to_measure() -> None:
    assert check_availability(manifest(), [], [], []).verdict == "unknown"
