"""The simulator with all its checks: a minute of five nodes and ten clients, under faults.

Several seeds, since the faults of a single one may keep all clients from getting anything done.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.measure.measuring import measure, scaled
from nodes.simulator.load import WorkloadMix
from nodes.simulator.simulate import Setup, SimulationResult, simulate

SECONDS = scaled(60)
GOAL_OF_A_MINUTE_CPU_S = 0.25


SEEDS = range(1, 5)


def _runs(protocol: str) -> list[SimulationResult]:
    results = [
        simulate(
            protocol, seed, nodes=5, duration_s=SECONDS, setup=Setup(mix=WorkloadMix(clients=10))
        )
        for seed in SEEDS
    ]
    for result in results:
        assert not result.alarms, result.alarms
    return results


@pytest.mark.benchmark(group="simulator")
@pytest.mark.parametrize("protocol", ["raft", "paxos", "quorum", "gossip"])
def bench_events(benchmark: Any, protocol: str) -> None:
    measure(
        benchmark,
        f"simulator: {protocol}, events",
        lambda: _runs(protocol),
        operations=sum(result.events for result in _runs(protocol)),
        rounds=3,
        unit="events/CPU s",
        goal=300_000,
        compared_with=None if protocol == "raft" else "simulator: raft, events",
    )


@pytest.mark.benchmark(group="simulator")
@pytest.mark.parametrize("protocol", ["raft", "quorum", "gossip"])
def bench_minute(benchmark: Any, protocol: str) -> None:
    measure(
        benchmark,
        f"simulator: {protocol}, {SECONDS} simulated s",
        lambda: _runs(protocol),
        operations=len(SEEDS),
        rounds=3,
        unit="CPU s",
        goal=GOAL_OF_A_MINUTE_CPU_S * SECONDS / 60,
    )
