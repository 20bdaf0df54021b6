"""Bytes off the wire are not trusted: a frame is whole and ours, or BadFrame with its kind."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.contract.replica import Operation, Reply, Request
from nodes.wire.codec import (
    MAX_FRAME_BYTES,
    MAX_VALUE_BYTES,
    BadFrame,
    Codec,
    Kind,
    decode_json_request,
    encode_json_reply,
    is_frame,
    replies_codec,
    requests_codec,
)


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=True):
    number: int


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=True):
    text: str
    numbers: tuple[int, ...] = ()


CODEC: Codec[Any] = Codec([Ping, Pong])
KINDS: tuple[Kind, ...] = ("message", "request", "reply")
messages = st.builds(Ping, st.integers(-(2**63), 2**63 - 1)) | st.builds(
    Pong, st.text(), st.lists(st.integers(0, 9)).map(tuple)
)


@given(st.lists(messages))
def test_a_frame_carries_its_messages(batch: list[Any]) -> None:
    assert CODEC.decode(CODEC.encode(batch)) == batch


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(noise: bytes) -> None:
    with pytest.raises(BadFrame):
        CODEC.decode(noise)


@given(st.lists(messages, min_size=1), st.data())
def test_every_flipped_bit_is_noticed(batch: list[Any], data: st.DataObject) -> None:
    frame = bytearray(CODEC.encode(batch))
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadFrame):
        CODEC.decode(bytes(frame))


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (b"", "truncated"),
        (b"\1\0", "truncated"),
        (CODEC.encode([Ping(1)])[:-1], "checksum"),
        (b"\1" + CODEC.encode([Ping(1)])[1:], "version"),
        (b"\1" * (MAX_FRAME_BYTES + 1), "too-large"),
        (Codec[int]([int]).encode([1, 2]), "malformed"),
        (requests_codec().encode([Request("c", 1, Operation("read", "k"))]), "kind"),
    ],
)
def test_what_is_wrong_is_named(frame: bytes, kind: str) -> None:
    with pytest.raises(BadFrame) as caught:
        CODEC.decode(frame)
    assert caught.value.kind == kind


def test_the_leader_in_a_reply_is_a_name_and_not_longer_than_one() -> None:
    codec = replies_codec()
    for leader in (None, "n1", "n" * 64):
        reply = Reply("c", 1, "ok", leader=leader)
        assert codec.decode(codec.encode([reply])) == [reply]
    for wrong in ("n" * 65, 7, ["n1"]):
        with pytest.raises(BadFrame, match="malformed"):
            codec.decode(codec.encode([Reply("c", 1, "ok", leader=wrong)]))  # type: ignore[arg-type]


def test_a_frame_is_never_taken_for_json() -> None:
    frame = requests_codec().encode([Request("c", 1, Operation("read", "k"))])
    assert is_frame(frame)
    assert not is_frame(b'{"op": "read"}')
    assert not is_frame(b"")


def test_a_json_request_is_named_by_the_node_or_by_itself() -> None:
    anonymous = decode_json_request(b'{"op":"write","key":"k","value":1}', "n1.boot", 7)
    assert anonymous == Request("n1.boot", 7, Operation("write", "k", 1))
    named = decode_json_request(
        b'{"op":"cas","key":"k","value":"b","expected":"a","client":"me","sequence":3}', "n1", 7
    )
    assert named == Request("me", 3, Operation("cas", "k", "b", "a"))


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "not a request"),
        (b"{", "not a request"),
        (b"[1]", "not a request"),
        (b'{"op":"write"}', "key"),
        (b'{"op":"explode","key":"k"}', "unknown operation 'explode'"),
        (b'{"op":"write","key":"k","value":[1]}', "a value is null, a bool, number or string"),
        (b'{"op":"write","key":"","value":1}', "a key has 1 to"),
        (b'{"op":"write","key":"k","vlaue":1}', "vlaue"),
        (b'{"op":"read","key":"k","client":"me"}', "belong together"),
        (b'{"op":"read","key":"k","client":"me","sequence":-1}', "sequences"),
        (b'{"op":"write","key":"k","value":"%s"}' % (b"x" * (MAX_VALUE_BYTES + 1)), "at most"),
        ('{"op":"write","key":"k","value":"%s"}' % ("é" * (MAX_VALUE_BYTES // 2 + 1)), "at most"),
        (b"[" * 100_000, "not a request"),
        (b'{"op":"write","key":"k"}', "value is missing"),
        (b'{"op":"cas","key":"k","expected":1}', "value is missing"),
        (b'{"op":"cas","key":"k","value":1}', "expected is missing"),
        (b'{"op":"read","key":"k","value":1}', "a read has no value"),
        (b'{"op":"read","key":"k","value":null}', "a read has no value"),
        (b'{"op":"read","key":"k","expected":1}', "a read has no expected"),
        (b'{"op":"read","key":"k","context":{"n1":1}}', "a read has no context"),
        (b'{"op":"delete","key":"k","value":1}', "a delete has no value"),
        (b'{"op":"delete","key":"k","expected":null}', "a delete has no expected"),
        (b'{"op":"write","key":"k","value":1,"expected":2}', "a write has no expected"),
        (b'{"op":"cas","key":"k","value":1,"expected":2,"context":[1]}', "a cas has no context"),
        (b'{"op":"write","key":"k","value":1,"value":2}', "'value' is given twice"),
        (b'{"op":"write","key":"k","value":1,"k\\u0065y":"j"}', "'key' is given twice"),
        (b'{"op":"read","key":"k","context":{"n1":1,"n1":2}}', "'n1' is given twice"),
        (rb'{"op":"write","key":"k","value":"\ud800"}', "half a character"),
        (rb'{"op":"write","key":"\udc00","value":1}', "half a character"),
        (b'{"op":"write","key":"k","value":%s}' % (b"[" * 5000 + b"]" * 5000), "nested more than"),
        (b'\xff\xfe{"op"', "not a request"),
        (b'{"op":"write","key":"k","value":9223372036854775808}', "value .*integer .*64 bits"),
        (b'{"op":"write","key":"k","value":-9223372036854775809}', "value .*integer .*64 bits"),
        (b'{"op":"write","key":"k","value":1%s}' % (b"0" * 400), "integer .*64 bits"),
        (b'{"op":"write","key":"k","value":1%s}' % (b"0" * 9999), "integer .*64 bits"),
        (b'{"op":"write","key":"k","value":[[{"a":1%s}]]}' % (b"0" * 30), "integer .*64 bits"),
        (b'{"op":"cas","key":"k","value":1,"expected":1%s}' % (b"0" * 30), "expected .*64 bits"),
        (b'{"op":"delete","key":"k","value":1%s}' % (b"0" * 30), "value .*integer .*64 bits"),
        (b'{"op":"write","key":"k","context":{"n9":1%s}}' % (b"0" * 30), "context .*64 bits"),
        (b'{"op":"write","key":"k","context":[1%s]}' % (b"0" * 30), "context .*64 bits"),
        (b'{"op":"read","key":"k","client":"me","sequence":1%s}' % (b"0" * 30), "sequence .*64 b"),
        (b'{"op":"write","key":"k","value":%s}' % (b"[" * 99 + b"]" * 99), "nested more than"),
        (b'{"op":"write","key":"k","value":1e999}', "not a request"),
        (b'{"op":"write","key":"k","value":NaN}', "not a request"),
        (b'{"op":"write","key":"k","value":-Infinity}', "not a request"),
    ],
)
def test_a_bad_json_request_gets_one_line(payload: bytes | str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        decode_json_request(payload if isinstance(payload, bytes) else payload.encode(), "n1", 1)
    assert "\n" not in str(caught.value)


def test_a_context_goes_with_writes_and_deletes_and_null_is_none() -> None:
    context = {"n1": 1}
    for op, fields in (("write", {"value": 1}), ("delete", {})):
        payload = msgspec.json.encode({"op": op, "key": "k", "context": context, **fields})
        assert decode_json_request(payload, "n1", 1).operation.context == context
    assert decode_json_request(b'{"op":"read","key":"k","context":null}', "n1", 1)


def test_null_is_a_value_and_a_pair_of_halves_a_character() -> None:
    nothing = decode_json_request(b'{"op":"write","key":"k","value":null}', "n1", 1)
    assert nothing.operation == Operation("write", "k", None)
    absent = decode_json_request(b'{"op":"cas","key":"k","expected":null,"value":1}', "n1", 1)
    assert absent.operation == Operation("cas", "k", 1, None)
    whole = decode_json_request(rb'{"op":"write","key":"k","value":"\ud83d\ude00"}', "n1", 1)
    assert whole.operation.value == "\U0001f600"


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 1.7976931348623157e308, 5e-324, True])
def test_the_largest_values_are_taken(value: Any) -> None:
    payload = msgspec.json.encode({"op": "write", "key": "k", "value": value})
    request = decode_json_request(payload, "n1", 1)
    assert request.operation.value == value
    assert requests_codec().decode(requests_codec().encode([request])) == [request]


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, float("inf"), float("-inf"), float("nan")])
def test_a_frame_carries_no_larger_ones(value: Any) -> None:
    for operation in (Operation("write", "k", value), Operation("cas", "k", 1, value)):
        with pytest.raises(BadFrame, match="malformed"):
            requests_codec().decode(requests_codec().encode([Request("c", 1, operation)]))


@pytest.mark.parametrize("sequence", [-1, 2**63, 2**64 - 1])
def test_a_frame_carries_no_other_sequences(sequence: int) -> None:
    for request in (
        Request("c", sequence, Operation("read", "k")),
        Request("c", 1, Operation("read", "k"), sequence),
    ):
        with pytest.raises(BadFrame, match="malformed"):
            requests_codec().decode(requests_codec().encode([request]))


def test_a_frame_of_one_kind_is_none_of_another() -> None:
    codecs = {kind: Codec[int]([int], kind) for kind in KINDS}
    for kind, codec in codecs.items():
        for other, decoder in codecs.items():
            if other == kind:
                assert decoder.decode(codec.encode([7])) == [7]
            else:
                with pytest.raises(BadFrame, match="kind"):
                    decoder.decode(codec.encode([7]))


def test_random_json_like_bytes_never_crash_the_parser() -> None:
    source = random.Random(7)
    alphabet = b'{}[]",:0123456789.eopkyvaluert\\u\xff\x00 '
    for _ in range(5000):
        payload = bytes(source.choice(alphabet) for _ in range(source.randrange(60)))
        with pytest.raises(ValueError):
            decode_json_request(payload, "n1", 1)


def test_a_json_reply_says_what_there_is_to_say() -> None:
    assert encode_json_reply(Reply("c", 1, "ok", 5, version=3)) == (
        b'{"outcome":"ok","value":5,"version":3}'
    )
    assert encode_json_reply(Reply("c", 1, "ok", applied=False, seen="x")) == (
        b'{"outcome":"ok","value":null,"applied":false,"seen":"x"}'
    )
    assert encode_json_reply(Reply("c", 1, "fail", error="unsupported")) == (
        b'{"outcome":"fail","error":"unsupported"}'
    )
