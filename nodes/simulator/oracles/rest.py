"""A healed cluster at rest: nobody stands for election, nobody is suspected, nobody lags, no client
waits, and little is said."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nodes.contract.pace import Pace
from nodes.contract.replica import Request
from nodes.simulator.cluster import Cluster, Mark
from nodes.simulator.load import Clients
from nodes.simulator.oracles.traffic import Traffic
from nodes.simulator.placed import unrestored_range

SUSPICION = ("suspect", "trust")
"""Marks of a failure detector that changes its mind."""
WATCH_S = 3.0
"""Virtual seconds in which nothing may happen, at least."""
_SLACK = 1.1
_HOARD = 3
"""More requests of a client than a crash keeps, and so many clients that it was no accident."""
_MANY = 20
"""Requests of a client that were acknowledged, so that a node has some to forget."""
_FEW = 4
"""Messages of a type, for each node, that the edges of the time watched add."""

Finding = tuple[str, str]
"""A check, and what it found."""


def watch_s(pace: Pace) -> float:
    """How long to watch: several times the longest interval of what is sent at rest."""
    slowest = min((rate for rate in (pace.idle or {}).values() if rate), default=1.0)
    return max(WATCH_S, pace.watch_s, 10 / slowest)


def unrest(marks: list[Mark], names: tuple[str, ...]) -> Iterator[Finding]:
    """A mark that must not come."""
    for mark in marks:
        if mark.name in names:
            details = " ".join(f"{name}={value}" for name, value in mark.details.items())
            yield "stability", f"{mark.node} at {mark.at_s:.3f}: {mark.name} {details}".rstrip()
            return


def chatter(traffic: Traffic, pace: Pace, nodes: int, asked: int = 0) -> Iterator[Finding]:
    """More messages than the protocol needs, or others. ``asked``: how many operations there
    were."""
    if pace.idle is None:
        return
    if traffic.full is not None and not asked:
        src, dst, msg = traffic.full
        yield "messages", f"at rest {src} sends {dst} {msg!r}"
    spare = asked * pace.asked
    for name, count in sorted(traffic.counts.items()):
        if name not in pace.idle:
            if not asked:
                src, dst, msg = traffic.samples[name]
                yield "messages", f"at rest {src} sends {dst} {msg!r}"
            continue
        most = _SLACK * pace.idle[name] * traffic.seconds + _FEW * nodes + spare
        if count > most:
            told = f"{count} {name} in {traffic.seconds:g} s with {asked} operations"
            yield "messages", f"{told}, where {most:.0f} are enough"
    for name, each in pace.costs.items():
        if traffic.counts[name] > each * asked:
            told = f"{traffic.counts[name]} {name} with {asked} operations"
            yield "messages", f"{told}, where {each * asked} are enough"
    for name, rate in pace.least.items():
        enough = rate * traffic.seconds / _SLACK - nodes * (nodes - 1)
        if traffic.counts[name] < enough:
            told = f"{traffic.counts[name]} {name} in {traffic.seconds:g} s"
            yield "messages", f"{told}, where there should be {enough:.0f}"
    whole = sum(traffic.counts.values())
    rate = sum(pace.idle.values())
    most = _SLACK * rate * traffic.seconds + _FEW * nodes * (1 + len(pace.idle)) + spare
    if whole > most:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(traffic.counts.items()))
        yield (
            "messages",
            f"{counts} in {traffic.seconds:g} s with {asked} operations, not {most:.0f}",
        )


def laggards(cluster: Cluster, pace: Pace) -> Iterator[Finding]:
    """Nodes that have not applied what others have, or do not hold what they should."""
    unrestored = unrestored_range(cluster, cluster.nodes)
    if unrestored is not None:
        yield "catch-up", unrestored
        return
    disks = {node: host.storage.synced for node, host in cluster.hosts.items() if host.up}
    for invariant in cluster.invariants:
        if not invariant.agrees(disks):
            yield "catch-up", "the disks do not hold the same where they have to"
            return
    applied: dict[str, int] = {}
    for node, host in cluster.hosts.items():
        replica = host.replica
        if replica is None or host.paused:
            continue
        if pace.catches_up:
            applied[node] = replica.probe()["applied"]
    if len(set(applied.values())) > 1:
        told = ", ".join(f"{node} {index}" for node, index in applied.items())
        yield "catch-up", f"entries applied by each node: {told}"


def forgotten_clients(cluster: Cluster, pace: Pace) -> Iterator[Finding]:
    """Requests that a node took and never answered, though it ran on."""
    for node, host in cluster.hosts.items() if pace.answers else ():
        if host.unanswered:
            client, sequence = host.unanswered[0]
            yield "unanswered", f"{node} never answered {client}'s request {sequence}"
            return


def hoarders(cluster: Cluster, clients: Clients) -> Iterator[Finding]:
    """Nodes that remember what clients have acknowledged to them, by the newest request that they
    were asked. What a crash kept from being forgotten stays until the client writes again; so one
    node that has forgotten all that it could of many is enough, and nothing is said."""
    asked = {
        (request.client, request.sequence): (record.node, request.acked)
        for request, record in zip(clients.requests, clients.history, strict=True)
    }
    hoards: list[str] = []
    for node, host in cluster.hosts.items():
        results: dict[str, list[int]] = defaultdict(list)
        for name, result in host.storage.synced.items():
            if name.startswith("r/") and result is not None:
                results[result.client].append(result.sequence)
        for client, sequences in results.items():
            first, floor = asked.get((client, max(sequences)), ("", 0))
            stale = sum(sequence < floor for sequence in sequences)
            if first == node and stale > _HOARD:
                hoards.append(f"{node} {stale} of {client}")
            elif first == node and floor >= _MANY and not stale:
                return
    if len(hoards) >= _HOARD:
        told = ", ".join(hoards[:3])
        yield "status", f"requests are remembered that clients have acknowledged: {told} ..."


def applied(cluster: Cluster, node: str) -> int:
    """How far a node has come that agrees on a log with others; 0: it is down."""
    replica = cluster.hosts[node].replica
    return 0 if replica is None else int(replica.probe()["applied"])


_OUTSIDE = frozenset({"config", "disk", "env", "out"})
"""What a replica was handed, and what it hands back."""
_DEEP = 3
"""A table may be in a part of a part of a replica."""
Name = tuple[str, int]


def leftovers(cluster: Cluster, clients: Clients) -> Iterator[Finding]:
    """Requests that a node still has in a table of what is under way, by client and sequence or as
    they came, though nobody waits for anything. Such a table grows; and the next copy of the
    request is taken for one that is dealt with."""
    asked = {(request.client, request.sequence) for request in clients.requests}
    for node, host in cluster.hosts.items():
        if host.replica is None or host.paused:
            continue
        for where, table in _tables(host.replica, _DEEP):
            for name in asked.intersection(_names(table)):
                client, sequence = name
                yield "status", f"{node} still has {client}'s request {sequence} in {where}"
                return


def _tables(part: Any, deep: int) -> Iterator[tuple[str, Iterable[Any]]]:
    """The tables of a replica and of its parts, with their names."""
    slots = [each for kind in type(part).__mro__ for each in getattr(kind, "__slots__", ())]
    for name in dict.fromkeys([*slots, *getattr(part, "__dict__", ())]):
        value = getattr(part, name, None)
        if name in _OUTSIDE or name.startswith("__"):
            continue
        if isinstance(value, dict | list | deque | set):
            yield name, value
        elif deep > 1 and type(value).__module__.startswith("nodes."):
            for where, table in _tables(value, deep - 1):
                yield f"{name}.{where}", table


def _names(table: Iterable[Any]) -> Iterator[Name]:
    """The requests that a table has: its keys, or what it lists, also in groups."""
    for item in table:
        if type(item) is Request:
            yield item.client, item.sequence
        elif type(item) is tuple:
            if len(item) == 2 and type(item[0]) is str and type(item[1]) is int:
                yield item[0], item[1]
            else:
                yield from _names(item)
        elif type(item) is list:
            yield from _names(item)


def told(traffic: Traffic, pace: Pace, *, spreads: bool = False) -> Iterator[Finding]:
    """Nodes that tell of a write more or less often than they have to, if at all; and somebody
    has to. ``spreads``: whoever is told of it has to tell of it."""
    idle = pace.idle or {}
    for name, often in pace.tells.items():
        by_node = traffic.senders(name)
        if not by_node or any(count != often for count in by_node.values()):
            counts = ", ".join(f"{node} {count}" for node, count in by_node.items())
            yield "messages", f"of one write {counts or 'nobody'} sent {name}, not {often} each"
        elif spreads and traffic.full is None and {*traffic.counts} <= {*pace.tells, *idle}:
            # Nobody can have heard of it in any other way.
            silent = sorted({dst for kind, _, dst in traffic.sent if kind == name} - {*by_node})
            if silent:
                yield "messages", f"{silent[0]} was told of a write, and sent no {name}"


def untold(traffic: Traffic, last: Traffic, pace: Pace, writer: str | None) -> Iterator[Finding]:
    """Writes of which nobody has told, for several times as long as it may take; or the last of
    them, of which ``writer`` has told less often than of one that comes alone."""
    for name, often in pace.tells.items():
        if not traffic.counts[name]:
            yield "messages", f"of writes that went on for {traffic.seconds:g} s nobody sent {name}"
        elif writer is not None:
            count = last.senders(name)[writer]
            if count < often:
                yield "messages", f"of its last write {writer} sent {count} {name}, not {often}"


def told_again(traffic: Traffic, pace: Pace) -> Iterator[Finding]:
    """Somebody who tells of what was written long ago."""
    for name in pace.tells:
        if traffic.counts[name]:
            src, dst, msg = traffic.samples[name]
            yield "messages", f"{src} tells {dst} of what was told long ago: {msg!r}"


def repeated(traffic: Traffic, pace: Pace, nodes: Sequence[str], asked: int) -> Iterator[Finding]:
    """More messages between ``nodes`` that all answer than ``asked`` operations cost that each of
    them is asked about in two phases."""
    counts = {
        (name, src, dst): count
        for (name, src, dst), count in traffic.sent.items()
        if name not in (pace.idle or {}) and src in nodes and dst in nodes
    }
    most = 4 * asked * (len(nodes) - 1)
    if sum(counts.values()) > most:
        yield "messages", f"{counts} with {asked} operations, where {most} are enough"
