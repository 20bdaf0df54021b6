"""The one vocabulary of faults: what each is called, what it takes, what it does and how it is
undone.

A fault is a frozen model, named in YAML by its field ``fault``. Before it is applied it is
*resolved*: names such as ``leader-alone`` become nodes and links, by what the cluster is at that
moment and by the fault's own random stream, and the result is recorded. A target makes it real
through `FaultContext`: every fault is written against that interface only, so that a name means the
same on every target.

A new fault is a subclass of `Fault` in `FAULTS`; see docs/ADDING_A_FAULT.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeAlias, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Link: TypeAlias = tuple[str, str]
TargetName: TypeAlias = Literal["sim", "local", "compose"]


class LinkControl(Protocol):
    """The links of a cluster; overlapping faults are counted (`chaos.links.LinkFaults`)."""

    def cut(self, links: Iterable[Link]) -> None: ...
    def heal(self, links: Iterable[Link]) -> None: ...
    def add_latency(self, latency_ms: Mapping[Link, int]) -> None: ...
    def remove_latency(self, latency_ms: Mapping[Link, int]) -> None: ...
    def heal_all(self) -> None: ...


class FaultContext(Protocol):
    """What a fault may do to a cluster. Every method raises an exception if it could not be
    done."""

    @property
    def nodes(self) -> Sequence[str]:
        """All configured nodes, in their fixed order."""
        ...

    @property
    def links(self) -> LinkControl:
        """The directed links."""
        ...

    def leader(self) -> str | None:
        """The node that leads now; None: there is none, or the protocol has none."""
        ...

    def crash(self, node: str) -> None:
        """SIGKILL the node; it is gone when this returns. Nothing happens if it is gone already."""
        ...

    def restart(self, node: str) -> None:
        """Start the node again on what its disk kept; does not wait until it serves."""
        ...

    def abandon(self, node: str) -> None:
        """Never start the node again, whatever fault ends."""
        ...


@dataclass(frozen=True)
class Resolved:
    """What a fault does in this run. ``groups``: the sides of a partition, where it has sides.
    ``nodes``: those it touches. ``links``: the directed links it touches. ``chosen_by``: for a
    fault that picks a node, what picked it: ``leader``, or ``seed`` (also where no leader was to be
    had)."""

    groups: tuple[tuple[str, ...], ...] | None = None
    nodes: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    chosen_by: Literal["leader", "seed", "experiment"] = "experiment"


class Fault(BaseModel):
    """Base of all faults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: str
    TARGETS: ClassVar[frozenset[TargetName]] = frozenset({"local"})

    @classmethod
    def summary(cls) -> str:
        """The fault in a line."""
        return (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")

    def parameters(self) -> dict[str, Any]:
        """The fault's own fields, as JSON has them."""
        return self.model_dump(mode="json", exclude={"fault"}, exclude_none=True)

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """What is wrong with the fault on a cluster of these nodes: (field, what would be
        right)."""
        return iter(())

    def resolve(self, context: FaultContext, rng: random.Random) -> Resolved:
        """Turn names into nodes and links. Draws from ``rng`` the same number of times whatever the
        cluster is like, so that equal seeds make equal choices."""
        raise NotImplementedError

    def apply(self, context: FaultContext, resolved: Resolved) -> None:
        """Begin. Raises whatever the context raises."""
        raise NotImplementedError

    def undo(self, context: FaultContext, resolved: Resolved) -> None:
        """End: also what was applied in part only. Raises whatever the context raises."""
        raise NotImplementedError


# --- partition ---------------------------------------------------------------------------------

Shape: TypeAlias = Literal[
    "leader-alone", "halves", "isolate", "bridge", "majorities-ring", "one-way", "mute", "deaf"
]
SHAPES: tuple[Shape, ...] = get_args(Shape)
_LEAST_NODES: dict[Shape, int] = {"bridge": 3, "majorities-ring": 4}


def _groups(value: Any) -> Any:
    named = f"use {', '.join(SHAPES)}, or lists of nodes such as [[n1, n2], [n3]]"
    if isinstance(value, str) and value not in SHAPES:
        raise ValueError(f"unknown group {value!r}; {named}")
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

    ``groups``, as lists: nodes reach those of their own group only. By name: ``leader-alone`` (the
    leader against all others; without a leader, a node by seed), ``halves`` (a majority by seed,
    and the rest), ``isolate`` (one node against all others), ``bridge`` (two halves and one node
    that reaches both), ``majorities-ring`` (every node reaches a majority, no two the same one),
    ``one-way`` (the smaller half does not hear the larger one, but is heard), ``mute`` (nobody
    hears one node), ``deaf`` (one node hears nobody). ``node``: the one of ``isolate``, ``bridge``,
    ``mute`` and ``deaf``: a node, ``leader``, or by seed if it is not given."""

    fault: Literal["partition"] = "partition"
    TARGETS: ClassVar[frozenset[TargetName]] = frozenset({"local", "sim"})
    groups: Annotated[Shape | tuple[tuple[str, ...], ...], BeforeValidator(_groups)]
    node: str | None = None

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Nodes that are none, or in no group or two; shapes that need more nodes."""
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
                        f"{node} is in {listed.count(node)} groups; every node is in exactly one",
                    )
            if len(self.groups) < 2 or not all(self.groups):
                yield "groups", "a partition has at least two groups, and none is empty"
        if self.node is not None:
            if self.groups not in ("isolate", "bridge", "mute", "deaf"):
                yield "node", "goes with isolate, bridge, mute and deaf only"
            elif self.node != "leader" and self.node not in nodes:
                yield "node", f"unknown node {self.node!r}; use leader, {', '.join(nodes)}"

    def resolve(self, context: FaultContext, rng: random.Random) -> Resolved:
        """The links to cut, and the sides where there are sides."""
        nodes = tuple(context.nodes)
        shuffled = rng.sample(nodes, len(nodes))
        if not isinstance(self.groups, str):
            return _sides(self.groups, "experiment")
        wanted = "leader" if self.groups == "leader-alone" else self.node
        one, chosen_by = _one(context, wanted, shuffled[0])
        others = tuple(node for node in nodes if node != one)
        in_order = sorted(shuffled, key=nodes.index)
        majority = len(nodes) // 2 + 1
        large = tuple(sorted(shuffled[:majority], key=nodes.index))
        small = tuple(node for node in in_order if node not in large)
        match self.groups:
            case "leader-alone" | "isolate":
                return _sides(((one,), others), chosen_by)
            case "halves":
                return _sides((large, small), "seed")
            case "mute":
                return Resolved(None, (one,), tuple((one, o) for o in others), chosen_by)
            case "deaf":
                return Resolved(None, (one,), tuple((o, one) for o in others), chosen_by)
            case "one-way":
                cut = tuple((src, dst) for src in large for dst in small)
                return Resolved(None, small, cut, "seed")
            case "bridge":
                rest = [node for node in shuffled if node != one]
                middle = len(rest) // 2
                halves = _sides((tuple(rest[:middle]), tuple(rest[middle:])), chosen_by)
                return Resolved(None, nodes, halves.links, chosen_by)
            case "majorities-ring":
                reach = majority // 2  # so many neighbours on each side, and itself: a majority
                cut = tuple(
                    (src, dst)
                    for i, src in enumerate(shuffled)
                    for j, dst in enumerate(shuffled)
                    if min((i - j) % len(nodes), (j - i) % len(nodes)) > reach
                )
                return Resolved(None, nodes, cut, "seed")

    def apply(self, context: FaultContext, resolved: Resolved) -> None:
        """Cut."""
        context.links.cut(resolved.links)

    def undo(self, context: FaultContext, resolved: Resolved) -> None:
        """Heal."""
        context.links.heal(resolved.links)


# --- latency -----------------------------------------------------------------------------------


class Latency(Fault):
    """Delay every message between nodes, one way.

    ``latency_ms``: on top of what the link takes, the same for every message (no jitter:
    Toxiproxy's is not repeatable). ``links``: ``all``, or groups of nodes: then only links between
    different groups."""

    fault: Literal["latency"] = "latency"
    TARGETS: ClassVar[frozenset[TargetName]] = frozenset({"local", "sim"})
    latency_ms: Annotated[int, Field(strict=True, ge=1, le=60_000)]
    links: Annotated[
        Literal["all"] | tuple[tuple[str, ...], ...],
        BeforeValidator(lambda value: value if value == "all" else _node_lists(value)),
    ] = "all"

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Nodes that are none; groups that leave no link."""
        if self.links == "all":
            return
        listed = [node for group in self.links for node in group]
        for node in listed:
            if node not in nodes:
                yield "links", f"unknown node {node!r}; there are {', '.join(nodes)}"
        if len(set(listed)) != len(listed):
            yield "links", "a node is in two groups"
        if len(self.links) < 2 or not all(self.links):
            yield "links", "there are links between at least two groups, and none is empty"

    def resolve(self, context: FaultContext, rng: random.Random) -> Resolved:
        """The links to slow."""
        groups = tuple((node,) for node in context.nodes) if self.links == "all" else self.links
        between = _sides(groups, "experiment")
        return Resolved(None, between.nodes, between.links)

    def apply(self, context: FaultContext, resolved: Resolved) -> None:
        """Slow down."""
        context.links.add_latency(dict.fromkeys(resolved.links, self.latency_ms))

    def undo(self, context: FaultContext, resolved: Resolved) -> None:
        """Take the delay back; what is under way arrives in order."""
        context.links.remove_latency(dict.fromkeys(resolved.links, self.latency_ms))


# --- crash -------------------------------------------------------------------------------------

_CRASHED = ("leader", "random", "majority", "all")


def _crashed(value: Any) -> Any:
    if value in _CRASHED:
        return value
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ValueError(f"unknown nodes {value!r}; use {', '.join(_CRASHED)}, or a list of nodes")
    return tuple(value)


class Crash(Fault):
    """Kill nodes with SIGKILL, then restart them on the same data.

    ``nodes``: ``leader`` (without a leader, a node by seed), ``random`` (one by seed), ``majority``
    (by seed), ``all``, or a list of nodes. ``restart``: false crashes them for good; then there is
    no ``for``, and the fault lasts as long as the load."""

    fault: Literal["crash"] = "crash"
    TARGETS: ClassVar[frozenset[TargetName]] = frozenset({"local", "sim"})
    nodes: Annotated[
        Literal["leader", "random", "majority", "all"] | tuple[str, ...],
        BeforeValidator(_crashed),
    ]
    restart: Annotated[bool, Field(strict=True)] = True

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Nodes that are none."""
        if isinstance(self.nodes, str):
            return
        if not self.nodes:
            yield "nodes", "the list is empty"
        for node in self.nodes:
            if node not in nodes:
                yield "nodes", f"unknown node {node!r}; there are {', '.join(nodes)}"

    def resolve(self, context: FaultContext, rng: random.Random) -> Resolved:
        """The nodes to crash."""
        nodes = tuple(context.nodes)
        shuffled = rng.sample(nodes, len(nodes))
        match self.nodes:
            case "leader":
                one, chosen_by = _one(context, "leader", shuffled[0])
                return Resolved(nodes=(one,), chosen_by=chosen_by)
            case "random":
                return Resolved(nodes=(shuffled[0],), chosen_by="seed")
            case "majority":
                some = sorted(shuffled[: len(nodes) // 2 + 1], key=nodes.index)
                return Resolved(nodes=tuple(some), chosen_by="seed")
            case "all":
                return Resolved(nodes=nodes)
            case listed:
                return Resolved(nodes=tuple(dict.fromkeys(listed)))

    def apply(self, context: FaultContext, resolved: Resolved) -> None:
        """Kill, one right after the other."""
        for node in resolved.nodes:
            context.crash(node)
            if not self.restart:
                context.abandon(node)

    def undo(self, context: FaultContext, resolved: Resolved) -> None:
        """Start them again; every one is tried, the first failure is raised."""
        failures: list[Exception] = []
        for node in resolved.nodes:
            try:
                context.restart(node)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]


FAULTS: dict[str, type[Fault]] = {"crash": Crash, "latency": Latency, "partition": Partition}
"""Every fault by name."""

AnyFault = Annotated[Crash | Latency | Partition, Field(discriminator="fault")]


def _one(
    context: FaultContext, wanted: str | None, by_seed: str
) -> tuple[str, Literal["leader", "seed", "experiment"]]:
    """The node that a fault picks, and what picked it."""
    if wanted == "leader":
        leader = context.leader()
        return (leader, "leader") if leader is not None else (by_seed, "seed")
    return (wanted, "experiment") if wanted is not None else (by_seed, "seed")


def _sides(
    groups: Sequence[Sequence[str]], chosen_by: Literal["leader", "seed", "experiment"]
) -> Resolved:
    """Groups whose nodes reach no node of another group."""
    links = tuple(
        (src, dst)
        for group in groups
        for other in groups
        if other is not group
        for src in group
        for dst in other
    )
    return Resolved(
        tuple(tuple(group) for group in groups),
        tuple(node for group in groups for node in group),
        links,
        chosen_by,
    )


def _node_lists(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(
        isinstance(group, list | tuple) and all(isinstance(node, str) for node in group)
        for group in value
    ):
        raise ValueError("use all, or lists of nodes such as [[n1, n2], [n3]]")
    return tuple(tuple(group) for group in value)
