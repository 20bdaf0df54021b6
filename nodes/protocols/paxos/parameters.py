"""The knobs of Paxos."""

from __future__ import annotations

from math import isfinite

from nodes.contract.replica import Parameters
from nodes.parts.limits import LOG_LIMITS


class PaxosParameters(Parameters, frozen=True, kw_only=True):
    """Knobs of Paxos. All times in seconds.

    ``heartbeat_s``: how often a leader is heard, and how often a proposer repeats itself. A node
    that heard no leader for a random time between ``election_timeout_min_s`` and
    ``election_timeout_max_s`` surveys the others; a leader that heard no majority for
    ``election_timeout_max_s`` gives up. ``retry_s``: how often a request without an answer is
    handed on again; after ``request_timeout_s`` it ends ``fail`` or ``info``. A message carries at
    most ``batch_entries`` values and (roughly) ``batch_bytes`` bytes, but at least one value. A
    snapshot is taken every ``snapshot_entries`` slots; the votes behind it go when
    ``snapshot_tail`` more have been applied. A client's answers are forgotten when
    ``client_entries`` slots were applied since its last request, and ``client_replies`` of them are
    kept of a client that never acknowledges any. ``remembered_refusals``: requests ended ``fail``
    of which a node refuses late copies, too. ``window_batches``: batches that may be on their
    way to a node without an acknowledgement. ``stable_leader`` False: every
    node runs both phases for its own clients; a preempted one pauses for a random time up to
    ``backoff_s``, doubled each time up to ``backoff_max_s``, or up to `PAUSE_PHASES` times what
    phase 1 takes here for each node, if that is longer (and shorter than ``request_timeout_s``).
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
    client_entries: int = 100_000
    client_replies: int = 1024
    remembered_refusals: int = 10_000
    window_batches: int = 16
    stable_leader: bool = True
    backoff_s: float = 0.02
    backoff_max_s: float = 1.0

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
        for name, lower, factor in (
            ("election_timeout_min_s", "heartbeat_s", 2),
            ("election_timeout_max_s", "election_timeout_min_s", 1),
            ("request_timeout_s", "retry_s", 1),
            ("backoff_max_s", "backoff_s", 1),
        ):
            if getattr(self, name) < factor * getattr(self, lower):
                times = f"{factor} times " if factor > 1 else ""
                raise ValueError(
                    f"{name} is at least {times}{lower} ({getattr(self, lower)}), "
                    f"not {getattr(self, name)}"
                )
