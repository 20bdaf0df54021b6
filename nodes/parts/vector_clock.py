"""Vector clocks: who has seen how many events of whom (Fidge 1988; Mattern 1989).

A clock is a mapping from a node to the number of its events that are in the past; a node that is
not in it counts as 0. No function here changes a clock that it was given: clocks are shared by
messages, records and memory, and an increment in place would rewrite the past of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

Clock: TypeAlias = Mapping[str, int]
Order: TypeAlias = Literal["before", "after", "equal", "concurrent"]


def increment(clock: Clock, node: str) -> dict[str, int]:
    """A new clock with one more event of ``node``."""
    return {**clock, node: clock.get(node, 0) + 1}


def merge(*clocks: Clock) -> dict[str, int]:
    """The least clock that covers all ``clocks``."""
    merged: dict[str, int] = {}
    for clock in clocks:
        if not merged and all(clock.values()):
            merged.update(clock)  # Without a loop in Python: most merges are of one or two clocks.
            continue
        try:
            # Nearly always a clock names nodes that one before it named.
            for node, counter in clock.items():
                if counter > merged[node]:
                    merged[node] = counter
        except KeyError:
            for node, counter in clock.items():
                if counter > merged.get(node, 0):
                    merged[node] = counter
    return merged


def compare(a: Clock, b: Clock) -> Order:
    """How ``a`` lies to ``b``: ``before`` means that ``b`` has seen all of ``a`` and more."""
    less = not dominates(a, b)
    greater = not dominates(b, a)
    if less:
        return "concurrent" if greater else "before"
    return "after" if greater else "equal"


def dominates(a: Clock, b: Clock) -> bool:
    """Whether ``a`` has seen everything that ``b`` has (they may be equal)."""
    for node, counter in b.items():  # noqa: SIM110 - a generator would cost more than the loop
        if a.get(node, 0) < counter:
            return False
    return True


def covers(clock: Clock, node: str, counter: int) -> bool:
    """Whether event number ``counter`` of ``node`` is in ``clock``'s past."""
    return clock.get(node, 0) >= counter
