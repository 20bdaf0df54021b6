"""Raft's duties of a long life: a node that was away for long, bounded disks, administration."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from bench.load.mqtt_client import MqttClient
from bench.record.run_folder import NodeRecord
from chaos.clusters.local import LocalCluster
from chaos.targets.up import write_down
from nodes import registry
from nodes.contract.replica import Operation, Reply, Request
from nodes.runtime import own_folder
from nodes.wire.codec import MAX_FRAME_BYTES
from tests.live.conftest import capbench, next_statuses
from tests.waiting import patience

pytestmark = pytest.mark.live

ENTRIES = int(os.environ.get("CAPBENCH_CATCH_UP_ENTRIES", "100000"))
"""Entries that a node misses. They take the longer part of this file's time."""

NODES = ("n1", "n2", "n3")
KEYS, VALUE_CHARACTERS = 10_000, 480
SNAPSHOT_ENTRIES, SNAPSHOT_TAIL = 8_000, 1_000
ENTRY_BYTES = VALUE_CHARACTERS + 60
REQUESTS_PER_FRAME, IN_FLIGHT = 250, 2_000

# The rewriting of a log, as nodes/runtime/durable_log.py promises it: at four times its content, at
# 16 MiB at least. A step takes what has arrived, so a snapshot, and the cut behind it, come up to
# what is in flight later. Half of the content may be committed meanwhile, to both files.
CONTENT_BYTES = (KEYS + SNAPSHOT_ENTRIES + SNAPSHOT_TAIL + 2 * IN_FLIGHT) * ENTRY_BYTES
REWRITE_BYTES = max(16 << 20, 4 * CONTENT_BYTES)
DISK_BYTES = REWRITE_BYTES + (0.5 + 1.5) * CONTENT_BYTES


class Client:
    """Keeps many requests in flight to one node."""

    def __init__(self, cluster: LocalCluster, name: str) -> None:
        self.name = name
        self.replies: dict[int, Reply] = {}
        self._open: dict[int, None] = {}
        self._next = 0
        self._client = MqttClient(cluster.cluster_file, name, self._on_reply)
        self._client.connect()

    def _on_reply(self, reply: Reply) -> None:
        self.replies[reply.sequence] = reply
        self._open.pop(reply.sequence, None)

    def send(self, node: str, operations: list[Operation]) -> None:
        """One frame of requests."""
        acked = next(iter(self._open), self._next)
        requests = []
        for operation in operations:
            requests.append(Request(self.name, self._next, operation, acked))
            self._open[self._next] = None
            self._next += 1
        assert self._client.publish(node, requests)

    def wait(self, most_open: int = 0, timeout_s: float = 30) -> None:
        """Until at most so many requests are open."""
        deadline = time.monotonic() + patience(timeout_s)
        while len(self._open) > most_open:
            assert time.monotonic() < deadline, f"{len(self._open)} requests without a reply"
            self._client.poll(0.05)

    def outcomes(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for reply in self.replies.values():
            counts[reply.outcome] = counts.get(reply.outcome, 0) + 1
        return counts

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def events() -> list[NodeRecord]:
    return []


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, events: list[NodeRecord]
) -> Iterator[LocalCluster]:
    """Three nodes for all tests of this file: they take a while to start."""

    def record(told: NodeRecord) -> None:
        if told.kind == "event":
            events.append(told)

    with LocalCluster(
        registry.get("raft"),
        NODES,
        tmp_path_factory.mktemp("raft"),
        cluster=f"raft-{os.getpid()}",
        parameters={
            "snapshot_entries": SNAPSHOT_ENTRIES,
            "snapshot_tail": SNAPSHOT_TAIL,
            "snapshot_chunk_bytes": 256 << 10,
        },
        record=record,
    ) as running:
        yield running


@pytest.fixture
def desk(cluster: LocalCluster, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Type a ``capbench`` command where this cluster runs: (exit code, what it says)."""
    folder = tmp_path / ".capbench" / cluster.cluster_file.cluster
    own_folder.make(folder)
    write_down(cluster.cluster_file, None, folder)

    def type_in(*arguments: str) -> tuple[int, str]:
        done = capbench(*arguments, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    return type_in


def probe(cluster: LocalCluster, node: str) -> dict[str, Any]:
    status = cluster.monitor.statuses().get(node)
    return {} if status is None else status.probe


def wait_for(cluster: LocalCluster, condition: Callable[[], bool], what: str) -> None:
    assert cluster.monitor.wait(condition, patience(30)), f"waited in vain for {what}"


def disk_bytes(cluster: LocalCluster, node: str) -> int:
    total = 0
    for path in cluster.data_path(node).iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # a log that has just been replaced
            continue
    return total


def memory_bytes(cluster: LocalCluster, node: str) -> int:
    """Of the node's process."""
    settings = f"/{node}/settings.json"
    (process,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(part.endswith(settings) for part in process.info["cmdline"] or [])
        and str(cluster.data_path(node).parent) in " ".join(process.info["cmdline"])
    ]
    resident: int = process.memory_info().rss
    return resident


def test_a_node_that_was_away_for_long_catches_up_by_snapshot_and_disks_stay_bounded(
    cluster: LocalCluster, events: list[NodeRecord]
) -> None:
    assert KEYS * VALUE_CHARACTERS > MAX_FRAME_BYTES, "a snapshot that no frame could carry"
    leader = cluster.leader()
    assert leader is not None
    away = next(node for node in NODES if node != leader)
    staying = [node for node in NODES if node != away]
    cluster.crash(away)
    client = Client(cluster, "writer")
    filler = "x" * (VALUE_CHARACTERS - 12)
    most = dict.fromkeys(staying, 0)
    memory: dict[str, list[int]] = {node: [] for node in staying}
    began = time.monotonic()
    for first in range(0, ENTRIES, REQUESTS_PER_FRAME):
        numbers = range(first, first + REQUESTS_PER_FRAME)
        client.send(
            leader, [Operation("write", f"k{i % KEYS}", f"{i:012}{filler}") for i in numbers]
        )
        client.wait(IN_FLIGHT)
        for node in staying:
            most[node] = max(most[node], disk_bytes(cluster, node))
            if first % (40 * REQUESTS_PER_FRAME) == 0:
                memory[node].append(memory_bytes(cluster, node))
    client.wait()
    client.close()
    took_s = time.monotonic() - began
    assert client.outcomes() == {"ok": len(client.replies)}
    assert len(client.replies) >= ENTRIES
    print(f"\n{len(client.replies)} writes in {took_s:.1f} s")

    statuses = next_statuses(cluster)
    for node in staying:
        written = statuses[node].counters["log_bytes_written"]
        print(
            f"{node}: wrote {written >> 20} MiB, disk at most {most[node] >> 20} MiB (a log is "
            f"rewritten at {REWRITE_BYTES >> 20} MiB at the latest), resident MiB: "
            f"{[size >> 20 for size in memory[node]]}"
        )
        assert most[node] <= DISK_BYTES
        assert written > 2 * most[node] or ENTRIES < 100_000

    behind = probe(cluster, leader)["commit"] - ENTRIES
    events.clear()
    began = time.monotonic()
    cluster.restart(away)
    wait_for(
        cluster,
        lambda: probe(cluster, away).get("applied", 0) >= probe(cluster, leader)["applied"],
        f"{away} to catch up",
    )
    print(f"{away} caught up in {time.monotonic() - began:.1f} s")
    installed = [e for e in events if (e.node, e.name) == (away, "install_snapshot")]
    assert installed, "it was too far behind for entries alone"
    oldest = behind + ENTRIES - (SNAPSHOT_ENTRIES + IN_FLIGHT) - (SNAPSHOT_TAIL + IN_FLIGHT) - 1
    assert installed[-1].details["index"] > oldest
    assert cluster.monitor.converged(NODES, 10) is True
    assert disk_bytes(cluster, away) <= DISK_BYTES
    assert refused(cluster) == {}


def refused(cluster: LocalCluster) -> dict[str, int]:
    """What a node did not take or could not send."""
    return {
        f"{node} {name}": count
        for node, status in cluster.monitor.statuses().items()
        for name, count in status.counters.items()
        if count and (name.startswith("bad_") or name == "too_large_to_send")
    }


def test_many_large_values_at_once_are_split_into_frames(cluster: LocalCluster) -> None:
    leader = cluster.leader()
    assert leader is not None
    follower = next(node for node in NODES if node != leader)
    client = Client(cluster, "large")
    values = [str(i) * 1_000_000 for i in range(8)]
    for i, value in enumerate(values):
        client.send(follower, [Operation("write", f"large{i}", value)])
    client.wait()
    assert client.outcomes() == {"ok": 8}
    # All in one request frame, so that all answers are there at once, at the leader and here.
    for node in (follower, leader):
        client.replies.clear()
        client.send(node, [Operation("read", f"large{i}") for i in range(8)])
        client.wait()
        assert [reply.value for _, reply in sorted(client.replies.items())] == values
    client.send(leader, [Operation("delete", f"large{i}") for i in range(8)])
    client.wait()
    client.close()
    assert refused(cluster) == {}


def test_leadership_goes_where_it_is_asked_to(
    cluster: LocalCluster, desk: Callable[..., tuple[int, str]]
) -> None:
    for node in ("n2", "n3", "n1"):
        before = cluster.leader()
        code, said = desk("transfer-leadership", node)
        assert code == 0, said
        assert cluster.leader() == node
        assert said == (
            f"{node} leads already\n" if before == node else f"{node} leads, {before} did before\n"
        )
    code, said = desk("transfer-leadership", "n9")
    assert code == 2
    assert "n9 is not a node" in said


def test_members_are_removed_and_added_again(
    cluster: LocalCluster, desk: Callable[..., tuple[int, str]]
) -> None:
    assert desk("transfer-leadership", "n1")[0] == 0
    assert desk("members", "remove", "n3") == (0, "members: n1,n2\n")
    assert desk("members", "remove", "n3") == (0, "n3 is no member already\n")
    code, said = desk("transfer-leadership", "n3")
    assert (code, "leadership cannot go to n3 now" in said) == (1, True)
    # Two of two are a majority now, and one is none.
    cluster.crash("n2")
    client = Client(cluster, "minority")
    client.send("n1", [Operation("write", "minority", 1)])
    client.wait()
    assert client.outcomes() == {"info": 1}
    client.close()
    cluster.restart("n2")
    wait_for(cluster, lambda: cluster.monitor.leader() in ("n1", "n2"), "a leader")
    wait_for(cluster, lambda: bool(probe(cluster, "n2").get("ready")), "n2 to serve")
    code, said = desk("members", "add", "n3")
    assert (code, said) == (0, "members: n1,n2,n3\n")
    wait_for(
        cluster,
        lambda: {probe(cluster, node).get("members") for node in NODES} == {"n1,n2,n3"},
        "all to know",
    )
    assert cluster.monitor.converged(NODES, 10) is True
    code, said = desk("members", "add", "n4")
    assert code == 2
    assert "n4 is not a node" in said
    assert desk("members", "explode", "n3")[0] == 2


def test_status_shows_what_raft_says_of_itself(
    cluster: LocalCluster, desk: Callable[..., tuple[int, str]]
) -> None:
    code, table = desk("status")
    assert code == 0
    head, *rows = [line.split() for line in table.splitlines()[1:]]
    assert head[:4] == ["node", "role", "leader", "term"]
    assert {"commit", "applied", "members"} <= set(head)
    assert [row[0] for row in rows] == list(NODES)
    assert sorted(row[1] for row in rows) == ["follower", "follower", "leader"]
    for row in rows:
        cells = dict(zip(head, row, strict=False))
        assert cells["members"] == "n1,n2,n3"
        assert int(cells["commit"]) >= int(cells["applied"]) > 0


def test_administration_that_is_none_is_counted(cluster: LocalCluster) -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"type": "Explode"},
        {"type": "TransferLeadership"},
        {"type": "TransferLeadership", "target": 1},
        {"type": "TransferLeadership", "target": "n2", "more": 1},
        {"type": "ChangeMembership", "change": "explode", "node": "n2"},
        {"type": ["TransferLeadership"], "target": "n2"},
    ]
    leader = cluster.leader()
    for message in wrong:
        cluster.monitor.administer("n1", message)

    def counted() -> int:
        return cluster.monitor.statuses()["n1"].counters.get("bad_control", 0)

    wait_for(cluster, lambda: counted() == len(wrong), "all of them to be counted")
    assert cluster.leader() == leader
    assert msgspec.json.encode(probe(cluster, "n1"))
