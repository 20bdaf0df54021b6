"""The closed loop, against nodes that answer at once, lose or refuse."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.load.mqtt_client import MqttClient
from bench.measure.closed_loop import ClosedLoop, Measured, drive
from bench.record.cluster_file import ClusterFile, write_cluster_file
from tests.bench.conftest import ENVIRONMENT
from tests.waiting import patience

pytestmark = pytest.mark.live


def run(*options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.measure.closed_loop", *map(str, options)]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=patience(60)
    )


def test_each_client_has_one_operation_open_and_thinks(
    cluster: ClusterFile, echo: Callable[..., None]
) -> None:
    echo(cluster)
    load = ClosedLoop(clients=4, think_s=0.05, seconds=1.0, warm_up_s=0.2)
    measured = drive(cluster, load)
    # 4 clients that think for 50 ms cannot do more than 80 operations a second, however fast the
    # nodes are.
    assert 4 < measured.ok <= 84
    assert (measured.failed, measured.unanswered) == (0, 0)
    assert measured.latency_ms_p50 is not None
    assert measured.latency_ms_p99 is not None
    assert 0 < measured.latency_ms_p50 <= measured.latency_ms_p99


def test_what_is_lost_or_refused_is_counted_and_does_not_count_as_ok(
    cluster: ClusterFile, echo: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough that a busy machine answers what it does not lose.
    monkeypatch.setattr("bench.measure.closed_loop.TIMEOUT_S", 2.0)
    echo(cluster, "--lose", "10", "--fail", "7")
    measured = drive(cluster, ClosedLoop(clients=100, seconds=1.0, warm_up_s=0))
    asked = measured.ok + measured.failed + measured.unanswered
    assert measured.unanswered == pytest.approx(asked / 10, rel=0.25)
    assert measured.failed == pytest.approx(asked * 9 / 10 / 7, rel=0.25)
    assert measured.error == "told to"


def test_values_have_the_size_that_was_asked_for(
    cluster: ClusterFile, echo: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    publish = MqttClient.publish

    def spy(self: Any, node: str, requests: Any) -> bool:
        seen.extend(requests)
        return publish(self, node, requests)

    monkeypatch.setattr(MqttClient, "publish", spy)
    echo(cluster)
    load = ClosedLoop(clients=3, seconds=0.2, warm_up_s=0, value_bytes=500, keys=2, nodes=("n2",))
    drive(cluster, load)
    assert {len(request.operation.value) for request in seen} == {500}
    assert {request.operation.key for request in seen} == {"k0", "k1"}
    assert all(a.sequence < b.sequence for a, b in itertools.pairwise(seen))
    # Replicas may forget below ``acked``: never what is still open.
    assert all(0 <= request.sequence - request.acked < 3 * 2 for request in seen)


@pytest.mark.parametrize(("told", "asked"), [("n2", {"n2"}), ("n9", {"n1", "n2", "n3"})])
def test_the_leader_is_asked_if_it_is_a_node_of_the_cluster(
    cluster: ClusterFile,
    echo: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    told: str,
    asked: set[str],
) -> None:
    nodes: list[str] = []
    publish = MqttClient.publish

    def spy(self: Any, node: str, requests: Any) -> bool:
        nodes.append(node)
        return publish(self, node, requests)

    monkeypatch.setattr(MqttClient, "publish", spy)
    echo(cluster, "--leader", told)
    drive(cluster, ClosedLoop(clients=3, think_s=0.01, seconds=0.3, warm_up_s=0, ask="leader"))
    # The first three know nothing yet.
    assert set(nodes[:3]) == {"n1", "n2", "n3"}
    assert set(nodes[3:]) == asked


def test_the_command_prints_json(
    cluster: ClusterFile, echo: Callable[..., None], tmp_path: Path
) -> None:
    echo(cluster)
    path = tmp_path / "cluster.json"
    write_cluster_file(path, cluster)
    done = run("--cluster", path, "--clients", 2, "--seconds", 0.3, "--warm-up-s", 0)
    assert done.returncode == 0, done.stderr
    measured = msgspec.json.decode(done.stdout, type=Measured)
    assert measured.load.clients == 2
    assert measured.ok > 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--clients", "0"], 2, "at least 1"),
        (["--seconds", "0"], 2, "above 0"),
        (["--nodes", "n9"], 2, "no node n9: the cluster has n1, n2, n3"),
    ],
)
def test_bad_input_is_one_line(
    cluster: ClusterFile, tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    path = tmp_path / "cluster.json"
    write_cluster_file(path, cluster)
    done = run("--cluster", path, *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_cluster_is_said_in_one_line(
    cluster: ClusterFile, tmp_path: Path, new_port: Callable[[], int]
) -> None:
    assert "capbench up" in run("--cluster", tmp_path / "none.json").stderr
    address = msgspec.structs.replace(cluster.broker, port=new_port())
    gone = msgspec.structs.replace(
        cluster, broker=address, request_links=dict.fromkeys(cluster.nodes, address)
    )
    path = tmp_path / "cluster.json"
    write_cluster_file(path, gone)
    done = run("--cluster", path)
    assert done.returncode == 3
    assert "cannot reach the broker" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_a_dead_cluster_leaves_open_is_unanswered(
    cluster: ClusterFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.measure.closed_loop.TIMEOUT_S", 0.5)
    measured = drive(cluster, ClosedLoop(clients=7, seconds=0.2, warm_up_s=0.05))
    assert (measured.ok, measured.failed, measured.unanswered) == (0, 0, 7)


def test_one_per_publish_sends_each_request_alone(
    cluster: ClusterFile, echo: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    publish = MqttClient.publish

    def spy(self: Any, node: str, requests: Any) -> bool:
        sizes.append(len(requests))
        return publish(self, node, requests)

    monkeypatch.setattr(MqttClient, "publish", spy)
    echo(cluster)
    load = ClosedLoop(clients=30, seconds=0.2, warm_up_s=0)
    assert drive(cluster, load).ok > 0
    assert max(sizes) > 1
    sizes.clear()
    assert drive(cluster, msgspec.structs.replace(load, one_per_publish=True)).ok > 0
    assert set(sizes) == {1}
