"""How many messages per second the broker passes on: the ceiling of every protocol.

One connection publishes and another subscribes, with QoS 0. Both use hand-made MQTT 3.1.1 frames
over plain sockets in this process, which are so cheap that the broker's core is the bottleneck (an
MQTT client library takes 10 to 60 times as long per message as the broker).
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import statistics
import time

from bench.record.cluster_file import Address
from nodes.errors import InfrastructureFailed

MESSAGE_BYTES = 100
WINDOW = 800
"""The most messages in flight: fewer than Mosquitto queues for a client."""
_TOPIC = b"capbench/ceiling"
_TIMEOUT_S = 5.0


class NoMessages(InfrastructureFailed, ConnectionError):
    """The broker does not pass on messages: gives its address."""


def messages_per_s(
    broker: Address, *, seconds: float = 1.0, rounds: int = 3, message_bytes: int = MESSAGE_BYTES
) -> float:
    """Messages per second from one publisher to one subscriber, the median of ``rounds`` rounds.
    Raises NoMessages, OSError."""
    with _connect(broker, b"pub") as publisher, _connect(broker, b"sub") as subscriber:
        body = b"\x00\x01" + _string(_TOPIC) + b"\x00"
        subscriber.sendall(_packet(0x82, body))
        _read_packet(subscriber, 5, broker)
        frame = _packet(0x30, _string(_TOPIC) + bytes(message_bytes))
        rates = [_round(publisher, subscriber, frame, seconds, broker) for _ in range(rounds)]
    return statistics.median(rates)


def _round(
    publisher: socket.socket, subscriber: socket.socket, frame: bytes, seconds: float, at: Address
) -> float:
    """One round. Messages come out byte for byte, so bytes give the number that arrived."""
    size = len(frame)
    window = frame * WINDOW
    sent = received = 0
    selector = selectors.DefaultSelector()
    for each in (publisher, subscriber):
        each.setblocking(False)
    selector.register(subscriber, selectors.EVENT_READ)
    started = time.perf_counter()
    end = started + seconds
    buffer = bytearray(1 << 20)
    while (now := time.perf_counter()) < end or received < sent:
        room = WINDOW * size - (sent - received)
        # At the end, the rest of a message sent in part: the broker waits for it.
        more = -sent % size if now >= end else room - size if room >= size * WINDOW // 4 else 0
        if more:
            offset = sent % size
            with contextlib.suppress(BlockingIOError):
                sent += publisher.send(memoryview(window)[offset : offset + more])
        if not selector.select(_TIMEOUT_S):
            raise NoMessages(f"the broker at {at.host}:{at.port} lost or held back messages")
        received += subscriber.recv_into(buffer)
    took = time.perf_counter() - started
    selector.close()
    assert received % size == 0, "a partial message arrived"
    return received // size / took


def _connect(broker: Address, name: bytes) -> socket.socket:
    connection = socket.create_connection((broker.host, broker.port), timeout=_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    identity = b"ceiling-" + name + b"-%d" % time.monotonic_ns()
    connection.sendall(_packet(0x10, _string(b"MQTT") + b"\x04\x02\x00\x00" + _string(identity)))
    try:
        _read_packet(connection, 4, broker)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_packet(connection: socket.socket, size: int, broker: Address) -> None:
    try:
        answer = connection.recv(size, socket.MSG_WAITALL)
    except TimeoutError:
        answer = b""
    # The last byte of CONNACK and SUBACK: 0 is yes.
    if len(answer) != size or answer[-1] != 0:
        raise NoMessages(f"the broker at {broker.host}:{broker.port} refuses an anonymous client")


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def _packet(kind: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while True:
        rest, digit = divmod(rest, 128)
        length.append(digit | (0x80 if rest else 0))
        if not rest:
            return bytes([kind]) + bytes(length) + body
