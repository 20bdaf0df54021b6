"""What a live node does wrong on purpose, as the nemesis tells it: messages, clock and disk.

Several may be on at once, each under the number that its fault has. Draws come from the seed of
each, so that the same messages meet the same fate, as far as the messages are the same.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

from nodes.faults.injected import (
    MAX_RATE,
    MIN_RATE,
    ClockError,
    Corruption,
    CrashAt,
    Disconnected,
    Duplication,
    FsyncError,
    FullDisk,
    Injected,
    OfMessages,
    QosOne,
    Reordering,
    SlowFsync,
)


class LiveEnv:
    """Time and randomness of a live node: real, as long as no `ClockError` is on. ``rate``: seconds
    of its clocks per true second; the driver's timers keep to it."""

    def __init__(self) -> None:
        self.rng = random.Random()
        self.rate = 1.0
        self._offset_s = self._drifted_s = 0.0
        # What the monotonic clock showed, at which true time: it never goes back.
        self._shown_s = self._since_s = time.monotonic()

    def now(self) -> float:
        """Seconds on the monotonic clock."""
        return self._shown_s + (time.monotonic() - self._since_s) * self.rate

    def wall(self) -> float:
        """Seconds since the epoch, as this node believes."""
        return time.time() + self._offset_s + self._drift_s()

    def _drift_s(self) -> float:
        return self._drifted_s + (time.monotonic() - self._since_s) * (self.rate - 1)

    def set_errors(self, errors: list[ClockError], jump_s: float = 0.0) -> None:
        """These are on now, no others: the wall clock is right again without any."""
        self._drifted_s = self._drift_s() if any(error.drift for error in errors) else 0.0
        self._shown_s, self._since_s = self.now() + jump_s, time.monotonic()
        self.rate = min(MAX_RATE, max(MIN_RATE, 1 + sum(error.drift for error in errors)))
        self._offset_s = sum(error.offset_s for error in errors)


class Injector:
    """What is on at this node. ``send_late``: sends a message to a node, past this. ``changed``:
    called when something begins or ends."""

    def __init__(
        self,
        env: LiveEnv,
        call_later: Callable[..., Any],
        send_late: Callable[[str, Any], None],
        count: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.of_messages = False
        """Whether `messages` and `frame` have anything to do."""
        self._env = env
        self._call_later = call_later
        self._send_late = send_late
        self._count = count
        self._on_change = changed
        self._on: dict[str, tuple[Injected, random.Random]] = {}

    def inject(self, number: str, injected: Injected) -> None:
        """One more is on. Nothing changes if that number is on already."""
        if number in self._on:
            return
        seed = injected.seed if isinstance(injected, OfMessages) else None
        self._on[number] = (injected, random.Random(seed))
        self._changed(injected.jump_s if isinstance(injected, ClockError) else 0.0)

    def withdraw(self, number: str) -> None:
        """It is off, if it was on."""
        self._on.pop(number, None)
        self._changed()

    def _changed(self, jump_s: float = 0.0) -> None:
        on = [injected for injected, _ in self._on.values()]
        self.of_messages = any(isinstance(each, OfMessages) for each in on)
        errors = [each for each in on if isinstance(each, ClockError)]
        self._env.set_errors(errors, jump_s)
        self._on_change()

    @property
    def idle(self) -> bool:
        """Whether nothing is on."""
        return not self._on

    @property
    def disconnected(self) -> bool:
        """Whether the node shall have no connection but the one that it is controlled by."""
        return any(isinstance(injected, Disconnected) for injected, _ in self._on.values())

    def qos(self, dst: str) -> int:
        """The quality of service of what is sent to ``dst``."""
        on = (injected for injected, _ in self._on.values())
        return int(any(isinstance(each, QosOne) and dst in each.dst for each in on))

    def messages(self, dst: str, messages: list[Any]) -> list[Any]:
        """What leaves now of what was to be sent to ``dst``."""
        for injected, rng in self._on.values():
            if not isinstance(injected, OfMessages) or dst not in injected.dst:
                continue
            if isinstance(injected, Corruption):
                continue
            left: list[Any] = []
            for message in messages:
                hit = rng.random() < injected.share
                if not hit:
                    left.append(message)
                elif isinstance(injected, Duplication):
                    left += [message, message]
                    self._count("messages_duplicated")
                elif isinstance(injected, Reordering):
                    self._call_later(injected.delay_ms / 1000, self._send_late, dst, message)
                    self._count("messages_held_back")
                else:
                    self._count("messages_lost")
            messages = left
        return messages

    def frame(self, dst: str, frame: bytes) -> bytes:
        """The frame as it leaves for ``dst``."""
        for injected, rng in self._on.values():
            if not isinstance(injected, Corruption) or dst not in injected.dst:
                continue
            if rng.random() < injected.share:
                at = rng.randrange(1, len(frame))  # behind the version, so the checksum notices
                frame = frame[:at] + bytes([frame[at] ^ rng.randrange(1, 256)]) + frame[at + 1 :]
                self._count("frames_corrupted")
        return frame

    def commit(self, commit: Callable[..., None], batches: Any) -> None:
        """Do a group commit, as well as this disk can. Raises OSError. From another thread."""
        on = [injected for injected, _ in list(self._on.values())]
        if any(isinstance(each, FullDisk) for each in on):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        slower_ms = sum(each.delay_ms for each in on if isinstance(each, SlowFsync))
        if slower_ms:  # Sleeping for no time still hands the interpreter to another thread.
            time.sleep(slower_ms / 1000)
        points = {each.point for each in on if isinstance(each, CrashAt)}
        commit(batches, _die if "before-fsync" in points else None)
        if "after-fsync" in points:
            _die()
        if any(isinstance(each, FsyncError) for each in on):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
