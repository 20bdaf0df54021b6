"""The one vocabulary of faults: each fault's name, parameters, effect and undo.

A fault is a frozen model, named in YAML by its field ``fault``. Before it is applied it is
*resolved*: names such as ``leader-alone`` become nodes and links, from the cluster's state at that
moment and the fault's own random stream, and the result is recorded. Targets implement `Cluster`;
faults are written against that interface only, so a name means the same on every target.

A new fault is a subclass of `Fault` in `FAULTS`; see docs/ADDING_A_FAULT.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field

from chaos.clusters.capabilities import CanKill, Capability, Cluster
from chaos.faults.base import Fault, Resolved, one, sides, unknown_nodes
from chaos.faults.links import (
    Bandwidth,
    Disconnect,
    Flapping,
    Jitter,
    Latency,
    RepliesLost,
    RequestsLost,
    Reset,
    SlowClose,
    Stall,
    Wan,
)
from chaos.faults.nodes import (
    AtLeastOnce,
    BitFlip,
    BrokerDisconnect,
    Clock,
    Corrupt,
    CrashPointFault,
    Duplicate,
    FailingFsync,
    Loss,
    NoSpace,
    Reorder,
    SlowDisk,
    TornWrite,
)
from chaos.faults.processes import (
    BrokerPause,
    BrokerRestart,
    NetworkDisconnect,
    Pause,
    RollingRestart,
    each,
)
from nodes.contract.names import did_you_mean
from nodes.parts.quorum import majority

# --- partition ---------------------------------------------------------------------------------

Shape: TypeAlias = Literal[
    "leader-alone",
    "halves",
    "isolate",
    "bridge",
    "majorities-ring",
    "one-way",
    "mute",
    "deaf",
    "random",
]
SHAPES: tuple[Shape, ...] = get_args(Shape)
_LEAST_NODES: dict[Shape, int] = {"bridge": 3, "majorities-ring": 4}


def _groups(value: Any) -> Any:
    named = f"use {', '.join(SHAPES)}, or lists of nodes such as [[n1, n2], [n3]]"
    if isinstance(value, str) and value not in SHAPES:
        hint = did_you_mean(value, SHAPES, "use")
        raise ValueError(f"unknown group {hint}, or lists of nodes such as [[n1, n2], [n3]]")
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple) or not all(
        isinstance(group, list | tuple) and all(isinstance(node, str) for node in group)
        for group in value
    ):
        raise ValueError(f"neither a name nor lists of nodes; {named}")
    return tuple(tuple(group) for group in value)


class Partition(Fault):
    """Cut links between nodes; clients still reach every node.

    ``groups``, as lists: nodes reach only their own group. By name: ``leader-alone`` (the leader
    against all others; without a leader, a node by seed), ``halves`` (a majority by seed, and the
    rest), ``isolate`` (one node against all others), ``bridge`` (two halves and one node that
    reaches both), ``majorities-ring`` (every node reaches a majority, no two the same), ``one-way``
    (the smaller half does not hear the larger, but is heard), ``mute`` (nobody hears one node),
    ``deaf`` (one node hears nobody), ``random`` (two or three groups, by seed). ``node``: the one
    of ``isolate``, ``bridge``, ``mute`` and ``deaf``: a node or ``leader``; by seed if not
    given."""

    fault: Literal["partition"] = "partition"
    groups: Annotated[Shape | tuple[tuple[str, ...], ...], BeforeValidator(_groups)]
    node: str | None = None

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Unknown nodes, or nodes in no group or two; shapes that need more nodes."""
        if isinstance(self.groups, str):
            least = _LEAST_NODES.get(self.groups, 2)
            if len(nodes) < least:
                yield (
                    "groups",
                    f"{self.groups} needs at least {least} nodes, there are {len(nodes)}",
                )
        else:
            listed = [node for group in self.groups for node in group]
            for node in listed:
                if node not in nodes:
                    yield "groups", f"unknown node {node!r}; there are {', '.join(nodes)}"
            for node in nodes:
                if listed.count(node) != 1:
                    yield (
                        "groups",
                        f"{node} is in {listed.count(node)} groups; it must be in exactly one",
                    )
            if len(self.groups) < 2 or not all(self.groups):
                yield "groups", "a partition needs at least two groups, none of them empty"
        if self.node is not None:
            if self.groups not in ("isolate", "bridge", "mute", "deaf"):
                yield "node", "goes with isolate, bridge, mute and deaf only"
            elif self.node != "leader" and self.node not in nodes:
                yield "node", f"unknown node {self.node!r}; use leader, {', '.join(nodes)}"

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """The links to cut, and the sides if there are any."""
        nodes = tuple(cluster.nodes)
        shuffled = rng.sample(nodes, len(nodes))
        if not isinstance(self.groups, str):
            return sides(self.groups, "experiment")
        wanted = "leader" if self.groups == "leader-alone" else self.node
        alone, chosen_by = one(cluster, wanted, shuffled[0])
        others = tuple(node for node in nodes if node != alone)
        in_order = sorted(shuffled, key=nodes.index)
        most = majority(len(nodes))
        large = tuple(sorted(shuffled[:most], key=nodes.index))
        small = tuple(node for node in in_order if node not in large)
        match self.groups:
            case "leader-alone" | "isolate":
                return sides(((alone,), others), chosen_by)
            case "halves":
                return sides((large, small), "seed")
            case "random":
                drawn: list[list[str]] = [[], [], []]
                for node in nodes:
                    drawn[rng.randrange(3)].append(node)
                groups = [group for group in drawn if group]
                if len(groups) == 1:  # all in one: the first of the shuffled is on its own
                    groups = [[shuffled[0]], [node for node in nodes if node != shuffled[0]]]
                return sides(groups, "seed")
            case "mute":
                return Resolved(None, (alone,), tuple((alone, o) for o in others), chosen_by)
            case "deaf":
                return Resolved(None, (alone,), tuple((o, alone) for o in others), chosen_by)
            case "one-way":
                cut = tuple((src, dst) for src in large for dst in small)
                return Resolved(None, small, cut, "seed")
            case "bridge":
                rest = [node for node in shuffled if node != alone]
                middle = len(rest) // 2
                halves = sides((tuple(rest[:middle]), tuple(rest[middle:])), chosen_by)
                return Resolved(None, nodes, halves.links, chosen_by)
            case "majorities-ring":
                reach = most // 2  # so many neighbours on each side, and itself: a majority
                cut = tuple(
                    (src, dst)
                    for i, src in enumerate(shuffled)
                    for j, dst in enumerate(shuffled)
                    if min((i - j) % len(nodes), (j - i) % len(nodes)) > reach
                )
                return Resolved(None, nodes, cut, "seed")

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Cut."""
        cluster.links.cut(resolved.links)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Heal."""
        cluster.links.heal(resolved.links)


# --- crash -------------------------------------------------------------------------------------

_CRASHED = ("leader", "random", "majority", "all")


def _crashed(value: Any) -> Any:
    if value in _CRASHED:
        return value
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ValueError(
            f"unknown nodes {value!r}; use {', '.join(_CRASHED)}, or a list such as [n1]"
        )
    return tuple(value)


class Crash(Fault):
    """Kill nodes with SIGKILL, then restart them on the same data.

    ``nodes``: ``leader`` (without a leader, a node by seed), ``random`` (one by seed), ``majority``
    (by seed), ``all``, or a list of nodes. ``restart``: false crashes them for good, without
    ``for``; the fault then lasts as long as the load."""

    fault: Literal["crash"] = "crash"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (CanKill,)
    nodes: Annotated[
        Literal["leader", "random", "majority", "all"] | tuple[str, ...],
        BeforeValidator(_crashed),
    ]
    restart: Annotated[bool, Field(strict=True)] = True

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Nodes that are none."""
        return unknown_nodes(self.nodes, nodes)

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """The nodes to crash."""
        nodes = tuple(cluster.nodes)
        shuffled = rng.sample(nodes, len(nodes))
        match self.nodes:
            case "leader":
                leader, chosen_by = one(cluster, "leader", shuffled[0])
                return Resolved(nodes=(leader,), chosen_by=chosen_by)
            case "random":
                return Resolved(nodes=(shuffled[0],), chosen_by="seed")
            case "majority":
                some = sorted(shuffled[: majority(len(nodes))], key=nodes.index)
                return Resolved(nodes=tuple(some), chosen_by="seed")
            case "all":
                return Resolved(nodes=nodes)
            case listed:
                return Resolved(nodes=tuple(dict.fromkeys(listed)))

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Kill them, one right after the other."""
        for node in resolved.nodes:
            cluster.can(CanKill).crash(node)
            if not self.restart:
                cluster.can(CanKill).abandon(node)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Start them again. All are tried; the first failure is raised."""
        each(resolved.nodes, cluster.can(CanKill).restart)


AnyFault = Annotated[
    Bandwidth
    | BitFlip
    | BrokerDisconnect
    | BrokerPause
    | BrokerRestart
    | Clock
    | Corrupt
    | Crash
    | CrashPointFault
    | Disconnect
    | Duplicate
    | FailingFsync
    | Flapping
    | Jitter
    | Latency
    | Loss
    | NetworkDisconnect
    | NoSpace
    | Partition
    | Pause
    | AtLeastOnce
    | Reorder
    | RepliesLost
    | RequestsLost
    | Reset
    | RollingRestart
    | SlowClose
    | SlowDisk
    | Stall
    | TornWrite
    | Wan,
    Field(discriminator="fault"),
]

FAULTS: dict[str, type[Fault]] = {
    kind.model_fields["fault"].default: kind for kind in get_args(get_args(AnyFault)[0])
}
"""Every fault by name."""
