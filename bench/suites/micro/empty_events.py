"""Events that do nothing but set the next one: what no simulator in pure Python can beat."""

from __future__ import annotations

from nodes.simulator.timeline import Timeline

PENDING = 100
"""About as many as are pending in a cluster of five nodes with ten clients."""


def empty_events(count: int, pending: int = PENDING) -> int:
    """Run about ``count`` events of a `Timeline` on which ``pending`` others always wait; returns
    how many ran."""
    timeline = Timeline()

    def again(_: None) -> None:
        timeline.at(timeline.now + 1.0, again)

    for number in range(pending):
        timeline.at(number / pending, again)
    timeline.run_until(count / pending)
    return timeline.events
