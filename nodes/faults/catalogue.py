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
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field

from nodes.contract.names import did_you_mean
from nodes.faults import shapes
from nodes.faults.base import Fault, Resolved, named, one, sides, unknown_nodes
from nodes.faults.capabilities import Capability, Cluster, IsSimulated
from nodes.faults.links import (
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
from nodes.faults.nodes import (
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
from nodes.faults.processes import (
    BrokerPause,
    BrokerRestart,
    Crash,
    NetworkDisconnect,
    Pause,
    RollingRestart,
)
from nodes.faults.simulated import Administer, LateKinds, SetTrap, SlowSteps
from nodes.parts.quorum import majority

# --- partition ---------------------------------------------------------------------------------

Shape: TypeAlias = Literal[
    "leader-alone",
    "halves",
    "isolate",
    "bridge",
    "majorities-ring",
    "chain",
    "one-way",
    "mute",
    "deaf",
    "random",
]
SHAPES: tuple[Shape, ...] = get_args(Shape)
_LEAST_NODES: dict[Shape, int] = {"bridge": 3, "majorities-ring": 4, "chain": 3}


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
    reaches both), ``majorities-ring`` (every node reaches a majority, no two the same), ``chain``
    (every node reaches only its neighbours in a row), ``one-way`` (the smaller half does not hear
    the larger, but is heard), ``mute`` (nobody hears one node), ``deaf`` (one node hears nobody),
    ``random`` (two or three groups, by seed). ``node``: the one of ``isolate``, ``bridge``,
    ``mute`` and ``deaf``: a node or ``leader``; by seed if not given. ``nodes``: several that
    ``isolate``, ``mute`` or ``deaf`` strikes together, or the order of ``bridge``,
    ``majorities-ring`` and ``chain``, by seed if not given. ``one_way``: only what the first of
    the listed groups sends is cut. ``in_flight``: false lets messages arrive that are under way
    (simulated clusters only)."""

    fault: Literal["partition"] = "partition"
    groups: Annotated[Shape | tuple[tuple[str, ...], ...], BeforeValidator(_groups)]
    node: str | None = None
    nodes: tuple[str, ...] | None = None
    one_way: Annotated[bool | None, Field(strict=True)] = None
    in_flight: Annotated[bool | None, Field(strict=True)] = None

    @property
    def needs(self) -> tuple[type[Capability], ...]:
        """Closing a connection loses what is in it."""
        return (IsSimulated,) if self.in_flight is False else self.NEEDS

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
                if listed.count(node) > 1 or (node not in listed and not self.one_way):
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
        if self.one_way and isinstance(self.groups, str):
            yield "one_way", "goes with lists of nodes only"
        yield from self._problems_of_nodes(nodes)

    def _problems_of_nodes(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        if self.nodes is None:
            return
        yield from unknown_nodes(self.nodes, nodes)
        if self.node is not None:
            yield "nodes", "give either node or nodes"
        if self.groups in ("bridge", "majorities-ring", "chain"):
            if sorted(self.nodes) != sorted(nodes):
                yield "nodes", f"the order of {self.groups} names each node once"
        elif self.groups not in ("isolate", "mute", "deaf"):
            yield "nodes", "goes with isolate, mute, deaf, bridge, majorities-ring and chain only"

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """The links to cut, and the sides if there are any."""
        nodes = tuple(cluster.nodes)
        shuffled = rng.sample(nodes, len(nodes))
        if not isinstance(self.groups, str):
            if self.one_way:
                first, *rest = self.groups
                listed = tuple(node for group in rest for node in group)
                return Resolved(None, listed, shapes.one_way(first, listed))
            return sides(self.groups, "experiment")
        wanted = "leader" if self.groups == "leader-alone" else self.node
        alone, chosen_by = one(cluster, wanted, shuffled[0])
        few: tuple[str, ...] = (alone,)
        if self.nodes:
            few, chosen_by = named(cluster, self.nodes, shuffled[0]), "experiment"
        others = tuple(node for node in nodes if node not in few)
        in_order = sorted(shuffled, key=nodes.index)
        most = majority(len(nodes))
        large = tuple(sorted(shuffled[:most], key=nodes.index))
        small = tuple(node for node in in_order if node not in large)
        match self.groups:
            case "leader-alone" | "isolate":
                return sides((few, others), chosen_by)
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
                return Resolved(None, few, shapes.one_way(few, others), chosen_by)
            case "deaf":
                return Resolved(None, few, shapes.one_way(others, few), chosen_by)
            case "one-way":
                return Resolved(None, small, shapes.one_way(large, small), "seed")
            case "bridge":
                row = [node for node in shuffled if node != alone]
                row.insert(len(row) // 2, alone)
                return Resolved(None, nodes, shapes.bridge(self.nodes or row), chosen_by)
            case "majorities-ring":
                cut = shapes.majorities_ring(self.nodes or shuffled)
                return Resolved(None, nodes, cut, "seed")
            case "chain":
                return Resolved(None, nodes, shapes.chain(self.nodes or shuffled), "seed")

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Cut."""
        if self.in_flight is False:
            cluster.can(IsSimulated).links.cut_behind(resolved.links)
        else:
            cluster.links.cut(resolved.links)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Heal."""
        if self.in_flight is False:
            cluster.can(IsSimulated).links.heal_behind(resolved.links)
        else:
            cluster.links.heal(resolved.links)


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
"""Every fault of experiments by name."""

OF_SEEDS: dict[str, type[Fault]] = {
    kind.model_fields["fault"].default: kind for kind in (Administer, LateKinds, SetTrap, SlowSteps)
}
"""What only random seeds draw besides."""
