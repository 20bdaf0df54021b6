"""Faults of processes: crashes, pauses, rolling restarts, the broker."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from nodes.contract.names import did_you_mean
from nodes.faults.base import Fault, Resolved, named, one, unknown_nodes
from nodes.faults.capabilities import (
    CanKill,
    CanPause,
    CanStopBroker,
    CanUnplug,
    Capability,
    Cluster,
    IsSimulated,
)
from nodes.parts.quorum import majority

Milliseconds: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=600_000)]
_CHOICES = ("leader", "random", "majority", "all")


def _chosen(value: Any) -> Any:
    if value in _CHOICES:
        return value
    if isinstance(value, str) or not isinstance(value, list | tuple):
        hint = did_you_mean(str(value), _CHOICES, "use")
        raise ValueError(f"unknown nodes {hint}, or a list such as [n1]")
    return tuple(value)


class OnNodes(Fault):
    """Base of faults that take ``nodes``: ``leader`` (without a leader, a node by seed), ``random``
    (one by seed), ``majority`` (by seed), ``all``, or a list of nodes, of which one may be
    ``leader``."""

    nodes: Annotated[
        Literal["leader", "random", "majority", "all"] | tuple[str, ...],
        BeforeValidator(_chosen),
    ]

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Nodes that are none."""
        return unknown_nodes(self.nodes, nodes)

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """The nodes, in a seeded order where the experiment does not list them."""
        nodes = tuple(cluster.nodes)
        shuffled = tuple(rng.sample(nodes, len(nodes)))
        seed = rng.getrandbits(48)
        match self.nodes:
            case "leader":
                leader, chosen_by = one(cluster, "leader", shuffled[0])
                return Resolved(nodes=(leader,), chosen_by=chosen_by, seed=seed)
            case "random":
                return Resolved(nodes=(shuffled[0],), chosen_by="seed", seed=seed)
            case "majority":
                some = shuffled[: majority(len(nodes))]
                return Resolved(nodes=some, chosen_by="seed", seed=seed)
            case "all":
                return Resolved(nodes=shuffled, seed=seed)
            case listed:
                return Resolved(nodes=named(cluster, listed, shuffled[0]), seed=seed)


class Crash(OnNodes):
    """Kill nodes with SIGKILL, then restart them on the same data.

    ``nodes``: ``leader`` (without a leader, a node by seed), ``random`` (one by seed), ``majority``
    (by seed), ``all``, or a list of nodes. ``restart``: false crashes them for good, without
    ``for``; the fault then lasts as long as the load. ``torn``: the share of the writes not yet
    synced, oldest first, that reached the disk all the same (simulated clusters only)."""

    fault: Literal["crash"] = "crash"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanKill,)
    restart: Annotated[bool, Field(strict=True)] = True
    torn: Annotated[float | None, Field(ge=0, le=1)] = None

    @property
    def needs(self) -> tuple[type[Capability], ...]:
        """Nobody can say what a real disk keeps."""
        return (*self.NEEDS, IsSimulated) if self.torn else self.NEEDS

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Kill them, one right after the other."""
        for node in resolved.nodes:
            if self.torn:
                cluster.can(IsSimulated).keep_unsynced(node, self.torn)
            cluster.can(CanKill).crash(node)
            if not self.restart:
                cluster.can(CanKill).abandon(node)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Start them again. All are tried; the first failure is raised."""
        each(resolved.nodes, cluster.can(CanKill).restart)


class Pause(OnNodes):
    """Pause nodes (SIGSTOP) and resume them (SIGCONT); nothing is lost meanwhile.

    A paused node keeps its memory and its connections; what was sent to it waits. It resumes with
    its old beliefs: a leader that was replaced meanwhile still thinks it leads. ``nodes``:
    ``leader`` (without a leader, a node by seed), ``random``, ``majority``, ``all``, or a list of
    nodes."""

    fault: Literal["pause"] = "pause"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanPause,)

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Stop them."""
        for node in resolved.nodes:
            cluster.can(CanPause).pause(node)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Let them go on."""
        each(resolved.nodes, cluster.can(CanPause).resume)


class NetworkDisconnect(OnNodes):
    """Unplug nodes from the network (containers): nothing passes, and no connection is closed.

    This bypasses Toxiproxy: the node's direct connections to the broker, and with them its requests
    and replies, fall silent too, without being closed. ``nodes``: ``leader`` (without a leader, a
    node by seed), ``random``, ``majority``, ``all``, or a list of nodes."""

    fault: Literal["network-disconnect"] = "network-disconnect"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanUnplug,)

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Take it away."""
        for node in resolved.nodes:
            cluster.can(CanUnplug).unplug(node)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Give it back."""
        for node in resolved.nodes:
            cluster.can(CanUnplug).plug(node)


class RollingRestart(OnNodes):
    """Crash nodes (SIGKILL) one after the other, each back before the next one goes.

    ``nodes``: ``leader``, ``random``, ``majority``, ``all``, or a list of nodes. ``down_ms``: how
    long each is down. ``every_ms``: from one crash to the next; longer than ``down_ms``. It goes
    through the nodes once, in seeded order (or that of the list), as far as time allows."""

    fault: Literal["rolling-restart"] = "rolling-restart"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanKill,)
    down_ms: Milliseconds = 500
    every_ms: Milliseconds = 2000

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Unknown nodes; overlapping times."""
        yield from super().problems(nodes)
        if self.every_ms <= self.down_ms:
            yield "every_ms", f"must be longer than down_ms ({self.down_ms}), not {self.every_ms}"

    def beats(self, resolved: Resolved, for_s: float) -> Sequence[float]:
        """A restart and the next crash in turn, the first crash being `apply`."""
        times = []
        for number in range(len(resolved.nodes)):
            begin_s = number * self.every_ms / 1000
            times += [begin_s, begin_s + self.down_ms / 1000]
        return [time for time in times[1:] if time < for_s]

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Crash the first."""
        cluster.can(CanKill).crash(resolved.nodes[0])

    def beat(self, cluster: Cluster, resolved: Resolved, number: int) -> Resolved:
        """Restart, or crash the next. ``state``: the node that is up again, None while the last one
        crashed is down."""
        node = resolved.nodes[(number + 1) // 2]
        if number % 2 == 0:
            cluster.can(CanKill).restart(node)
            return replace(resolved, state=(number // 2, "up"))
        cluster.can(CanKill).crash(node)
        return replace(resolved, state=((number + 1) // 2, "down"))

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Restart the one that is down."""
        number, last = resolved.state or (0, "down")
        if last == "down":
            cluster.can(CanKill).restart(resolved.nodes[number])


class BrokerRestart(Fault):
    """Kill the broker (SIGKILL); it comes back at the end of the fault, with its memory gone.

    Every connection of every node and client breaks, and everything in flight is lost. The broker
    is the one part that all links share: the network is gone, not divided."""

    fault: Literal["broker-restart"] = "broker-restart"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanStopBroker,)

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """Nothing to choose."""
        return Resolved(nodes=tuple(cluster.nodes))

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Kill it."""
        cluster.can(CanStopBroker).crash_broker()

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Start it again."""
        cluster.can(CanStopBroker).restart_broker()


class BrokerPause(Fault):
    """Pause the broker (SIGSTOP) and resume it (SIGCONT); messages wait and arrive late."""

    fault: Literal["broker-pause"] = "broker-pause"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanStopBroker,)

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """Nothing to choose."""
        return Resolved(nodes=tuple(cluster.nodes))

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Stop it."""
        cluster.can(CanStopBroker).pause_broker()

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Let it go on."""
        cluster.can(CanStopBroker).resume_broker()


def each(all_of: Iterable[Any], act: Callable[[Any], None]) -> None:
    """Tries every one; raises the first failure at the end."""
    failures: list[Exception] = []
    for one_of in all_of:
        try:
            act(one_of)
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]
