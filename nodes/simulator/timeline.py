"""Virtual time: a heap of events, and the record of what happened.

An event is a tuple ``(time_s, number, action, argument)``; the number makes the order total, so
that equal times never compare actions. The record is a flat array of doubles that is hashed once at
the end: two runs with the same hash did the same things at the same times.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, TypeAlias

from nodes.simulator.story import Happening, Moment, Story

Event: TypeAlias = tuple[float, float, Callable[[Any], None], Any]

_FIRST, _LAST = -1.0, float("inf")
"""Numbers of the events that end `Timeline.run_until`: before and after all others of that time."""


class _Ended(Exception):
    """`Timeline.run_until` is over."""


class Timeline:
    """Runs events in order of time. ``now`` is the virtual time in seconds, ``events`` how many
    ran."""

    __slots__ = (
        *("_round", "events", "heap", "next", "note", "now", "numbers"),
        *("story", "transcript"),
    )

    def __init__(self, *, trace: bool = False) -> None:
        self.now = 0.0
        self.heap: list[Event] = []
        self.next = itertools.count().__next__
        self.events = 0
        self.numbers = array("d")
        self.note = self.numbers.append
        self.transcript: list[str] | None = [] if trace else None
        self.story = Story() if trace else None
        self._round = 0

    def at(self, time_s: float, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call ``action(argument)`` at ``time_s`` (at once after the present event, if that is
        past)."""
        if time_s < self.now:
            time_s = self.now
        heappush(self.heap, (time_s, self.next(), action, argument))

    def run_until(self, end_s: float) -> None:
        """Run all events up to ``end_s``, or until `stop`. Then ``now`` is ``end_s`` (or earlier,
        after `stop`)."""
        if end_s < self.now:
            return
        heap = self.heap
        self._round += 1
        # The end is an event too, so that the loop has nothing to ask.
        heappush(heap, (end_s, _LAST, self._end, self._round))
        events = 0
        try:
            while True:
                self.now, _, action, argument = heappop(heap)
                events += 1
                action(argument)
        except _Ended:
            pass
        finally:
            self.events += events

    def stop(self) -> None:
        """End `run_until` after the present event."""
        heappush(self.heap, (self.now, _FIRST, self._end, self._round))

    def _end(self, round_: int) -> None:
        self.events -= 1
        if round_ == self._round:
            raise _Ended

    def say(self, line: str) -> None:
        """Add a line to the transcript, if one is kept."""
        if self.transcript is not None:
            self.transcript.append(f"{self.now:11.6f}  {line}")

    def tell(self, who: str, what: Happening, line: str) -> None:
        """A line of the transcript that is a turn of the story too."""
        self.say(line)
        if self.story is not None:
            self.story.moments.append(Moment(self.now, who, what, line))

    def digest(self, *more: bytes) -> str:
        """The hash over everything that was noted, and ``more``."""
        digest = hashlib.blake2b(self.numbers.tobytes(), digest_size=16)
        for part in more:
            digest.update(part)
        return digest.hexdigest()
