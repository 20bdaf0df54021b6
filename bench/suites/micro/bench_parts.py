"""The parts of replicas and of their driver."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench.measure.measuring import measure, scaled
from nodes.contract.disk import Append
from nodes.contract.replica import Operation, Request
from nodes.parts.failure_detector import CountingDetector, PhiDetector
from nodes.parts.quorum import Quorums
from nodes.parts.vector_clock import compare, increment, merge
from nodes.protocols.raft import AppendEntries, Entry, Raft
from nodes.runtime.durable_log import DurableLog
from nodes.wire.codec import Codec, WriteCodec

TIMES = scaled(2000, least=10)
NODES = tuple(f"n{i}" for i in range(1, 6))


def _request(number: int) -> Request:
    return Request(f"client-{number % 10}", number, Operation("write", f"key-{number}", "v" * 32))


def _frame(entries: int) -> list[AppendEntries]:
    log = tuple(Entry(3, _request(number)) for number in range(entries))
    return [AppendEntries(3, 17, 1000, 3, 990, log)]


@pytest.mark.benchmark(group="codec")
@pytest.mark.parametrize("entries", [1, 10, 100])
@pytest.mark.parametrize("way", ["encode", "decode"])
def bench_codec(benchmark: Any, way: str, entries: int) -> None:
    codec: Codec[Any] = Codec(Raft.MESSAGES)
    messages = _frame(entries)
    frame = codec.encode(messages)
    assert codec.decode(frame) == messages
    times = max(10, TIMES // entries)

    def run() -> None:
        if way == "encode":
            for _ in range(times):
                codec.encode(messages)
        else:
            for _ in range(times):
                codec.decode(frame)

    measure(
        benchmark,
        f"codec: {way} {entries} entries a frame",
        run,
        operations=times * entries,
        unit="entries/CPU s",
        compared_with=None if entries == 1 else f"codec: {way} 1 entries a frame",
    )


@pytest.mark.benchmark(group="durable log", timer=time.perf_counter)
@pytest.mark.parametrize("group", [1, 10, 100])
def bench_group_commit(benchmark: Any, group: int, tmp_path: Path) -> None:
    """Append a group of batches and make it durable with the disk's real fdatasync, in wall
    time."""
    log = DurableLog(tmp_path, WriteCodec(Raft.RECORDS))
    log.open()
    batches = [[Append(Entry(3, _request(number)))] for number in range(group)]
    commits = scaled(50)

    def run() -> None:
        for _ in range(commits):
            for batch in batches:
                log.append(batch)
            log.commit(log.take())

    measure(
        benchmark,
        f"durable log: groups of {group}",
        run,
        operations=commits * group,
        rounds=10,
        unit="appends/s",
        compared_with=None if group == 1 else "durable log: groups of 1",
    )
    log.close()


@pytest.mark.benchmark(group="vector clock")
@pytest.mark.parametrize("nodes", [3, 50])
def bench_vector_clock(benchmark: Any, nodes: int) -> None:
    """Increment, merge and compare."""
    mine = {f"n{i}": i + 1 for i in range(nodes)}
    other = {f"n{i}": nodes - i for i in range(nodes)}

    def run() -> None:
        for _ in range(TIMES):
            assert compare(merge(increment(mine, "n0"), other), other) == "after"

    measure(benchmark, f"vector clock: {nodes} nodes", run, operations=TIMES)


@pytest.mark.benchmark(group="quorum")
def bench_quorums(benchmark: Any) -> None:
    def run() -> None:
        for _ in range(TIMES):
            quorums = Quorums.of(5)
            assert quorums.meet
            assert quorums.tolerates == 2

    measure(benchmark, "quorum arithmetic", run, operations=TIMES)


@pytest.mark.benchmark(group="failure detector")
@pytest.mark.parametrize("kind", ["counting", "phi"])
def bench_failure_detector(benchmark: Any, kind: str) -> None:
    """A heartbeat from each of five nodes, then a check."""
    detector = (CountingDetector if kind == "counting" else PhiDetector)(NODES, 0.0)
    now = 0.0

    def run() -> None:
        nonlocal now
        for _ in range(TIMES):
            now += 1.0
            for node in NODES:
                detector.heartbeat(node, now)
            assert not detector.check(now)

    measure(
        benchmark,
        f"failure detector: {kind}",
        run,
        operations=TIMES * len(NODES),
        unit="heartbeats/CPU s",
        compared_with=None if kind == "counting" else "failure detector: counting",
    )
