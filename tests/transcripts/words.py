"""How transcripts tell of messages, replies and replicas: short, and the same in every run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from nodes.contract.replica import Operation, Reply, Request, Version
from nodes.parts.placement import Placement
from nodes.parts.recovery import PlacedReplica
from nodes.parts.synod import NO_BALLOT, Ballot
from nodes.protocols import detector, gossip, paxos, quorum_register, raft
from tests.protocols.raft_cluster import as_text

_COUNT_BITS = 32


def operation(op: Operation) -> str:
    """``write x=1``."""
    if op.op == "write":
        return f"write {op.key}={op.value}"
    if op.op == "cas":
        return f"cas {op.key} {op.expected}->{op.value}"
    return f"{op.op} {op.key}"


def reply(r: Reply) -> str:
    """``ok 1 version 3``."""
    parts: list[str] = [r.outcome]
    if isinstance(r.value, list):
        parts.append(" and ".join(str(v) for v in r.value))
    elif r.value is not None:
        parts.append(str(r.value))
    if r.applied is not None:
        parts.append("applied" if r.applied else f"refused, saw {r.seen}")
    if r.version is not None:
        parts.append(f"version {version(r.version)}")
    if r.error is not None:
        parts.append(f"({r.error})")
    return " ".join(parts)


def version(v: Version | tuple[Any, ...]) -> str:
    """``3``, ``2.n1``, ``{n1:1 n2:2}``."""
    if isinstance(v, dict):
        return "{" + " ".join(f"{node}:{count}" for node, count in sorted(v.items())) + "}"
    if isinstance(v, list | tuple):
        # The third part of a quorum register's version only tells one write of a node from another.
        return ".".join(str(part) for part in v[:2])
    return str(v)


def message(msg: Any) -> str:
    """``RequestVote term=1 last_index=0``: what is not at its default."""
    fields = []
    for field in msgspec.structs.fields(msg):
        value = getattr(msg, field.name)
        if field.name == "hashes" or value == field.default or value in ((), ""):
            continue
        fields.append(f"{field.name}={_text(field.name, value)}")
    return " ".join([type(msg).__name__, *fields])


def mark(name: str, details: dict[str, Any]) -> str:
    """``suspect node=n2 level=0.8``: what a node says has happened."""
    return " ".join([name, *(f"{key}={_rounded(value)}" for key, value in details.items())])


def _rounded(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _text(name: str, value: Any) -> str:
    for kind, tell in _TELL.items():
        if type(value) is kind:
            return tell(value)
    if name in ("version", "known") or name.endswith("ballot"):
        return version(value)
    if value is None and name in ("values", "votes"):
        return "no-op"
    if isinstance(value, msgspec.Struct):
        return f"({message(value)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_text(name, v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_text(name, item) for item in value) + "]"
    if type(value) is int and value >> _COUNT_BITS:
        # An incarnation and a count, in one number.
        return f"{value >> _COUNT_BITS}.{value & (1 << _COUNT_BITS) - 1}"
    return str(value)


def _sibling(s: gossip.Sibling) -> str:
    what = "deleted" if s.deleted else s.value
    past = f" after {version(s.past)}" if s.past else ""
    return f"{s.node}:{s.counter}={what}{past}"


def _entry(entry: raft.Entry) -> str:
    """As Raft's tests write it; of a crafted log the terms alone."""
    is_crafted = entry.request is not None and entry.request.client == "crafted"
    return str(entry.term) if is_crafted else as_text(entry)


_TELL: dict[type, Callable[[Any], str]] = {
    raft.Entry: _entry,
    Ballot: str,
    Operation: operation,
    Request: lambda r: operation(r.operation),
    Reply: reply,
    quorum_register.Record: lambda r: f"{version(r.version)}={r.value}",
    gossip.Sibling: _sibling,
    # What is copied of a key: the key comes first.
    bytes: lambda packed: str(msgspec.msgpack.decode(packed)[0]),
    Placement: lambda p: f"{p.number} on {'+'.join(p.nodes)}",
    gossip.Record: lambda r: " | ".join(_sibling(s) for s in r.siblings),
}


def replica(it: Any) -> str:
    """What a reader must know of a replica, on one line."""
    if isinstance(it, raft.Raft):
        return _raft(it)
    if isinstance(it, paxos.Paxos):
        return _paxos(it)
    if isinstance(it, detector.Detector):
        return _detector(it)
    probe = it.probe()
    parts = [] if probe["role"] == "replica" else [probe["role"]]
    shown = [name for name in ("term", "commit", "applied") if probe.get(name) is not None]
    parts += [f"{name} {probe[name]}" for name in shown]
    held = [
        f"{key} = {' | '.join(str(v) for v in values)} version {version(v)}"
        for key, (values, v) in it.state().items()
    ]
    parts += _placed(it) if isinstance(it, PlacedReplica) else []
    return ", ".join([*parts, *(held or ["empty"])])


def _placed(it: PlacedReplica) -> list[str]:
    """Where keys do not lie on all nodes: which placements the node knows, and its part in them."""
    if it.recovery is None:
        return []
    placements = it.recovery.placements
    parts = []
    for number, placement in enumerate(placements.current):
        member = "not ready" if placement.joined(it.id) else "no member"
        part = "serves" if placements.serves(number) else member
        of = f"range {number} " if placements.ranges > 1 else ""
        parts.append(f"{of}placement {_TELL[Placement](placement)}: {part}")
    return parts


def _detector(it: detector.Detector) -> str:
    """``n2 at counting 0.6 trusted, phi 50.4 suspected``."""
    now = it.env.now()
    views = []
    for peer in it.config.peers:
        verdicts = [
            f"{name} {judge.level(peer, now):.1f} "
            + ("suspected" if judge.suspected(peer) else "trusted")
            for name, judge in it.heartbeats._detectors.items()
        ]
        views.append(f"{peer} at {', '.join(verdicts)}")
    return "; ".join(views)


def _raft(it: raft.Raft) -> str:
    disk = it.disk
    log = " ".join(_entry(entry) for entry in disk.entries(disk.first_index, disk.last_index + 1))
    vote = f" voted {it.vote}" if it.vote else ""
    return f"{it.role} of term {it.term}{vote}, log [{log}], commit {it.commit}"


def _paxos(it: paxos.Paxos) -> str:
    votes = " ".join(
        f"{slot}:{_text('values', value).removeprefix('write ')}@{ballot}"
        for slot, (ballot, value) in sorted(it._acceptor.votes.items())
    )
    role = it.role if it.role == "follower" else f"{it.role} of {it.ballot}"
    promised = "nothing" if it.promised == NO_BALLOT else it.promised
    return f"{role}, promised {promised}, votes [{votes}], chosen {it.commit}"
