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
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from nodes.contract.bounds import Integer

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
DelayMs: TypeAlias = Annotated[int, Meta(ge=0, le=3_600_000)]
MIN_RATE, MAX_RATE = 0.05, 20.0
"""Of the clocks, however many errors are on: time goes on, and timers fire."""


class _OfMessages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """``share`` of what is sent to the nodes ``dst``, drawn by ``seed``."""

    share: Share
    dst: list[str]
    seed: Integer


class MessageLoss(_OfMessages, frozen=True, kw_only=True):
    """Messages are not sent."""


class Duplication(_OfMessages, frozen=True, kw_only=True):
    """Messages are sent twice."""


class Reordering(_OfMessages, frozen=True, kw_only=True):
    """Messages are held back for ``delay_ms``; what comes after them overtakes them."""

    delay_ms: DelayMs


class Corruption(_OfMessages, frozen=True, kw_only=True):
    """One byte of a frame is changed."""


class ClockError(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The wall clock is ``offset_s`` wrong; both clocks run ``drift`` seconds a second too fast;
    the monotonic clock has jumped ``jump_s`` forwards. Of years, not of centuries: what a replica
    stamps with its wall clock has to stay in reach of the others."""

    offset_s: Annotated[float, Meta(ge=-3e7, le=3e7)] = 0.0
    drift: Annotated[float, Meta(ge=-0.9, le=10)] = 0.0
    jump_s: Annotated[float, Meta(ge=0, le=1e8)] = 0.0


class SlowFsync(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Each group commit takes ``delay_ms`` longer."""

    delay_ms: DelayMs


class FsyncError(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The next sync fails: what was written may or may not be on the disk."""


class FullDisk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Nothing can be written any more."""


CrashPoint: TypeAlias = Literal["before-fsync", "after-fsync"]


class CrashAt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The process kills itself (SIGKILL) at the next group commit: when it is written and not yet
    synced, or when it is synced and nothing has left that waited for it."""

    point: CrashPoint


class Disconnected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The node has no connection to the broker but the one that it is controlled by."""


class QosOne(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """What is sent to the nodes ``dst`` goes with QoS 1: it is kept until the broker has it, also
    while the link is down, and so may come late or twice."""

    dst: list[str]


Injected: TypeAlias = (
    MessageLoss
    | Duplication
    | Reordering
    | Corruption
    | ClockError
    | SlowFsync
    | FsyncError
    | FullDisk
    | CrashAt
    | Disconnected
    | QosOne
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
        seed = injected.seed if isinstance(injected, _OfMessages) else None
        self._on[number] = (injected, random.Random(seed))
        self._changed(injected.jump_s if isinstance(injected, ClockError) else 0.0)

    def withdraw(self, number: str) -> None:
        """It is off, if it was on."""
        self._on.pop(number, None)
        self._changed()

    def _changed(self, jump_s: float = 0.0) -> None:
        on = [injected for injected, _ in self._on.values()]
        self.of_messages = any(isinstance(each, _OfMessages) for each in on)
        errors = [each for each in on if isinstance(each, ClockError)]
        self._env.set_errors(errors, jump_s)
        self._on_change()

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
            if not isinstance(injected, _OfMessages) or dst not in injected.dst:
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
