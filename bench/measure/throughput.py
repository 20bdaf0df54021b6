"""How fast the live protocols are: three nodes, no faults, fsync, a closed loop.

Each protocol runs twice in the same run: as it is, and with one message per PUBLISH, the same code
without coalescing: each input is its own step and each message its own PUBLISH, at nodes and
clients. Both are compared with what the broker can pass on: a replicated write takes at least six
messages (request, two to the followers, two back, reply), so without coalescing no protocol can do
more than a sixth of the broker's messages.
"""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from bench.measure.ceiling import messages_per_s
from bench.measure.closed_loop import ClosedLoop, Measured, drive
from bench.measure.figures import figure
from bench.measure.live import Live, LoadFailed, live_cluster
from bench.measure.measuring import SCALE
from bench.record.sweep_file import THINK_S

MESSAGES_PER_OPERATION = 6
CLIENTS = 128
TIMES_ONE_PER_PUBLISH = 10
SHARE_OF_CEILING = {"raft": 1.0, "paxos": 1.0, "quorum": 0.7, "gossip": 2.0}
"""Protocol -> the goal: operations per second relative to the broker's ceiling."""

ROUNDS = 5
"""How often one operation in flight is measured, alternately with and without coalescing, each time
at the next node: a leader answers sooner, so the median is that of a follower."""

CEILING = f"broker: messages / {MESSAGES_PER_OPERATION}"


def rows() -> list[dict[str, Any]]:
    """The figures, see `bench.measure.figures`. Raises NoCluster, LoadFailed."""
    figures: list[dict[str, Any]] = []
    for protocol in SHARE_OF_CEILING:
        figures += _of(protocol, with_ceiling=not figures)
    ceiling = next(each["value"] for each in figures if each["name"] == CEILING)
    for each in figures:
        if each["compared_with"] == CEILING:
            each["goal"] *= ceiling
    return figures


def _of(protocol: str, with_ceiling: bool) -> list[dict[str, Any]]:
    figures = []
    with live_cluster(protocol) as live, live_cluster(protocol, coalesce=False) as single:
        if with_ceiling:
            rate = messages_per_s(live.cluster.broker, seconds=max(0.1, SCALE))
            figures.append(figure("broker: messages", rate, "messages/s"))
            figures.append(figure(CEILING, rate / MESSAGES_PER_OPERATION, "operations/s"))
        many, many_single = _measure(live, CLIENTS), _measure(single, CLIENTS, single=True)
        one = [
            (_measure(live, 1, asked=node), _measure(single, 1, single=True, asked=node))
            for node in itertools.islice(itertools.cycle(live.cluster.nodes), ROUNDS)
        ]
    name = f"live: {protocol}, {CLIENTS} in flight"
    base = f"{name}, one message per PUBLISH"
    rate, base_rate = many.ok_per_s, many_single.ok_per_s
    consensus = SHARE_OF_CEILING[protocol] == 1.0
    figures += [
        figure(base, base_rate, "operations/s"),
        figure(
            name,
            rate,
            "operations/s",
            compared_with=base,
            goal=TIMES_ONE_PER_PUBLISH * base_rate if consensus else None,
        ),
        figure(
            f"{name}, of the broker's ceiling",
            rate,
            "operations/s",
            compared_with=CEILING,
            goal=SHARE_OF_CEILING[protocol],
        ),
        figure(f"{name}, p50", many.latency_ms_p50 or 0.0, "ms"),
        figure(f"{name}, p99", many.latency_ms_p99 or 0.0, "ms"),
    ]
    with_it = statistics.median(a.latency_ms_p50 or 0.0 for a, _ in one)
    without = statistics.median(b.latency_ms_p50 or 0.0 for _, b in one)
    alone = f"live: {protocol}, 1 in flight, p50"
    base = f"{alone}, one message per PUBLISH"
    figures.append(figure(base, without, "ms"))
    figures.append(figure(alone, with_it, "ms", compared_with=base, goal=without))
    return figures


def _measure(live: Live, clients: int, single: bool = False, asked: str | None = None) -> Measured:
    # With one in flight there is no think time: the next operation follows the reply.
    load = ClosedLoop(
        clients=clients,
        think_s=THINK_S if clients > 1 else 0.0,
        seconds=max(0.5, (4.0 if clients > 1 else 1.5) * SCALE),
        warm_up_s=max(0.5, (2.0 if clients > 1 else 0.3) * SCALE),
        one_per_publish=single,
        nodes=(asked,) if asked else (),
    )
    measured = drive(live.cluster, load)
    if not measured.ok or measured.failed or measured.unanswered:
        raise LoadFailed(
            f"{live.cluster.protocol}: {measured.failed} operations failed and "
            f"{measured.unanswered} were not answered, without a fault: {measured.error}"
        )
    return measured
