"""The ceiling of the simulator: its timeline with events that do nothing."""

from __future__ import annotations

from typing import Any

import pytest

from bench.measure.measuring import measure, scaled
from bench.suites.micro.empty_events import empty_events

EVENTS = scaled(200_000, 1000)


@pytest.mark.benchmark(group="simulator")
def bench_empty_events(benchmark: Any) -> None:
    measure(
        benchmark,
        "simulator: events that do nothing",
        lambda: empty_events(EVENTS),
        operations=empty_events(EVENTS),
        rounds=5,
        unit="events/CPU s",
        compared_with="simulator: raft, events",
    )
