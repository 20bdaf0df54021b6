"""What a check may spend: time and memory run out, and parts share them."""

from __future__ import annotations

import pytest

from bench.checkers.budget import Budget, OverBudget


def what_runs_out(budget: Budget, ticks: int = 1 << 20) -> str:
    with pytest.raises(OverBudget) as caught:
        budget.spend(ticks)
    return caught.value.what


def test_time_and_memory_run_out() -> None:
    assert what_runs_out(Budget(0.0)) == "time"
    kept: list[bytearray] = []
    budget = Budget(3600.0, 8 << 20)
    budget.look()
    kept.append(bytearray(b"x" * (32 << 20)))
    assert what_runs_out(budget) == "memory"
    assert budget.left_bytes() == 0


def test_a_part_has_no_more_than_is_left() -> None:
    spent = Budget(0.0)
    assert (spent.left_s(), what_runs_out(spent.part(60.0))) == (0.0, "time")
    budget = Budget(3600.0, 1 << 20)
    assert budget.part(5.0).left_s() <= 5.0
    assert budget.part(5.0).left_bytes() <= 1 << 20


def test_time_begins_anew_once_the_history_is_read() -> None:
    budget = Budget(3600.0)
    left = budget.left_s()
    budget.begin()
    assert budget.left_s() >= left


def test_what_is_counted_in_configurations_is_the_same_everywhere() -> None:
    budget = Budget(3600.0, 0, configurations=3)
    budget.look()  # whatever the process has
    budget.hold(3)
    with pytest.raises(OverBudget) as caught:
        budget.hold(4)
    assert caught.value.what == "memory"
    with pytest.raises(OverBudget):
        budget.part(1.0).hold(4)
