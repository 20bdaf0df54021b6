"""Every fault bites on a real cluster, and its end restores: reachability, delay and loss as
measured, on one cluster that they share."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.record.cluster_file import Address
from bench.record.run_folder import NodeRecord
from chaos.clusters.local import LocalCluster
from chaos.clusters.monitor import NodeSilent
from nodes import registry
from nodes.contract.replica import Operation, Request
from nodes.faults import injected
from nodes.faults.base import Fault, Resolved
from nodes.faults.catalogue import Partition
from nodes.faults.link_faults import LinkState
from nodes.faults.links import (
    Bandwidth,
    Disconnect,
    Flapping,
    Jitter,
    Latency,
    RepliesLost,
    RequestsLost,
    Reset,
    SlowClose,
    Stall,
    Wan,
)
from nodes.faults.nodes import (
    AtLeastOnce,
    BitFlip,
    BrokerDisconnect,
    Clock,
    Corrupt,
    CrashPointFault,
    Duplicate,
    FailingFsync,
    Loss,
    NoSpace,
    Reorder,
    SlowDisk,
    TornWrite,
)
from nodes.faults.processes import BrokerPause, BrokerRestart, Crash, Pause, RollingRestart
from nodes.protocols.gossip import Gossip
from nodes.runtime.mqtt import Connection
from nodes.wire.codec import Codec, replies_codec, requests_codec
from nodes.wire.links import GROUP
from nodes.wire.topics import Topics
from tests.waiting import patience, wait_for

pytestmark = [pytest.mark.live, pytest.mark.long]
NODES = ("n1", "n2", "n3")
TIMEOUT_S = 20.0


class Live:
    """A cluster, and what its nodes told."""

    def __init__(self, directory: Path) -> None:
        self.records: list[NodeRecord] = []
        self.cluster = LocalCluster(
            registry.get("gossip-lww"),
            NODES,
            directory,
            cluster="faults",
            record=self.records.append,
        )

    def counter(self, node: str, name: str) -> int:
        status = self.cluster.monitor.statuses().get(node)
        return status.counters.get(name, 0) if status else 0

    def events(self, node: str) -> list[str | None]:
        return [r.name for r in self.records if r.node == node and r.kind == "event"]

    def pid(self, node: str) -> int:
        child = self.cluster.processes._children[node]
        return child.pid

    def begin(self, fault: Fault) -> Resolved:
        resolved = fault.resolve(self.cluster, random.Random(1))
        fault.apply(self.cluster, resolved)
        return resolved

    def is_healed(self) -> bool:
        return set(self.cluster.links.state().values()) == {LinkState()}

    def wait_ready(self) -> None:
        self.cluster.wait_ready(TIMEOUT_S)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    live = Live(tmp_path_factory.mktemp("cluster"))
    with live.cluster:
        yield live


@pytest.fixture(autouse=True)
def healed(live: Live) -> Iterator[None]:
    """Whatever a test did to the cluster, the next one finds it whole."""
    yield
    assert live.is_healed()
    live.wait_ready()


class Probe:
    """Publishes numbered messages from outside through one link's proxy, and times their arrival.
    The topic is nobody's, so the nodes are not disturbed."""

    def __init__(self, live: Live, link: tuple[str, str]) -> None:
        self.arrived: dict[str, float] = {}
        self.sent: dict[str, float] = {}
        self.disconnected = False
        broker = live.cluster.broker
        self._topic = f"probe/{link[0]}/{link[1]}"
        self._inbox = self._connect(broker)
        self._inbox.on_message = self._on_message
        subscribed: list[bool] = []
        self._inbox.on_subscribe = lambda *_: subscribed.append(True)
        self._inbox.subscribe(self._topic, qos=1)
        # The first message goes by another connection, and could come to the broker before it.
        wait_for(lambda: bool(subscribed), "the subscription")
        self._link = live.cluster.links.address(*link)
        self._sender = self._connect(self._link)
        self._sender.on_disconnect = self._on_disconnect
        self.send("first")
        self.wait("first")

    def _connect(self, address: Address) -> paho.Client:
        up: list[bool] = []
        client = paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.on_connect = lambda *_: up.append(True)
        client.connect(address.host, address.port, keepalive=0)
        client.loop_start()
        wait_for(lambda: bool(up), "a connection")
        return client

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.arrived[message.payload.decode()[:20].rstrip(".")] = time.monotonic()

    def _on_disconnect(self, *_: object) -> None:
        self.disconnected = True

    def send(self, name: str, size: int = 0) -> None:
        self.sent[name] = time.monotonic()
        self._sender.publish(self._topic, name.ljust(max(size, len(name)), "."))

    def wait(self, name: str) -> float:
        """Seconds that the message took."""
        wait_for(lambda: name in self.arrived, name)
        return self.arrived[name] - self.sent[name]

    def close(self) -> None:
        for client in (self._sender, self._inbox):
            client.disconnect()
            client.loop_stop()


@contextmanager
def probing(live: Live, link: tuple[str, str]) -> Iterator[Probe]:
    probe = Probe(live, link)
    try:
        yield probe
    finally:
        probe.close()


# --- processes ---


def test_a_paused_node_is_stopped_and_goes_on_as_it_was(live: Live) -> None:
    fault = Pause(nodes=("n2",))
    pid = live.pid("n2")
    resolved = live.begin(fault)
    wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "SIGSTOP")
    assert psutil.Process(live.pid("n1")).status() != psutil.STATUS_STOPPED
    wait_for(lambda: "n2" not in live.cluster.monitor.statuses(), "the silence of n2")
    fault.undo(live.cluster, resolved)
    wait_for(lambda: "n2" in live.cluster.monitor.statuses(), "n2 to speak again")
    assert live.pid("n2") == pid
    assert live.events("n2")[-2:] == ["paused", "resumed"]


def test_a_rolling_restart_takes_one_after_the_other(live: Live) -> None:
    fault = RollingRestart(nodes="all", down_ms=100, every_ms=200)
    before = {node: live.pid(node) for node in NODES}
    resolved = live.begin(fault)
    up = live.cluster.processes.running
    assert [up(node) for node in resolved.nodes] == [False, True, True]
    for number, _ in enumerate(fault.beats(resolved, 10)):
        resolved = fault.beat(live.cluster, resolved, number)
        down = sum(not up(node) for node in NODES)
        assert down == (0 if number % 2 == 0 else 1)
    fault.undo(live.cluster, resolved)
    assert all(live.pid(node) != pid for node, pid in before.items())
    live.wait_ready()
    resolved = live.begin(fault)
    fault.undo(live.cluster, resolved)
    assert all(up(node) for node in NODES), "cut short, the one that was down is back"


def test_a_majority_crashes_and_comes_back(live: Live) -> None:
    fault = Crash(nodes="majority")
    resolved = live.begin(fault)
    assert len(resolved.nodes) == 2
    assert sum(live.cluster.processes.running(node) for node in NODES) == 1
    fault.undo(live.cluster, resolved)
    assert all(live.cluster.processes.running(node) for node in NODES)


def test_without_its_broker_a_cluster_is_silent_until_it_is_back(live: Live) -> None:
    connects = live.counter("n1", "link_connects")
    fault = BrokerRestart()
    resolved = live.begin(fault)
    assert not live.cluster.processes.running("broker")
    wait_for(lambda: not live.cluster.monitor.statuses(), "silence")
    fault.undo(live.cluster, resolved)
    live.wait_ready()
    assert live.counter("n1", "link_connects") > connects


def test_a_paused_broker_delivers_late(live: Live) -> None:
    with probing(live, ("n1", "n2")) as probe:
        fault = BrokerPause()
        resolved = live.begin(fault)
        probe.send("held")
        time.sleep(0.3)
        assert "held" not in probe.arrived
        fault.undo(live.cluster, resolved)
        assert probe.wait("held") >= 0.3


# --- links ---


LINKS = {(src, dst) for src in NODES for dst in NODES if src != dst}


@pytest.mark.parametrize(
    ("shape", "cut"),
    [
        ({"groups": [["n1"], ["n2", "n3"]]}, {"n1n2", "n1n3", "n2n1", "n3n1"}),
        ({"groups": "isolate", "node": "n2"}, {"n2n1", "n2n3", "n1n2", "n3n2"}),
        ({"groups": "bridge", "node": "n3"}, {"n1n2", "n2n1"}),
        ({"groups": "mute", "node": "n1"}, {"n1n2", "n1n3"}),
        ({"groups": "deaf", "node": "n1"}, {"n2n1", "n3n1"}),
        *(({"groups": shape}, None) for shape in ("halves", "leader-alone", "one-way", "random")),
    ],
)
def test_a_partition_cuts_its_links_and_no_other(
    live: Live, shape: dict[str, Any], cut: set[str] | None
) -> None:
    """Which link carries messages is read behind the proxies, in every direction."""
    heard: set[tuple[str, str]] = set()

    def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        src, dst = message.topic.rsplit("/", 2)[1:]
        heard.add((src, dst))

    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_message = on_message
    client.connect(live.cluster.broker.host, live.cluster.broker.port)
    client.subscribe(Topics("faults").link("+", "+"))
    client.loop_start()
    try:
        wait_for(lambda: heard == LINKS, "every link to carry something")
        fault = Partition.model_validate({"fault": "partition", **shape})
        resolved = live.begin(fault)
        left = LINKS - set(resolved.links)
        heard.clear()
        # What had passed the proxies already is there before what the others send from now on.
        wait_for(lambda: left <= heard, "the links that are left")
        heard.clear()
        if cut is not None:
            assert {src + dst for src, dst in resolved.links} == cut
        for _ in range(2):
            wait_for(lambda: left <= heard, "the links that are left")
            assert heard == left
            time.sleep(0.3)
        fault.undo(live.cluster, resolved)
        wait_for(lambda: heard == LINKS, "the links that were cut")
    finally:
        client.disconnect()
        client.loop_stop()


def test_latency_is_felt_one_way_and_only_while_it_is_on(live: Live) -> None:
    fault = Latency(latency_ms=300, links=("n1->n2",))
    with probing(live, ("n1", "n2")) as there, probing(live, ("n2", "n1")) as back:
        resolved = live.begin(fault)
        for probe in (there, back):
            probe.send("during")
        assert there.wait("during") >= 0.3
        assert back.wait("during") < there.wait("during")
        fault.undo(live.cluster, resolved)
        there.send("after")
        assert there.wait("after") < 0.3


def test_a_flapping_link_is_cut_and_healed_in_turn(live: Live) -> None:
    fault = Flapping(period_ms=400, duty=0.5, links=("n1->n2",))
    resolved = live.begin(fault)
    assert resolved.links == (("n1", "n2"),)
    assert fault.beats(resolved, 1.0) == [0.2, 0.4, 0.6000000000000001, 0.8]
    seen = [live.cluster.links.state()["n1", "n2"].cut]
    for number in range(3):
        resolved = fault.beat(live.cluster, resolved, number)
        seen.append(live.cluster.links.state()["n1", "n2"].cut)
    assert seen == [True, False, True, False]
    fault.undo(live.cluster, resolved)
    assert live.is_healed()
    resolved = fault.beat(live.cluster, live.begin(fault), 0)
    resolved = fault.beat(live.cluster, resolved, 1)
    fault.undo(live.cluster, resolved)
    assert live.is_healed(), "also when it ends while the link is cut"


def test_jitter_changes_by_seed_and_delays(live: Live) -> None:
    fault = Jitter(latency_ms=200, jitter_ms=150, links=("n1->n2", "n2->n3"))
    with probing(live, ("n1", "n2")) as probe:
        resolved = live.begin(fault)
        seen = []
        for number in range(4):
            state = live.cluster.links.state()
            seen.append((state["n1", "n2"].latency_ms, state["n2", "n3"].latency_ms))
            probe.send(f"m{number}")
            assert probe.wait(f"m{number}") >= seen[-1][0] / 1000
            resolved = fault.beat(live.cluster, resolved, number)
        assert len(set(seen)) > 1
        assert all(50 <= each <= 350 for pair in seen for each in pair)
        again = fault.resolve(live.cluster, random.Random(1))
        assert [tuple(fault.drawn_ms(again, i).values()) for i in range(4)] == seen
        fault.undo(live.cluster, resolved)


def test_nodes_in_five_regions_are_half_a_round_trip_apart(live: Live) -> None:
    fault = Wan()
    with probing(live, ("n3", "n1")) as probe:
        resolved = live.begin(fault)
        state = live.cluster.links.state()
        assert state["n1", "n2"].latency_ms == state["n2", "n1"].latency_ms == 44
        assert state["n1", "n3"].latency_ms == 40
        probe.send("far")
        assert probe.wait("far") >= 0.04
        fault.undo(live.cluster, resolved)


def test_a_narrow_link_takes_time_for_bytes(live: Live) -> None:
    fault = Bandwidth(rate_kb_per_s=100, links=("n1->n2",))
    with probing(live, ("n1", "n2")) as probe:
        for name in ("one", "two"):
            resolved = live.begin(fault)
            probe.send(name, size=40_000)
            assert probe.wait(name) >= 0.3
            fault.undo(live.cluster, resolved)
            probe.send(f"{name} free", size=400_000)
            assert probe.wait(f"{name} free") < 3, "it would take 4 s"
        assert not probe.disconnected


def test_a_stall_delivers_all_of_it_late_and_in_order(live: Live) -> None:
    fault = Stall(links=("n1->n2",))
    with probing(live, ("n1", "n2")) as probe:
        resolved = live.begin(fault)
        for number in range(5):
            probe.send(f"m{number}")
        time.sleep(0.4)
        assert list(probe.arrived) == ["first"]
        fault.undo(live.cluster, resolved)
        assert probe.wait("m4") >= 0.4
        assert list(probe.arrived) == ["first", *(f"m{number}" for number in range(5))]
        assert not probe.disconnected


def test_a_disconnected_link_closes_and_refuses(live: Live) -> None:
    fault = Disconnect(links=("n1->n2",))
    with probing(live, ("n1", "n2")) as probe, probing(live, ("n2", "n1")) as other:
        resolved = live.begin(fault)
        wait_for(lambda: probe.disconnected, "the end of the connection")
        with pytest.raises(ConnectionRefusedError):
            Probe(live, ("n1", "n2"))
        other.send("still there")
        other.wait("still there")
        fault.undo(live.cluster, resolved)
    with probing(live, ("n1", "n2")):
        pass


def test_a_reset_link_ends_every_connection_that_carries_data(live: Live) -> None:
    fault = Reset(links=("n1->n2",))
    with probing(live, ("n1", "n2")) as probe, probing(live, ("n2", "n1")) as other:
        resolved = live.begin(fault)
        probe.send("lost")
        wait_for(lambda: probe.disconnected, "the end of the connection")
        other.send("still there")
        other.wait("still there")
        # The node's own link ends too; each new connection is reset by its first bytes.
        wait_for(lambda: live.counter("n1", "links_down") == 1, "the end of the node's link")
        assert live.counter("n2", "links_down") == 0
        fault.undo(live.cluster, resolved)
        assert "lost" not in probe.arrived
    with probing(live, ("n1", "n2")) as probe:
        probe.send("through")
        probe.wait("through")
        assert not probe.disconnected


def test_a_connection_that_closes_slowly_looks_alive_for_longer(live: Live) -> None:
    fault = SlowClose(delay_ms=1500, links=("n1->n2",))
    address = live.cluster.links.address("n1", "n2")

    def until_the_will(name: str) -> float:
        """Seconds from a client's end to the moment that the broker notices."""
        with probing(live, ("n2", "n1")) as probe:
            client = paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
            client.will_set("probe/n2/n1", name)
            up: list[bool] = []
            client.on_connect = lambda *_: up.append(True)
            client.connect(address.host, address.port, keepalive=0)
            client.loop_start()
            wait_for(lambda: bool(up), "a connection")
            client.loop_stop()
            ended = time.monotonic()
            client._sock_close()
            wait_for(lambda: name in probe.arrived, "the will")
            return probe.arrived[name] - ended

    resolved = live.begin(fault)
    slow = until_the_will("slow")
    fault.undo(live.cluster, resolved)
    assert until_the_will("quick") < 1.5 <= slow


class Asker:
    """A client of the load's group."""

    def __init__(self, live: Live, name: str) -> None:
        self.replies: list[Any] = []
        self._name = name
        self._sequence = 0
        self._live = live
        self._topics = Topics("faults")

    def ask(self, op: str, value: Any = None, *, node: str = "n1", wait_s: float = 5.0) -> Any:
        """The reply of the node, None if there is none."""
        cluster, replies = self._live.cluster, self.replies
        self._sequence += 1
        topic = self._topics.reply(GROUP, self._name)
        inbox = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        inbox.connect(cluster.broker.host, cluster.broker.port)
        inbox.on_message = lambda _c, _d, message: replies.extend(
            replies_codec().decode(bytes(message.payload))
        )
        subscribed: list[bool] = []
        inbox.on_subscribe = lambda *_: subscribed.append(True)
        inbox.loop_start()
        inbox.subscribe(topic)
        wait_for(lambda: bool(subscribed), "the subscription")
        address = cluster.links.address(GROUP, node)
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.connect(address.host, address.port, keepalive=0)
        client.loop_start()
        request = Request(self._name, self._sequence, Operation(op, "k", value))  # type: ignore[arg-type]
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = topic
        frame = requests_codec().encode([request])
        client.publish(self._topics.request(node), frame, properties=properties)
        deadline = time.monotonic() + patience(wait_s)
        try:
            while time.monotonic() < deadline:
                for reply in replies:
                    if reply.sequence == self._sequence:
                        return reply
                time.sleep(0.01)
            return None
        finally:
            for each in (client, inbox):
                each.disconnect()
                each.loop_stop()


def test_a_lost_request_is_not_applied_and_a_lost_reply_is(live: Live) -> None:
    asker = Asker(live, "unsure")
    assert asker.ask("write", 1).outcome == "ok"
    fault: Fault = RequestsLost(node="n1")
    resolved = live.begin(fault)
    assert resolved.links == ((GROUP, "n1"),)
    assert asker.ask("write", 2, wait_s=0.5) is None
    fault.undo(live.cluster, resolved)
    assert asker.ask("read").value == 1
    fault = RepliesLost(node="n1")
    resolved = live.begin(fault)
    assert resolved.links == (("n1", GROUP),)
    assert asker.ask("write", 3, wait_s=0.5) is None
    connects = live.counter("n1", "link_connects")
    fault.undo(live.cluster, resolved)
    wait_for(lambda: live.counter("n1", "link_connects") > connects, "the link to come back")
    assert asker.ask("read").value == 3


# --- messages ---


class Tap:
    """Reads along on the links from n1, behind their proxies."""

    def __init__(self, live: Live) -> None:
        self.messages: dict[str, list[Any]] = {"n2": [], "n3": []}
        self._codec: Codec[Any] = Codec(Gossip.MESSAGES)
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        subscribed: list[bool] = []
        self._client.on_subscribe = lambda *_: subscribed.append(True)
        # At each connect: a broker that was restarted has forgotten it.
        topic = Topics("faults").link("n1", "+")
        self._client.on_connect = lambda client, *_: client.subscribe(topic)
        self._client.connect(live.cluster.broker.host, live.cluster.broker.port)
        self._client.loop_start()
        wait_for(lambda: bool(subscribed), "the subscription")

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        dst = message.topic.rsplit("/", 1)[1]
        self.messages[dst] += self._codec.decode(bytes(message.payload))

    def hear(self, dst: str, count: int = 4) -> list[Any]:
        """The next messages to that node."""
        self.messages[dst].clear()
        wait_for(lambda: len(self.messages[dst]) >= count, f"{count} messages to {dst}")
        return list(self.messages[dst])

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def tap(live: Live) -> Iterator[Tap]:
    tap = Tap(live)
    yield tap
    tap.close()


def test_lost_messages_do_not_leave_on_that_link_only(live: Live, tap: Tap) -> None:
    fault = Loss(share=1.0, links=("n1->n2",))
    tap.hear("n2")
    resolved = live.begin(fault)
    tap.messages["n2"].clear()
    tap.hear("n3", 8)
    assert tap.messages["n2"] == []
    wait_for(lambda: live.counter("n1", "messages_lost") > 0, "the count")
    assert live.counter("n2", "messages_lost") == 0
    fault.undo(live.cluster, resolved)
    tap.hear("n2")


@pytest.mark.parametrize("links", [("n1->n2",), ("n1->n2", "n1->n3")], ids=len)
def test_a_node_that_is_restarted_goes_on_doing_it(live: Live, links: tuple[str, ...]) -> None:
    """Also if the very first thing that it has to say is lost."""
    fault = Loss(share=1.0, links=links)
    resolved = live.begin(fault)
    live.cluster.crash("n1")
    live.cluster.restart("n1")
    wait_for(lambda: live.counter("n1", "messages_lost") > 3, "the new process to lose messages")
    live.cluster.check()
    fault.undo(live.cluster, resolved)
    live.wait_ready()


def test_a_node_that_is_just_starting_is_told_all_the_same(live: Live) -> None:
    fault = Loss(share=1.0, links=("n1->n2",))
    live.cluster.crash("n1")
    live.cluster.restart("n1")
    resolved = live.begin(fault)  # it listens some time later
    wait_for(lambda: live.counter("n1", "messages_lost") > 0, "n1 to lose messages")
    fault.undo(live.cluster, resolved)


@pytest.mark.parametrize("away", [Pause(nodes=("n1",)), BrokerPause(), BrokerRestart()])
def test_a_node_that_hears_nothing_is_told_when_it_does(live: Live, tap: Tap, away: Fault) -> None:
    """Faults overlap: one may begin, and end, while another keeps the node from hearing of it."""
    fault = Loss(share=1.0, links=("n1->n2",))
    unheard = live.begin(away)
    resolved = live.begin(fault)
    assert live.cluster._confirmed["n1"] == {}
    away.undo(live.cluster, unheard)
    lost = live.counter("n1", "messages_lost")
    wait_for(lambda: live.counter("n1", "messages_lost") > lost, "n1 to lose messages")
    unheard = live.begin(away)
    fault.undo(live.cluster, resolved)
    assert len(live.cluster._confirmed["n1"]) == 1
    away.undo(live.cluster, unheard)
    assert live.cluster._confirmed["n1"] == {}
    tap.hear("n2")


def test_duplicates_leave_twice(live: Live, tap: Tap) -> None:
    fault = Duplicate(share=1.0, links=("n1->n2",))
    resolved = live.begin(fault)
    heard = tap.hear("n2", 8)
    assert all(heard[i] == heard[i + 1] for i in range(0, 8, 2))
    fault.undo(live.cluster, resolved)
    counted = live.counter("n1", "messages_duplicated")
    assert counted > 0


def test_messages_that_are_held_back_arrive_all_the_same(live: Live, tap: Tap) -> None:
    fault = Reorder(share=0.5, delay_ms=300, links=("n1->n2",))
    resolved = live.begin(fault)
    wait_for(lambda: live.counter("n1", "messages_held_back") > 3, "messages to be held back")
    tap.hear("n2")
    fault.undo(live.cluster, resolved)
    tap.hear("n2")


def test_the_receiver_notices_what_was_corrupted(live: Live) -> None:
    fault = Corrupt(share=1.0, links=("n1->n2",))
    before = live.counter("n3", "bad_frame_checksum")
    resolved = live.begin(fault)
    wait_for(lambda: live.counter("n2", "bad_frame_checksum") > 2, "n2 to notice")
    assert live.counter("n3", "bad_frame_checksum") == before
    fault.undo(live.cluster, resolved)

    def all_noticed() -> bool:
        return live.counter("n2", "bad_frame_checksum") == live.counter("n1", "frames_corrupted")

    wait_for(all_noticed, "each corrupted frame to be counted, and no other")


@pytest.mark.parametrize("qos", [0, 1])
def test_with_qos_1_a_cut_delays_and_loses_nothing(live: Live, qos: int) -> None:
    """The node's own connection, with a receiver on the other side of a link that is cut."""
    arrived: list[int] = []
    receiver = paho.Client(CallbackAPIVersion.VERSION2)
    receiver.on_message = lambda _c, _d, message: arrived.append(int(message.payload))
    subscribed: list[bool] = []
    receiver.on_subscribe = lambda *_: subscribed.append(True)
    receiver.connect(live.cluster.broker.host, live.cluster.broker.port)
    receiver.loop_start()
    receiver.subscribe("probe/qos", qos=1)
    wait_for(lambda: bool(subscribed), "the subscription")
    address = live.cluster.links.address("n1", "n2")

    async def send() -> None:
        connection = Connection(address.host, address.port, "probe-qos")
        connection.qos = qos
        task = asyncio.create_task(connection.run())
        await asyncio.wait_for(connection.up.wait(), TIMEOUT_S)
        for number in range(60):
            if number == 20:
                await asyncio.to_thread(live.cluster.links.cut, [("n1", "n2")])
            if number == 40:
                await asyncio.to_thread(live.cluster.links.heal, [("n1", "n2")])
                await asyncio.wait_for(connection.up.wait(), TIMEOUT_S)
            connection.publish("probe/qos", str(number).encode())
            await asyncio.sleep(0.01)
        deadline = time.monotonic() + patience(TIMEOUT_S)
        while 59 not in arrived and time.monotonic() < deadline:
            # The heal closed the connection, maybe after the first look.
            await asyncio.wait_for(connection.up.wait(), TIMEOUT_S)
            connection.publish("probe/qos", b"59")
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(send())
    receiver.disconnect()
    receiver.loop_stop()
    missing = set(range(60)) - set(arrived)
    if qos == 0:
        assert missing & set(range(20, 40)) == set(range(20, 40))
    else:
        assert missing == set()


def test_a_node_sends_with_qos_1_where_it_is_told_to(live: Live) -> None:
    seen: dict[str, list[int]] = {"n2": [], "n3": []}
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _c, _d, m: seen[m.topic.rsplit("/", 1)[1]].append(m.qos)
    client.connect(live.cluster.broker.host, live.cluster.broker.port)
    client.loop_start()
    client.subscribe(Topics("faults").link("n1", "+"), qos=1)
    fault = AtLeastOnce(links=("n1->n2",))
    resolved = live.begin(fault)
    wait_for(lambda: 1 in seen["n2"], "QoS 1")
    wait_for(lambda: len(seen["n3"]) > 2, "messages on the other link")
    assert set(seen["n3"]) == {0}
    fault.undo(live.cluster, resolved)
    seen["n2"].clear()
    wait_for(lambda: 0 in seen["n2"], "QoS 0 again")
    client.disconnect()
    client.loop_stop()


# --- connections ---


def test_a_node_without_its_broker_serves_nobody_and_knows_it(live: Live) -> None:
    asker = Asker(live, "cut off")
    assert asker.ask("read", node="n2").outcome == "ok"
    fault = BrokerDisconnect(nodes=("n2",))
    resolved = live.begin(fault)
    # n2-inbox, to n1, to n3, and the replies; it still tells so by the connection that is left.
    wait_for(lambda: live.counter("n2", "links_down") == 4, "n2 to be disconnected")
    assert asker.ask("read", node="n2", wait_s=0.5) is None
    assert asker.ask("read", node="n1").outcome == "ok"
    assert live.counter("n1", "links_down") == 0
    fault.undo(live.cluster, resolved)
    live.wait_ready()
    assert asker.ask("read", node="n2").outcome == "ok"


# --- time and disk ---


def test_the_clock_that_is_ahead_wins(live: Live) -> None:
    asker = Asker(live, "clock")
    apart = [(src, dst) for src in NODES for dst in NODES if src != dst]

    def last_wins() -> Any:
        """Write at n1, then at n2, neither knowing of the other; who is left?"""
        live.cluster.links.cut(apart)
        assert asker.ask("write", "first", node="n1").outcome == "ok"
        assert asker.ask("write", "second", node="n2").outcome == "ok"
        live.cluster.links.heal(apart)
        assert live.cluster.monitor.converged(NODES, TIMEOUT_S)
        return asker.ask("read", node="n3").value

    assert last_wins() == "second"
    fault = Clock(nodes=("n1",), offset_ms=5000)
    resolved = live.begin(fault)
    assert last_wins() == "first"
    fault.undo(live.cluster, resolved)


def test_a_slow_disk_delays_the_answer(live: Live) -> None:
    asker = Asker(live, "slow")
    fault = SlowDisk(nodes=("n1",), delay_ms=700)
    resolved = live.begin(fault)
    started = time.monotonic()
    assert asker.ask("write", 1).outcome == "ok"
    assert time.monotonic() - started >= 0.7
    fault.undo(live.cluster, resolved)
    assert asker.ask("write", 2).outcome == "ok"


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (NoSpace(nodes=("n1",)), "No space left on device"),
        (FailingFsync(nodes=("n1",)), "Input/output error"),
    ],
)
def test_a_node_stops_with_a_line_when_its_disk_fails(live: Live, fault: Fault, line: str) -> None:
    asker = Asker(live, f"{fault.fault}")
    assert asker.ask("write", "kept").outcome == "ok"
    resolved = live.begin(fault)
    assert asker.ask("write", "lost", wait_s=0.5) is None
    wait_for(lambda: live.cluster.processes.ended().get("n1") == 3, "exit code 3")
    live.cluster.check()
    assert line in live.cluster.last_words("n1")
    assert live.events("n1")[-1] == "exited"
    fault.undo(live.cluster, resolved)
    live.wait_ready()
    assert asker.ask("read").outcome == "ok"
    assert live.cluster.processes.ended() == {}


def test_an_order_that_was_confirmed_before_is_confirmed_anew(live: Live) -> None:
    monitor, number, slow = live.cluster.monitor, 7, injected.SlowFsync(delay_ms=1)
    monitor.inject("n1", number, slow)
    os.kill(live.pid("n1"), signal.SIGSTOP)
    try:
        with pytest.raises(NodeSilent):
            monitor.inject("n1", number, slow, timeout_s=0.5)
    finally:
        os.kill(live.pid("n1"), signal.SIGCONT)
    monitor.withdraw("n1", number)


def test_a_node_crashes_at_the_point_of_its_write_that_was_named(live: Live) -> None:
    for point in ("before-fsync", "after-fsync"):
        asker = Asker(live, point)
        assert asker.ask("write", "before").outcome == "ok"
        fault = CrashPointFault(nodes=("n1",), point=point)
        pid = live.pid("n1")
        resolved = live.begin(fault)
        assert asker.ask("read").value == "before", "nothing is written yet, so it serves"
        assert asker.ask("write", point, wait_s=0.5) is None
        wait_for(lambda: live.cluster.processes.ended().get("n1") == -9, "SIGKILL by itself")
        live.cluster.check()
        assert live.events("n1")[-1] == "exited"
        fault.undo(live.cluster, resolved)
        live.wait_ready()
        assert live.pid("n1") != pid
        if point == "after-fsync":
            assert asker.ask("read").value == point, "it was durable, though nobody was told"


def test_a_node_that_writes_nothing_does_not_crash_at_its_write(live: Live) -> None:
    fault = CrashPointFault(nodes=("n1",), point="before-fsync")
    pid = live.pid("n1")
    fault.undo(live.cluster, live.begin(fault))
    asker = Asker(live, "spared")
    assert asker.ask("write", 1).outcome == "ok"
    assert live.pid("n1") == pid


def test_a_torn_write_is_cut_and_nothing_else_is_lost(live: Live) -> None:
    asker = Asker(live, "torn")
    assert asker.ask("write", "kept").outcome == "ok"
    apart = [(src, dst) for src in NODES for dst in NODES if src != dst]
    live.cluster.links.cut(apart)
    fault = TornWrite(nodes=("n1",))
    resolved = live.begin(fault)
    assert not live.cluster.processes.running("n1")
    fault.undo(live.cluster, resolved)
    wait_for(lambda: live.counter("n1", "torn_bytes_cut") > 0, "n1 with a torn log")
    assert asker.ask("read").value == "kept"
    live.cluster.links.heal(apart)


def test_a_flipped_bit_keeps_a_node_from_starting_until_it_is_mended(live: Live) -> None:
    asker = Asker(live, "flip")
    for number in range(3):
        assert asker.ask("write", "x" * 1000 + str(number)).outcome == "ok"
    fault = BitFlip(nodes=("n1",))
    resolved = live.begin(fault)
    wait_for(lambda: live.cluster.processes.ended().get("n1") == 3, "exit code 3")
    assert "damaged" in live.cluster.last_words("n1")
    live.cluster.check()
    fault.undo(live.cluster, resolved)
    live.wait_ready()
    assert asker.ask("read").value == "x" * 1000 + "2"


# --- the proxies themselves ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "wedged"])
def test_toxiproxy_is_replaced_and_the_links_are_rebuilt(live: Live, number: int) -> None:
    cluster = live.cluster
    notes = len(cluster.notes)
    cluster.links.cut([("n1", "n2")])
    pid = live.pid("toxiproxy")
    os.kill(pid, number)
    wait_for(lambda: psutil.Process(pid).status() in ("stopped", "zombie"), "the signal")
    cluster.links.add_latency({("n2", "n3"): 30})
    assert live.pid("toxiproxy") != pid
    state = cluster.links.state()
    assert state["n1", "n2"].cut
    assert state["n2", "n3"].latency_ms == 30
    assert len(cluster.notes) == notes + 1
    assert "Toxiproxy" in cluster.notes[-1]
    cluster.links.heal([("n1", "n2")])
    cluster.links.remove_latency({("n2", "n3"): 30})
    live.wait_ready()


def test_a_dead_toxiproxy_is_noticed_without_a_fault(live: Live) -> None:
    pid = live.pid("toxiproxy")
    os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        live.cluster.check()
        return live.pid("toxiproxy") != pid

    wait_for(replaced, "another Toxiproxy")
