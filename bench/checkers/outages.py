"""Outages, when operations were not served, and silences, when no client got an answer.

- A *silence* lasts from the first operation wanted after an ok answer to the next ok answer. It
  counts if it lasts at least `SILENCE_S` (at low rates: ten mean gaps between wanted operations).
  Without silences a protocol that delays operations through an election, and answers them all in
  the end, would seem undisturbed.
- A second is *good* if at least 99% of the operations wanted in it were served and no silence that
  counts overlaps it. A second in which nothing was wanted shows nothing.
- An *outage* begins with an operation not served, or with a silence, if the second that begins
there
  is not good. It ends at the first moment that begins a good second of the load: right after the
  last operation not served, or with the answer that ended the silence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.record.columns import Bools, Int64s

SECOND_NS = 1_000_000_000
GOOD_PERCENT = 99
SILENCE_S = 0.25
"""A shorter time without an answer is only a pause."""
SPARSE = 10
"""At low rates, a silence lasts at least so many mean gaps between wanted operations."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """Disjoint intervals, by time."""

    starts: Int64s
    ends: Int64s

    def chosen(self, which: Bools) -> Intervals:
        """The chosen intervals."""
        return Intervals(self.starts[which], self.ends[which])

    @property
    def lengths(self) -> Int64s:
        """The length of each (ns)."""
        return self.ends - self.starts


@dataclass(frozen=True, slots=True)
class Outage:
    """``end_ns``: None if it outlasted the load."""

    start_ns: int
    end_ns: int | None


def pauses(wanted: Int64s, answers: Int64s, load_ended_ns: int) -> Intervals:
    """All times without an ok answer, however short. Both arrays are sorted; answers after the end
    of the load do not count."""
    answers = answers[: np.searchsorted(answers, load_ended_ns, "right")]
    before = np.concatenate((wanted[:1], answers))
    after = np.concatenate((answers, [load_ended_ns])) if len(wanted) else answers[:0]
    if not len(wanted):
        return Intervals(answers[:0], answers[:0])
    place = np.searchsorted(wanted, before, "left")
    starts = wanted[np.minimum(place, len(wanted) - 1)]
    asked = (place < len(wanted)) & (starts < after)
    return Intervals(starts[asked], after[asked])


def silences(found: Intervals, wanted: Int64s, start_ns: int, end_ns: int) -> Intervals:
    """The pauses that count as silences, in a load from ``start_ns`` to ``end_ns``."""
    gap_ns = (end_ns - start_ns) / len(wanted) if len(wanted) else 0.0
    return found.chosen(found.lengths >= max(SILENCE_S * SECOND_NS, SPARSE * gap_ns))


def outages(wanted: Int64s, served: Bools, silent: Intervals, load_ended_ns: int) -> list[Outage]:
    """All outages, by time. ``wanted`` is sorted; ``silent``: the silences that count."""
    missed = np.unique(wanted[~served])
    counted = np.concatenate(([0], np.cumsum(served)))

    def good(starts: Int64s) -> Bools:
        low = np.searchsorted(wanted, starts)
        high = np.searchsorted(wanted, starts + SECOND_NS)
        begun = np.searchsorted(silent.starts, starts + SECOND_NS)
        over = np.searchsorted(silent.ends, starts, "right")
        enough = 100 * (counted[high] - counted[low]) >= GOOD_PERCENT * (high - low)
        result: Bools = enough & (begun == over)
        return result

    begins = np.unique(np.concatenate((missed, silent.starts)))
    begins = begins[~good(begins)]
    ends = np.unique(_once_asked(wanted, np.concatenate((missed + 1, silent.ends))))
    ends = ends[ends + SECOND_NS <= load_ended_ns]
    ends = ends[good(ends)]
    found: list[Outage] = []
    at = 0
    while at < len(begins):
        start = int(begins[at])
        place = int(np.searchsorted(ends, start, "right"))
        if place == len(ends):
            found.append(Outage(start, None))
            break
        found.append(Outage(start, int(ends[place])))
        at = int(np.searchsorted(begins, ends[place]))
    return found


def _once_asked(wanted: Int64s, times: Int64s) -> Int64s:
    """The times, each moved to the next wanted operation if that is over a second later."""
    place = np.searchsorted(wanted, times)
    times, place = times[place < len(wanted)], place[place < len(wanted)]
    following = wanted[place]
    return np.where(following >= times + SECOND_NS, following, times)
