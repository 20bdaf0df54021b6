"""Reads and writes plain messages on the socket of a paho client, past the client: see
`nodes.wire.packets`. All other packets, and what the socket does not take, are left to it; so is
all that there is to say of a lost connection. Without TLS only. (Here, and nowhere else, paho's
private parts are meddled with for that.)
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.properties import Properties

from nodes.wire.packets import READ_BYTES, Incoming, Unread, publish_packet, published


def is_plain(client: paho.Client) -> bool:
    """Whether it has a socket, over which bytes go as they are."""
    return type(client._sock) is socket.socket


def packed(client: paho.Client, properties: Properties | None) -> bytes:
    """The properties of a PUBLISH, as the client's version of MQTT has them."""
    if client._protocol != paho.MQTTv5:
        return b""
    return b"\0" if properties is None else bytes(properties.pack())  # type: ignore[no-untyped-call]


def can_write_now(client: paho.Client) -> bool:
    """Whether nothing waits for the socket, which takes bytes as they are."""
    return not client._out_packet and not client._registered_write and is_plain(client)


def write_now(client: paho.Client, topic: str, payload: bytes, properties: bytes) -> None:
    """Write a PUBLISH of quality of service 0, where `can_write_now`. Raises ValueError if it is
    longer than a packet can be."""
    packet = publish_packet(topic, payload, properties)
    sock: Any = client._sock
    try:
        sent = sock.send(packet)
    except OSError:
        sent = 0
    if sent < len(packet):
        client._out_packet.append(
            {
                "command": packet[0],
                "mid": 0,
                "qos": 0,
                "pos": sent,
                "to_process": len(packet) - sent,
                "packet": packet,
                "info": paho.MQTTMessageInfo(0),
            }
        )
        client._call_socket_register_write()


class PlainReader:
    """Reads for a connected client in its place. ``take``: gets each message, and whether the
    broker had retained it."""

    def __init__(self, client: paho.Client, take: Callable[[Incoming, bool], None]) -> None:
        self._paho = client
        self._take = take
        self._sock: Any = client._sock
        self._unread = Unread()
        self._left = b""
        """What paho is to read before it reads from the socket."""
        self._recv = client._sock_recv
        self._with_properties = client._protocol == paho.MQTTv5
        client._sock_recv = self._recv_left  # type: ignore[method-assign]

    @property
    def fileno(self) -> int:
        """Of its socket."""
        return int(self._sock.fileno())

    def _recv_left(self, bufsize: int) -> bytes:
        if self._left:
            taken, self._left = self._left[:bufsize], self._left[bufsize:]
            return taken
        return self._recv(bufsize)

    def read(self) -> None:
        """Take all that is there. Raises what paho does."""
        if self._paho._in_packet["command"]:
            self._paho.loop_read()  # It had begun to read a packet before.
            return
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._paho.loop_read()  # It meets the same end, and says so.
            return
        try:
            packets = self._unread.add(data)
        except ValueError:
            self._paho._loop_rc_handle(paho.MQTT_ERR_PROTOCOL)
            return
        for packet in packets:
            incoming = published(packet, with_properties=self._with_properties)
            if incoming is not None:
                self._take(incoming, packet.is_retained)
            else:
                self._left = packet.raw
                self._paho.loop_read()
