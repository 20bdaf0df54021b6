"""Messages to bytes and back. What comes off the wire is not trusted.

A frame is ``version (1 byte) | CRC-32 of what follows (4 bytes, big endian) | kind (1 byte) |
body``, the body a msgpack list. ``kind`` says what is in it: protocol messages, requests or
replies. So none is ever taken for another, on whatever topic it comes. All messages that wait for
one destination travel in one frame. The version byte is never the first byte of JSON text, so that
a request topic can carry either.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar, Union

import msgspec

from nodes.contract.bounds import MAX_INTEGER
from nodes.contract.disk import Append, Compact, Put, Truncate, Write
from nodes.contract.replica import Operation, Reply, Request

WIRE_VERSION = 2
MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_KEY_CHARACTERS = 512
MAX_VALUE_BYTES = 1024 * 1024
"""Of a value as UTF-8: so a request, and an entry that holds it, fits into a frame."""
MAX_JSON_DEPTH = 32
"""Of lists and objects in each other, in a JSON request."""
_HEADER = 6

Kind: TypeAlias = Literal["message", "request", "reply"]
_KINDS: dict[Kind, int] = {"message": ord("m"), "request": ord("q"), "reply": ord("r")}

T = TypeVar("T")


class BadFrame(ValueError):
    """Bytes that are not a frame of ours. ``kind`` is one of too-large, truncated, version,
    checksum, kind, malformed: what to count it under."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class Codec(Generic[T]):
    """Frames of one ``kind``, of messages of the given types (tagged structs, or one plain type).

    `decode` raises BadFrame and nothing else, whatever the bytes.
    """

    def __init__(self, types: Sequence[type[Any]], kind: Kind = "message") -> None:
        self._kind = _KINDS[kind]
        self._crc_of_kind = zlib.crc32(bytes([self._kind]))
        self._encode = msgspec.msgpack.Encoder().encode
        union = Union[tuple(types)]  # type: ignore[valid-type]  # noqa: UP007
        self._decode = msgspec.msgpack.Decoder(list[union]).decode  # type: ignore[valid-type]

    def encode(self, messages: Sequence[T]) -> bytes:
        """One frame. The caller keeps frames below MAX_FRAME_BYTES."""
        body = self._encode(messages)
        checksum = zlib.crc32(body, self._crc_of_kind).to_bytes(4, "big")
        return b"%c%b%c%b" % (WIRE_VERSION, checksum, self._kind, body)

    def decode(self, frame: bytes) -> list[T]:
        """The messages of a frame, all or none."""
        if len(frame) > MAX_FRAME_BYTES:
            raise BadFrame("too-large", f"{len(frame)} bytes, the limit is {MAX_FRAME_BYTES}")
        if len(frame) < _HEADER:
            raise BadFrame("truncated", f"{len(frame)} bytes, a frame has at least {_HEADER}")
        if frame[0] != WIRE_VERSION:
            raise BadFrame("version", f"wire version {frame[0]}, this node speaks {WIRE_VERSION}")
        checked = memoryview(frame)[_HEADER - 1 :]
        if zlib.crc32(checked) != int.from_bytes(frame[1 : _HEADER - 1], "big"):
            raise BadFrame("checksum", "the checksum does not match")
        if frame[_HEADER - 1] != self._kind:
            raise BadFrame("kind", f"kind {frame[_HEADER - 1]}, not {self._kind}")
        try:
            return self._decode(checked[1:])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise BadFrame("malformed", str(error)) from None


def is_frame(payload: bytes) -> bool:
    """Whether a request payload is one of our frames, rather than JSON."""
    return payload[:1] == bytes([WIRE_VERSION])


def requests_codec() -> Codec[Request]:
    """Frames that clients send."""
    return Codec([Request], "request")


def replies_codec() -> Codec[Reply]:
    """Frames that nodes answer with."""
    return Codec([Reply], "reply")


class JsonRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request as any MQTT 5 client may write it. ``client`` and ``sequence`` are for clients that
    retry: the same pair is applied at most once. ``value`` and ``expected``: null is a value, and
    not the same as none given. A field that means nothing to the operation is refused."""

    op: str
    key: str
    value: Any = msgspec.UNSET
    expected: Any = msgspec.UNSET
    context: Any = None
    client: str | None = None
    sequence: int | None = None


_json_request = msgspec.json.Decoder(JsonRequest)


def decode_json_request(payload: bytes, client: str, sequence: int) -> Request:
    """A JSON request; ``client`` and ``sequence`` name it where it does not name itself.

    Raises ValueError with one line that says what is wrong and what would be right.
    """
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"request of {len(payload)} bytes, the limit is {MAX_FRAME_BYTES}")
    try:
        raw = _json_request.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"not a request: {_plain_words(error, payload)}") from None
    for name in ("sequence", "value", "expected", "context"):
        _check_numbers(name, getattr(raw, name), MAX_JSON_DEPTH)
    # The decoder takes the last of several.
    json.loads(payload, object_pairs_hook=_each_once)
    if raw.op not in ("read", "write", "cas", "delete"):
        raise ValueError(f"unknown operation {raw.op[:40]!r}: use read, write, cas or delete")
    if (raw.client is None) != (raw.sequence is None):
        raise ValueError("client and sequence belong together: give both or neither")
    for name in ("value", "expected", "context"):
        given = getattr(raw, name) is not (None if name == "context" else msgspec.UNSET)
        if name in _NEEDED[raw.op] and not given:
            raise ValueError(f"not a request: {name} is missing (null is a value, too)")
        if given and name not in (*_NEEDED[raw.op], *_ALLOWED[raw.op]):
            raise ValueError(f"not a request: a {raw.op} has no {name}")
    fields = [None if each is msgspec.UNSET else each for each in (raw.value, raw.expected)]
    try:
        operation = msgspec.convert([raw.op, raw.key, *fields, raw.context], Operation, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(
            f"not a request: {error} (a value is null, a bool, number or string)"
        ) from None
    request = Request(
        raw.client or client, sequence if raw.sequence is None else raw.sequence, operation
    )
    check_request(request)
    return request


_NEEDED: dict[str, tuple[str, ...]] = {
    "read": (),
    "delete": (),
    "write": ("value",),
    "cas": ("expected", "value"),
}
"""Operation -> the fields that must be given, if only as null."""
_ALLOWED = {"read": (), "write": ("context",), "cas": (), "delete": ("context",)}
"""Operation -> the fields that may be given beside."""
_TOO_LARGE = "an integer of more than 64 bits (integers are -2^63 to 2^63-1)"


def _plain_words(error: Exception, payload: bytes) -> str:
    """What is wrong with JSON that cannot be decoded."""
    if isinstance(error, RecursionError):
        return f"it is nested more than {MAX_JSON_DEPTH} deep"
    if str(error).startswith("Integer value out of range"):
        return _TOO_LARGE
    if b"\\u" in payload and _has_half_a_character(payload):
        return "a text has half a character (one of \\ud800 to \\udfff without its other half)"
    return str(error)


def _has_half_a_character(payload: bytes) -> bool:
    """Whether it is JSON with a lone surrogate in it, which has no place in UTF-8."""
    try:
        json.dumps(json.loads(payload), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def _each_once(fields: list[tuple[str, Any]]) -> None:
    """Raises ValueError where an object has a field twice."""
    seen = set()
    for name, _ in fields:
        if name in seen:
            raise ValueError(f"not a request: {name[:40]!r} is given twice")
        seen.add(name)


def _check_numbers(name: str, value: Any, depth: int) -> None:
    """Raises ValueError where a number in ``value`` has no place in a message."""
    if type(value) is int:
        if not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
            raise ValueError(f"not a request: {name} has {_TOO_LARGE}")
    elif isinstance(value, list | dict):
        if depth == 0:
            raise ValueError(f"not a request: {name} is nested more than {MAX_JSON_DEPTH} deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_numbers(name, item, depth - 1)


def check_request(request: Request) -> None:
    """Raises ValueError where a well-formed request is outside our limits."""
    operation = request.operation
    if not operation.key or len(operation.key) > MAX_KEY_CHARACTERS:
        raise ValueError(f"a key has 1 to {MAX_KEY_CHARACTERS} characters")
    for value in (operation.value, operation.expected):
        # A character takes at most 4 bytes: most values need no second look.
        if (
            isinstance(value, str)
            and 4 * len(value) > MAX_VALUE_BYTES
            and len(value.encode()) > MAX_VALUE_BYTES
        ):
            raise ValueError(f"a value has at most {MAX_VALUE_BYTES} bytes")
    if request.sequence < 0 or not request.client or len(request.client) > MAX_KEY_CHARACTERS:
        raise ValueError("a client has a name and counts its sequences from 0")


def encode_json_reply(reply: Reply) -> bytes:
    """The JSON answer: ``outcome``, and the other fields of `Reply` that say something."""
    body: dict[str, Any] = {"outcome": reply.outcome}
    if reply.outcome == "ok":
        body["value"] = reply.value
        if reply.version is not None:
            body["version"] = reply.version
    if reply.applied is not None:
        body["applied"] = reply.applied
        if not reply.applied:
            body["seen"] = reply.seen
    if reply.error is not None:
        body["error"] = reply.error
    return msgspec.json.encode(body)


class WriteCodec:
    """Batches of disk writes to bytes and back, for the durable log.

    ``records`` are the protocol's `Replica.RECORDS`; every other value is plain (scalars, lists and
    dicts of them). `decode` raises BadFrame.
    """

    _PUT, _APPEND, _TRUNCATE, _COMPACT = range(4)

    def __init__(self, records: Sequence[type[Any]]) -> None:
        self._records = frozenset(records)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[list[msgspec.Raw]]).decode
        self._plain = msgspec.msgpack.Decoder().decode
        if records:
            union = Union[tuple(records)]  # type: ignore[valid-type]  # noqa: UP007
            self._record = msgspec.msgpack.Decoder(union).decode
        else:
            self._record = self._plain

    def encode(self, writes: Sequence[Write]) -> bytes:
        """One batch."""
        rows: list[tuple[Any, ...]] = []
        records = self._records
        for write in writes:
            if isinstance(write, Append):
                rows.append((self._APPEND, type(write.entry) in records, write.entry))
            elif isinstance(write, Put):
                rows.append((self._PUT, type(write.value) in records, write.value, write.key))
            elif isinstance(write, Truncate):
                rows.append((self._TRUNCATE, False, write.index))
            else:
                is_record = type(write.snapshot) in records
                rows.append((self._COMPACT, is_record, write.snapshot, write.index))
        return self._encode(rows)

    def decode(self, batch: bytes | memoryview) -> list[Write]:
        """The writes of a batch, all or none."""
        try:
            return [self._write(row) for row in self._decode(batch)]
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, IndexError) as error:
            raise BadFrame("malformed", str(error)) from None

    def _write(self, row: list[msgspec.Raw]) -> Write:
        kind = self._plain(row[0])
        value = (self._record if self._plain(row[1]) else self._plain)(row[2])
        if kind == self._APPEND:
            return Append(value)
        if kind == self._PUT:
            return Put(self._plain(row[3]), value)
        if kind == self._TRUNCATE:
            return Truncate(value)
        if kind == self._COMPACT:
            return Compact(self._plain(row[3]), value)
        raise BadFrame("malformed", f"no write is of kind {kind!r}")


# --- what replicas hold ---


def part_digest(part: Mapping[str, Any]) -> str:
    """A hash of a part of what a replica holds (`Replica.parts`), as hexadecimal digits: equal for
    equal parts."""
    state = msgspec.msgpack.encode(sorted(part.items()))
    return hashlib.blake2b(state, digest_size=16).hexdigest()
