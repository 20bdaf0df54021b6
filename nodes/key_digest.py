"""A digest of all keys that a replica holds, for anti-entropy; sans-I/O.

The key space is divided into buckets. Each has a 64-bit hash, kept up to date as keys change, so
that two replicas find what differs by exchanging the hashes of the buckets and then the versions of
the keys in those that differ (a Merkle tree of two levels).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

KEYS_PER_MESSAGE = 2000


class KeyDigest:
    """``hashes``: one for each bucket. Equal hashes mean (but for one chance in 2**64) equal keys
    with equal versions."""

    def __init__(self, buckets: int) -> None:
        self.hashes = [0] * buckets
        self._keys: list[dict[str, int]] = [{} for _ in range(buckets)]

    def put(self, key: str, version: Any) -> None:
        """``key`` now has ``version`` (anything that msgpack encodes)."""
        bucket = zlib.crc32(key.encode()) % len(self.hashes)
        # Combined by XOR, so not a CRC: that is linear, and equal changes of two keys of one length
        # would cancel each other out.
        encoded = msgspec.msgpack.encode((key, version))
        new = int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big")
        self.hashes[bucket] ^= self._keys[bucket].get(key, 0) ^ new
        self._keys[bucket][key] = new

    def keys(self, bucket: int) -> Iterable[str]:
        """The keys in ``bucket``."""
        return self._keys[bucket].keys()

    def differing(self, hashes: Sequence[int]) -> list[int]:
        """The buckets that differ from another replica's. Raises ValueError if it has more or fewer
        buckets."""
        pairs = enumerate(zip(self.hashes, hashes, strict=True))
        return [bucket for bucket, (ours, theirs) in pairs if ours != theirs]

    def portions(self, buckets: Sequence[int]) -> list[tuple[tuple[int, ...], list[str]]]:
        """``buckets`` and their keys, divided so that a portion's keys fit a message. At least one
        portion, which may be empty."""
        portions: list[tuple[tuple[int, ...], list[str]]] = []
        taken: list[int] = []
        keys: list[str] = []
        for bucket in buckets:
            taken.append(bucket)
            keys.extend(self._keys[bucket])
            if len(keys) > KEYS_PER_MESSAGE:
                portions.append((tuple(taken), keys))
                taken, keys = [], []
        if taken or not portions:
            portions.append((tuple(taken), keys))
        return portions
