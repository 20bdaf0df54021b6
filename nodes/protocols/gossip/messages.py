"""What nodes of gossip say to each other, and what their disks hold."""

from __future__ import annotations

from typing import Annotated

import msgspec

from nodes.contract.bounds import Count, Natural, WireStruct
from nodes.contract.replica import Reply, Request, Value


class Sibling(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One version of a key. Its dot is (``node``, ``counter``), its name over the whole cluster;
    under lww ``counter`` is the hybrid logical clock and ``past`` is empty. ``client`` and
    ``sequence`` name the request that wrote it."""

    node: str
    counter: Count
    past: dict[str, Count]
    value: Value
    deleted: bool
    client: str
    sequence: Natural


class Record(WireStruct, frozen=True, gc=False):
    """All that a node knows of a key: siblings of which none supersedes another, ordered by dot."""

    siblings: Annotated[tuple[Sibling, ...], msgspec.Meta(min_length=1)]


class Rumour(WireStruct, frozen=True):
    """Hot keys."""

    records: dict[str, Record]


class Digest(WireStruct, frozen=True):
    """Anti-entropy, 1: a hash of each bucket of the sender's keys."""

    hashes: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]


class Difference(WireStruct, frozen=True):
    """Anti-entropy, 2: the clocks of all the sender's keys in ``buckets``, which differ.
    ``differing``: how many buckets differ in all (large differences take several messages)."""

    differing: Count
    buckets: tuple[Count, ...]
    clocks: dict[str, dict[str, Count]]


class Pull(WireStruct, frozen=True):
    """Anti-entropy, 3: the sender lacks something of these keys."""

    keys: tuple[str, ...]


class Push(WireStruct, frozen=True):
    """Anti-entropy, 3 and 4: what the receiver lacks. It does not become a rumour."""

    records: dict[str, Record]


class Forward(WireStruct, frozen=True):
    """A request for a key that the sender does not hold."""

    request: Request


class Forwarded(WireStruct, frozen=True):
    """The answer to a `Forward`."""

    reply: Reply
