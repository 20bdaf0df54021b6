"""What a served operation cost the nodes, faults included: messages, syncs, bytes and disk time."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bench.record.printable import escaped

COUNTED = {
    "messages_sent": "messages",
    "bytes_sent": "bytes_sent",
    "log_commits": "syncs",
    "log_bytes_written": "bytes_written",
    "log_commit_us": "disk_ms",
}
"""Counter of the nodes -> figure of `Cost`."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Per served operation, over all nodes: ``messages`` sent, ``syncs`` (commits of the log),
    ``bytes_sent``, ``bytes_written``, ``disk_ms`` (time in commits of the log). None: not counted.
    """

    messages: float | None = None
    syncs: float | None = None
    bytes_sent: float | None = None
    bytes_written: float | None = None
    disk_ms: float | None = None


def cost(counters: Mapping[str, int], served: int) -> Cost | None:
    """The cost per served operation; None if nothing was counted or served."""
    if not served:
        return None
    found = {
        figure: counters[name] / served / (1000 if figure == "disk_ms" else 1)
        for name, figure in COUNTED.items()
        if name in counters
    }
    return Cost(**found) if found else None


WORDS = {
    "messages_sent": "messages sent",
    "bytes_sent": "bytes sent",
    "log_commits": "syncs of the log",
    "log_bytes_written": "bytes written to the log",
    "log_commit_us": "time in syncs of the log",
    "messages_cut": "messages lost to cuts",
    "messages_lost": "messages lost",
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
