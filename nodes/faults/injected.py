"""What a node does wrong on purpose, as the nemesis tells it: messages, clock and disk."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from nodes.contract.bounds import Integer

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
DelayMs: TypeAlias = Annotated[int, Meta(ge=0, le=3_600_000)]


MIN_RATE, MAX_RATE = 0.05, 20.0
"""Of the clocks, however many errors are on: time goes on, and timers fire."""


class OfMessages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """``share`` of what is sent to the nodes ``dst``, drawn by ``seed``."""

    share: Share
    dst: list[str]
    seed: Integer


class MessageLoss(OfMessages, frozen=True, kw_only=True):
    """Messages are not sent."""


class Duplication(OfMessages, frozen=True, kw_only=True):
    """Messages are sent twice."""


class Reordering(OfMessages, frozen=True, kw_only=True):
    """Messages are held back for ``delay_ms``; what comes after them overtakes them."""

    delay_ms: DelayMs


class Corruption(OfMessages, frozen=True, kw_only=True):
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
