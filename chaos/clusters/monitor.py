"""The runner's line to a cluster: status and events of every node, and commands to them.

A direct connection to the broker, past all proxies, so that no fault can blind it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import msgspec
import paho.mqtt.client as paho

from bench.load.mqtt_client import paho_client
from bench.record.cluster_file import STALE_S, ClusterFile
from bench.record.fault_words import fault_on
from bench.record.node_status import Digest, parse_status
from bench.record.run_folder import FaultRecord, NodeRecord
from nodes.errors import InfrastructureFailed
from nodes.faults.injected import Injected
from nodes.wire.codec import part_digest
from nodes.wire.subscription import NOTHING_RETAINED
from nodes.wire.topics import Topics

CONFIRM_S = 10.0
"""How long a node has to confirm a command; it may be starting."""
AGAIN_S = 0.5
MOST_RECORDED_BYTES = 64 << 20
"""Of what one node tells in a run: a hundred times what nodes have to tell in an hour."""

_EVERY_NS = 1_000_000_000


class NodeSilent(InfrastructureFailed):
    """A node did not confirm a command."""


class BrokerSilent(InfrastructureFailed):
    """The broker could not be reached, or did not answer in time."""


class Watch:
    """What is known of the nodes while they run. Use as a context manager. A subclass notifies
    ``_changed`` whenever a node has said something."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self._nodes = tuple(nodes)
        self._changed = threading.Condition()
        # Of each node what it said last.
        self._latest: dict[str, Any] = {}

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    @property
    def unrecorded(self) -> Mapping[str, int]:
        """Node -> how many of its reports were left out of the record."""
        raise NotImplementedError

    def statuses(self) -> dict[str, NodeRecord]:
        """The last status of each node that has told one within the last `STALE_S` seconds."""
        raise NotImplementedError

    def forget(self, node: str) -> None:
        """The node was killed: what it said no longer counts."""
        with self._changed:
            self._latest.pop(node, None)

    def converged(self, nodes: Iterable[str], timeout_s: float) -> bool | None:
        """Wait until ``nodes`` hold the same. None: one did not answer."""
        raise NotImplementedError

    def announce(self, faults: Sequence[FaultRecord]) -> None:
        """Tell onlookers which faults are on."""

    def leader(self) -> str | None:
        """The node that calls itself leader in the highest term, if there are leaders."""
        leaders = [
            (record.probe.get("term") or 0, node)
            for node, record in self.statuses().items()
            if record.probe.get("role") == "leader"
        ]
        return max(leaders)[1] if leaders else None

    def ready(self) -> bool:
        """Whether every node expects to serve, has all its links, and names the same leader (or
        none)."""
        statuses = self.statuses()
        if len(statuses) < len(self._nodes):
            return False
        serving = all(
            record.probe.get("ready") and not record.counters.get("links_down")
            for record in statuses.values()
        )
        return serving and len({record.probe.get("leader") for record in statuses.values()}) == 1

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``condition`` holds, looking again whenever a node says something. False: it
        did not in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._changed:
                self._changed.wait(min(left, 0.2))
        return True


class Monitor(Watch):
    """Listens to all nodes of a cluster. Use as a context manager.

    ``record``: called with every event and, at most once a second and node, with a status; from the
    MQTT thread. ``refused``: how many messages cannot come from a node of the cluster.
    ``unrecorded``: of each node that reported more than `MOST_RECORDED_BYTES`, how many events and
    statuses came after that. They are heard, and not recorded.
    """

    _latest: dict[str, NodeRecord]

    def __init__(
        self, cluster: ClusterFile, record: Callable[[NodeRecord], None] | None = None
    ) -> None:
        super().__init__(cluster.nodes)
        self._cluster = cluster
        self._topics = Topics(cluster.cluster)
        self._record = record
        self.refused = 0
        self._unrecorded: Counter[str] = Counter()
        self._recorded_ns: dict[str, int] = {}
        self._recorded_bytes: Counter[str] = Counter()
        self._digests: dict[str, tuple[int, dict[str, str]]] = {}
        self._refusal: NodeRecord | None = None
        self._injected: dict[tuple[str, str], str] = {}
        """(node, number) of each injection -> what the node last said of it."""
        self._announced: bytes | None = None
        self._subscribed = threading.Event()
        self._client = paho_client(cluster, f"{cluster.cluster}-monitor-{uuid.uuid4().hex[:12]}")
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)

    @property
    def unrecorded(self) -> Mapping[str, int]:
        """See `Watch`."""
        return self._unrecorded

    def __enter__(self) -> Self:
        broker = self._cluster.broker
        try:
            self._client.connect(broker.host, broker.port, keepalive=10)
        except OSError as error:
            raise BrokerSilent(f"broker {broker.host}:{broker.port}: {error}") from None
        self._client.loop_start()
        if not self._subscribed.wait(5):
            self.__exit__()
            raise BrokerSilent(
                f"broker {broker.host}:{broker.port}: connected, but no answer in 5 s"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(self._topics.status("+"), options=NOTHING_RETAINED)
        if self._announced is not None:  # A broker that was killed has forgotten it.
            client.publish(self._topics.faults, self._announced, qos=0, retain=True)

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if message.retain:
            return  # Nodes retain nothing: a retained message is not from one.
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        heard = parse_status(self._topics, topic, message.payload, self._cluster.nodes)
        with self._changed:
            if heard is None:
                self.refused += 1
            elif isinstance(heard, Digest):
                self._digests[heard.node] = (heard.t_ns, heard.details.digests)
            else:
                self._heard(heard, len(message.payload))
            self._changed.notify_all()

    def _heard(self, record: NodeRecord, size: int) -> None:
        node = record.node
        if record.kind == "status":
            self._latest[node] = record
            # By our own clock: a node's may be wrong, or a lie.
            now = time.monotonic_ns()
            if now - self._recorded_ns.get(node, -_EVERY_NS) >= _EVERY_NS:
                self._recorded_ns[node] = now
                self._tell(record, size)
            return
        if record.name in ("injected", "withdrawn"):
            number = node, str(record.details.get("number"))
            if number in self._injected:  # Nobody else was asked.
                self._injected[number] = record.name
        if record.name == "refuse":
            self._refusal = record
        self._tell(record, size)

    def _tell(self, record: NodeRecord, size: int) -> None:
        if self._record is None:
            return
        self._recorded_bytes[record.node] += size
        if self._recorded_bytes[record.node] > MOST_RECORDED_BYTES:
            self._unrecorded[record.node] += 1
        else:
            self._record(record)

    # --- what the nodes say ---

    def statuses(self) -> dict[str, NodeRecord]:
        """See `Watch`."""
        now = time.monotonic_ns()
        with self._changed:
            return {
                node: self._latest[node]
                for node in self._nodes
                if node in self._latest and now - self._latest[node].t_ns < STALE_S * 1e9
            }

    def converged(self, nodes: Iterable[str], timeout_s: float) -> bool | None:
        """Ask ``nodes`` for hashes of what they hold until all are equal. None: one did not
        answer."""
        wanted = list(nodes)
        deadline = time.monotonic() + timeout_s
        while True:
            asked_ns = time.monotonic_ns()
            for node in wanted:
                self._command(node, {"cmd": "digest"})

            def answered(since_ns: int = asked_ns) -> bool:
                return all(self._digests.get(node, (0, {}))[0] >= since_ns for node in wanted)

            if not self.wait(answered, min(2.0, max(0.1, deadline - time.monotonic()))):
                if time.monotonic() >= deadline:
                    return None
                continue
            with self._changed:
                of_nodes = [self._digests[node][1].items() for node in wanted]
            digests: dict[str, set[str]] = {}
            for part, digest in (pair for pairs in of_nodes for pair in pairs):
                digests.setdefault(part, set()).add(digest)
            if all(len(different) == 1 for different in digests.values()):
                return True
            if time.monotonic() >= deadline:
                return False
            with self._changed:
                self._changed.wait(0.1)

    def holds_nothing(self, nodes: Iterable[str], timeout_s: float) -> bool:
        """Whether no node has any key. False also if one does not answer."""
        wanted = list(nodes)
        if not self.converged(wanted, timeout_s):
            return False
        with self._changed:
            digests = {digest for node in wanted for digest in self._digests[node][1].values()}
        return digests <= {part_digest({})}

    # --- commands ---

    def administer(self, node: str, message: dict[str, Any]) -> None:
        """Give ``node`` a message of its protocol, as from itself: ``type`` and its fields."""
        self._command(node, {"cmd": "admin", "message": message})

    def inject(
        self, node: str, number: int, injected: Injected, timeout_s: float = CONFIRM_S
    ) -> None:
        """Make a node inject a fault. Raises NodeSilent if it does not confirm."""
        command = {"cmd": "inject", "number": number, "injected": msgspec.to_builtins(injected)}
        self._confirmed(node, number, "injected", command, timeout_s)

    def withdraw(self, node: str, number: int, timeout_s: float = CONFIRM_S) -> None:
        """The end of `inject`. Raises NodeSilent."""
        command = {"cmd": "withdraw", "number": number}
        self._confirmed(node, number, "withdrawn", command, timeout_s)

    def _confirmed(
        self, node: str, number: int, wanted: str, command: dict[str, Any], timeout_s: float
    ) -> None:
        with self._changed:
            # Also where that number was confirmed before: its node may have ended since then.
            self._injected[node, str(number)] = ""

        def done() -> bool:
            return self._injected[node, str(number)] == wanted

        deadline = time.monotonic() + timeout_s
        # Said again, since a node that is just starting does not listen yet: twice is as once.
        while True:
            self._command(node, command)
            if self.wait(done, min(AGAIN_S, max(0.0, deadline - time.monotonic()))):
                return
            if time.monotonic() >= deadline:
                raise NodeSilent(f"{node} did not confirm {command['cmd']} in {timeout_s:.0f} s")

    def refusal(self, since_ns: int) -> str | None:
        """Why a node refused an administration since then, if one did."""
        with self._changed:
            refusal = self._refusal
        if refusal is None or refusal.t_ns < since_ns:
            return None
        return f"{refusal.node}: {refusal.details.get('reason')}"

    def announce(self, faults: Sequence[FaultRecord]) -> None:
        """Publish the active faults for onlookers (Locust's page)."""
        self._announced = msgspec.json.encode([fault_on(record) for record in faults])
        self._client.publish(self._topics.faults, self._announced, qos=0, retain=True)

    def _command(self, node: str, command: dict[str, Any]) -> None:
        self._client.publish(self._topics.control(node), msgspec.json.encode(command), qos=0)
