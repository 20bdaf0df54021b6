"""Whether a group commit is worth a thread.

A commit in a thread leaves the event loop free, which costs two wake-ups of threads and a turn of
the loop: as much as a quick disk takes. So a node that has next to nothing to write, and a quick
disk, waits for it in the loop. How slow a disk can be nobody knows beforehand, and how much there
is to do: one slow or large commit, and the next `PATIENCE` are done in the thread again. So of many
slow ones at most one in `PATIENCE` stops heartbeats and answers for as long as it takes, and where
many clients are served the thread does it all.
"""

from __future__ import annotations

QUICK_S = 0.002
"""A commit that takes longer is slow. Heartbeats are at least ten times as far apart."""
PATIENCE = 20
"""Commits of few writes and quick, one after the other, that have to be seen before."""
FEW_WRITES = 4
"""A request makes at most so many. What waits for more is of several, and others are on their
way."""


class DiskSpeed:
    """What commits have shown."""

    def __init__(self, quick_s: float = QUICK_S) -> None:
        self.quick_s = quick_s
        self._to_show = PATIENCE

    @property
    def is_quick(self) -> bool:
        """Whether the last `PATIENCE` commits were small and quick."""
        return self._to_show == 0

    def note(self, seconds: float, writes: int) -> None:
        """A commit of so many writes took so long."""
        if seconds >= self.quick_s or writes > FEW_WRITES:
            self._to_show = PATIENCE
        elif self._to_show:
            self._to_show -= 1
