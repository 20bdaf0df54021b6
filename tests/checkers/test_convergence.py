"""Convergence and lost writes: what accounts for an acknowledged write, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from bench.checkers.convergence import check_convergence
from bench.record.history import OperationRecord
from nodes.contract.replica import OperationKind, Outcome, Value, Version

NODES = ["n1", "n2"]
S = 1_000_000_000


def op(
    kind: OperationKind,
    start: int,
    end: int | None,
    value: Value | list[Value] = None,
    *,
    version: Version = None,
    node: str = "n1",
    outcome: Outcome = "ok",
    applied: bool | None = None,
    process: str = "c",
) -> OperationRecord:
    return OperationRecord(
        process=process,
        id=start,
        op=kind,
        key="k",
        outcome=outcome,
        invoked_ns=start,
        completed_ns=end,
        value=value,
        version=version,
        node=node,
        applied=applied,
    )


def final(*values: Value | list[Value]) -> list[OperationRecord]:
    """What each node answers at the end."""
    return [
        op("read", 1000 + i, 1100, value, node=f"n{i + 1}", process="final-1")
        for i, value in enumerate(values)
    ]


def outcome_of(*records: OperationRecord, **options: Any) -> tuple[str, bool | None, int]:
    check = check_convergence(list(records), NODES, **options)
    assert (check.verdict == "invalid") == bool(check.witness), check
    return check.verdict, check.details.converged, check.details.lost_writes


W1 = op("write", 0, 10, 1)
W2 = op("write", 20, 30, 2)
OVERLAPS_W1 = op("write", 5, 30, 2)


def test_all_well() -> None:
    assert outcome_of(W1, *final(1, 1)) == ("valid", True, 0)


def test_nodes_that_differ() -> None:
    assert outcome_of(W1, OVERLAPS_W1, *final(1, 2)) == ("invalid", False, 0)


def test_the_order_of_siblings_is_no_difference() -> None:
    assert outcome_of(W1, OVERLAPS_W1, *final([1, 2], [2, 1])) == ("valid", True, 0)


def test_one_and_true_are_different() -> None:
    assert outcome_of(W1, *final(1, True))[:2] == ("invalid", False)


@pytest.mark.parametrize("missing", ["no answer", "no read"])
def test_a_node_that_did_not_answer(missing: str) -> None:
    reads = final(1, 1)
    if missing == "no answer":
        reads[1].outcome = "info"
    else:
        reads.pop()
    assert outcome_of(W1, *reads) == ("unknown", None, 0)


def test_no_final_reads() -> None:
    assert outcome_of(W1) == ("unknown", None, 0)


def test_a_key_that_was_not_read() -> None:
    other = op("write", 0, 10, 5)
    other.key = "other"
    assert outcome_of(W1, other, *final(1, 1)) == ("unknown", True, 0)


def test_the_later_write_is_lost() -> None:
    assert outcome_of(W1, W2, *final(1, 1)) == ("invalid", True, 1)


def test_the_earlier_write_is_overwritten() -> None:
    assert outcome_of(W1, W2, *final(2, 2)) == ("valid", True, 0)


def test_of_concurrent_writes_any_may_win() -> None:
    assert outcome_of(W1, OVERLAPS_W1, *final(1, 1)) == ("valid", True, 0)
    assert outcome_of(W1, OVERLAPS_W1, *final(2, 2)) == ("valid", True, 0)


def test_a_write_of_unknown_outcome_may_win_late() -> None:
    lost = op("write", 0, None, 1, outcome="info")
    assert outcome_of(lost, W2, *final(1, 1)) == ("valid", True, 0)


def test_all_writes_are_gone() -> None:
    assert outcome_of(W1, W2, *final(None, None)) == ("invalid", True, 1)


def test_a_delete_accounts_for_what_it_deleted() -> None:
    gone = op("delete", 40, 50)
    assert outcome_of(W1, W2, gone, *final(None, None)) == ("valid", True, 0)
    assert outcome_of(W1, gone, *final(1, 1)) == ("invalid", True, 1)


def test_a_refused_cas_wrote_nothing() -> None:
    refused = op("cas", 20, 30, 2, applied=False)
    assert outcome_of(W1, refused, *final(1, 1)) == ("valid", True, 0)


def test_a_failed_write_wrote_nothing() -> None:
    failed = op("write", 20, 30, 2, outcome="fail")
    assert outcome_of(W1, failed, *final(1, 1)) == ("valid", True, 0)


def test_a_value_from_nowhere() -> None:
    assert outcome_of(W1, *final(9, 9)) == ("invalid", True, 0)
    assert outcome_of(W1, *final(9, 9), history_is_cut=True) == ("unknown", True, 0)


def test_a_vector_clock_tells_what_was_superseded() -> None:
    mine = op("write", 0, 10, 1, version={"n1": 1}, node="n1")
    knew = op("write", 5, 30, 2, version={"n1": 1, "n2": 1}, node="n2")
    knew_not = op("write", 5, 30, 2, version={"n2": 1}, node="n2")
    assert outcome_of(mine, knew, *final(2, 2)) == ("valid", True, 0)
    assert outcome_of(mine, knew_not, *final(2, 2)) == ("invalid", True, 1)
    assert outcome_of(mine, knew_not, *final([1, 2], [2, 1])) == ("valid", True, 0)


def test_a_clock_needs_to_know_the_write_only_not_all_that_its_node_knew() -> None:
    mine = op("write", 0, 10, 1, version={"n1": 1, "n3": 7}, node="n1")
    survivor = op("write", 5, 30, 2, version={"n1": 1, "n2": 1}, node="n2")
    assert outcome_of(mine, survivor, *final(2, 2)) == ("valid", True, 0)


def test_each_lost_sibling_counts() -> None:
    a = op("write", 0, 10, 1, version={"n1": 1}, node="n1")
    b = op("write", 0, 10, 2, version={"n2": 1}, node="n2")
    b_again = op("write", 20, 30, 3, version={"n2": 2}, node="n2")
    c = op("write", 0, 40, 4, version={"n3": 1}, node="n3")
    assert outcome_of(a, b, b_again, c, *final(4, 4)) == ("invalid", True, 2)


@pytest.mark.parametrize("versions", [(5, 4), ([9, 1, "a"], [8, 7, "b"])])
def test_the_greater_version_must_win(versions: tuple[Version, Version]) -> None:
    first, second = versions
    winner = op("write", 0, 30, 1, version=first)
    loser = op("write", 0, 30, 2, version=second)
    assert outcome_of(winner, loser, *final(1, 1)) == ("valid", True, 0)
    assert outcome_of(winner, loser, *final(2, 2)) == ("invalid", True, 1)


def test_a_greater_version_does_not_excuse_overwriting_the_future() -> None:
    skewed = op("write", 0, 10, 1, version=[99, 0, "a"])
    later = op("write", 20, 30, 2, version=[5, 0, "b"])
    assert outcome_of(skewed, later, *final(1, 1)) == ("invalid", True, 1)
    assert outcome_of(skewed, later, *final(1, 1), clock_error_ns=10) == ("valid", True, 0)


def test_the_last_answer_of_a_node_counts() -> None:
    early = op("read", 900, 950, None, node="n2", process="final-0")
    check = check_convergence([W1, early, *final(1, 1)], NODES, healed_ns=100, last_stale_ns=850)
    assert check.details.converged is True
    assert check.details.converged_within_s == 1000 / S
    assert check.details.last_stale_after_heal_s == 750 / S
