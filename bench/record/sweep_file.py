"""``sweep.json``: live protocols measured over nodes, value size and clients, one at a time.

`bench.measure.sweep` writes it; `reports.sweeps.sweep` makes its tables, charts and page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bench.record.files import NotReadable, read_named, write_whole
from nodes.errors import InvalidInput

MAX_BYTES = 64 << 20
DIMENSIONS = ("nodes", "value_bytes", "clients", "proxied", "coalesced")
"""What is varied, one dimension at a time from the base point. ``proxied``: a Toxiproxy on every
link. ``coalesced``: messages waiting for one destination leave as one PUBLISH."""

THINK_S = 0.001
"""The time between a reply and the client's next operation if there are several clients: without it
they move as a herd, which flatters coalescing. A single client does not think."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured. The defaults are the base point. ``value_bytes``: of each written value.
    ``clients``: the most operations in flight."""

    protocol: str
    nodes: int = 3
    value_bytes: int = 100
    clients: int = 128
    proxied: bool = False
    coalesced: bool = True

    @property
    def think_s(self) -> float:
        """See `THINK_S`."""
        return THINK_S if self.clients > 1 else 0.0

    def __str__(self) -> str:
        parts = [f"{self.protocol}, {self.nodes} nodes, {self.value_bytes} B"]
        parts.append(f"{self.clients} clients" if self.clients > 1 else "1 client")
        parts += ["proxied"] * self.proxied + ["one message per PUBLISH"] * (not self.coalesced)
        return ", ".join(parts)


class SweepRow(msgspec.Struct, kw_only=True):
    """A point and its measurements, or why there are none: ``missing``.

    ``ok``, ``failed``, ``unanswered``: operations in ``seconds``. Per operation that ended ok:
    ``messages`` between nodes, plus one request and one reply; ``publishes`` that carried them to
    the broker; their payload ``bytes``; ``fsyncs`` and ``log_bytes`` written, over all nodes.
    ``fsync_us``: mean time of a node's write and fsync. ``forwarded``: the share of clients whose
    node was not the leader (0 if the protocol has none). ``cpu_us``: CPU microseconds per operation
    of each process, the load generator included. ``other_cores``: how many cores were busy with
    anything else. ``rss_bytes``: of each process at the end.
    """

    point: Point
    missing: str | None = None
    seconds: float = 0.0
    ok: int = 0
    failed: int = 0
    unanswered: int = 0
    ok_per_s: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p99: float | None = None
    messages: float | None = None
    publishes: float | None = None
    bytes: float | None = None
    fsyncs: float | None = None
    log_bytes: float | None = None
    fsync_us: float | None = None
    forwarded: float | None = None
    other_cores: float | None = None
    cpu_us: dict[str, float] = {}
    rss_bytes: dict[str, int] = {}


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine does without a protocol. ``broker_messages_per_s``: payload bytes ->
    messages that the broker passes from one publisher to one subscriber. ``fsync_us``: median time
    of a small append and its fdatasync on the disk of the nodes."""

    broker_messages_per_s: dict[int, float]
    fsync_us: float


class Sweep(msgspec.Struct, kw_only=True):
    """``sweep.json``. ``hardware``: see `bench.measure.figures.hardware`. ``command``: as typed."""

    schema: int = 1
    capbench: str
    command: list[str]
    started: str
    hardware: dict[str, Any]
    seconds: float
    warm_up_s: float
    calibration: Calibration | None = None
    rows: list[SweepRow] = []


class BadSweep(InvalidInput):
    """The file is not a sweep: names it."""


def read_sweep(path: Path) -> Sweep:
    """Raises BadSweep, OSError."""
    try:
        return msgspec.json.decode(read_named(path, MAX_BYTES), type=Sweep)
    except NotReadable as error:
        raise BadSweep(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSweep(f"{path}: not a sweep: {error}") from None


def write_sweep(path: Path, sweep: Sweep) -> None:
    """Write the file atomically."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(sweep), indent=1) + b"\n")
