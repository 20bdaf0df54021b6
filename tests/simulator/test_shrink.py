"""A failing seed becomes a short story that fails in the same way."""

from __future__ import annotations

import pytest

from nodes.simulator.bugs import all_bugs
from nodes.simulator.shrink import Case, shrink
from nodes.simulator.simulate import SimulationResult, simulate
from tests.simulator.judge import linearizable
from tests.simulator.toy import protocol


def check_of(result: SimulationResult) -> str | None:
    alarms = result.alarms or linearizable(result)
    return alarms[0].check if alarms else None


@pytest.mark.parametrize("name", ["quorum-local-read", "gossip-rumours-only"])
def test_a_failing_seed_shrinks_to_a_story_that_can_be_read(name: str) -> None:
    planted = next(bug for bug in all_bugs() if bug.name == name).planted()
    failing = next(
        result
        for seed in range(1, 100)
        if check_of(result := simulate(planted, seed)) is not None and result.told > 500
    )
    case = shrink(planted, failing, check_of, budget_events=400_000)
    small = case.run(planted, trace=True)
    assert check_of(small) == check_of(failing)
    assert small.told <= 200
    assert len(small.transcript) > 5
    assert case.run(planted).trace_hash == small.trace_hash


def test_a_run_that_does_not_fail_is_refused() -> None:
    fine = simulate(protocol(), 1, duration_s=1.0)
    assert Case.of(fine).run(protocol()).trace_hash == fine.trace_hash
    with pytest.raises(ValueError, match="seed 1 does not fail"):
        shrink(protocol(), fine, check_of)
