"""Faults of links, other than partitions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from nodes.faults.base import Fault, Resolved, one, sides
from nodes.faults.capabilities import Capability, Cluster, IsSimulated, ShapesStreams
from nodes.faults.shapes import one_way
from nodes.wire.links import Link

_LINKS = "use all, directed links such as [n1->n2, leader->all], or groups such as [[n1], [n2, n3]]"


def _links(value: Any) -> Any:
    if value == "all":
        return value
    if isinstance(value, list | tuple) and value:
        if all(isinstance(each, str) and each.count("->") == 1 for each in value):
            return tuple(value)
        if all(
            isinstance(each, list | tuple) and all(isinstance(node, str) for node in each)
            for each in value
        ):
            return tuple(tuple(group) for group in value)
    raise ValueError(_LINKS)


class OnLinks(Fault):
    """Base of faults that take ``links`` (``all`` between nodes, directed links ``n1->n2``, where
    an end may be ``leader`` or ``all``, or groups of nodes: then those between different groups)
    and ``node`` (only the links of that node: a node, or ``leader``)."""

    links: Annotated[
        Literal["all"] | tuple[str, ...] | tuple[tuple[str, ...], ...], BeforeValidator(_links)
    ] = "all"
    node: str | None = None

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Unknown nodes; groups that leave no link."""
        if self.node not in (None, "leader", *nodes):
            yield "node", f"unknown node {self.node!r}; use leader, {', '.join(nodes)}"
        if self.links == "all":
            return
        named: list[str] = []
        for part in self.links:
            ends = part.split("->") if isinstance(part, str) else part
            if isinstance(part, str) and ends[0] == ends[1]:
                yield "links", f"{part} is no link"
            elif not isinstance(part, str):
                named += part
            words = ("leader", "all") if isinstance(part, str) else ()
            for node in ends:
                if node not in (*words, *nodes):
                    yield "links", f"unknown node {node!r}; there are {', '.join(nodes)}"
        if len(set(named)) != len(named):
            yield "links", "a node is in two groups"
        if named and (len(self.links) < 2 or not all(self.links)):
            yield "links", "give at least two groups, none of them empty"

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """The links, and a seed for the fault."""
        nodes = tuple(cluster.nodes)
        by_seed, seed = rng.choice(nodes), rng.getrandbits(48)
        links: tuple[Link, ...]
        if self.links == "all":
            links = sides([(node,) for node in nodes], "experiment").links
        elif isinstance(self.links[0], str):
            links = tuple(
                dict.fromkeys(
                    link
                    for each in self.links
                    for link in one_way(*(_ends(cluster, end, by_seed) for end in each.split("->")))
                )
            )
        else:
            links = sides(self.links, "experiment").links
        if self.node is None:
            touched = tuple(node for node in nodes if any(node in link for link in links))
            return Resolved(None, touched, links, seed=seed)
        node, chosen_by = one(cluster, self.node, by_seed)
        links = tuple(link for link in links if node in link)
        return Resolved(None, (node,), links, chosen_by, seed)


def _ends(cluster: Cluster, end: str, by_seed: str) -> Sequence[str]:
    return cluster.nodes if end == "all" else [one(cluster, end, by_seed)[0]]


class Latency(OnLinks):
    """Delay every message between nodes, one way.

    ``latency_ms``: on top of the link's own latency, the same for every message (unlike
    ``jitter``). ``links``, ``node``: which links; all links between nodes if neither is given."""

    fault: Literal["latency"] = "latency"
    latency_ms: Annotated[int, Field(strict=True, ge=1, le=60_000)]

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Slow down."""
        cluster.links.add_latency(dict.fromkeys(resolved.links, self.latency_ms))

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Remove the delay; messages in flight arrive in order."""
        cluster.links.remove_latency(dict.fromkeys(resolved.links, self.latency_ms))


class Flapping(OnLinks):
    """Cut and heal links repeatedly.

    ``period_ms``: from one cut to the next. ``duty``: the fraction of each period in which the
    links are cut. ``links``, ``node``: which links; all links between nodes if neither is given."""

    fault: Literal["flapping"] = "flapping"
    period_ms: Annotated[int, Field(strict=True, ge=200, le=60_000)]
    duty: Annotated[float, Field(gt=0, lt=1)] = 0.5

    def beats(self, resolved: Resolved, for_s: float) -> Sequence[float]:
        """Heal, cut, heal, ... the first cut being `apply`."""
        times, begin_s = [], 0.0
        while begin_s < for_s:
            times += [begin_s, begin_s + self.duty * self.period_ms / 1000]
            begin_s += self.period_ms / 1000
        return [time for time in times[1:] if time < for_s]

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Cut."""
        cluster.links.cut(resolved.links)

    def beat(self, cluster: Cluster, resolved: Resolved, number: int) -> Resolved:
        """Heal, or cut again. ``state``: whether the links work."""
        if number % 2 == 0:
            cluster.links.heal(resolved.links)
        else:
            cluster.links.cut(resolved.links)
        return replace(resolved, state=number % 2 == 0)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Heal what is cut."""
        if not resolved.state:
            cluster.links.heal(resolved.links)


class Jitter(OnLinks):
    """Give each link a latency that keeps changing, by seed.

    ``latency_ms`` and ``jitter_ms``: each link gets a latency drawn uniformly from ``latency_ms`` -
    ``jitter_ms`` to ``latency_ms`` + ``jitter_ms``, on top of its own, and a new one every
    ``every_ms``. Messages on one link stay in order. (Toxiproxy's own jitter cannot be repeated.)
    ``links``, ``node``: which links; all links between nodes if neither is given."""

    fault: Literal["jitter"] = "jitter"
    latency_ms: Annotated[int, Field(strict=True, ge=1, le=60_000)]
    jitter_ms: Annotated[int, Field(strict=True, ge=1, le=60_000)]
    every_ms: Annotated[int, Field(strict=True, ge=100, le=60_000)] = 500

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Also: a negative latency."""
        yield from super().problems(nodes)
        if self.jitter_ms > self.latency_ms:
            yield "jitter_ms", f"must be at most latency_ms ({self.latency_ms})"

    def drawn_ms(self, resolved: Resolved, number: int) -> dict[Link, int]:
        """The latencies from the beat ``number`` - 1 on (0: from the begin)."""
        rng = random.Random(f"{resolved.seed}/{number}")
        low, high = self.latency_ms - self.jitter_ms, self.latency_ms + self.jitter_ms
        return {link: rng.randint(low, high) for link in resolved.links}

    def beats(self, resolved: Resolved, for_s: float) -> Sequence[float]:
        """Every ``every_ms``."""
        count = int(for_s * 1000 / self.every_ms)
        times = [number * self.every_ms / 1000 for number in range(1, count + 1)]
        return [time for time in times if time < for_s]

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """The first latencies."""
        cluster.links.add_latency(self.drawn_ms(resolved, 0))

    def beat(self, cluster: Cluster, resolved: Resolved, number: int) -> Resolved:
        """New latencies. ``state``: the number they were drawn by."""
        change = self.drawn_ms(resolved, number + 1)
        for link, before_ms in self.drawn_ms(resolved, number).items():
            change[link] -= before_ms
        cluster.links.add_latency(change)
        return replace(resolved, state=number + 1)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Take the last ones back."""
        cluster.links.remove_latency(self.drawn_ms(resolved, resolved.state or 0))


class Bandwidth(OnLinks):
    """Limit the rate of links; what exceeds it waits, and arrives late but in order.

    ``rate_kb_per_s``: kilobytes (1000 bytes) per second and link. ``links``, ``node``: which links;
    all links between nodes if neither is given."""

    fault: Literal["bandwidth"] = "bandwidth"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (ShapesStreams,)
    rate_kb_per_s: Annotated[int, Field(strict=True, ge=1, le=999_999)]

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Limit."""
        cluster.can(ShapesStreams).links.limit(resolved.links, self.rate_kb_per_s)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Lift the limit."""
        cluster.can(ShapesStreams).links.unlimit(resolved.links, self.rate_kb_per_s)


class Stall(OnLinks):
    """Hold back everything on links; it arrives late but in order when the fault ends.

    Unlike in a partition, nothing is lost that fits into the sender's buffers. ``links``, ``node``:
    which links; all links between nodes if neither is given."""

    fault: Literal["stall"] = "stall"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (ShapesStreams,)

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Stop the flow."""
        cluster.can(ShapesStreams).links.limit(resolved.links, 0)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Let it flow."""
        cluster.can(ShapesStreams).links.unlimit(resolved.links, 0)


class Disconnect(OnLinks):
    """Close the connections of links and refuse new ones until the fault ends.

    Unlike in a partition, the sender notices immediately. ``links``, ``node``: which links; all
    links between nodes if neither is given."""

    fault: Literal["disconnect"] = "disconnect"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (ShapesStreams,)

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Close."""
        cluster.can(ShapesStreams).links.close(resolved.links)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Take connections again."""
        cluster.can(ShapesStreams).links.reopen(resolved.links)


class Reset(OnLinks):
    """Reset the connections of links as soon as they carry data, new ones included.

    Unlike with ``disconnect``, connections are accepted, then reset (RST) by the first bytes they
    carry. ``links``, ``node``: which links; all links between nodes if neither is given."""

    fault: Literal["reset"] = "reset"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (ShapesStreams,)

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Begin to reset."""
        cluster.can(ShapesStreams).links.reset(resolved.links)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Let connections live."""
        cluster.can(ShapesStreams).links.unreset(resolved.links)


class SlowClose(OnLinks):
    """Delay the moment at which the broker notices that a link's sender closed its connection.

    The connections of a node that died stay open at the other end for ``delay_ms``, as behind a
    silent firewall. ``links``, ``node``: which links; all links between nodes if neither is
    given."""

    fault: Literal["slow-close"] = "slow-close"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (ShapesStreams,)
    delay_ms: Annotated[int, Field(strict=True, ge=1, le=60_000)]

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Delay."""
        cluster.can(ShapesStreams).links.close_slowly(resolved.links, self.delay_ms)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Delay no more."""
        cluster.can(ShapesStreams).links.close_quickly(resolved.links, self.delay_ms)


# --- clients -----------------------------------------------------------------------------------


class OnClientLinks(Fault):
    """Base of faults of the links between clients and nodes."""

    node: str | None = None
    share: Annotated[float | None, Field(gt=0, lt=1)] = None

    @property
    def needs(self) -> tuple[type[Capability], ...]:
        """A real link is cut or not."""
        return (IsSimulated,) if self.share else self.NEEDS

    def problems(self, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
        """A node that is none."""
        if self.node not in (None, "leader", *nodes):
            yield "node", f"unknown node {self.node!r}; use leader, {', '.join(nodes)}"

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """The links between all client groups and the nodes."""
        nodes = tuple(cluster.nodes)
        by_seed = rng.choice(nodes)
        chosen_by: Literal["leader", "seed", "experiment"] = "experiment"
        if self.node is not None:
            node, chosen_by = one(cluster, self.node, by_seed)
            nodes = (node,)
        links = tuple(self.link(group, node) for group in cluster.clients for node in nodes)
        return Resolved(None, nodes, links, chosen_by)

    @staticmethod
    def link(group: str, node: str) -> Link:
        """The link of the two that is cut."""
        raise NotImplementedError

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Cut."""
        if self.share:
            cluster.can(IsSimulated).links.lose(resolved.links, self.share)
        else:
            cluster.links.cut(resolved.links)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Heal."""
        if self.share:
            cluster.can(IsSimulated).links.lose_no_more(resolved.links, self.share)
        else:
            cluster.links.heal(resolved.links)


class RequestsLost(OnClientLinks):
    """Lose every client request to one node or all: it is certainly not applied.

    ``node``: a node or ``leader``; all nodes if not given. ``share``: of the requests, if not all
    (simulated clusters only)."""

    fault: Literal["requests-lost"] = "requests-lost"

    @staticmethod
    def link(group: str, node: str) -> Link:
        """From the client to the node."""
        return group, node


class RepliesLost(OnClientLinks):
    """Lose every reply to clients from one node or all: applied, but the client never learns it.

    ``node``: a node or ``leader``; all nodes if not given. ``share``: of the replies, if not all
    (simulated clusters only)."""

    fault: Literal["replies-lost"] = "replies-lost"

    @staticmethod
    def link(group: str, node: str) -> Link:
        """From the node to the client."""
        return node, group


# --- distance ----------------------------------------------------------------------------------

REGIONS = ("virginia", "oregon", "ireland", "tokyo", "singapore")
ROUND_TRIP_MS = {
    ("virginia", "oregon"): 87,
    ("virginia", "ireland"): 80,
    ("virginia", "tokyo"): 145,
    ("virginia", "singapore"): 217,
    ("oregon", "ireland"): 137,
    ("oregon", "tokyo"): 89,
    ("oregon", "singapore"): 161,
    ("ireland", "tokyo"): 212,
    ("ireland", "singapore"): 239,
    ("tokyo", "singapore"): 74,
}
"""Mean round trips between five regions of Amazon's cloud, in whole milliseconds, from the table
"Latency Between AWS Global Regions" as given in April 2017 at
https://acomputerscientistlearnsaws.blogspot.com/2017/04/aws-regions.html."""


class Wan(Fault):
    """Spread the nodes over five regions of the world, with the latencies between them.

    The nodes go to Virginia, Oregon, Ireland, Tokyo and Singapore in turn; each direction takes
    half of the published mean round trip (`nodes.faults.links.ROUND_TRIP_MS`: from 74 to 239 ms).
    Clients stay close to the node that they ask."""

    fault: Literal["wan"] = "wan"

    def latencies_ms(self, nodes: Sequence[str]) -> dict[Link, int]:
        """The one-way latency of every link between different regions."""
        region = {node: REGIONS[i % len(REGIONS)] for i, node in enumerate(nodes)}
        return {
            (src, dst): round(round_trip_ms / 2)
            for src in nodes
            for dst in nodes
            for pair, round_trip_ms in ROUND_TRIP_MS.items()
            if {*pair} == {region[src], region[dst]}
        }

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """All links between regions."""
        nodes = tuple(cluster.nodes)
        return Resolved(nodes=nodes, links=tuple(self.latencies_ms(nodes)))

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Move apart."""
        cluster.links.add_latency(self.latencies_ms(resolved.nodes))

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """Move together."""
        cluster.links.remove_latency(self.latencies_ms(resolved.nodes))
