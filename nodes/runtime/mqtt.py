"""MQTT for the live driver. The only importer of aiomqtt.

A `Connection` keeps one connection to the broker up for as long as its task runs: it connects again
within some 20 ms, each time with a fresh client id and a clean session, and drops what is published
while it is down: datagram semantics. aiomqtt awaits the socket for each QoS 0 publish and scans its
pending calls, which costs ten times the publish itself; so `publish` hands the packet to the paho
client beneath (`_publish_now`, the one place that reaches through). Incoming messages go straight
to a callback, by a queue class of our own, without a task switch for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from nodes.wire.subscription import CONNECT_TIMEOUT_S, NOTHING_RETAINED

log = structlog.get_logger()

RECONNECT_S = 0.02
MAX_BACKLOG_PACKETS = 2000
"""Packets that wait for a stalled connection; more are dropped, as a full socket buffer of a
datagram link would."""


class Incoming:
    """A message from the broker: ``topic``, ``payload``, and where the sender wants the answer."""

    __slots__ = ("correlation", "payload", "response_topic", "topic")

    def __init__(self, message: aiomqtt.Message) -> None:
        self.topic = message.topic.value
        payload = message.payload
        self.payload = payload if isinstance(payload, bytes) else b""
        properties = message.properties
        self.response_topic: str | None = getattr(properties, "ResponseTopic", None)
        self.correlation: bytes | None = getattr(properties, "CorrelationData", None)


def response_properties(correlation: bytes | None) -> Properties | None:
    """The properties of an answer: the correlation data that the request came with."""
    if correlation is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = correlation
    return properties


class Connection:
    """One connection to the broker, kept up by `run`.

    ``name`` starts the client id. ``topics`` are subscribed at every connect; their messages go to
    ``on_message``, which must not block. ``keepalive_s`` 0: never give up a silent connection, for
    links whose silence is the experiment. `connects`, `dropped` and `retained` (messages that the
    broker had kept, which are never taken) count.

    ``qos``: what is published with QoS 1 is kept until the broker has confirmed it, also over a
    lost connection, and is sent again on the next one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        *,
        topics: Sequence[str] = (),
        on_message: Callable[[Incoming], None] | None = None,
        keepalive_s: int = 0,
        username: str | None = None,
        password: str | None = None,
        tls_context: ssl.SSLContext | None = None,
        mqtt_version: int = 5,
    ) -> None:
        self.name = name
        self.up = asyncio.Event()
        self.connects = 0
        self.dropped = 0
        self.retained = 0
        self.qos = 0
        self._unconfirmed: list[tuple[str, bytes]] = []
        """What was published with QoS 1 and waits for the next connection."""
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._session: asyncio.Task[None] | None = None
        self._host, self._port = host, port
        self._topics = tuple(topics)
        self._keepalive_s = keepalive_s
        self._username, self._password = username, password
        self._tls_context = tls_context
        self._version = aiomqtt.ProtocolVersion(mqtt_version)
        self._paho: paho.Client | None = None
        self._queue_type = _sink(on_message, self._count_retained) if on_message else None
        self._last_error = ""

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        while True:
            await self._allowed.wait()
            self._session = asyncio.create_task(self._connected())
            try:
                await self._session
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise  # Not the session only.
            await asyncio.sleep(RECONNECT_S)

    def _count_retained(self) -> None:
        self.retained += 1

    def block(self) -> None:
        """Disconnect, and stay so until `unblock`."""
        self._allowed.clear()
        if self._session is not None:
            self._session.cancel()

    def unblock(self) -> None:
        """Connect again."""
        self._allowed.set()

    async def _connected(self) -> None:
        """One connection, from its attempt to its end."""
        client = aiomqtt.Client(
            self._host,
            self._port,
            identifier=f"{self.name}-{uuid.uuid4().hex[:12]}",
            protocol=self._version,
            **_clean(self._version),
            keepalive=self._keepalive_s,
            timeout=CONNECT_TIMEOUT_S,
            queue_type=self._queue_type,
            username=self._username,
            password=self._password,
            tls_context=self._tls_context,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        try:
            async with client:
                for topic in self._topics:
                    await client.subscribe(topic, options=NOTHING_RETAINED)
                # Nobody awaits our publishes, so paho need not call back for each.
                client._client.on_publish = None
                self._paho = client._client
                self.connects += 1
                self._last_error = ""
                waiting, self._unconfirmed = self._unconfirmed, []
                for topic, payload in waiting:
                    client._client.publish(topic, payload, 1)
                self.up.set()
                async for _ in client.messages:
                    pass  # The sink takes all messages; this loop ends at a disconnect.
        except aiomqtt.MqttError as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.info("disconnected", connection=self.name, reason=str(error))
        finally:
            self._paho = None
            self.up.clear()
            self._unconfirmed = _unconfirmed(client._client) + self._unconfirmed
            _discard(client._client)

    def publish(self, topic: str, payload: bytes, properties: Properties | None = None) -> bool:
        """Send now. False: the connection is down or stalled, and the message is dropped (with QoS
        1: too many wait)."""
        client = self._paho
        if client is None and self.qos and len(self._unconfirmed) < MAX_BACKLOG_PACKETS:
            self._unconfirmed.append((topic, payload))
            return True
        if client is None or not _publish_now(client, topic, payload, self.qos, properties):
            self.dropped += 1
            return False
        return True


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _clean(version: aiomqtt.ProtocolVersion) -> dict[str, Any]:
    """The broker shall remember nothing of this client: the two versions call it differently."""
    return {"clean_start" if version == aiomqtt.ProtocolVersion.V5 else "clean_session": True}


def _publish_now(
    client: paho.Client, topic: str, payload: bytes, qos: int, properties: Properties | None
) -> bool:
    if len(client._out_packet) > MAX_BACKLOG_PACKETS:
        return False
    if qos and len(client._out_messages) > MAX_BACKLOG_PACKETS:
        return False
    if client._registered_write:
        # The socket took no more. What waits goes first, as soon as it does.
        return client.publish(topic, payload, qos, False, properties).rc == paho.MQTT_ERR_SUCCESS
    # paho hands a packet to the event loop, which watches the socket, finds it writable, writes and
    # stops watching: half the cost of a small message. Where there is nobody to ask, it writes.
    ask_loop = client._on_socket_register_write
    client._on_socket_register_write = None
    try:
        rc = client.publish(topic, payload, qos, False, properties).rc
    finally:
        client._on_socket_register_write = ask_loop
        client._registered_write = False
        if client._out_packet:
            client._call_socket_register_write()
    return rc == paho.MQTT_ERR_SUCCESS


def _unconfirmed(client: paho.Client) -> list[tuple[str, bytes]]:
    """What the broker has not confirmed of what was published with QoS 1, oldest first."""
    return [(message.topic, bytes(message.payload)) for message in client._out_messages.values()]


def _discard(client: paho.Client) -> None:
    """Close the socket of a client that will not be used again; aiomqtt leaves it open after a
    connect that was not answered."""
    with contextlib.suppress(Exception):
        client._sock_close()


def _sink(
    on_message: Callable[[Incoming], None], on_retained: Callable[[], None]
) -> type[asyncio.Queue[aiomqtt.Message]]:
    """A queue class for aiomqtt that stores nothing: each message goes to ``on_message``, but for
    those that the broker had retained."""

    class Sink(asyncio.Queue[aiomqtt.Message]):
        def put_nowait(self, item: aiomqtt.Message) -> None:
            if item.retain:
                on_retained()
                return
            try:
                on_message(Incoming(item))
            except Exception:
                # An exception here would end the connection, and with it the node's hearing.
                log.exception("message handler failed", topic=item.topic.value)

    return Sink
