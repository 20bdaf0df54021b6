"""Events that only schedule the next one: no simulator in pure Python can be faster."""

from __future__ import annotations

from nodes.simulator.timeline import Timeline

PENDING = 100
"""About as many events as are pending with five nodes and ten clients."""


def empty_events(count: int, pending: int = PENDING) -> int:
    """Run about ``count`` events of a `Timeline` with ``pending`` events always waiting; returns
    how many ran."""
    timeline = Timeline()

    def again(_: None) -> None:
        timeline.at(timeline.now + 1.0, again)

    for number in range(pending):
        timeline.at(number / pending, again)
    timeline.run_until(count / pending)
    return timeline.events
