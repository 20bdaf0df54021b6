"""What a fault is, and what it may do to a cluster. The faults themselves:
`chaos.faults.catalogue`."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict

from nodes.runtime.injected import Injected
from nodes.wire.links import Link

TargetName: TypeAlias = Literal["sim", "local", "compose", "attached"]
LIVE: frozenset[TargetName] = frozenset({"local", "compose"})
"""The targets with real nodes that can be killed and started."""
BY_ADDRESS: frozenset[TargetName] = LIVE | {"attached"}
"""Those where all that is needed is to reach Toxiproxy and the broker."""
EVERYWHERE: frozenset[TargetName] = LIVE | {"sim"}
ANYWHERE: frozenset[TargetName] = BY_ADDRESS | EVERYWHERE


class LinkControl(Protocol):
    """The links of a cluster; overlapping faults are counted
    (`chaos.clusters.links.LinkFaults`)."""

    def cut(self, links: Iterable[Link]) -> None: ...
    def heal(self, links: Iterable[Link]) -> None: ...
    def add_latency(self, latency_ms: Mapping[Link, int]) -> None: ...
    def remove_latency(self, latency_ms: Mapping[Link, int]) -> None: ...
    def limit(self, links: Iterable[Link], rate_kb_per_s: int) -> None: ...
    def unlimit(self, links: Iterable[Link], rate_kb_per_s: int) -> None: ...
    def close(self, links: Iterable[Link]) -> None: ...
    def reopen(self, links: Iterable[Link]) -> None: ...
    def reset(self, links: Iterable[Link]) -> None: ...
    def unreset(self, links: Iterable[Link]) -> None: ...
    def close_slowly(self, links: Iterable[Link], delay_ms: int) -> None: ...
    def close_quickly(self, links: Iterable[Link], delay_ms: int) -> None: ...
    def heal_all(self) -> None: ...


class FaultContext:
    """What a fault may do to a cluster; a target overrides what it can do. Every method raises an
    exception if it could not be done. ``nodes``: all configured nodes, in their fixed order.
    ``clients``: the client groups. ``links``: the directed links."""

    nodes: Sequence[str]
    clients: Sequence[str]
    links: LinkControl

    def leader(self) -> str | None:
        """The node that leads now; None: there is none, or the protocol has none."""
        raise NotImplementedError

    def crash(self, node: str) -> None:
        """SIGKILL the node; it is gone when this returns. Nothing happens if it is gone already."""
        raise NotImplementedError

    def restart(self, node: str) -> None:
        """Start the node again on what its disk kept; does not wait until it serves."""
        raise NotImplementedError

    def abandon(self, node: str) -> None:
        """Never start the node again, whatever fault ends. (The nemesis keeps from it.)"""
        raise NotImplementedError

    def pause(self, node: str) -> None:
        """Stop the node (SIGSTOP): it keeps its connections and its memory, and does nothing.
        Nothing happens if it is gone."""
        raise NotImplementedError

    def resume(self, node: str) -> None:
        """Let it go on (SIGCONT). Nothing happens if it is gone, or was not paused."""
        raise NotImplementedError

    def unplug(self, node: str) -> None:
        """Take the node off its network: its connections are silent, not closed."""
        raise NotImplementedError

    def plug(self, node: str) -> None:
        """Put it on its network again."""
        raise NotImplementedError

    def inject(self, node: str, number: int, injected: Injected) -> None:
        """Let the node itself do something wrong until `withdraw` with the same ``number``, also
        after a restart."""
        raise NotImplementedError

    def withdraw(self, node: str, number: int) -> None:
        """The end of `inject`. A node that stopped because of it is started again."""
        raise NotImplementedError

    def tear(self, node: str, rest: bytes) -> None:
        """Leave ``rest`` of a record at the end of the log of a node that is down."""
        raise NotImplementedError

    def flip(self, node: str, where: float) -> None:
        """Flip a bit in the first half of the log of a node that is down, ``where`` (0 to 1) in it,
        and let the node try to start."""
        raise NotImplementedError

    def unflip(self, node: str) -> None:
        """Flip the bit back, the node being down."""
        raise NotImplementedError

    def crash_broker(self) -> None:
        """SIGKILL the broker."""
        raise NotImplementedError

    def restart_broker(self) -> None:
        """Start the broker again, with nothing in its memory. Nothing happens if it runs."""
        raise NotImplementedError

    def pause_broker(self) -> None:
        """Stop the broker (SIGSTOP)."""
        raise NotImplementedError

    def resume_broker(self) -> None:
        """Let it go on (SIGCONT)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Resolved:
    """What a fault does in this run. ``groups``: the sides of a partition, where it has sides.
    ``nodes``: those it touches. ``links``: the directed links it touches. ``chosen_by``: for a
    fault that picks a node, what picked it: ``leader``, or ``seed`` (also where no leader was to be
    had). ``seed``: for a fault that goes on drawing while it is on. ``state``: what a fault that
    changes while it is on did last."""

    groups: tuple[tuple[str, ...], ...] | None = None
    nodes: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    chosen_by: Literal["leader", "seed", "experiment"] = "experiment"
    seed: int | None = None
    state: Any = None


class Fault(BaseModel):
    """Base of all faults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: str
    TARGETS: ClassVar[frozenset[TargetName]] = LIVE

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

    def beats(self, resolved: Resolved, for_s: float) -> Sequence[float]:
        """When `beat` is called in the ``for_s`` seconds that the fault is on: seconds after its
        begin, rising. Most faults do nothing between their begin and their end."""
        return ()

    def beat(self, context: FaultContext, resolved: Resolved, number: int) -> Resolved:
        """What happens at the beat of that number, from 0; returns what `undo` must know. Raises
        whatever the context raises."""
        raise NotImplementedError


def one(
    context: FaultContext, wanted: str | None, by_seed: str
) -> tuple[str, Literal["leader", "seed", "experiment"]]:
    """The node that a fault picks, and what picked it."""
    if wanted == "leader":
        leader = context.leader()
        return (leader, "leader") if leader is not None else (by_seed, "seed")
    return (wanted, "experiment") if wanted is not None else (by_seed, "seed")


def sides(
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


def node_lists(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(
        isinstance(group, list | tuple) and all(isinstance(node, str) for node in group)
        for group in value
    ):
        raise ValueError("use all, or lists of nodes such as [[n1, n2], [n3]]")
    return tuple(tuple(group) for group in value)


def unknown_nodes(chosen: str | Sequence[str], nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with the field ``nodes`` of a fault, as `Fault.problems` tells it. A word such
    as ``leader`` has been looked at before."""
    if isinstance(chosen, str):
        return
    if not chosen:
        yield "nodes", "the list is empty"
    for node in chosen:
        if node not in nodes:
            yield "nodes", f"unknown node {node!r}; there are {', '.join(nodes)}"
