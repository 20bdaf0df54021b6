"""The budget for checking a history: time, and memory beyond what the process already has."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import ClassVar, Final, Literal, TypeAlias

import psutil

DEFAULT_BUDGET_S: Final = 60.0
DEFAULT_MEMORY_BYTES: Final = 4 << 30
_TICKS: Final = 4096
"""Small steps between two checks of the clock: some milliseconds."""

_EVERY_S: Final = 0.05
"""How often a check that is watched is looked after, in seconds."""

_QUIET: Final = 10
"""How many times it is left alone after it was interrupted."""

Resource: TypeAlias = Literal["time", "memory"]


class OverBudget(Exception):
    """``what`` ran out."""

    def __init__(self, what: Resource) -> None:
        super().__init__(f"undecided: out of {what}")
        self.what: Resource = what


class Budget:
    """Shared by all parts of a check: what one has spent, the next no longer has.

    Memory is what the process uses beyond what it had when the budget was made, for any purpose.
    With ``configurations`` the process's memory does not matter: a search may hold so many states,
    the same on every machine.
    """

    _is_watched: ClassVar[bool] = False

    def __init__(
        self,
        seconds: float = DEFAULT_BUDGET_S,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        *,
        configurations: int | None = None,
    ) -> None:
        self._process = psutil.Process()
        self._seconds, self._memory_bytes = seconds, memory_bytes
        self._most_bytes = self._process.memory_info().rss + memory_bytes
        self._configurations = configurations
        self._ticks = 0
        self.begin()

    def begin(self) -> None:
        """Start the clock."""
        self._deadline = time.monotonic() + self._seconds

    def left_s(self) -> float:
        """The seconds left, at least 0."""
        return max(0.0, self._deadline - time.monotonic())

    def left_bytes(self) -> int:
        """The bytes left, at least 0."""
        if self._configurations is not None:
            return self._memory_bytes
        return max(0, self._most_bytes - self._process.memory_info().rss)

    def part(self, seconds: float) -> Budget:
        """A budget of at most so many of the seconds left, with the same memory."""
        part = Budget(
            min(seconds, self.left_s()), self._memory_bytes, configurations=self._configurations
        )
        part._most_bytes = self._most_bytes
        return part

    def hold(self, configurations: int) -> None:
        """A search holds so many states. Raises OverBudget."""
        if self._configurations is not None and configurations > self._configurations:
            raise OverBudget("memory")

    def spend(self, ticks: int = 1) -> None:
        """Count some small steps. Raises OverBudget."""
        self._ticks += ticks
        if self._ticks >= _TICKS:
            self._ticks = 0
            self.look()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While this is open, OverBudget is raised wherever the code is, a moment after something
        has run out, and again until it is closed; one call of NumPy is not interrupted. That takes
        the main thread: in others only `spend` and `look` raise."""
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or Budget._is_watched:
            yield
            return

        quiet = 0

        def wake(_number: int, _frame: FrameType | None) -> None:
            nonlocal quiet
            quiet -= 1
            if quiet <= 0:
                # Whoever was interrupted has some time to clean up.
                quiet = _QUIET
                self.look()
                quiet = 0

        over = threading.Event()
        main = threading.get_ident()

        def watch() -> None:
            while not over.wait(_EVERY_S):
                signal.pthread_kill(main, signal.SIGVTALRM)

        # No timer of the process: those of CPU time make its clock coarse for good, and that of
        # real time belongs to whoever runs the tests.
        before = signal.signal(signal.SIGVTALRM, wake)
        watcher = threading.Thread(target=watch, name="budget", daemon=True)
        Budget._is_watched = True
        watcher.start()
        try:
            yield
        finally:
            while Budget._is_watched:
                # Also here a signal may still arrive.
                with contextlib.suppress(OverBudget):
                    over.set()
                    watcher.join()
                    signal.signal(signal.SIGVTALRM, before)
                    Budget._is_watched = False

    def look(self) -> None:
        """Raises OverBudget if something has run out."""
        if time.monotonic() > self._deadline:
            raise OverBudget("time")
        if self._configurations is None and self.left_bytes() == 0:
            raise OverBudget("memory")
