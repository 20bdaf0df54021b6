"""A healed cluster at rest: nobody stands for election, nobody is suspected, nobody lags, no client
waits, and little is said."""

from __future__ import annotations

from collections.abc import Iterator

from nodes.contract.pace import Pace
from nodes.simulator.cluster import Cluster, Mark
from nodes.simulator.oracles.traffic import Traffic
from nodes.simulator.placed import unrestored_range

WATCH_S = 3.0
"""Virtual seconds in which nothing may happen, at least."""
SUSPICION = ("suspect", "trust")
"""Marks of a failure detector that changes its mind."""
_SLACK = 1.1
_FEW = 4
"""Messages of a type, for each node, that the edges of the time watched add."""

Finding = tuple[str, str]
"""A check, and what it found."""


def watch_s(pace: Pace) -> float:
    """How long to watch: several times the longest interval of what is sent at rest."""
    slowest = min((rate for rate in (pace.idle or {}).values() if rate), default=1.0)
    return max(WATCH_S, 10 / slowest)


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
