"""The ceiling of a simulator in pure Python: events that do nothing but set the next one."""

from __future__ import annotations

from typing import Any

import pytest

from bench.micro.figures import measure, scaled
from nodes.simulator.timeline import Timeline

EVENTS = scaled(200_000, 1000)
PENDING = 100
"""About as many as are pending in a cluster of five nodes with ten clients."""


def empty_events(count: int = EVENTS, pending: int = PENDING) -> int:
    """Run about ``count`` events of a `Timeline` on which ``pending`` others always wait; returns
    how many ran."""
    timeline = Timeline()

    def again(_: None) -> None:
        timeline.at(timeline.now + 1.0, again)

    for number in range(pending):
        timeline.at(number / pending, again)
    timeline.run_until(count / pending)
    return timeline.events


@pytest.mark.benchmark(group="simulator")
def bench_empty_events(benchmark: Any) -> None:
    measure(
        benchmark,
        "simulator: events that do nothing",
        empty_events,
        operations=empty_events(),
        rounds=5,
        unit="events/CPU s",
        compared_with="simulator: raft, events",
    )
