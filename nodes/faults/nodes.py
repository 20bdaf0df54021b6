"""Faults that a node injects into itself on command: messages, connections, clock and disk."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nodes.faults.base import Fault, Resolved
from nodes.faults.capabilities import (
    CanInject,
    CanKill,
    Capability,
    CarriesFrames,
    Cluster,
    DamagesLogs,
    FillsDisks,
    FlipsBits,
    LosesMessages,
    TakesOrders,
)
from nodes.faults.injected import (
    ClockError,
    Corruption,
    CrashAt,
    CrashPoint,
    Disconnected,
    Duplication,
    FsyncError,
    FullDisk,
    Injected,
    MessageLoss,
    QosOne,
    Reordering,
    SlowFsync,
)
from nodes.faults.links import OnLinks
from nodes.faults.processes import Milliseconds, OnNodes, each
from nodes.wire.links import Link

Share = Annotated[float, Field(gt=0, le=1)]


class _Injecting(Fault):
    """Base of faults that nodes inject into themselves until they are ordered to stop."""

    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanInject,)

    def injected(self, resolved: Resolved) -> Mapping[str, Injected]:
        """What each node injects."""
        raise NotImplementedError

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Send the order to the nodes, and wait for each to confirm it."""
        assert resolved.seed is not None
        for node, injected in self.injected(resolved).items():
            cluster.can(TakesOrders).inject(node, resolved.seed, injected)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Withdraw the order; restart nodes that stopped because of it."""
        number = resolved.seed
        assert number is not None
        each(self.injected(resolved), lambda node: cluster.can(TakesOrders).withdraw(node, number))


# --- messages ----------------------------------------------------------------------------------


def _by_sender(links: Sequence[Link]) -> Mapping[str, list[str]]:
    to: defaultdict[str, list[str]] = defaultdict(list)
    for src, dst in links:
        to[src].append(dst)
    return to


class _OfMessages(OnLinks, _Injecting):
    share: Share

    def injected(self, resolved: Resolved) -> Mapping[str, Injected]:
        """The sender of each link does it, with its own seed."""
        to = _by_sender(resolved.links)
        seeds = random.Random(resolved.seed)
        return {src: self.of(dst, seeds.getrandbits(48)) for src, dst in to.items()}

    def of(self, dst: list[str], seed: int) -> Injected:
        """What a sender does to its messages."""
        raise NotImplementedError


class Loss(_OfMessages):
    """Lose a share of the messages between nodes, drawn by seed.

    ``share``: of the protocol's messages (not of frames, which hold several), above 0, at most 1.
    In a lab, of the packets, which TCP sends again: there it takes longer, and nothing is lost for
    good. ``links``, ``node``: which links; all between nodes if neither is given."""

    fault: Literal["message-loss"] = "message-loss"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (LosesMessages,)

    def of(self, dst: list[str], seed: int) -> Injected:
        """Not sent."""
        return MessageLoss(share=self.share, dst=dst, seed=seed)


class Duplicate(_OfMessages):
    """Send a share of the messages between nodes twice, drawn by seed.

    ``share``: of the protocol's messages, above 0, at most 1. ``links``, ``node``: which links; all
    between nodes if neither is given."""

    fault: Literal["duplication"] = "duplication"

    def of(self, dst: list[str], seed: int) -> Injected:
        """Sent twice."""
        return Duplication(share=self.share, dst=dst, seed=seed)


class Reorder(_OfMessages):
    """Hold back a share of the messages between nodes, so that later ones overtake them.

    ``share``: of the protocol's messages, above 0, at most 1. ``delay_ms``: for how long.
    ``links``, ``node``: which links; all between nodes if neither is given."""

    fault: Literal["reordering"] = "reordering"
    delay_ms: Milliseconds = 50

    def of(self, dst: list[str], seed: int) -> Injected:
        """Sent late."""
        return Reordering(share=self.share, dst=dst, seed=seed, delay_ms=self.delay_ms)


class Corrupt(_OfMessages):
    """Change a byte in a share of the frames between nodes; the receiver must notice.

    ``share``: of the frames, above 0, at most 1. The receiver counts ``bad_frame_checksum`` and
    drops the frame with all its messages. ``links``, ``node``: which links; all between nodes if
    neither is given."""

    fault: Literal["corruption"] = "corruption"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanInject, CarriesFrames)

    def of(self, dst: list[str], seed: int) -> Injected:
        """Changed."""
        return Corruption(share=self.share, dst=dst, seed=seed)


class AtLeastOnce(OnLinks, _Injecting):
    """Send with QoS 1 instead of 0 on links: nothing is lost, but may arrive late or twice.

    Not a failure but another transport: the sender keeps each frame until the broker has confirmed
    it, even across a lost connection. What a cut would have lost arrives late, after the heal, and
    what was in flight may arrive twice. ``links``, ``node``: which links; all between nodes if
    neither is given."""

    fault: Literal["qos-1"] = "qos-1"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanInject, CarriesFrames)

    def injected(self, resolved: Resolved) -> Mapping[str, Injected]:
        """The sender of each link does it."""
        return {src: QosOne(dst=dst) for src, dst in _by_sender(resolved.links).items()}


# --- connections -------------------------------------------------------------------------------


class BrokerDisconnect(_Injecting, OnNodes):
    """Take the broker away from nodes: all their connections break, and none comes back.

    Unlike an isolated node, a disconnected one knows immediately, and clients cannot reach it
    either. (It keeps one connection, for the nemesis.) ``nodes``: ``leader`` (without a leader, a
    node by seed), ``random``, ``majority``, ``all``, or a list of nodes."""

    fault: Literal["broker-disconnect"] = "broker-disconnect"

    def injected(self, resolved: Resolved) -> Mapping[str, Injected]:
        """All of them are disconnected."""
        return dict.fromkeys(resolved.nodes, Disconnected())


# --- time --------------------------------------------------------------------------------------


class Clock(_Injecting, OnNodes):
    """Make the clocks that replicas see wrong; the wall clock is right again at the end.

    ``offset_ms``: added to the wall clock; may be negative. ``drift``: how much too fast both
    clocks run, in seconds per second (-0.5 to 1). ``jump_ms``: the monotonic clock jumps ahead
    once, as after the machine was suspended. At least one of the three. ``nodes``: ``leader``
    (without a leader, a node by seed), ``random``, ``majority``, ``all``, or a list of nodes."""

    fault: Literal["clock"] = "clock"
    offset_ms: Annotated[int, Field(strict=True, ge=-86_400_000, le=86_400_000)] = 0
    drift: Annotated[float, Field(ge=-0.5, le=1)] = 0.0
    jump_ms: Annotated[int, Field(strict=True, ge=0, le=86_400_000)] = 0

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Also: a clock without any error."""
        yield from super().problems(nodes)
        if not (self.offset_ms or self.drift or self.jump_ms):
            yield "offset_ms", "give offset_ms, drift or jump_ms"

    def injected(self, resolved: Resolved) -> Mapping[str, Injected]:
        """The same error for all of them."""
        error = ClockError(
            offset_s=self.offset_ms / 1000, drift=self.drift, jump_s=self.jump_ms / 1000
        )
        return dict.fromkeys(resolved.nodes, error)


# --- disk --------------------------------------------------------------------------------------


class SlowDisk(_Injecting, OnNodes):
    """Slow down every sync of a node's log.

    ``delay_ms``: on top of the sync's own time. ``nodes``: ``leader`` (without a leader, a node by
    seed), ``random``, ``majority``, ``all``, or a list of nodes."""

    fault: Literal["slow-fsync"] = "slow-fsync"
    delay_ms: Milliseconds

    def injected(self, resolved: Resolved) -> Mapping[str, Injected]:
        """The same delay for all of them."""
        return dict.fromkeys(resolved.nodes, SlowFsync(delay_ms=self.delay_ms))


class FailingFsync(_Injecting, OnNodes):
    """Make the next sync of a node's log fail: the node stops, and is restarted at the end.

    Nobody knows what a disk holds after a failed sync, so a node must not continue: it ends with
    exit code 3. ``nodes``: ``leader`` (without a leader, a node by seed), ``random``, ``majority``,
    ``all``, or a list of nodes."""

    fault: Literal["fsync-error"] = "fsync-error"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanInject, CanKill)

    def injected(self, resolved: Resolved) -> Mapping[str, Injected]:
        """All of them fail."""
        return dict.fromkeys(resolved.nodes, FsyncError())


class NoSpace(_Injecting, OnNodes):
    """Fill a node's disk: the node stops at its next write, and is restarted at the end.

    It says so in one line, and ends with exit code 3. (What systems of others do then is up to
    them.) ``nodes``: ``leader`` (without a leader, a node by seed), ``random``, ``majority``,
    ``all``, or a list of nodes."""

    fault: Literal["full-disk"] = "full-disk"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (FillsDisks, CanKill)

    def injected(self, resolved: Resolved) -> Mapping[str, Injected]:
        """All of them are full."""
        return dict.fromkeys(resolved.nodes, FullDisk())


class CrashPointFault(_Injecting, OnNodes):
    """Crash nodes (SIGKILL) at a given point of their next write, and restart them at the end.

    ``point``: ``before-fsync`` (written but not synced: nothing may have been acknowledged) or
    ``after-fsync`` (synced, with everything that waited for it still unsent: it is there after the
    restart, though never acknowledged). A node that writes nothing in that time does not crash.
    ``nodes``: ``leader`` (without a leader, a node by seed), ``random``, ``majority``, ``all``, or
    a list of nodes."""

    fault: Literal["crash-point"] = "crash-point"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanInject, CanKill)
    point: CrashPoint

    def injected(self, resolved: Resolved) -> Mapping[str, Injected]:
        """All of them crash there."""
        return dict.fromkeys(resolved.nodes, CrashAt(point=self.point))


class TornWrite(OnNodes):
    """Crash nodes (SIGKILL) in the middle of a write, and restart them at the end.

    Part of a record that was never synced, drawn by seed, is left at the end of the log; the node
    must cut it off and lose nothing else. ``nodes``: ``leader`` (without a leader, a node by seed),
    ``random``, ``majority``, ``all``, or a list of nodes."""

    fault: Literal["torn-write"] = "torn-write"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanKill, DamagesLogs)

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Kill them, and leave a torn record."""
        rng = random.Random(resolved.seed)
        for node in resolved.nodes:
            cluster.can(CanKill).crash(node)
            cluster.can(DamagesLogs).tear(node, rng.randbytes(rng.randrange(1, 200)))

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Start them again."""
        each(resolved.nodes, cluster.can(CanKill).restart)


class BitFlip(OnNodes):
    """Flip a bit in the old part of a node's log while it is down: it must refuse to start.

    The node is crashed (SIGKILL), a bit drawn by seed is flipped in the first half of its log, and
    the node is started: it must end with exit code 3 and name the damaged place. (Of a system of
    others, a bit in any of its files; it may end, or go on.) At the end the bit is flipped back and
    the node started again. ``nodes``: ``leader`` (without a leader, a node by
    seed), ``random``, ``majority``, ``all``, or a list of nodes."""

    fault: Literal["bit-flip"] = "bit-flip"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanKill, FlipsBits)

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Crash, flip, and try to start."""
        rng = random.Random(resolved.seed)
        for node in resolved.nodes:
            cluster.can(CanKill).crash(node)
            cluster.can(FlipsBits).flip(node, rng.random())

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Flip it back, and start."""

        def mend(node: str) -> None:
            cluster.can(FlipsBits).unflip(node)
            cluster.can(CanKill).restart(node)

        each(resolved.nodes, mend)
