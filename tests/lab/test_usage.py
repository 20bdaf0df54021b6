"""What the processes of a node use, on real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from chaos.clusters.lab.network import Count
from chaos.clusters.lab.usage import Usage
from tests.waiting import wait_for

BUSY = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
"""A process that does nothing but wait for its child, which does something."""


@pytest.fixture
def nodes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes of n1; the last one runs."""
    started = [subprocess.Popen([sys.executable, "-S", "-c", BUSY], process_group=0)]
    yield started
    end(started[-1])


def end(process: subprocess.Popen[bytes]) -> None:
    subprocess.run(["kill", "-9", "--", f"-{process.pid}"], check=False)
    process.wait()


def test_counts_go_on_when_a_node_is_started_again(nodes: list[subprocess.Popen[bytes]]) -> None:
    counts = {
        ("n1", "n2"): Count(1, 700),
        ("n2", "n1"): Count(1, 40, 2),
        ("n1", "load"): Count(1, 9),
    }
    usage = Usage(
        ["n1", "n2"], lambda node: [nodes[-1].pid] if node == "n1" else [], lambda: counts
    )
    wait_for(lambda: usage.counters("n1")["cpu_us"] >= 100_000, "100 ms of CPU time")
    said = usage.counters("n1")
    assert said["bytes_sent"] == 700
    assert said["memory_peak_kb"] > 5_000
    assert usage.counters("n2") == {
        "cpu_us": 0,
        "bytes_sent": 40,
        "packets_lost": 2,
        "memory_peak_kb": 0,
    }
    usage.synced("n1", 7)
    said = usage.counters("n1")
    assert said["log_commits"] == 7
    end(nodes[-1])
    assert usage.counters("n1") == said
    usage.starts("n1")
    usage.synced("n1", 2)
    assert usage.counters("n1")["log_commits"] == 9
    nodes.append(subprocess.Popen([sys.executable, "-S", "-c", BUSY], process_group=0))
    wait_for(lambda: usage.counters("n1")["cpu_us"] > said["cpu_us"], "more CPU time")


SHARING = """
import mmap, os, time
shared = mmap.mmap(-1, 64 << 20)
shared.write(bytes(64 << 20))
children = [os.fork() for _ in range(3)]
shared[:: mmap.PAGESIZE]
os.write(1, b"ready\\n")
time.sleep(300)
"""
"""Eight processes that have the same 64 MB in memory."""


def test_memory_that_processes_share_counts_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", SHARING], process_group=0, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            for _ in range(8):
                assert process.stdout.readline() == b"ready\n"
            usage = Usage(["n1"], lambda node: [process.pid], dict)
            said = usage.counters("n1")["memory_peak_kb"]
        finally:
            end(process)
    assert 64 << 10 < said < 160 << 10
