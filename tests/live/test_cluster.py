"""A cluster that stays: any MQTT client can use it, and nobody can crash it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.record.cluster_file import ClusterFile, read_cluster_file
from bench.record.run_folder import RunFolder
from chaos.clusters.local import LocalCluster
from chaos.errors import TargetFailed
from chaos.targets import up as keeper_room
from nodes import registry
from nodes.protocols.raft import Raft
from nodes.wire.codec import Codec
from nodes.wire.topics import Topics
from tests.live.conftest import ROOT, capbench, leftovers, run_json
from tests.processes import begun
from tests.protocols import fuzz
from tests.waiting import patience, wait_for

pytestmark = pytest.mark.live


def up(workspace: Path, protocol: str = "raft", nodes: int = 3) -> ClusterFile:
    done = capbench("up", "--protocol", protocol, "--nodes", str(nodes), cwd=workspace)
    assert done.returncode == 0, done.stderr
    return read_cluster_file(workspace / ".capbench" / "demo" / "cluster.json")


def status(workspace: Path) -> dict[str, Any]:
    code, told = run_json("status", cwd=workspace)
    assert code == 0
    nodes: dict[str, Any] = told["nodes"]
    return nodes


def ask(cluster: ClusterFile, node: str, body: str) -> dict[str, Any]:
    """A request by Mosquitto's own client, which knows nothing of us."""
    tool = shutil.which("mosquitto_rr")
    if tool is None:
        pytest.skip("mosquitto_rr is not installed (Debian: mosquitto-clients)")
    done = subprocess.run(
        [
            *(tool, "-h", cluster.broker.host, "-p", str(cluster.broker.port), "-V", "5"),
            *("-t", f"capbench/{cluster.cluster}/req/{node}", "-e", "reply/me", "-m", body),
            *("-W", "10"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    return answer


def test_mosquitto_rr_is_a_client(workspace: Path) -> None:
    cluster = up(workspace)
    written = ask(cluster, "n1", '{"op":"write","key":"k","value":1}')
    assert written["outcome"] == "ok"
    for node in cluster.nodes:
        assert ask(cluster, node, '{"op":"read","key":"k"}')["value"] == 1
    swapped = ask(cluster, "n2", '{"op":"cas","key":"k","value":"two","expected":1}')
    assert (swapped["outcome"], swapped["applied"]) == ("ok", True)
    refused = ask(cluster, "n3", '{"op":"cas","key":"k","value":3,"expected":1}')
    assert (refused["applied"], refused["seen"]) == (False, "two")
    for bad, says in [
        ('{"op":"write","key":', "not a request"),
        ('{"op":"explode","key":"k"}', "unknown operation"),
        ("hello", "not a request"),
        (f'{{"op":"write","key":"k","value":1{"0" * 30}}}', "an integer of more than 64 bits"),
        ('{"op":"write","key":"k","value":2,"context":{"n9":18446744073709551616}}', "64 bits"),
    ]:
        answer = ask(cluster, "n1", bad)
        assert answer["outcome"] == "fail"
        assert says in answer["error"]
    assert ask(cluster, "n1", '{"op":"read","key":"k"}')["value"] == "two"


def test_a_request_that_is_sent_twice_is_applied_once(workspace: Path) -> None:
    cluster = up(workspace)
    first = '{"op":"cas","key":"k","value":1,"expected":null,"client":"me","sequence":1}'
    assert ask(cluster, "n1", first)["applied"] is True
    again = ask(cluster, "n2", first)
    assert again["applied"] is True, "the answer of the first time, not a refused second try"


def test_malformed_payloads_are_counted_and_the_cluster_goes_on(workspace: Path) -> None:
    cluster = up(workspace)
    topics = Topics(cluster.cluster)
    noise = random.Random(11)
    frame = Codec(Raft.MESSAGES).encode([])
    payloads = [noise.randbytes(noise.randrange(200)) for _ in range(40)]
    payloads += [b"\2" + noise.randbytes(noise.randrange(200)) for _ in range(30)]
    payloads += [frame[:length] for length in range(len(frame))]
    payloads += [bytes([version]) + frame[1:] for version in range(3, 20)]
    payloads += [b"x" * 10_000_000]
    payloads += [Codec[int]([int]).encode([1])] * (100 - len(payloads) % 100)
    assert len(payloads) >= 100
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect(cluster.broker.host, cluster.broker.port)
    client.loop_start()
    for payload in payloads:
        client.publish(topics.link("n2", "n1"), payload, qos=1).wait_for_publish(10)
    stranger = topics.link("n9", "n1")
    client.publish(stranger, frame, qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()

    def refused() -> dict[str, int]:
        counters = status(workspace)["n1"]["counters"]
        return {name: count for name, count in counters.items() if name.startswith("bad_frame")}

    wait_for(lambda: sum(refused().values()) == len(payloads) + 1, "every payload to be counted")
    kinds = refused()
    assert kinds["bad_frame_too-large"] == 1
    assert kinds["bad_frame_sender"] == 1
    assert {"bad_frame_version", "bad_frame_checksum", "bad_frame_malformed"} <= set(kinds)
    log = (workspace / ".capbench" / "demo" / "n1.log").read_text()
    assert log.count('"refused"') == len(kinds), "each kind is logged once"
    assert ask(cluster, "n1", '{"op":"write","key":"after","value":1}')["outcome"] == "ok"


class OnTheBroker:
    """A `fuzz.Target`: whoever may publish at the broker of a cluster. ``frames``: those that the
    nodes send each other."""

    def __init__(self, cluster: ClusterFile) -> None:
        self.frames: deque[tuple[str, str, bytes]] = deque(maxlen=200)
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_message = self._on_message
        self.client.max_queued_messages_set(0)
        self.client.connect(cluster.broker.host, cluster.broker.port)
        self.client.loop_start()
        self.client.subscribe(Topics(cluster.cluster).link("+", "+"))

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        _, _, _, src, dst = message.topic.split("/")
        self.frames.append((src, dst, bytes(message.payload)))

    def deliver(self, dst: str, letter: fuzz.Letter) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if letter.response_topic and not set("+#") & set(letter.response_topic):
            properties.ResponseTopic = letter.response_topic
        self.client.publish(letter.topic, letter.payload, qos=1, properties=properties)

    def publish(self, topic: str, body: str, reply_to: str, *, retain: bool = False) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = reply_to
        told = self.client.publish(topic, body, 1, retain, properties)
        told.wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_whoever_may_publish_ends_no_node(workspace: Path) -> None:
    """What is retained, what asks for its answer where nodes speak, and 1,500 absurd frames."""
    cluster = up(workspace)
    topics, outside = Topics(cluster.cluster), OnTheBroker(cluster)

    def counted(node: str, name: str) -> int:
        return int(status(workspace)[node]["counters"].get(name, 0))

    # A request is applied when it is published, and not again when the node comes back.
    retained = '{"op":"write","key":"k","value":"RETAINED"}'
    outside.publish(topics.request("n2"), retained, "reply/x", retain=True)
    wait_for(lambda: ask(cluster, "n1", READ)["value"] == "RETAINED", "the request itself")
    assert ask(cluster, "n1", '{"op":"write","key":"k","value":2}')["outcome"] == "ok"
    connects = counted("n2", "link_connects")
    done = capbench("inject", "broker-disconnect", "nodes=[n2]", "--for", "300ms", cwd=workspace)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: counted("n2", "link_connects") > connects, "n2 to connect again")
    wait_for(lambda: counted("n2", "links_down") == 0, "all of its links")
    assert ask(cluster, "n2", READ)["value"] == 2
    outside.publish(topics.request("n2"), "", "reply/x", retain=True)

    # No node speaks to another one on behalf of a client.
    outside.frames.clear()
    spoken = '{"op":"read","key":"k","client":"TimeoutNow","sequence":1}'
    for src, dst in (("n1", "n2"), ("n1", "n3"), ("n2", "n3")):
        outside.publish(topics.request(src), spoken, topics.link(src, dst))
    wait_for(lambda: counted("n1", "bad_response_topic") == 2, "the requests to be refused")
    assert not any(
        b"TimeoutNow" in frame or b'"outcome"' in frame for _, _, frame in outside.frames
    )

    fuzzer = fuzz.Fuzzer(outside, Raft.MESSAGES, 5, topics)
    fuzzer.administers = False
    for number in range(1500):
        fuzzer.send()
        if number % 100 == 0:
            time.sleep(0.02)
    wait_for(lambda: counted("n3", "bad_frame_malformed") > 50, "the frames to arrive")
    wait_for(lambda: serves(cluster), "the cluster to serve", timeout_s=60)
    outside.close()
    nodes = status(workspace)
    assert [node for node, record in nodes.items() if record is None] == []


READ = '{"op":"read","key":"k"}'


def serves(cluster: ClusterFile) -> bool:
    """Whether each node takes a write now, and tells it."""
    write = '{"op":"write","key":"k","value":7}'
    return all(
        ask(cluster, node, write).get("outcome") == "ok" and ask(cluster, node, READ)["value"] == 7
        for node in cluster.nodes
    )


def test_locust_runs_on_its_own_against_a_cluster(workspace: Path) -> None:
    up(workspace, "gossip")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", str(ROOT / "bench" / "load" / "locustfile.py")),
            *("--headless", "-u", "1", "-t", "4s", "--rate", "100", "--run-folder", "out"),
        ],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    operations = RunFolder(workspace / "out").operations()
    assert len(operations) > 200
    assert {operation.outcome for operation in operations} == {"ok"}


def test_a_node_killed_by_hand_is_shown_as_silent(workspace: Path) -> None:
    cluster = up(workspace, "raft", 3)
    assert set(status(workspace)) == {"n1", "n2", "n3"}
    (victim,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(workspace / ".capbench" / "demo" / "n3" / "settings.json")
        in (process.info["cmdline"] or [])
    ]
    victim.kill()
    wait_for(lambda: status(workspace)["n3"] is None, "the status to notice")
    answer = ask(cluster, "n1", '{"op":"write","key":"k","value":1}')
    assert answer["outcome"] == "ok", "two of three nodes are a majority"


def test_up_twice_is_refused_and_down_stops_everything(workspace: Path) -> None:
    up(workspace)
    again = capbench("up", cwd=workspace)
    assert again.returncode == 3
    assert "running already" in again.stderr
    assert leftovers(workspace) != []
    assert capbench("down", cwd=workspace).returncode == 0
    assert leftovers(workspace) == []
    gone = capbench("status", cwd=workspace)
    assert gone.returncode == 3
    assert "capbench up" in gone.stderr


def test_nothing_outlives_a_runner_that_is_killed(workspace: Path) -> None:
    runner = start_run(workspace)
    wait_for(lambda: len(leftovers(workspace)) >= 6, "the cluster to start")
    runner.kill()
    runner.communicate()
    wait_for(lambda: leftovers(workspace) == [], "everything to be gone")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_heals_and_keeps_what_it_has(
    workspace: Path, number: signal.Signals
) -> None:
    runner = start_run(workspace)
    folders = workspace / "out"
    wait_for(lambda: any(folders.glob("*/faults.jsonl")), "the fault to be applied", 40)
    runner.send_signal(number)
    _, errors = runner.communicate(timeout=patience(40))
    assert leftovers(workspace) == []
    assert "Traceback" not in errors
    assert runner.returncode == 128 + number
    assert errors.count("; what was recorded so far is kept in ") == 1
    (path,) = folders.iterdir()
    folder = RunFolder(path)
    (fault,) = folder.faults()
    assert fault.healed_ns is not None
    assert folder.manifest().complete is False
    assert len(folder.operations()) > 100


def start_run(workspace: Path) -> subprocess.Popen[str]:
    command = "run leader-partition --protocol raft --nodes 3 --out"
    return begun(*command.split(), workspace / "out", cwd=workspace)


def test_only_a_port_that_was_asked_for_must_be_the_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """MQTT's own port looked free, and then somebody else took it."""
    with socket.socket() as other, contextlib.ExitStack() as stack:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr(keeper_room, "default_port", lambda: taken)

        def cluster_at(port: int | None) -> LocalCluster:
            return LocalCluster(
                registry.get("raft"), ("n1",), tmp_path, cluster="port", broker_port=port
            )

        with pytest.raises(TargetFailed, match=f"port {taken} on 127.0.0.1 is taken"):
            keeper_room.start_cluster(cluster_at, taken, stack)
        cluster = keeper_room.start_cluster(cluster_at, None, stack)
        assert cluster.broker.port != taken
        assert cluster.monitor.ready()
