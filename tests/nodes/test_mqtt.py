"""A connection to a broker that takes its time."""

from __future__ import annotations

import asyncio

import pytest

from nodes.runtime.mqtt import Connection
from nodes.wire.packets import Incoming

CONNACK = bytes([0x20, 3, 0, 0, 0])
TIMEOUT_S = 30.0


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The first byte of an MQTT packet, and all behind its length."""
    kind, length, shift = (await reader.readexactly(1))[0], 0, 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            return kind, await reader.readexactly(length)


async def _arrived(messages: list[bytes], publish_more: list[bytes]) -> list[bytes]:
    """What a broker receives that reads nothing until ``messages`` were published, and
    ``publish_more`` after that."""
    reads, complete = asyncio.Event(), asyncio.Event()
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _packet(reader)
        writer.write(CONNACK)
        await reads.wait()
        while len(received) < len(messages) + len(publish_more):
            kind, body = await _packet(reader)
            if kind == 0x30:
                # Behind a topic of one byte, and no properties.
                received.append(body[4:])
        complete.set()
        writer.close()

    # The least that the broker's side buffers.
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    connection = Connection("127.0.0.1", port, "test")
    task = asyncio.create_task(connection.run())
    try:
        await asyncio.wait_for(connection.up.wait(), TIMEOUT_S)
        for message in messages:
            assert connection.publish("t", message)
        reads.set()
        for message in publish_more:
            assert connection.publish("t", message)
            await asyncio.sleep(0)
        await asyncio.wait_for(complete.wait(), TIMEOUT_S)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
    assert connection.dropped == 0
    return received


@pytest.mark.parametrize("more", [0, 100])
def test_what_a_full_socket_does_not_take_arrives_later_and_in_order(more: int) -> None:
    large = [bytes([number]) * 300_000 for number in range(40)]
    small = [b"%d" % number for number in range(more)]
    assert asyncio.run(_arrived(large, small)) == large + small


def test_a_small_message_is_on_its_way_before_the_loop_turns() -> None:
    async def sent() -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _packet(reader)
            writer.write(CONNACK)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        connection = Connection("127.0.0.1", server.sockets[0].getsockname()[1], "test")
        task = asyncio.create_task(connection.run())
        try:
            await asyncio.wait_for(connection.up.wait(), TIMEOUT_S)
            assert connection.publish("t", b"x")
            assert connection._paho is not None
            return len(connection._paho._out_packet)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.close()

    assert asyncio.run(sent()) == 0


@pytest.mark.parametrize("version", [4, 5])
def test_what_the_broker_has_kept_is_not_taken(version: int) -> None:
    """Version 5 asks for nothing that is retained; what is marked so is dropped in any case."""

    async def subscribed() -> tuple[int, list[bytes], int]:
        options: list[int] = []
        taken: list[bytes] = []
        properties = b"\0" if version == 5 else b""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _packet(reader)
            writer.write(CONNACK if version == 5 else bytes([0x20, 2, 0, 0]))
            _, body = await _packet(reader)
            options.append(body[-1])
            writer.write(bytes([0x90, 3 + len(properties)]) + body[:2] + properties + b"\0")
            for first, text in ((0x31, b"old"), (0x30, b"new")):
                message = b"\0\1t" + properties + text
                writer.write(bytes([first, len(message)]) + message)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        arrived = asyncio.Event()

        def take(incoming: Incoming) -> None:
            taken.append(incoming.payload)
            if incoming.payload == b"new":
                arrived.set()

        port = server.sockets[0].getsockname()[1]
        connection = Connection(
            *("127.0.0.1", port, "test"), topics=["t"], on_message=take, mqtt_version=version
        )
        task = asyncio.create_task(connection.run())
        try:
            await asyncio.wait_for(arrived.wait(), TIMEOUT_S)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.close()
        return options[0], taken, connection.retained

    assert asyncio.run(subscribed()) == (0x20 if version == 5 else 0, [b"new"], 1)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_messages_of_all_kinds_are_taken_in_order_and_an_end_is_noticed(size: int) -> None:
    """What is no plain message (of quality of service 1, or with other properties) is paho's."""
    other = b"\x26\0\1a\0\1b"
    bodies = [
        (0x30, b"\0\1t\0first"),
        (0x32, b"\0\1t\0\7\0second"),
        (0x30, b"\0\1t" + bytes([len(other)]) + other + b"third"),
        (0xD0, b""),
        (0x30, b"\0\1t\0fourth"),
    ]
    stream = b"".join(bytes([first, len(body)]) + body for first, body in bodies)

    async def taken() -> tuple[list[bytes], list[int]]:
        payloads: list[bytes] = []
        kinds: list[int] = []
        arrived, acknowledged = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _packet(reader)
            writer.write(CONNACK)
            _, body = await _packet(reader)
            writer.write(bytes([0x90, 4]) + body[:2] + b"\0\0")
            for at in range(0, len(stream), size):
                writer.write(stream[at : at + size])
                await writer.drain()
                await asyncio.sleep(0.001)
            kinds.append((await _packet(reader))[0])
            acknowledged.set()
            writer.close()

        def take(incoming: Incoming) -> None:
            payloads.append(incoming.payload)
            if len(payloads) == 4:
                arrived.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = Connection("127.0.0.1", port, "test", topics=["t"], on_message=take)
        task = asyncio.create_task(connection.run())
        try:
            await asyncio.wait_for(arrived.wait(), TIMEOUT_S)
            await asyncio.wait_for(acknowledged.wait(), TIMEOUT_S)
            async with asyncio.timeout(TIMEOUT_S):
                while connection.up.is_set():
                    await asyncio.sleep(0.001)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.close()
        return payloads[:4], kinds

    assert asyncio.run(taken()) == ([b"first", b"second", b"third", b"fourth"], [0x40])
