"""What a served operation cost the nodes, faults included: messages, syncs, bytes, CPU and
disk time; and how much memory they needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from bench.record.printable import escaped

COUNTED = {
    "messages_sent": "messages",
    "bytes_sent": "bytes_sent",
    "log_commits": "syncs",
    "log_bytes_written": "bytes_written",
    "log_commit_us": "disk_ms",
    "cpu_us": "cpu_us",
}
"""Counter of the nodes -> figure of `Cost`."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Per served operation, over all nodes: ``messages`` sent, ``syncs`` (commits of the log),
    ``bytes_sent`` (our nodes: of frames; systems of others: of packets with data, with their
    headers), ``bytes_written``, ``disk_ms`` (time in commits of the log), ``cpu_us`` of the nodes'
    processes. Not per operation: ``memory_mb``, the sum over all nodes of what each had in memory
    at most. None: not counted."""

    messages: float | None = None
    syncs: float | None = None
    bytes_sent: float | None = None
    bytes_written: float | None = None
    disk_ms: float | None = None
    cpu_us: float | None = None
    memory_mb: float | None = None


def cost(counters: Mapping[str, int], served: int, memory_kb: int | None = None) -> Cost | None:
    """The cost per served operation; None if nothing was counted or served. ``memory_kb``: of all
    nodes at their peaks."""
    if not served:
        return None
    found = {
        figure: counters[name] / served / (1000 if figure == "disk_ms" else 1)
        for name, figure in COUNTED.items()
        if name in counters
    }
    if memory_kb is not None:
        found["memory_mb"] = memory_kb / 1000
    return Cost(**found) if found else None


class Column(NamedTuple):
    """A figure of `Cost`, its name and unit for people, and what it is counted ``per``."""

    figure: str
    name: str
    unit: str = ""
    per: str = "per operation"

    @property
    def words(self) -> str:
        """Its name, what it is counted per, and its unit."""
        return f"{self.name} {self.per}{', ' * bool(self.unit)}{self.unit}"


COLUMNS = (
    Column("messages", "messages"),
    Column("syncs", "syncs"),
    Column("bytes_sent", "bytes sent"),
    Column("disk_ms", "disk", "ms"),
    Column("cpu_us", "CPU", "µs"),
    Column("memory_mb", "memory", "MB", "of all nodes, at most"),
)


EXPLAINED = "what a served operation cost all nodes together; memory: of all nodes, at most"


class Figures(Protocol):
    """Whatever has figures by name: a cell of a comparison."""

    def figure(self, name: str) -> float | None: ...


def counted(cells: Iterable[Figures]) -> list[Column]:
    """The columns of which any cell has a figure."""
    all_ = list(cells)
    return [
        column
        for column in COLUMNS
        if any(cell.figure(f"cost.{column.figure}") is not None for cell in all_)
    ]


def row(cell: Figures, columns: Sequence[Column]) -> list[str]:
    """The figures of a cell in words."""
    found = [(cell.figure(f"cost.{column.figure}"), column.unit) for column in columns]
    return ["not measured" if value is None else quantity(value, unit) for value, unit in found]


WORDS = {
    "messages_sent": "messages sent",
    "bytes_sent": "bytes sent",
    "log_commits": "syncs of the log",
    "log_bytes_written": "bytes written to the log",
    "log_commit_us": "time in syncs of the log",
    "cpu_us": "CPU time",
    "messages_cut": "messages lost to cuts",
    "messages_lost": "messages lost",
    "packets_lost": "packets lost",
    "messages_slowed": "messages on links made slower",
    "slowed_us": "time of messages on links made slower",
    "messages_held_back": "messages held back",
    "messages_duplicated": "messages sent twice",
    "frames_corrupted": "messages corrupted",
    "frames_dropped": "messages dropped while the link was down",
    "steps": "steps of replicas",
    "link_connects": "connections made",
    "torn_bytes_cut": "bytes of torn writes cut off",
}
"""The nodes' counters in words; a protocol's own counters are spelled out from their names."""


def in_words(counter: str, total: int, served: int) -> tuple[str, str, str]:
    """A counter for people: its name in words, its total, and per served operation."""
    what = WORDS.get(counter, escaped(counter.replace("_", " ")))
    if counter.endswith("_us"):
        return (
            what.removesuffix(" us"),
            quantity(total / 1e6, "s"),
            quantity(total / 1e3 / max(served, 1), "ms") if served else "–",
        )
    return what, f"{total:,}", quantity(total / served) if served else "–"


def quantity(value: float | None, unit: str = "") -> str:
    """A figure with three digits, and its unit: ``1.17 ms``, ``0.004``, ``1,234``."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        number = f"{value:,.0f}"
    elif value == 0 or abs(value) >= 0.001:
        number = f"{value:.3g}"
    else:
        number = "<0.001"
    return f"{number} {unit}".strip()
