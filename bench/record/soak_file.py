"""``soak.json``: memory and disk of every process of a cluster under millions of operations.

`bench.measure.soak` writes it; `reports.sweeps.soak` evaluates it and makes its table and page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bench.record.files import write_whole


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the soak. ``operations``: ended ok since the beginning; ``t_s``: seconds since
    then; ``ok_per_s``: in this stretch. ``rss_bytes``: process (the load generator included) -> its
    peak memory in this stretch; ``disk_bytes``: node -> the peak size of its data directory."""

    t_s: float
    operations: int
    ok_per_s: float
    rss_bytes: dict[str, int]
    disk_bytes: dict[str, int]


class Soak(msgspec.Struct, kw_only=True):
    """``wanted``, ``failed``, ``unanswered``: numbers of operations; ``error``: that of the first
    failed one. ``stopped``: why there are fewer operations than wanted; None if there are not.
    ``hardware``: see `bench.measure.figures.hardware`."""

    schema: int = 1
    capbench: str
    command: list[str]
    started: str
    hardware: dict[str, Any]
    protocol: str
    nodes: int
    clients: int
    value_bytes: int
    keys: int
    wanted: int
    stopped: str | None = None
    failed: int = 0
    unanswered: int = 0
    error: str | None = None
    samples: list[Sample] = []

    @property
    def operations(self) -> int:
        """How many ended ok."""
        return self.samples[-1].operations if self.samples else 0


def write_soak(path: Path, soak: Soak) -> None:
    """Write the file atomically."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(soak), indent=1) + b"\n")
