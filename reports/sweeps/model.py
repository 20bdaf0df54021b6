"""Predicted throughput and latency: a queueing model of a cluster on one machine.

Sources: E. Lazowska, J. Zahorjan, G. Graham, K. Sevcik, "Quantitative System Performance" (1984):
the operational laws (chapter 3), bounds (5), mean value analysis (6). A. Ailijiang, A. Charapko, M.
Demirbas, "Dissecting the Performance of Strongly-Consistent Replication Protocols" (SIGMOD 2019),
section 3: the busiest station's service time, from messages per operation, bounds throughput.

The stations are the cores, shared by all processes, the broker (one thread) and the disks. The CPU
time of an operation is linear in its counts:

    CPU = PUBLISHes * frame_s  +  nodes * operation_s  +  bytes * byte_s

*With coalescing* a cluster works in rounds, like a server that takes all waiting customers at once
(a bulk queue). A round of B operations has the PUBLISHes of B operations, or those of a round in
which every node has a message for every other, whichever is less, and takes

    T(B) = fsync_s  +  PUBLISHes * frame_s / parallel  +  B * per_operation / cores

where ``parallel`` is the number of PUBLISHes processed at once. An arriving operation waits for
half a round on average, then takes part in one round, or in two in sequence (``quorum`` has two
phases; those of different operations share a round). So for N clients with think time Z, by the
interactive response-time law (Lazowska, 3.4) R = N / X - Z,

    X = N / (Z + (rounds + 1/2) T(B))   and   B = X T(B)

and one client waits for nobody: its R is all its fsyncs and PUBLISHes in sequence.

*Without coalescing*, each operation has its own PUBLISHes: the cores are a station, the path's
fsyncs a delay, and mean value analysis gives X.

The costs come from three measured points (`calibrate`): one client, many, and large values. The
fsync time is measured at each point, since other programs share the disk. Everything else is
predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from nodes.protocols.gossip import GossipParameters


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What one write costs in theory, without coalescing. ``messages``: between nodes, plus request
    and reply; ``round_messages``: of a round of many operations at all nodes, in which each node
    has a message for every other. ``rounds``: in which an operation takes part, in sequence, each
    with an fsync on its path. ``fsyncs``: of all nodes. ``copies``: how often the value is sent."""

    messages: float
    round_messages: float
    rounds: int
    fsyncs: float
    copies: float


def shape(protocol: str, nodes: int, forwarded: float = 0.0) -> Shape | None:
    """The shape of a write. ``forwarded``: the share of requests that reach a node other than the
    leader. None: the protocol is unknown here.

    - ``raft``, ``paxos``: a message to each other node and one back; a forwarded request and its
      answer are two more. All nodes sync, the leader in parallel with the others, so only one fsync
      is waited for.
    - ``quorum``: two such phases; the coordinator makes the version durable, with its own copy,
      before the second, in which the others sync. The second phase of some operations is sent with
      the first of others.
    - ``gossip``: request, one fsync, reply. Rumours travel later, many in one message and one
      fsync: these do not count, but their bytes do. In each round a node sends what it heard to its
      fan-out of peers (an upper bound: a key that changes meanwhile is sent once).
    """
    others = nodes - 1
    if protocol in ("raft", "paxos"):
        return Shape(
            messages=2 + 2 * others + 2 * forwarded,
            round_messages=2 * nodes + 4 * others,
            rounds=1,
            fsyncs=nodes,
            copies=1 + forwarded + others,
        )
    if protocol == "quorum":
        return Shape(
            messages=2 + 4 * others,
            round_messages=(2 + 2 * others) * nodes,
            rounds=2,
            fsyncs=nodes,
            copies=1 + others,
        )
    if protocol == "gossip":
        rumours = GossipParameters()
        return Shape(
            messages=2,
            round_messages=2 * nodes,
            rounds=1,
            fsyncs=1,
            copies=1 + nodes * min(rumours.fanout, others) * rumours.rounds,
        )
    return None


# --- the laws ---


def waiting_s(arrivals_per_s: float, service_s: float, variation: float = 0.0) -> float:
    """Mean time in the queue of one server with Poisson arrivals (Pollaczek and Khinchine).
    ``variation``: the squared coefficient of variation of the service time, 0 for M/D/1 and 1 for
    M/M/1. Infinite if more arrives than can be served."""
    busy = arrivals_per_s * service_s
    if busy >= 1:
        return float("inf")
    return busy * service_s * (1 + variation) / (2 * (1 - busy))


def response_s(clients: int, per_s: float, think_s: float) -> float:
    """The interactive response-time law, for clients that think between operations."""
    return clients / per_s - think_s


def most_per_s(clients: int, demands_s: Sequence[float], delay_s: float) -> float:
    """The upper bound on throughput (asymptotic bounds, Lazowska chapter 5): by the busiest
    station, or by clients that never wait. ``delay_s``: think time and other time without a
    queue."""
    return min(1 / max(demands_s), clients / (sum(demands_s) + delay_s))


def mva_per_s(clients: int, demands_s: Sequence[float], delay_s: float) -> float:
    """Throughput of a closed network by exact mean value analysis (Lazowska, algorithm 6.2)."""
    queues = [0.0] * len(demands_s)
    per_s = 0.0
    for n in range(1, clients + 1):
        times = [demand * (1 + queue) for demand, queue in zip(demands_s, queues, strict=True)]
        per_s = n / (delay_s + sum(times))
        queues = [per_s * time for time in times]
    return per_s


def rounds_per_s(
    clients: int, fixed_s: float, each_s: float, think_s: float, rounds: int = 1
) -> tuple[float, float]:
    """Throughput of a server that takes all waiting operations at once, and how many begin in a
    round: a round of B takes ``fixed_s`` + B ``each_s``, and each operation takes part in
    ``rounds``. See the module's docstring."""
    alone_s = rounds * fixed_s + each_s
    if clients == 1:
        return 1 / (think_s + alone_s), 1.0
    # With k = rounds + 1/2, X (Z + k T) = N and T = fixed + each X T give a quadratic in T with
    # one positive root: k T^2 + (Z - N each - k fixed) T - Z fixed = 0
    k = rounds + 0.5
    linear = think_s - clients * each_s - k * fixed_s
    round_s = (-linear + (linear**2 + 4 * k * think_s * fixed_s) ** 0.5) / (2 * k)
    per_s = clients / (think_s + k * round_s)
    if per_s * round_s < 1:  # Each has its own round.
        return clients / (think_s + alone_s), 1.0
    return per_s, per_s * round_s


# --- the model ---


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """A measured point. ``cpu_s``, ``publishes``, ``bytes``: per operation, over all processes.
    ``response_s``: the mean. ``fsync_s``: the mean time of one write and fsync."""

    nodes: int
    clients: int
    cpu_s: float
    publishes: float
    bytes: float
    response_s: float
    fsync_s: float


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a protocol on a machine, see the module's docstring."""

    frame_s: float
    operation_s: float
    byte_s: float
    parallel: float
    head_bytes: float
    """The payload of an operation without the copies of its value."""


class NotCalibrated(ValueError):
    """The points do not determine the costs: says which cost is not positive."""


def calibrate(
    protocol: str,
    one: Observed,
    many: Observed,
    large: Observed,
    *,
    value_bytes: int,
    forwarded: float,
    cores: float,
) -> Costs:
    """The costs from three points: one client (with requests ``forwarded`` or not), many, and many
    with large values. ``value_bytes``: of the first two; ``cores``: available to the first. Raises
    NotCalibrated."""
    points = (one, many, large)
    counted = np.array([[each.publishes, each.nodes, each.bytes] for each in points])
    try:
        solved = np.linalg.solve(counted, [each.cpu_s for each in points])
    except np.linalg.LinAlgError:
        raise NotCalibrated(f"{protocol}: the three points are alike") from None
    for name, cost in zip(("PUBLISH", "operation", "byte"), solved, strict=True):
        if cost <= 0:
            raise NotCalibrated(f"{protocol}: a {name} came out as {1e6 * cost:.3g} µs")
    frame_s, operation_s, byte_s = map(float, solved)
    known = shape(protocol, one.nodes, forwarded)
    if known is None:
        raise NotCalibrated(f"{protocol}: nothing is known of its messages")
    work_s = (one.nodes * operation_s + one.bytes * byte_s) / cores
    left_s = one.response_s - known.rounds * one.fsync_s - work_s
    parallel = known.messages * frame_s / left_s if left_s > 0 else cores
    return Costs(
        frame_s=frame_s,
        operation_s=operation_s,
        byte_s=byte_s,
        parallel=min(cores, parallel),
        head_bytes=max(0.0, many.bytes - known.copies * value_bytes),
    )


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """Predicted figures. ``publishes``: per operation."""

    per_s: float
    response_s: float
    publishes: float


def predict(
    costs: Costs,
    of: Shape,
    *,
    nodes: int,
    clients: int,
    value_bytes: int,
    think_s: float,
    cores: float,
    fsync_s: float,
    broker_per_s: float,
    coalesced: bool = True,
) -> Predicted:
    """Throughput and latency at a point. ``fsync_s``: of one write and fsync. ``broker_per_s``: the
    messages that the broker can pass on. ``cores``: those available."""
    size = of.copies * value_bytes + costs.head_bytes
    each_s = (nodes * costs.operation_s + size * costs.byte_s) / cores
    frame_s = costs.frame_s / costs.parallel
    if coalesced:
        full_s = fsync_s + of.round_messages * frame_s
        per_s, batch = rounds_per_s(clients, full_s, each_s, think_s, of.rounds)
        if batch * of.messages < of.round_messages:  # Too few to fill a round.
            one_s = each_s + of.messages * frame_s
            per_s, batch = rounds_per_s(clients, fsync_s, one_s, think_s, of.rounds)
        publishes = min(of.messages, of.round_messages / batch)
    else:
        publishes = of.messages
        demands = (each_s + publishes * costs.frame_s / cores, publishes / broker_per_s)
        per_s = mva_per_s(clients, demands, think_s + of.rounds * fsync_s)
    per_s = min(per_s, broker_per_s / publishes)
    return Predicted(
        per_s=per_s, response_s=response_s(clients, per_s, think_s), publishes=publishes
    )
