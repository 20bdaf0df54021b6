"""The knobs of Raft."""

from __future__ import annotations

from math import isfinite

from nodes.contract.replica import Parameters
from nodes.parts.limits import LOG_LIMITS

MAX_CHUNK_BYTES = 2 << 20
"""Upper limit of ``snapshot_chunk_bytes``: a chunk must fit in a frame with other messages."""


class RaftParameters(Parameters, frozen=True, kw_only=True):
    """Knobs of Raft. All times in seconds.

    A follower that heard no leader for a random time between ``election_timeout_min_s`` and
    ``election_timeout_max_s`` stands for election; a leader that heard no majority for
    ``election_timeout_max_s`` steps down. ``retry_s``: how often a request without an answer is
    handed on again; after ``request_timeout_s`` it ends ``fail`` or ``info``. A message carries at
    most ``batch_entries`` entries and (roughly) ``batch_bytes`` bytes, but at least one entry. A
    snapshot is taken every ``snapshot_entries`` applied entries; the log behind it goes when
    ``snapshot_tail`` more have been applied, so that slow followers need no snapshot. It is sent in
    chunks of ``snapshot_chunk_bytes`` (at most `MAX_CHUNK_BYTES`). A client's answers are forgotten
    when ``client_entries`` entries were applied since its last one; ``client_replies`` of them are
    kept of a client that never acknowledges any. ``remembered_refusals``: requests ended ``fail``
    of which a node refuses late copies, too. ``window_batches``: batches that may be on their
    way to a node without an acknowledgement.
    ``stale_reads``: any node answers reads from what it has applied, which is eventual consistency
    only.
    """

    heartbeat_s: float = 0.1
    election_timeout_min_s: float = 0.8
    election_timeout_max_s: float = 1.6
    retry_s: float = 0.5
    request_timeout_s: float = 3.0
    batch_entries: int = 512
    batch_bytes: int = 1 << 20
    snapshot_entries: int = 20_000
    snapshot_tail: int = 2_000
    snapshot_chunk_bytes: int = 512 << 10
    client_entries: int = 100_000
    client_replies: int = 1024
    remembered_refusals: int = 10_000
    window_batches: int = 16
    stale_reads: bool = False

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name.endswith("_s") and not (isfinite(value) and value > 0):
                raise ValueError(f"{name} is a positive number of seconds, not {value}")
        for name in LOG_LIMITS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
        if self.snapshot_tail < 0:
            raise ValueError(f"snapshot_tail is at least 0, not {self.snapshot_tail}")
        if not 1 <= self.snapshot_chunk_bytes <= MAX_CHUNK_BYTES:
            raise ValueError(
                f"snapshot_chunk_bytes is 1 to {MAX_CHUNK_BYTES}, not {self.snapshot_chunk_bytes}"
            )
        if self.election_timeout_min_s < 2 * self.heartbeat_s:
            raise ValueError(
                "election_timeout_min_s is at least twice heartbeat_s "
                f"({self.heartbeat_s}), not {self.election_timeout_min_s}"
            )
        if self.election_timeout_max_s <= self.election_timeout_min_s:
            raise ValueError(
                "election_timeout_max_s is above election_timeout_min_s "
                f"({self.election_timeout_min_s}), not {self.election_timeout_max_s}"
            )
        if self.request_timeout_s < self.retry_s:
            raise ValueError(
                f"request_timeout_s is at least retry_s ({self.retry_s}), "
                f"not {self.request_timeout_s}"
            )
