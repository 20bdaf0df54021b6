"""What a fault is. The faults themselves are in `nodes.faults.catalogue`, what they may do to a
cluster is in `nodes.faults.capabilities`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from nodes.faults.capabilities import Capability, Cluster
from nodes.faults.shapes import across
from nodes.wire.links import Link


@dataclass(frozen=True)
class Resolved:
    """What a fault does in this run. ``groups``: the sides of a partition, where it has sides.
    ``nodes``: those it touches. ``links``: the directed links it touches. ``chosen_by``: for a
    fault that picks a node, what picked it: ``leader``, or ``seed`` (also where there was no
    leader). ``seed``: for a fault that keeps drawing while active. ``state``: the last step of a
    fault that changes while active."""

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
    NEEDS: ClassVar[tuple[type[Capability], ...]] = ()
    """The capabilities a cluster must have, beyond cutting and slowing links, which all have. The
    targets on which the fault works follow from this."""

    @property
    def needs(self) -> tuple[type[Capability], ...]:
        """`NEEDS`, and what these parameters need besides."""
        return self.NEEDS

    @classmethod
    def summary(cls) -> str:
        """The fault in a line."""
        return (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")

    def parameters(self) -> dict[str, Any]:
        """The fault's own fields, as JSON has them."""
        return self.model_dump(mode="json", exclude={"fault"}, exclude_none=True)

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Problems with the fault on a cluster of these nodes: (field, what would be right)."""
        return iter(())

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """Turn names into nodes and links. Draws from ``rng`` equally often on every cluster, so
        that equal seeds make equal choices."""
        raise NotImplementedError

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Apply the fault. Raises whatever the cluster raises."""
        raise NotImplementedError

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Undo it, even if it was applied only in part. Raises whatever the cluster raises."""
        raise NotImplementedError

    def beats(self, resolved: Resolved, for_s: float) -> Sequence[float]:
        """When `beat` is called during the ``for_s`` seconds of the fault: seconds after its start,
        ascending. Most faults do nothing between start and end."""
        return ()

    def beat(self, cluster: Cluster, resolved: Resolved, number: int) -> Resolved:
        """The step of this number, from 0; returns what `undo` must know. Raises whatever the
        cluster raises."""
        raise NotImplementedError


def one(
    cluster: Cluster, wanted: str | None, by_seed: str
) -> tuple[str, Literal["leader", "seed", "experiment"]]:
    """The node that a fault picks, and what picked it."""
    if wanted == "leader":
        leader = cluster.leader()
        return (leader, "leader") if leader is not None else (by_seed, "seed")
    return (wanted, "experiment") if wanted is not None else (by_seed, "seed")


def named(cluster: Cluster, listed: Sequence[str], by_seed: str) -> tuple[str, ...]:
    """The nodes of a list, in which ``leader`` is the leader, or without one the node by seed."""
    return tuple(dict.fromkeys(one(cluster, node, by_seed)[0] for node in listed))


def sides(
    groups: Sequence[Sequence[str]], chosen_by: Literal["leader", "seed", "experiment"]
) -> Resolved:
    """Groups whose nodes reach no node in another group."""
    return Resolved(
        tuple(tuple(group) for group in groups),
        tuple(node for group in groups for node in group),
        across(groups),
        chosen_by,
    )


def unknown_nodes(chosen: str | Sequence[str], nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Problems with a fault's field ``nodes``, as in `Fault.problems`. Words such as ``leader``
    were checked before."""
    if isinstance(chosen, str):
        return
    if not chosen:
        yield "nodes", "the list is empty"
    for node in chosen:
        if node not in ("leader", *nodes):
            yield "nodes", f"unknown node {node!r}; there are {', '.join(nodes)}"
