"""The runner's ear, on a real broker: whoever speaks on a node's topic speaks for that node only,
and nothing that is said there makes the runner deaf."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from bench.record.cluster_file import Address, ClusterFile
from bench.record.run_folder import NodeRecord
from chaos.clusters.broker import broker_command
from chaos.clusters.monitor import Monitor
from chaos.clusters.processes import ProcessGroup, free_ports
from chaos.targets.on_cluster import _left_out
from nodes.wire.topics import Topics
from tests.chaos.conftest import TIMEOUT_S, listens
from tests.waiting import wait_for

TOPICS = Topics("demo")


class Wire:
    """A broker, the runner's monitor and somebody who publishes."""

    def __init__(self, broker: Address) -> None:
        cluster = ClusterFile(
            cluster="demo",
            protocol="raft",
            nodes=["n1", "n2"],
            operations=["read"],
            broker=broker,
            group="clients",
            request_links={},
        )
        self.recorded: list[NodeRecord] = []
        self.monitor = Monitor(cluster, self.recorded.append)
        self._sender = paho.Client(CallbackAPIVersion.VERSION2)
        self._sender.connect(broker.host, broker.port)
        self._sender.loop_start()

    def say(self, topic: str, payload: bytes) -> None:
        self._sender.publish(topic, payload, qos=1).wait_for_publish(TIMEOUT_S)

    def tell(self, node: str, **fields: Any) -> None:
        self.say(TOPICS.status(node), message(node, **fields))

    def close(self) -> None:
        self._sender.disconnect()
        self._sender.loop_stop()


def message(node: str, **fields: Any) -> bytes:
    told = {"t_ns": 2**61, "node": node, "kind": "status", "probe": {"ready": True}}
    return msgspec.json.encode({**told, **fields})


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    directory = tmp_path_factory.mktemp("broker")
    (port,) = free_ports(1)
    address = Address("127.0.0.1", port)
    with ProcessGroup() as processes:
        command = broker_command(directory, port).argv
        processes.spawn("broker", command, stdout_path=directory / "broker.log")
        wait_for(lambda: listens(address), "the broker")
        yield address


@pytest.fixture
def wire(broker: Address) -> Iterator[Wire]:
    wire = Wire(broker)
    with wire.monitor:
        yield wire
    wire.close()


DEEP = b"[" * 200_000
HOSTILE = [
    b"",
    b"\xff\xfe",
    b"null",
    DEEP,
    b'{"t_ns": 1, "node": "n1", "kind": "event", "name": "x", "details": {"a": ' + DEEP,
    message("n1", kind="digest", details=[]),
    message("n1", kind="digest", details={"digests": [["a", "b"]]}),
    message("n1", kind="digest", details={"digests": {"a": ["b"]}}),
    message("n1", kind="digest"),
    message("n1", kind=["status"]),
    message("n1", kind="event"),
    message("n1", kind="event", name={"a": 1}),
    message("n1", kind="event", name="injected", details=[]),
    message("n1", t_ns="now"),
    message("n1", probe=[]),
    message("n1", probe={}),
    message("n1", probe={"ready": True, "role": "leader", "term": "9"}),
    message("n1", probe={"ready": True, "leader": ["n1"]}),
    message("n1", probe={"ready": True, "other": {"a": 1}}),
    message("n1", counters={"links_down": []}),
    message("n1", probe={"ready": True, "role": "x" * 300}),
    message("n1", probe={"ready": True, **{f"k{i}": "x" * 10_000 for i in range(101)}}),
    message("n1").replace(b"2305843009213693952", b"9" * 400),
    message("n2"),
    message("n9"),
    message("n1/../n2"),
]


def test_nothing_that_is_said_makes_the_runner_deaf(wire: Wire) -> None:
    wire.tell("n2")
    for payload in HOSTILE:
        wire.say(TOPICS.status("n1"), payload)
    wire.say(TOPICS.status("n9"), message("n9"))
    wire.say(TOPICS.status("n1") + "x", message("n1"))
    wire.tell("n2", t_ns=2**61 + 1, probe={"ready": True, "term": 7})
    assert wire.monitor.wait(
        lambda: "n2" in (s := wire.monitor.statuses()) and s["n2"].probe.get("term") == 7,
        TIMEOUT_S,
    ), "the runner is deaf"
    assert wire.monitor.refused == len(HOSTILE) + 2
    assert set(wire.monitor.statuses()) == {"n2"}
    assert [record.node for record in wire.recorded] == ["n2"]
    assert wire.monitor.leader() is None
    assert not wire.monitor.ready()


def test_a_node_cannot_speak_as_another(wire: Wire) -> None:
    wire.tell("n2", probe={"ready": True, "role": "leader", "term": 1})
    lie = {"ready": True, "role": "leader", "term": 9}
    wire.say(TOPICS.status("n1"), message("n2", t_ns=2**61 + 9, probe=lie))
    wire.say(TOPICS.status("n1"), message("n2", kind="event", name="injected"))
    assert wire.monitor.wait(lambda: wire.monitor.refused == 2, TIMEOUT_S)
    assert wire.monitor.statuses()["n2"].probe["term"] == 1
    assert all(record.kind == "status" for record in wire.recorded)


def test_what_nodes_do_tell_is_heard(wire: Wire) -> None:
    wire.tell("n1", probe={"ready": True, "leader": "n1", "role": "leader", "term": 3, "x": 0.5})
    wire.tell("n2", probe={"ready": True, "leader": "n1", "role": "follower", "term": 3})
    assert wire.monitor.wait(wire.monitor.ready, TIMEOUT_S)
    assert wire.monitor.leader() == "n1"
    wire.tell("n1", kind="event", name="become_leader", details={"term": 3, "by": ["n1", "n2"]})
    wire.tell("n1", kind="event", name="refuse", details={"reason": "no"})
    assert wire.monitor.wait(lambda: wire.monitor.refusal(0) is not None, TIMEOUT_S)
    assert wire.monitor.refusal(0) == "n1: no"
    agreed: list[bool | None] = []
    asked = threading.Thread(target=lambda: agreed.append(wire.monitor.converged(["n1", "n2"], 30)))
    asked.start()
    for node in ("n1", "n2"):
        wire.tell(node, kind="digest", details={"digests": {"all": "abc"}})
    asked.join()
    assert agreed == [True]
    assert wire.monitor.refused == 0


def test_a_flood_on_a_nodes_topic_fills_neither_memory_nor_disk(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.clusters.monitor.MOST_RECORDED_BYTES", 20_000)
    for number in range(300):
        wire.tell("n1", kind="event", name="injected", details={"number": f"{number}" * 50})
    wire.tell("n2", kind="event", name="become_leader")
    wait_for(lambda: "n2" in {record.node for record in wire.recorded}, "an event of n2")
    of_n1 = [record for record in wire.recorded if record.node == "n1"]
    assert 0 < len(of_n1) < 150
    assert wire.monitor.unrecorded == {"n1": 300 - len(of_n1)}
    assert wire.monitor._injected == {}
    assert _left_out(wire.monitor.unrecorded) == [
        f"n1 reported over 64 MB; the last {300 - len(of_n1)} lines are missing"
    ]


def test_a_status_of_the_future_hides_none_that_comes_after_it(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.clusters.monitor._EVERY_NS", 0)
    for t_ns in (2**61, 1):
        wire.tell("n1", t_ns=t_ns)
    wait_for(lambda: len(wire.recorded) == 2, "both")


def test_statuses_are_recorded_by_our_clock_whatever_time_they_say(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.clusters.monitor._EVERY_NS", 10**18)
    for number in range(50):
        wire.tell("n1", t_ns=number * 10**10)
    wire.tell("n1", kind="event", name="last")
    wait_for(lambda: any(record.name == "last" for record in wire.recorded), "the last one")
    assert [record.kind for record in wire.recorded] == ["status", "event"]
