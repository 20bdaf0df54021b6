"""PUBLISH packets of quality of service 0, as bytes: nearly all that nodes and clients exchange.

A whole MQTT client reads a packet with four system calls and takes some 20 microseconds for it,
which is more than what a node does with what is in it. So whoever has a connected socket reads all
that is there at once (`Unread`) and takes these packets out itself; any other packet is left to the
client, byte for byte. Follows the OASIS standard "MQTT Version 5.0", sections 2.1 and 3.3; version
3.1.1 has no properties.
"""

from __future__ import annotations

from typing import NamedTuple

READ_BYTES = 1 << 18
"""What to read from a socket at once, at most."""
_PUBLISH = 0x30
_RETAIN = 0x01
_RESPONSE_TOPIC, _CORRELATION_DATA = 8, 9
_MAX_LENGTH = 268_435_455


class Incoming:
    """A message from the broker: ``topic``, ``payload``, and where the sender wants the answer."""

    __slots__ = ("correlation", "payload", "response_topic", "topic")

    def __init__(
        self,
        topic: str,
        payload: bytes,
        response_topic: str | None = None,
        correlation: bytes | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.response_topic = response_topic
        self.correlation = correlation


class Packet(NamedTuple):
    """A whole packet: ``data`` from ``start`` to ``end``; behind its length comes ``body``."""

    data: bytes
    start: int
    body: int
    end: int

    @property
    def raw(self) -> bytes:
        """All its bytes."""
        return self.data[self.start : self.end]

    @property
    def is_retained(self) -> bool:
        """Of a PUBLISH: the broker had kept it."""
        return bool(self.data[self.start] & _RETAIN)


class Unread:
    """What came over a connection and was not taken yet."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 2

    def add(self, data: bytes) -> list[Packet]:
        """The packets that are complete with ``data``, in order. Raises ValueError for a length
        that no packet has."""
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        data = b"".join(self._chunks) if len(self._chunks) > 1 else data
        packets: list[Packet] = []
        at, size = 0, len(data)
        need = 2
        while size - at >= 2:
            body = at + 1
            length = shift = 0
            while body < size:
                digit = data[body]
                body += 1
                length |= (digit & 127) << shift
                shift += 7
                if digit < 128:
                    break
                if shift > 21:
                    raise ValueError("a length of more than four bytes")
            else:
                need = body - at + 1
                break
            end = body + length
            if end > size:
                need = end - at
                break
            packets.append(Packet(data, at, body, end))
            at = end
        self._chunks = [data[at:]] if at < size else []
        self._have, self._need = size - at, need
        return packets


def published(packet: Packet, *, with_properties: bool) -> Incoming | None:
    """The message of a PUBLISH of quality of service 0; None: it is another packet, or has what
    only a whole client understands."""
    data, start, at, end = packet
    if data[start] & ~_RETAIN != _PUBLISH:
        return None
    topic_at = at + 2
    at = topic_at + int.from_bytes(data[at:topic_at], "big")
    response: str | None = None
    correlation: bytes | None = None
    try:
        topic = data[topic_at:at].decode()
        if with_properties:
            stop = at + 1 + data[at]
            if data[at] > 127 or stop > end:
                return None
            at += 1
            while at < stop:
                kind, value_at = data[at], at + 3
                at = value_at + int.from_bytes(data[at + 1 : value_at], "big")
                if at > stop or kind not in (_RESPONSE_TOPIC, _CORRELATION_DATA):
                    return None
                if kind == _RESPONSE_TOPIC:
                    response = data[value_at:at].decode()
                else:
                    correlation = data[value_at:at]
    except (IndexError, UnicodeDecodeError):
        return None
    return Incoming(topic, data[at:end], response, correlation) if at <= end else None


def publish_packet(topic: str, payload: bytes, properties: bytes) -> bytes:
    """A PUBLISH of quality of service 0. ``properties``: with their length in front; empty for
    version 3.1.1. Raises ValueError if it is longer than a packet can be."""
    name = topic.encode()
    left = 2 + len(name) + len(properties) + len(payload)
    if left > _MAX_LENGTH:
        raise ValueError(f"a packet of {left} bytes")
    head = bytearray((_PUBLISH,))
    while left > 127:
        head.append(left & 127 | 128)
        left >>= 7
    head.append(left)
    head += len(name).to_bytes(2, "big")
    return b"".join((head, name, properties, payload))
