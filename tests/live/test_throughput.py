"""What the benchmarks of live protocols start, measure and stop. No figure is judged here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.measure import throughput
from bench.measure.closed_loop import ClosedLoop, drive
from bench.measure.figures import with_ratios
from bench.measure.live import LoadFailed, NoCluster, live_cluster
from chaos.clusters.local import LocalCluster
from nodes import registry
from tests.live.conftest import ROOT, capbench, leftovers, next_statuses
from tests.waiting import patience

pytestmark = pytest.mark.live


@pytest.mark.parametrize("coalesce", [True, False])
def test_without_coalescing_each_message_is_a_publish(tmp_path: Path, coalesce: bool) -> None:
    nodes = registry.node_ids(3)
    with LocalCluster(
        registry.get("quorum"), nodes, tmp_path, cluster="t", proxied=False, coalesce=coalesce
    ) as cluster:
        assert not cluster.processes.running("toxiproxy")
        assert set(cluster.cluster_file.request_links.values()) == {cluster.broker}
        load = ClosedLoop(clients=32, seconds=0.5, warm_up_s=0.1, one_per_publish=not coalesce)
        measured = drive(cluster.cluster_file, load)
        assert measured.ok > 0
        assert (measured.failed, measured.unanswered) == (0, 0)
        counters = [status.counters for status in next_statuses(cluster).values()]
        cluster.check()
    messages = sum(each["messages_sent"] for each in counters)
    frames = sum(each["frames_sent"] for each in counters)
    # Frames are those of replies, too.
    if coalesce:
        assert frames < messages
    else:
        assert frames >= messages + measured.ok
    assert leftovers(tmp_path) == []


def test_rows_compare_and_set_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "SHARE_OF_CEILING", {"raft": 1.0, "gossip": 2.0})
    monkeypatch.setattr(throughput, "ROUNDS", 1)
    monkeypatch.setattr(throughput, "SCALE", 0.01)
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in with_ratios(throughput.rows())}
    ceiling = rows["broker: messages / 6"]["value"]
    assert ceiling == pytest.approx(rows["broker: messages"]["value"] / 6)
    for protocol, share in (("raft", 1.0), ("gossip", 2.0)):
        name = f"live: {protocol}, 128 in flight"
        alone = rows[f"{name}, one message per PUBLISH"]["value"]
        assert rows[name]["compared_with"] == f"{name}, one message per PUBLISH"
        assert rows[name]["ratio"] == pytest.approx(rows[name]["value"] / alone)
        goal = pytest.approx(10 * alone) if protocol == "raft" else None
        assert rows[name]["goal"] == goal
        against = rows[f"{name}, of the broker's ceiling"]
        assert against["goal"] == pytest.approx(share * ceiling)
        assert against["ratio"] == pytest.approx(rows[name]["value"] / ceiling)
        one = rows[f"live: {protocol}, 1 in flight, p50"]
        assert one["goal"] == rows[one["compared_with"]]["value"] > 0


def test_a_cluster_that_does_not_answer_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "SCALE", 0.01)
    monkeypatch.setattr("bench.measure.closed_loop.TIMEOUT_S", 0.5)
    with live_cluster("raft") as live:
        for name, process in live.processes.items():
            if name in ("n1", "n2"):
                process.suspend()
        with pytest.raises(LoadFailed, match="without a fault"):
            throughput._measure(live, 4)
        for name, process in live.processes.items():
            if name in ("n1", "n2"):
                process.resume()


def test_a_cluster_that_cannot_be_says_why() -> None:
    with (
        pytest.raises(NoCluster, match="no_such_knob"),
        live_cluster("raft", parameters={"no_such_knob": 1}),
    ):
        pass


def test_the_cluster_ends_with_whoever_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next command removes its folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = (
        "import time; from bench.measure.live import live_cluster\n"
        "with live_cluster('gossip') as live:\n"
        "    print(*(p.pid for p in live.processes.values()), flush=True)\n"
        "    time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert holder.stdout is not None
    processes = [psutil.Process(int(pid)) for pid in holder.stdout.readline().split()]
    names = {each.name() for each in processes}
    assert "mosquitto" in names
    assert len(processes) >= 4
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    _, alive = psutil.wait_procs(processes, timeout=patience(20))
    assert not alive
    assert list(tmp_path.glob("capbench-tmp-*"))
    assert capbench("list", cwd=tmp_path).returncode == 0
    assert not list(tmp_path.glob("capbench-tmp-*"))


def test_drive_counts_one_node_alone() -> None:
    with live_cluster("gossip", nodes=1) as live:
        measured = drive(live.cluster, ClosedLoop(clients=2, seconds=0.3, warm_up_s=0.1))
        assert measured.ok > 0
        assert live.cpu_s()["n1"] > 0
