"""The load generator's connections, against a real broker."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bench.load.mqtt_client import BrokerUnreachable, MqttClient
from bench.record.cluster_file import Address, ClusterFile
from nodes.contract.replica import Operation, Reply, Request
from nodes.wire.codec import requests_codec
from nodes.wire.topics import Topics
from tests.waiting import patience

pytestmark = pytest.mark.live


class Forwarder:
    """A TCP proxy on a port of its own that can be switched off and on."""

    def __init__(self, port: int, target: int) -> None:
        self._target = target
        self.port = port
        self._listener = socket.create_server(("127.0.0.1", port))
        self._pairs: list[socket.socket] = []
        self._running = True
        self._on = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def off(self) -> None:
        """Close what is open; close what comes."""
        self._on = False

    def on(self) -> None:
        """Forward again."""
        self._on = True

    def stop(self) -> None:
        """Close everything."""
        self._running = False
        self._thread.join()

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ, None)
        while self._running:
            for key, _ in selector.select(0.01):
                if key.data is None:
                    accepted, _ = self._listener.accept()
                    upstream = socket.create_connection(("127.0.0.1", self._target))
                    for source, sink in ((accepted, upstream), (upstream, accepted)):
                        selector.register(source, selectors.EVENT_READ, sink)
                        self._pairs.append(source)
                elif isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() >= 0:
                    self._forward(key.fileobj, key.data)
            if not self._on or not self._running:
                for side in self._pairs:
                    selector.unregister(side)
                    side.close()
                self._pairs.clear()
        selector.close()
        self._listener.close()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            sink.sendall(source.recv(65536))
        except OSError:
            self._on = False


@pytest.fixture
def forwarder(cluster: ClusterFile, new_port: Callable[[], int]) -> Iterator[Forwarder]:
    made = Forwarder(new_port(), cluster.broker.port)
    yield made
    made.stop()


Connect = Callable[..., tuple[MqttClient, list[Reply]]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """``connect(cluster)``: a connected client, and the replies that it collects."""
    clients: list[MqttClient] = []

    def start(cluster: ClusterFile) -> tuple[MqttClient, list[Reply]]:
        replies: list[Reply] = []
        clients.append(MqttClient(cluster, "c", replies.append))
        clients[-1].connect()
        return clients[-1], replies

    yield start
    for client in clients:
        client.close()


def requests(*sequences: int) -> list[Request]:
    return [Request("c", sequence, Operation("write", "k", sequence)) for sequence in sequences]


def poll_until(client: MqttClient, condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + patience(20)
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        client.poll(0.02)


def test_a_small_request_does_not_wait_for_an_acknowledgement(
    cluster: ClusterFile, connect: Connect
) -> None:
    client, _ = connect(cluster)
    for connection in client._connections:
        sock = connection.paho.socket()
        assert isinstance(sock, socket.socket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_requests_of_one_turn_are_one_publish(cluster: ClusterFile, connect: Connect) -> None:
    heard: list[paho.MQTTMessage] = []
    subscribed: list[int] = []
    listener = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    listener.on_message = lambda client, data, message: heard.append(message)
    listener.on_subscribe = lambda client, data, mid, reasons, props: subscribed.append(mid)
    listener.connect("127.0.0.1", cluster.broker.port)
    listener.subscribe(Topics(cluster.cluster).request("n2"))
    client, _ = connect(cluster)

    def both() -> None:
        client.poll(0)
        listener.loop(0.01)

    while not subscribed:
        both()
    assert client.publish("n2", requests(1, 2, 3))
    while not heard:
        both()
    listener.disconnect()
    (message,) = heard
    assert requests_codec().decode(bytes(message.payload)) == requests(1, 2, 3)
    assert message.qos == 0
    assert message.properties is not None
    assert vars(message.properties)["ResponseTopic"] == Topics(cluster.cluster).reply("g1", "c")


def test_replies_come_back(
    cluster: ClusterFile, connect: Connect, echo: Callable[..., None]
) -> None:
    echo(cluster)
    client, replies = connect(cluster)
    for node in cluster.nodes:
        assert client.publish(node, requests(1, 2))
    poll_until(client, lambda: len(replies) == 6, "six replies")
    assert {reply.outcome for reply in replies} == {"ok"}


def test_a_link_that_is_down_says_so_and_comes_back(
    cluster: ClusterFile, connect: Connect, echo: Callable[..., None], forwarder: Forwarder
) -> None:
    echo(cluster)
    links = {**cluster.request_links, "n2": Address("127.0.0.1", forwarder.port)}
    client, replies = connect(msgspec.structs.replace(cluster, request_links=links))
    forwarder.off()
    poll_until(client, lambda: not client.publish("n2", requests(1)), "the link to go down")
    assert client.publish("n1", requests(2)), "the other links are as they were"
    poll_until(client, lambda: any(reply.sequence == 2 for reply in replies), "its reply")
    forwarder.on()
    poll_until(client, lambda: client.publish("n2", requests(3)), "the link to come back")
    poll_until(client, lambda: any(reply.sequence == 3 for reply in replies), "its reply")


def test_a_link_that_the_broker_does_not_answer_on_is_down(
    cluster: ClusterFile, connect: Connect, new_port: Callable[[], int]
) -> None:
    """As behind a proxy that is cut: connections are taken, and nothing comes back."""
    forwarder = Forwarder(new_port(), cluster.broker.port)
    links = {**cluster.request_links, "n2": Address("127.0.0.1", forwarder.port)}
    client, _ = connect(msgspec.structs.replace(cluster, request_links=links))
    forwarder.stop()
    with socket.create_server(("127.0.0.1", forwarder.port)) as deaf:
        deaf.setblocking(False)
        accepted: list[socket.socket] = []

        def taken() -> bool:
            with suppress(BlockingIOError):
                accepted.append(deaf.accept()[0])
            return bool(accepted)

        poll_until(client, taken, "the link's next attempt")
        poll_until(client, lambda: accepted[0].recv(4096), "its CONNECT")
        assert not client.publish("n2", requests(1))
        accepted[0].close()


def test_a_broker_that_starts_again_is_found_again(
    own_cluster: ClusterFile, own_broker: Any, connect: Connect, echo: Callable[..., None]
) -> None:
    client, replies = connect(own_cluster)
    own_broker.stop()
    poll_until(client, lambda: not client.publish("n1", requests(1)), "the link to go down")
    own_broker.start()
    echo(own_cluster)

    def answered() -> bool:
        client.publish("n1", requests(2))
        return bool(replies)

    poll_until(client, answered, "a reply on the topic that was subscribed to again")


def test_a_payload_that_is_no_frame_is_counted(cluster: ClusterFile, connect: Connect) -> None:
    client, replies = connect(cluster)
    stranger = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    stranger.connect("127.0.0.1", cluster.broker.port)
    stranger.publish(Topics(cluster.cluster).reply("g1", "c"), b"\x01nonsense")

    def counted() -> bool:
        stranger.loop(0.01)
        return client.bad_frames == 1

    poll_until(client, counted, "the bad frame")
    stranger.disconnect()
    assert replies == []


def test_nobody_listens(cluster: ClusterFile, new_port: Callable[[], int]) -> None:
    port = new_port()
    links = {**cluster.request_links, "n3": Address("127.0.0.1", port)}
    client = MqttClient(
        msgspec.structs.replace(cluster, request_links=links), "c", lambda reply: None
    )
    with pytest.raises(BrokerUnreachable) as error:
        client.connect(timeout_s=0.5)
    client.close()
    assert f"request link of node n3 at 127.0.0.1:{port} (Connection refused)" in str(error.value)


def test_a_password_that_is_wrong(tmp_path: Path, start_broker: Callable[..., Any]) -> None:
    broker = start_broker("allow_anonymous false\n")
    address = Address("127.0.0.1", broker.port)
    cluster = ClusterFile(
        cluster="t",
        protocol="echo",
        nodes=["n1"],
        operations=["read"],
        broker=address,
        group="g",
        request_links={"n1": address},
        username="somebody",
        password="guess",
    )
    client = MqttClient(cluster, "c", lambda reply: None)
    with pytest.raises(BrokerUnreachable, match=r"the broker at .*refused: Not authorized"):
        client.connect(timeout_s=0.5)
    client.close()
