"""A real broker and a real Toxiproxy on loopback, with the links of three nodes and one group."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from bench.record.cluster_file import Address
from chaos.clusters.broker import broker_command
from chaos.clusters.links import Links
from chaos.clusters.processes import ProcessGroup, free_ports
from chaos.clusters.toxiproxy import Toxiproxy, find_toxiproxy
from tests.waiting import patience, wait_for

NODES = ("n1", "n2", "n3")
TIMEOUT_S = 20.0


def listens(address: Address) -> bool:
    try:
        socket.create_connection((address.host, address.port), timeout=1).close()
    except OSError:
        return False
    return True


class Inbox:
    """A subscriber on the broker itself. `arrived`: the payloads, in order."""

    def __init__(self, broker: Address, topic: str) -> None:
        self.arrived: list[str] = []
        self._changed = threading.Condition()
        subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        self._client.subscribe(topic)
        assert subscribed.wait(TIMEOUT_S)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.arrived.append(message.payload.decode())
            self._changed.notify_all()

    def wait_for(self, payload: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: payload in self.arrived, patience(TIMEOUT_S)), (
                f"{payload!r} did not arrive; {self.arrived} did"
            )

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Sender:
    """A publish-only connection through one proxy."""

    def __init__(self, address: Address, topic: str) -> None:
        self._topic = topic
        self._connected = threading.Event()
        self.disconnected = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=uuid.uuid4().hex, reconnect_on_failure=False
        )
        self._client.on_connect = lambda *_: self._connected.set()
        self._client.on_disconnect = lambda *_: self.disconnected.set()
        self._client.connect(address.host, address.port, keepalive=0)
        self._client.loop_start()
        assert self._connected.wait(TIMEOUT_S), "no CONNACK"

    def send(self, payload: str) -> None:
        self._client.publish(self._topic, payload).wait_for_publish(TIMEOUT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Network:
    def __init__(self, directory: Path, processes: ProcessGroup, cleanup: ExitStack) -> None:
        broker_port, self.api_port, *self.link_ports = free_ports(2 + Links.count(len(NODES), 1))
        self.broker = Address("127.0.0.1", broker_port)
        self.processes = processes
        self._directory = directory
        self._cleanup = cleanup
        command = broker_command(directory, broker_port).argv
        processes.spawn("broker", command, stdout_path=directory / "broker.log")
        self.start_toxiproxy()
        wait_for(lambda: listens(self.broker), "the broker")
        self.toxiproxy = Toxiproxy(Address("127.0.0.1", self.api_port))
        cleanup.callback(self.toxiproxy.close)
        self.links = Links(self.toxiproxy, self.broker, NODES, ["g1"], self.link_ports)
        self.links.create()

    def start_toxiproxy(self) -> None:
        where = ("-host", "127.0.0.1", "-port", str(self.api_port))
        argv: list[str | Path] = [find_toxiproxy(), *where]
        self.toxiproxy_process = self.processes.spawn(
            "toxiproxy", argv, stdout_path=self._directory / "toxiproxy.log"
        )
        api = Address("127.0.0.1", self.api_port)
        wait_for(lambda: listens(api), "Toxiproxy")

    def inbox(self, node: str) -> Inbox:
        inbox = Inbox(self.broker, f"to/{node}")
        self._cleanup.callback(inbox.close)
        return inbox

    def sender(self, src: str, dst: str) -> Sender:
        sender = Sender(self.links.address(src, dst), f"to/{dst}")
        self._cleanup.callback(sender.close)
        return sender


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with ProcessGroup() as processes, ExitStack() as cleanup:
        yield Network(tmp_path, processes, cleanup)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[[Callable[[], bool], str], object]:
    return wait_for
