"""The MQTT 5 client of the load generator: frames of requests out, frames of replies in.

One connection per node publishes requests through the proxy that faults act on, with datagram
semantics: QoS 0, no keepalive, a fresh client id per attempt, dropped while down. One more
connection, direct to the broker, subscribes to the reply topic.

It is single-threaded: `MqttClient.poll` does all reading, writing and reconnecting, and the owner
calls it in a loop. A selector watches the sockets; Locust's monkey patching turns it into gevent's,
so the same code runs in a greenlet and in a plain process. (paho's own loop costs a thread per
connection, a socket pair to wake it, and new watchers at every turn.)
"""

from __future__ import annotations

import selectors
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from bench.record.cluster_file import Address, ClusterFile
from nodes.contract.replica import Reply, Request
from nodes.errors import InfrastructureFailed
from nodes.wire.codec import BadFrame, replies_codec, requests_codec
from nodes.wire.packets import Incoming
from nodes.wire.plain_socket import PlainReader, can_write_now, is_plain, packed, write_now
from nodes.wire.subscription import CONNECT_TIMEOUT_S, NOTHING_RETAINED
from nodes.wire.tls import broker_tls
from nodes.wire.topics import Topics

RETRY_S = 0.05
RETRY_AFTER_TIMEOUT_S = 2.0
MAX_WAIT_S = 0.02
DIRECT_KEEPALIVE_S = 60
_MAX_PACKETS_A_TURN = 100


class BrokerUnreachable(InfrastructureFailed, ConnectionError):
    """A connection of the load generator failed: gives the address, the reason and what to do."""


def paho_client(cluster: ClusterFile, client_id: str, *, reconnects: bool = True) -> paho.Client:
    """A client for the cluster's broker, with its MQTT version, password and TLS; not connected."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=MQTTProtocolVersion(cluster.mqtt_version),
        reconnect_on_failure=reconnects,
    )
    if cluster.username is not None:
        client.username_pw_set(cluster.username, cluster.password)
    if (tls := broker_tls(cluster.tls_ca)) is not None:
        client.tls_set_context(tls)
    return client


class _Connection:
    """One connection that reconnects as long as `maintain` is called."""

    def __init__(
        self,
        what: str,
        address: Address,
        cluster: ClusterFile,
        selector: selectors.BaseSelector,
        *,
        keepalive_s: int = 0,
    ) -> None:
        self.what = what
        self.address = address
        self.up = False
        self.problem = "no answer"
        self.received = 0
        self._keepalive_s = keepalive_s
        self._selector = selector
        self._next_attempt = 0.0
        self._reader: PlainReader | None = None
        self._properties: Properties | None = None
        """Those that were sent last, and how they are sent."""
        # With an empty client id the broker chooses a new one at every attempt.
        client_id = "" if cluster.mqtt_version >= 5 else uuid.uuid4().hex
        self.paho = paho_client(cluster, client_id, reconnects=False)
        self._packed = packed(self.paho, None)
        self.paho.connect_timeout = CONNECT_TIMEOUT_S
        self.paho.on_socket_open = lambda client, data, sock: self._opened(sock)
        self.paho.on_socket_close = lambda client, data, sock: self._closed(sock)
        self.paho.on_connect = lambda client, data, flags, reason, props: self._connected(reason)

    def maintain(self) -> None:
        """Connect if it is time to; have a backlog written when the socket accepts it."""
        sock = self.paho.socket()
        if sock is None:
            if time.monotonic() >= self._next_attempt:
                self._attempt()
            return
        wanted = selectors.EVENT_READ
        if self.paho.want_write():
            wanted |= selectors.EVENT_WRITE
        if self._selector.get_key(sock).events != wanted:
            self._selector.modify(sock, wanted, self)
        if self._keepalive_s:
            self.paho.loop_misc()

    def ready(self, events: int) -> None:
        """The socket can be read or written."""
        if events & selectors.EVENT_WRITE:
            self.paho.loop_write()
        if events & selectors.EVENT_READ:
            if self._reader is not None:
                self._reader.read()
                return
            for _ in range(_MAX_PACKETS_A_TURN):
                before = self.received
                # One packet at most; only another read shows whether more have come.
                self.paho.loop_read()
                if self.received == before:
                    return

    def read_plainly(self, take: Callable[[Incoming, bool], None]) -> None:
        """From now on ``take`` gets what comes, if the socket allows it."""
        if is_plain(self.paho):
            self._reader = PlainReader(self.paho, take)

    def publish(self, topic: str, payload: bytes, properties: Properties | None) -> bool:
        """Send now. False: there is no connection."""
        if can_write_now(self.paho):
            if properties is not self._properties:
                self._properties, self._packed = properties, packed(self.paho, properties)
            write_now(self.paho, topic, payload, self._packed)
            return True
        info = self.paho.publish(topic, payload, qos=0, properties=properties)
        return info.rc != MQTTErrorCode.MQTT_ERR_NO_CONN

    def _attempt(self) -> None:
        self._next_attempt = time.monotonic() + RETRY_S
        try:
            self.paho.connect(self.address.host, self.address.port, keepalive=self._keepalive_s)
        except TimeoutError as error:
            # The attempt blocked everything else: not again soon.
            self._next_attempt = time.monotonic() + RETRY_AFTER_TIMEOUT_S
            self.problem = str(error)
        except OSError as error:
            self.problem = error.strerror or str(error)

    def _opened(self, sock: Any) -> None:
        # Else a small request may wait 40 ms for the acknowledgement of the previous one.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, self)

    def _closed(self, sock: Any) -> None:
        self.up = False
        self._reader = None
        self._selector.unregister(sock)

    def _connected(self, reason: ReasonCode) -> None:
        self.received += 1
        if reason.is_failure:
            self.problem = f"refused: {reason}"
        else:
            self.up = True


class MqttClient:
    """Publishes requests to nodes and collects their replies.

    ``name``: of the client process, part of its reply topic. ``on_reply``: called for each reply,
    from within `poll`. ``bad_frames`` counts payloads on the reply topic that are not reply frames;
    ``frames_sent`` and ``bytes_sent`` count request frames and their payload bytes.
    """

    def __init__(
        self, cluster: ClusterFile, name: str, on_reply: Callable[[Reply], object]
    ) -> None:
        topics = Topics(cluster.cluster)
        self.bad_frames = self.frames_sent = self.bytes_sent = 0
        self._on_reply = on_reply
        self._encode = requests_codec().encode
        self._decode = replies_codec().decode
        self._reply_topic = topics.reply(cluster.group, name)
        self._properties: Properties | None = None
        if cluster.mqtt_version >= 5:
            self._request_topics = {node: topics.request(node) for node in cluster.nodes}
            self._properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            self._properties.ResponseTopic = self._reply_topic
        else:
            self._request_topics = {
                node: topics.request_from(node, cluster.group, name) for node in cluster.nodes
            }
        self._selector = selectors.DefaultSelector()
        self._replies = _Connection(
            "the broker", cluster.broker, cluster, self._selector, keepalive_s=DIRECT_KEEPALIVE_S
        )
        self._subscribed = False
        self._replies.paho.on_connect = self._replies_connected
        self._replies.paho.on_subscribe = self._replies_subscribed
        self._replies.paho.on_message = self._received
        self._links = {
            node: _Connection(f"the request link of node {node}", address, cluster, self._selector)
            for node, address in cluster.request_links.items()
        }
        self._connections = [self._replies, *self._links.values()]

    def connect(self, timeout_s: float = 5.0) -> None:
        """Connect, until requests can be sent and replies received. Raises BrokerUnreachable."""
        deadline = time.monotonic() + timeout_s
        while missing := [connection for connection in self._connections if not connection.up]:
            self._wait(deadline, missing[0])
        while not self._subscribed:
            self._wait(deadline, self._replies)

    def publish(self, node: str, requests: Sequence[Request]) -> bool:
        """Send requests to a node as one PUBLISH. False: its link is down and nothing was sent."""
        link = self._links[node]
        if not link.up:
            return False
        frame = self._encode(requests)
        self.frames_sent += 1
        self.bytes_sent += len(frame)
        return link.publish(self._request_topics[node], frame, self._properties)

    def poll(self, timeout_s: float) -> None:
        """Wait for replies, for at most ``timeout_s``, and maintain the connections."""
        for connection in self._connections:
            connection.maintain()
        for key, events in self._selector.select(min(max(timeout_s, 0.0), MAX_WAIT_S)):
            key.data.ready(events)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.paho.disconnect()
            # A socket that could not say goodbye is closed later, when no longer watched.
            connection.paho.on_socket_close = None
        self._selector.close()

    def _wait(self, deadline: float, connection: _Connection) -> None:
        if time.monotonic() > deadline:
            raise BrokerUnreachable(
                f"cannot reach {connection.what} at {connection.address.host}:"
                f"{connection.address.port} ({connection.problem}): is the cluster of the cluster"
                " file still running? See `capbench status`"
            )
        self.poll(MAX_WAIT_S)

    def _replies_connected(
        self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        self._subscribed = False
        self._replies._connected(reason)
        if self._replies.up:
            client.subscribe(self._reply_topic, options=NOTHING_RETAINED)

    def _replies_subscribed(
        self, client: paho.Client, data: Any, mid: int, reasons: list[ReasonCode], properties: Any
    ) -> None:
        self._replies.received += 1
        self._subscribed = not any(reason.is_failure for reason in reasons)
        if self._subscribed:
            self._replies.read_plainly(self._take)
        else:
            self._replies.problem = f"may not subscribe to {self._reply_topic}: {reasons[0]}"

    def _received(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        self._replies.received += 1
        incoming = Incoming(self._reply_topic, bytes(message.payload))
        self._take(incoming, message.retain)

    def _take(self, incoming: Incoming, retained: bool) -> None:
        if retained:
            return  # MQTT 3.1.1 cannot refuse such messages.
        try:
            replies = self._decode(incoming.payload)
        except BadFrame:
            self.bad_frames += 1
            return
        for reply in replies:
            self._on_reply(reply)
