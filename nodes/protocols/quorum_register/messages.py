"""What nodes of the quorum register say to each other, and what their disks hold."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from nodes.contract.bounds import Count, Natural, WireStruct
from nodes.contract.replica import Value

Tag: TypeAlias = tuple[Count, str, Count]
"""A version: counter, node, sequence of that node."""


NOTHING: Tag = (0, "", 0)
"""The version of a key that was never written, at every replica from the beginning."""


class Record(WireStruct, frozen=True, gc=False):
    """What a replica holds of a key. ``client`` and ``sequence`` name the request that wrote it."""

    version: Tag
    value: Value
    deleted: bool
    client: str
    sequence: Natural


class Prepare(WireStruct, frozen=True):
    """Which version do you have of ``key``? A read wants the record too; a write wants to know
    whether its request (``client``, ``sequence``) has a version already. ``number`` names the
    operation, ``placement`` the number of the placement that the sender goes by."""

    number: Count
    key: str
    client: str | None = None
    sequence: Natural = 0
    placement: Count = 0


class Prepared(WireStruct, frozen=True):
    """The answer. ``record``: for a read, None if the key was never written. ``known``: for a
    write, the version that its request has; ``forgotten``: which it had, for the client has
    acknowledged it."""

    number: Count
    version: Tag
    record: Record | None = None
    known: Tag | None = None
    forgotten: bool = False


class Commit(WireStruct, frozen=True):
    """Hold ``record``, unless you have a newer one. ``acked``: as in `Request`."""

    number: Count
    key: str
    record: Record
    acked: Natural = 0
    placement: Count = 0


class Committed(WireStruct, frozen=True):
    """That record, or a newer one, is durable here."""

    number: Count


class Digest(WireStruct, frozen=True):
    """Anti-entropy, 1: a hash of each bucket of the sender's keys."""

    hashes: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]


class Difference(WireStruct, frozen=True):
    """Anti-entropy, 2: the versions of all the sender's keys in ``buckets``, which differ."""

    buckets: tuple[Count, ...]
    versions: dict[str, Tag]


class Pull(WireStruct, frozen=True):
    """Anti-entropy, 3: the sender has older versions of these keys."""

    keys: tuple[str, ...]


class Push(WireStruct, frozen=True):
    """Anti-entropy, 3 and 4: what the receiver lacks."""

    records: dict[str, Record]
