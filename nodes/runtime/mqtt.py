"""MQTT for the live driver. The only importer of aiomqtt.

A `Connection` keeps one connection to the broker up for as long as its task runs: it connects again
within some 20 ms, each time with a fresh client id and a clean session, and drops what is published
while it is down: datagram semantics. aiomqtt awaits the socket for each QoS 0 publish and scans its
pending calls, which costs ten times the publish itself, and reads one packet per turn of the loop.
So `publish` hands the packet to the socket, or to the paho client beneath (`_publish_now`), and
`nodes.wire.plain_socket` reads. Incoming messages go straight to a callback, without a task switch
for each. `_publish_now` and `Connection._connected` are the only places that reach through.
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

from nodes.wire.packets import Incoming
from nodes.wire.plain_socket import PlainReader, can_write_now, is_plain, packed, write_now
from nodes.wire.subscription import CONNECT_TIMEOUT_S, NOTHING_RETAINED

log = structlog.get_logger()

RECONNECT_S = 0.02
MAX_BACKLOG_PACKETS = 2000
"""Packets that wait for a stalled connection; more are dropped, as a full socket buffer of a
datagram link would."""


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
        self._on_message = on_message
        self._queue_type = _sink(self._take) if on_message else None
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

    def _take(self, incoming: Incoming, retained: bool) -> None:
        """A message has come. Those that the broker had retained are not taken."""
        if retained:
            self.retained += 1
            return
        assert self._on_message is not None
        try:
            self._on_message(incoming)
        except Exception:
            # An exception here would end the connection, and with it the node's hearing.
            log.exception("message handler failed", topic=incoming.topic)

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
                if self._on_message is not None and is_plain(client._client):
                    self._read_from(client, PlainReader(client._client, self._take))
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

    def _read_from(self, client: aiomqtt.Client, reader: PlainReader) -> None:
        def read() -> None:
            try:
                reader.read()
            except Exception as error:
                # As aiomqtt does: the connection is broken.
                if not client._disconnected.done():
                    client._disconnected.set_exception(error)

        asyncio.get_running_loop().add_reader(reader.fileno, read)

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
    if not qos and can_write_now(client):
        write_now(client, topic, payload, packed(client, properties))
        return True
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


def _sink(take: Callable[[Incoming, bool], None]) -> type[asyncio.Queue[aiomqtt.Message]]:
    """A queue class for aiomqtt that stores nothing: ``take`` gets each message, and whether the
    broker had retained it."""

    class Sink(asyncio.Queue[aiomqtt.Message]):
        def put_nowait(self, item: aiomqtt.Message) -> None:
            payload, properties = item.payload, item.properties
            incoming = Incoming(
                item.topic.value,
                payload if isinstance(payload, bytes) else b"",
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
            )
            take(incoming, item.retain)

    return Sink
