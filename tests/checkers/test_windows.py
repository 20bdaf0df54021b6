"""Availability per window and side: what belongs where, and what counts as not available."""

from __future__ import annotations

from typing import Any

import pytest

from bench.checkers.availability import check_availability, service_time
from bench.checkers.windows import NEVER, fault_spans, sides, timeline
from bench.record.history import OperationRecord
from bench.record.run_folder import FaultRecord, LoadSummary, Manifest
from bench.record.verdict import Availability, Outcomes, Shares
from nodes.contract.replica import Outcome

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
    intended: bool = True,
) -> OperationRecord:
    at = int(intended_s * S)
    return OperationRecord(
        process=process,
        id=0,
        op="read",
        key="k",
        outcome=outcome,
        intended_ns=at if intended else None,
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


def dropped(*at_s: float, unplaced: int = 0, nodes: tuple[str, ...] = ()) -> LoadSummary:
    return LoadSummary(
        client="c",
        started_ns=0,
        ended_ns=10 * S,
        offered_per_s=None,
        intended=0,
        invoked=0,
        dropped=len(at_s) + unplaced,
        dropped_intended_ns=[int(t * S) for t in at_s],
        dropped_nodes=list(nodes),
    )


def details(
    records: list[OperationRecord],
    faults: list[FaultRecord] | None = None,
    loads: list[LoadSummary] | None = None,
    **options: Any,
) -> Availability:
    return check_availability(manifest(**options), records, faults or [], loads or []).details


def counts(got: Availability, name: str) -> tuple[int, int]:
    """Served and wanted in a window or on a side."""
    return got.windows[name].served, got.windows[name].wanted


def test_without_faults_everything_is_before() -> None:
    got = details([op(1), op(2, outcome="info"), op(9.999, 1.5)])
    assert got.availability == Shares(before=2 / 3)
    assert got.within_1s.before == 1 / 3
    assert got.throughput.before == pytest.approx(0.2)
    assert (got.recovery_s, got.operations) == (None, Outcomes(ok=2, info=1))
    assert set(got.windows) == {"before", "all"}


def test_the_intended_time_decides_where_an_operation_belongs() -> None:
    late = op(2.995, 2.0, sent_late_s=1.9)  # wanted before the fault, sent and answered during it
    got = details([late, op(1)], [fault(3, 6)])
    assert counts(got, "before") == (2, 2)
    assert counts(got, "during") == (0, 0)


def test_without_intended_times_it_is_when_it_was_sent_and_that_is_said() -> None:
    records = [op(2.9, 0.3, sent_late_s=0.2, intended=False), op(1)]
    got = details(records, [fault(3, 6)])
    assert (counts(got, "before"), counts(got, "during")) == ((1, 1), (1, 1))
    check = check_availability(manifest(), records, [fault(3, 6)], [])
    assert "1 operations have no intended time and count from when they were sent" in check.summary
    assert "intended time" not in check_availability(manifest(), [op(1)], [], []).summary


@pytest.mark.parametrize("took_s", [0.01, 2.0, 2.001, None])
def test_served_is_what_ended_ok_within_its_time_out(took_s: float | None) -> None:
    outcome: Outcome = "info" if took_s is None else "ok"
    got = details([op(4, took_s, outcome=outcome)], [fault(3, 5)])
    assert counts(got, "during") == (int(took_s is not None and took_s <= 2), 1)


def test_an_operation_that_failed_was_not_served_whatever_the_reason() -> None:
    refused, unsupported = op(1), op(1, outcome="fail")
    refused.op, refused.applied = "cas", False
    unsupported.error = "unsupported: gossip offers read, write, not cas"
    assert counts(details([refused, unsupported]), "all") == (1, 2)


def test_windows_and_sides_add_up() -> None:
    cuts = [
        fault(2, 4, groups=[["n1"], ["n2", "n3", "n4", "n5"]]),
        fault(3, 6, number=1),
        fault(8, None, number=2, groups=[["n1", "n2"], ["n3", "n4", "n5"]]),
    ]
    records = [
        op(i / 10, node=node, outcome="ok" if i % 3 else "info")
        for i in range(105)
        for node in ("n1", "n3", "elsewhere")
    ]
    got = details(records, cuts, [dropped(1, 2, 5, 9, unplaced=3, nodes=("n1", "n1", "n2"))])
    wanted = {name: row.wanted for name, row in got.windows.items()}
    assert wanted["all"] == 3 * 105 + 4
    for key in ("wanted", "served", "served_1s", "dropped", "seconds"):
        of = {name: getattr(row, key) for name, row in got.windows.items()}
        assert of["before"] + of["during"] + of["after"] == pytest.approx(of["all"])
    assert wanted["majority"] + wanted["minority"] + wanted["none"] == wanted["during"]
    # n1 was cut off twice; n3 never. The last dropped one was wanted at a node that is not told.
    assert wanted["minority"] == 21 + 25 + 1
    assert (got.dropped, got.dropped_unplaced) == (7, 3)


def test_what_a_fault_takes_to_come_and_go_belongs_to_it() -> None:
    got = details([op(2.99), op(3.05), op(6.05), op(3.2), op(6.2)], [fault(3, 6)])
    assert [counts(got, name)[1] for name in ("before", "during", "after")] == [1, 3, 1]


def test_dropped_operations_are_wanted_and_not_served() -> None:
    got = details([op(1), op(4)], [fault(3, 6)], [dropped(1.5, 4.5, 4.6, unplaced=2)])
    assert got.availability.before == 1 / 2
    assert got.availability.during == 1 / 3
    assert (got.dropped, got.dropped_unplaced) == (5, 2)


def test_final_reads_are_no_load() -> None:
    got = details([op(1, outcome="fail"), op(9, process="final-1")])
    assert got.availability.before == 0


@pytest.mark.parametrize("told", [True, False])
def test_sides_are_those_of_the_node_at_which_an_operation_was_wanted(told: bool) -> None:
    cut = fault(3, 6, groups=[["n5"], ["n1", "n2", "n3", "n4"]])
    records = [
        op(4, node="n1"),
        op(4, node="n5", outcome="info"),
        op(4, node="n4"),
        op(8, node="n5"),
    ]
    lost = dropped(4.5, 4.5, 4.5, nodes=("n1", "n2", "n5") if told else ())
    got = details(records, [cut], [lost])
    assert counts(got, "majority") == ((2, 4) if told else (2, 2))
    assert counts(got, "minority") == ((0, 2) if told else (0, 1))
    assert counts(got, "none") == ((0, 0) if told else (0, 3)) if "none" in got.windows else told


NODES = ["n1", "n2", "n3", "n4", "n5"]


@pytest.mark.parametrize(
    ("groups", "want"),
    [
        (None, None),
        ([["n1", "n2", "n3", "n4", "n5"]], None),
        ([["n1", "n2"], ["n3", "n4", "n5"]], (["n3", "n4", "n5"], ["n1", "n2"])),
        ([["n1", "n2"], ["n3", "n4"], ["n5"]], (None, ["n1", "n2", "n3", "n4", "n5"])),
        ([["n1", "n2", "n3"], ["n4"]], (["n1", "n2", "n3"], ["n4", "n5"])),
        ([["n1"], ["n2"]], (None, ["n1", "n2", "n3", "n4", "n5"])),
    ],
)
def test_the_majority_is_of_all_nodes(groups: list[list[str]] | None, want: object) -> None:
    assert sides(NODES, [fault(3, 6, groups=groups)]) == want


def test_of_two_cuts_at_once_the_majority_is_what_neither_separates() -> None:
    first = fault(3, 6, groups=[["n1"], ["n2", "n3", "n4", "n5"]])
    second = fault(4, 7, number=1, groups=[["n1", "n2", "n3", "n4"], ["n5"]])
    assert sides(NODES, [first, second]) == (["n2", "n3", "n4"], ["n1", "n5"])
    third = fault(4, 7, number=1, groups=[["n1", "n2", "n3"], ["n4", "n5"]])
    assert sides(NODES, [first, third]) == (None, NODES)
    got = details([op(t, node="n5") for t in (3.5, 5, 6.5)], [first, second])
    assert (counts(got, "majority"), counts(got, "minority")) == ((1, 1), (2, 2))


def test_a_partition_without_a_majority() -> None:
    cut = fault(3, 6, groups=[["n1", "n2"], ["n3", "n4"], ["n5"]])
    got = details([op(4, outcome="info"), op(4, node="n5")], [cut]).availability
    assert (got.majority, got.minority) == (None, 0.5)


def test_several_faults() -> None:
    found = timeline(manifest(), [fault(1, 3), fault(2, 4, number=1), fault(6, 7, number=2)], 0)
    assert found is not None
    assert [round(edge / S, 3) for edge in found.edges] == [1, 2, 3.1, 4.1, 6, 7.1]
    assert found.phases.tolist() == [0, 1, 1, 1, 2, 1, 2]
    got = details([op(5), op(6.5), op(8)], [fault(1, 3), fault(6, 7, number=2)])
    assert [counts(got, name)[1] for name in ("before", "during", "after")] == [0, 1, 2]


def test_a_fault_that_was_never_healed_is_on_until_the_end() -> None:
    got = details([op(4), op(9.9), op(10.1)], [fault(3, None)])
    assert counts(got, "during") == (3, 3)
    assert got.windows["during"].seconds == 7
    assert "after" not in got.windows


def test_a_fault_that_could_not_be_applied_is_on_while_it_is_taken_back() -> None:
    never, partly = fault(3, 4), fault(3, 4)
    never.applied_ns = never.heal_started_ns = never.healed_ns = None
    partly.applied_ns = None
    assert fault_spans([never]) == []
    (span,) = fault_spans([partly])
    assert (span.start_ns / S, round(span.end_ns / S, 3)) == (3, 4.1)
    assert fault_spans([fault(3, None)])[0].end_ns == NEVER


def test_a_run_that_was_cut_short_ends_with_its_last_operation() -> None:
    got = details([op(1), op(4)], end_s=None)
    assert got.windows["before"].seconds == pytest.approx(4)


def test_without_load_there_is_nothing_to_measure() -> None:
    assert check_availability(manifest(), [], [], []).verdict == "unknown"


@pytest.mark.parametrize(
    ("workload", "seconds", "assumed"),
    [
        ({"timeout": "2s"}, 2, False),
        ({"timeout": "500ms"}, 0.5, False),
        ({"timeout_s": 1.5}, 1.5, False),  # of a load that has no experiment
        ({"timeout": "0s"}, 2, True),
        ({"timeout": "9" * 400 + "m"}, 2, True),
        ({"timeout_s": float("nan")}, 2, True),
        (None, 2, True),
    ],
)
def test_the_service_time_is_the_time_out_of_the_workload(
    workload: dict[str, Any] | None, seconds: float, assumed: bool
) -> None:
    run = manifest()
    run.experiment = {} if workload is None else {"workload": workload}
    found, said = service_time(run)
    assert (found, said is not None) == (seconds, assumed)
    summary = check_availability(run, [op(1)], [], []).summary
    assert summary.startswith(f"served within {seconds:g} s: 1.000")
    assert ("assumed" in summary) == assumed
