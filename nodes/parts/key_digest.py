"""A digest of all keys that a replica holds, for anti-entropy, and the records that it asks for in
portions; sans-I/O.

The key space is divided into buckets. Each has a 64-bit hash, so that two replicas find what
differs by exchanging the hashes of the buckets and then the versions of the keys in those that
differ (a Merkle tree of two levels). What has changed is hashed when somebody asks: keys change
thousands of times a second, digests are exchanged about once.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress, count, starmap
from operator import ne
from typing import Any, ClassVar, TypeVar

import msgspec

from nodes.contract.disk import Disk
from nodes.contract.replica import Invariant, InvariantBroken, Scene, Send
from nodes.parts.limits import KeyLimits

Record = TypeVar("Record")


class KeyDigest:
    """Of ``buckets`` buckets. ``version_of``: the version that the replica holds of a key that was
    `touch`ed, as anything that msgpack encodes."""

    def __init__(
        self, buckets: int, version_of: Callable[[str], Any], limits: KeyLimits | None = None
    ) -> None:
        limits = limits or KeyLimits()
        self._keys_per_message = limits.digest_keys
        self._max_touched = limits.digest_touched
        self._version_of = version_of
        self._hashes = [0] * buckets
        self._told: tuple[int, ...] | None = None
        self._keys: list[dict[str, int]] = [{} for _ in range(buckets)]
        self._touched: dict[str, None] = {}

    def touch(self, key: str) -> None:
        """``key`` is new, or has another version than before, which `version_of` tells already."""
        self._touched[key] = None
        if len(self._touched) >= self._max_touched:
            self._catch_up()

    @property
    def hashes(self) -> tuple[int, ...]:
        """One for each bucket. Equal hashes mean (but for one chance in 2**64) equal keys with
        equal versions."""
        self._catch_up()
        if self._told is None:
            self._told = tuple(self._hashes)
        return self._told

    def _catch_up(self) -> None:
        if not self._touched:
            return
        self._told = None
        for key in self._touched:
            bucket = zlib.crc32(key.encode()) % len(self._hashes)
            # Combined by XOR, so not a CRC: that is linear, and equal changes of two keys of one
            # length would cancel each other out.
            encoded = msgspec.msgpack.encode((key, self._version_of(key)))
            new = int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big")
            self._hashes[bucket] ^= self._keys[bucket].get(key, 0) ^ new
            self._keys[bucket][key] = new
        self._touched.clear()

    def keys(self, bucket: int) -> Iterable[str]:
        """The keys in ``bucket``."""
        self._catch_up()
        return self._keys[bucket].keys()

    def differing(self, hashes: Sequence[int]) -> list[int]:
        """The buckets that differ from another replica's. Raises ValueError if it has more or fewer
        buckets."""
        # Nearly all are equal, most of the time all: no loop in Python.
        ours = self.hashes
        if ours == hashes:
            return []
        return list(compress(count(), starmap(ne, zip(ours, hashes, strict=True))))

    def portions(self, buckets: Sequence[int]) -> list[tuple[tuple[int, ...], list[str]]]:
        """``buckets`` and their keys, divided so that a portion's keys fit a message. At least one
        portion, which may be empty."""
        self._catch_up()
        portions: list[tuple[tuple[int, ...], list[str]]] = []
        taken: list[int] = []
        keys: list[str] = []
        for bucket in buckets:
            taken.append(bucket)
            keys.extend(self._keys[bucket])
            if len(keys) > self._keys_per_message:
                portions.append((tuple(taken), keys))
                taken, keys = [], []
        if taken or not portions:
            portions.append((tuple(taken), keys))
        return portions


def portions(
    keys: Iterable[str],
    records: Mapping[str, Record],
    characters_of: Callable[[Record], int],
    most_characters: int,
) -> Iterator[dict[str, Record]]:
    """The records of those ``keys`` that have one, in portions that end after the record that
    exceeds ``most_characters``. A record is never divided, and comes once however often its key is
    asked for."""
    portion: dict[str, Record] = {}
    characters = 0
    for key in dict.fromkeys(keys):
        record = records.get(key)
        if record is None:
            continue
        characters += len(key) + characters_of(record)
        portion[key] = record
        if characters > most_characters:
            yield portion
            portion, characters = {}, 0
    if portion:
        yield portion


# --- invariants ---


class PartnersAreRandom(Invariant):
    """Whom a node exchanges with is drawn anew each time, from all (Demers et al. 1987, sections
    1.3 and 1.4). Always the same partner repairs as well, until that one is down. A subclass says
    which messages begin an exchange (``hears``: ``on_begin``)."""

    name = "partners are drawn at random"
    draws = 20
    """For each peer: the chance that one is not drawn in so many is about ``exp(-draws)``."""

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._peers = len(scene.nodes) - 1
        self._enough = self.draws * self._peers
        self._drawn: dict[tuple[str, type], list[str]] = defaultdict(list)

    def on_begin(self, node: str, dst: str, msg: Any) -> None:
        """Raises InvariantBroken."""
        drawn = self._drawn[node, type(msg)]
        drawn.append(dst)
        if len(drawn) >= self._enough:
            counts = Counter(drawn)
            if len(counts) < self._peers:
                raise InvariantBroken(
                    f"{node} has sent {len(drawn)} {type(msg).__name__}: {dict(counts)}, and none"
                    " to the others"
                )
            drawn.clear()


class ExchangesAreExact(Invariant):
    """What a replica makes of a peer's digest, difference or request for keys: it tells all that it
    has in the buckets that differ, pushes what the peer lacks, and pulls what it lacks itself; all
    of it, and nothing else (Demers et al. 1987, section 1.3). What it has is what is on its disk,
    or on its way there. A subclass knows the messages, and ``judges`` them; ``pull`` (with
    ``keys``) and ``push`` (with ``records``) are its own."""

    name = "an exchange tells exactly what the other lacks"
    pull: ClassVar[type[Any]]
    push: ClassVar[type[Any]]
    every = 4
    """Of the messages that are taken in so many are judged as one: what is told wrong is told wrong
    more than once."""

    def __init__(self) -> None:
        self._turn = 0

    def is_due(self) -> bool:
        """Whether this message is judged."""
        self._turn += 1
        return self._turn % self.every == 0

    def on_pull(self, replica: Any, src: str, msg: Any, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        if not self.is_due():
            return
        records = {key: replica.disk.get("k/" + key) for key in msg.keys}
        self.compare_pushes(replica.id, sends, {k: r for k, r in records.items() if r is not None})

    def compare_pushes(self, node: str, sends: Sequence[Send], right: Mapping[str, Any]) -> None:
        """Raises InvariantBroken. Each message but the last is full, or there are too many."""
        self.compare(node, "pushes", self.told(sends, self.push, "records"), right)
        pushes = [send.msg.records for send in sends if type(send.msg) is self.push]
        self.check_portions(
            node,
            "pushes",
            self.scene.parameters.message_characters,
            [[len(key) + self.characters(r) for key, r in push.items()] for push in pushes],
        )

    @staticmethod
    def check_portions(node: str, what: str, most: int, portions: Sequence[Sequence[int]]) -> None:
        """Raises InvariantBroken unless each portion ends with the part by which it is larger than
        ``most``, and the last one, at the latest, with the last part. ``portions``: how large the
        parts of each are."""
        for number, parts in enumerate(portions, 1):
            if sum(parts[:-1]) > most:
                raise InvariantBroken(f"{node} {what} {parts} at once, of at most about {most}")
            if number < len(portions) and sum(parts) <= most:
                raise InvariantBroken(f"{node} {what} {parts}, which is not full: {most}")
            if number > 1 and not parts:
                raise InvariantBroken(f"{node} {what} nothing in its message {number}")

    def check_differences(self, node: str, sends: Sequence[Send], kind: type, field: str) -> None:
        """Raises InvariantBroken. A bucket is never divided: it is a part of its message."""
        count: int = self.scene.parameters.buckets
        portions = []
        told: list[Any] = [send.msg for send in sends if type(send.msg) is kind]
        for msg in told:
            keys = Counter(zlib.crc32(key.encode()) % count for key in getattr(msg, field))
            portions.append([keys[bucket] for bucket in msg.buckets])
        most: int = self.scene.parameters.digest_keys
        self.check_portions(node, "tells of keys, by bucket,", most, portions)

    def characters(self, record: Any) -> int:
        """How large a record is in a message, about."""
        raise NotImplementedError

    def pulled(self, sends: Sequence[Send]) -> set[str]:
        """The keys that are asked for."""
        return {key for send in sends if type(send.msg) is self.pull for key in send.msg.keys}

    @staticmethod
    def held(disk: Disk, buckets: Collection[int], count: int) -> dict[str, Any]:
        """Key -> what a replica with ``count`` buckets holds in some of them."""
        return {
            name[2:]: record
            for name, record in disk.items()
            if name[:2] == "k/"
            and record is not None
            and zlib.crc32(name[2:].encode()) % count in buckets
        }

    @staticmethod
    def told(sends: Sequence[Send], kind: type, field: str) -> dict[str, Any]:
        """What messages of a kind tell of keys, together."""
        told: dict[str, Any] = {}
        for send in sends:
            if type(send.msg) is kind:
                told.update(getattr(send.msg, field))
        return told

    @staticmethod
    def compare(node: str, what: str, said: Mapping[str, Any], right: Mapping[str, Any]) -> None:
        """Raises InvariantBroken."""
        if said != right:
            raise InvariantBroken(f"{node} {what} {dict(said)}, where it is {dict(right)}")
