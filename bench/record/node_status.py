"""What nodes report about themselves, decoded from the wire.

A node can report only on itself: the topic names the sender, and a message that names another node
is rejected. So are messages that are too large or have another format.
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


class _Report(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    t_ns: Stamp
    node: Short


class _Status(_Report, frozen=True, kw_only=True, tag="status"):
    probe: dict[Short, Scalar]
    counters: dict[Short, Whole] = {}
    sent: dict[Short, Whole] = {}
    heard: dict[Short, Whole] = {}


class _Event(_Report, frozen=True, kw_only=True, tag="event"):
    name: Short
    details: dict[Short, Any] = {}


class _Digests(msgspec.Struct, frozen=True):
    digests: dict[Short, Short]


class Digest(_Report, frozen=True, kw_only=True, tag="digest"):
    """Hashes of the parts of a node's state."""

    details: _Digests


class _Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a probe that are checked; a protocol may report more."""

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
    """What one of ``nodes`` reported on its own topic; None if the message is invalid."""
    node = topic.removeprefix(topics.status(""))
    if node == topic or node not in nodes or len(payload) > MAX_BYTES:
        return None
    try:
        report: _Status | _Event | Digest = _decode(payload)
        if isinstance(report, _Status):
            msgspec.convert(report.probe, _Probe)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if report.node != node:
        return None
    match report:
        case _Status():
            return NodeRecord(
                t_ns=report.t_ns,
                node=node,
                kind="status",
                probe=report.probe,
                counters=report.counters,
                sent=report.sent,
                heard=report.heard,
            )
        case _Event():
            return NodeRecord(
                t_ns=report.t_ns, node=node, kind="event", name=report.name, details=report.details
            )
        case Digest():
            return report
