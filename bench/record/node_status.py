"""What nodes tell of themselves, read off the wire.

Whoever may publish for one node speaks for that node only: the topic says who speaks, and a message
that names somebody else in its text is refused. So is what is too large, or has another form than a
node gives it.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated, Any, TypeAlias

import msgspec

from bench.record.history import Stamp
from bench.record.run_folder import NodeRecord
from nodes.wire.topics import Topics

MAX_BYTES = 1_000_000
Short: TypeAlias = Annotated[str, msgspec.Meta(max_length=200)]
Long: TypeAlias = Annotated[str, msgspec.Meta(max_length=20_000)]
Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Scalar: TypeAlias = bool | Whole | float | Long | None


class _Told(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    t_ns: Stamp
    node: Short


class _Status(_Told, frozen=True, kw_only=True, tag="status"):
    probe: dict[Short, Scalar]
    counters: dict[Short, Whole] = {}


class _Event(_Told, frozen=True, kw_only=True, tag="event"):
    name: Short
    details: dict[Short, Any] = {}


class _Digests(msgspec.Struct, frozen=True):
    digests: dict[Short, Short]


class Digest(_Told, frozen=True, kw_only=True, tag="digest"):
    """Hashes of the parts of what a node holds."""

    details: _Digests


class _Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at in a probe; a protocol may tell more."""

    ready: bool
    role: Short | None = None
    leader: Short | None = None
    term: Whole | None = None
    suspects: Long | None = None
    members: Long | None = None


_decode = msgspec.json.Decoder(_Status | _Event | Digest).decode


def parse_status(
    topics: Topics, topic: str, payload: bytes | bytearray, nodes: Container[str]
) -> NodeRecord | Digest | None:
    """What one of ``nodes`` told on its own topic. None: this is nothing of the kind."""
    node = topic.removeprefix(topics.status(""))
    if node == topic or node not in nodes or len(payload) > MAX_BYTES:
        return None
    try:
        told: _Status | _Event | Digest = _decode(payload)
        if isinstance(told, _Status):
            msgspec.convert(told.probe, _Probe)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if told.node != node:
        return None
    match told:
        case _Status():
            return NodeRecord(
                t_ns=told.t_ns, node=node, kind="status", probe=told.probe, counters=told.counters
            )
        case _Event():
            return NodeRecord(
                t_ns=told.t_ns, node=node, kind="event", name=told.name, details=told.details
            )
        case Digest():
            return told
