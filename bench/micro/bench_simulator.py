"""The simulator with all its checks on: one minute of five nodes and ten clients, under faults."""

from __future__ import annotations

from typing import Any

import pytest

from bench.micro.figures import measure, scaled
from nodes.simulator.load import Habits
from nodes.simulator.simulate import Setup, SimulationResult, simulate

SECONDS = scaled(60)
GOAL_OF_A_MINUTE_CPU_S = 0.25


def _run(protocol: str) -> SimulationResult:
    result = simulate(
        protocol, 7, nodes=5, duration_s=SECONDS, setup=Setup(habits=Habits(clients=10))
    )
    assert not result.alarms, result.alarms
    return result


@pytest.mark.benchmark(group="simulator")
@pytest.mark.parametrize("protocol", ["raft", "paxos", "quorum", "gossip"])
def bench_events(benchmark: Any, protocol: str) -> None:
    measure(
        benchmark,
        f"simulator: {protocol}, events",
        lambda: _run(protocol),
        operations=_run(protocol).events,
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
        lambda: _run(protocol),
        rounds=3,
        unit="CPU s",
        goal=GOAL_OF_A_MINUTE_CPU_S * SECONDS / 60,
    )
