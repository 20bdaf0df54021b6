"""Each protocol end to end: a real broker, three node processes, fsync, in wall time.

``1 in flight`` is the latency of an operation; with 64, the next 64 are sent when all are answered.
`bench.measure.throughput` measures the highest throughput.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from bench.measure.live import live_cluster
from bench.measure.measuring import measure, scaled
from bench.suites.e2e.asker import Asker
from nodes.contract.replica import Operation

OPERATIONS = scaled(640, least=64)
VALUE = "v" * 32


@pytest.mark.benchmark(group="e2e", timer=time.perf_counter)
@pytest.mark.parametrize("protocol", ["raft", "paxos", "quorum", "gossip"])
def bench_writes(aio_benchmark: Any, protocol: str) -> None:
    _measure(aio_benchmark, protocol, 1, max(1, OPERATIONS // 8), None)


@pytest.mark.benchmark(group="e2e", timer=time.perf_counter)
@pytest.mark.parametrize("protocol", ["raft", "paxos", "quorum", "gossip"])
def bench_many_writes(aio_benchmark: Any, protocol: str) -> None:
    _measure(aio_benchmark, protocol, 64, OPERATIONS, f"e2e: {protocol}, 1 in flight")


def _measure(
    aio_benchmark: Any, protocol: str, in_flight: int, count: int, compared_with: str | None
) -> None:
    writes = [Operation("write", f"k{number % 100}", VALUE) for number in range(in_flight)]
    asked = [0]

    with live_cluster(protocol) as live:
        asker = Asker(live.cluster, live.cluster.nodes[0])
        aio_benchmark.wait(asker.__aenter__())
        try:

            async def run() -> None:
                for _ in range(count // in_flight):
                    replies = await asker.ask(writes)
                    assert {reply.outcome for reply in replies} == {"ok"}, replies[0]
                    asked[0] += in_flight

            aio_benchmark.extra_info.update(protocol=protocol, in_flight=in_flight, nodes=3)
            measure(
                aio_benchmark,
                f"e2e: {protocol}, {in_flight} in flight",
                run,
                operations=count // in_flight * in_flight,
                rounds=10,
                unit="operations/s",
                compared_with=compared_with,
            )
        finally:
            aio_benchmark.wait(asker.__aexit__(None, None, None))
    assert asked[0] >= count // in_flight * in_flight, "not all operations were awaited"
