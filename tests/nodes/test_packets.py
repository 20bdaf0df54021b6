"""PUBLISH packets as bytes, held against paho's own."""

from __future__ import annotations

from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from nodes.wire.packets import Incoming, Packet, Unread, publish_packet, published

PINGRESP = b"\xd0\0"
QOS_1 = b"\x32\x08\0\1t\0\7\0ab"


def properties(**values: Any) -> bytes:
    made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return bytes(made.pack())  # type: ignore[no-untyped-call]


def only(data: bytes) -> Packet:
    (packet,) = Unread().add(data)
    return packet


def fields(incoming: Incoming | None) -> Any:
    assert incoming is not None
    return incoming.topic, incoming.payload, incoming.response_topic, incoming.correlation


@pytest.mark.parametrize("size", [0, 1, 100, 130, 20_000, 2_100_000])
def test_what_is_packed_is_taken_out_again(size: int) -> None:
    payload = bytes(size)
    for packed, more in (
        (b"\0", (None, None)),
        (properties(ResponseTopic="a/é"), ("a/é", None)),
        (properties(CorrelationData=b"\0\1", ResponseTopic="a"), ("a", b"\0\1")),
    ):
        packet = only(publish_packet("t/ö", payload, packed))
        assert fields(published(packet, with_properties=True)) == ("t/ö", payload, *more)
    plain = only(publish_packet("t", payload, b""))
    assert fields(published(plain, with_properties=False)) == ("t", payload, None, None)


def test_packets_come_whole_and_in_order_however_the_stream_is_cut() -> None:
    packets = [
        publish_packet("t", b"x" * 200, b"\0"),
        PINGRESP,
        QOS_1,
        publish_packet("u", b"", b"\0"),
    ]
    stream = b"".join(packets)
    for size in (1, 2, 3, 7, 50, 200, len(stream)):
        unread = Unread()
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [packet.raw for piece in pieces for packet in unread.add(piece)] == packets


@pytest.mark.parametrize(
    "data",
    [
        PINGRESP,
        QOS_1,
        b"\x38" + publish_packet("t", b"x", b"\0")[1:],
        publish_packet("t", b"x", properties(UserProperty=("a", "b"))),
        publish_packet("t", b"x", properties(ResponseTopic="r" * 200)),
        publish_packet("t", b"x", b"\x05\x08\0\xffab"),
        publish_packet("t", b"x", b"\x7f"),
        b"\x30\x03\0\7t",
        b"\x30\x03\0\1t",
        b"\x30\x04\0\1\xff\0",
        b"\x30\0",
    ],
)
def test_what_is_no_plain_message_is_left_to_the_client(data: bytes) -> None:
    assert published(only(data), with_properties=True) is None


def test_what_the_broker_had_kept_says_so() -> None:
    packet = publish_packet("t", b"x", b"\0")
    assert not only(packet).is_retained
    kept = only(b"\x31" + packet[1:])
    assert kept.is_retained
    assert fields(published(kept, with_properties=True))[1] == b"x"


def test_no_packet_is_so_long() -> None:
    with pytest.raises(ValueError, match="length"):
        Unread().add(b"\x30\xff\xff\xff\xff\x01")
    with pytest.raises(ValueError, match="packet"):
        publish_packet("t", bytes(268_435_456), b"\0")
