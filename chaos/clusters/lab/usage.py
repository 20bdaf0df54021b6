"""What the nodes of a lab use of this machine, as its kernel counts it: CPU time and memory of
their processes, and the bytes that they send to each other. How often they sync their disks no
kernel counts; some systems do."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import psutil

from chaos.clusters.lab.network import Count
from chaos.errors import TargetFailed
from nodes.runtime.memory import peak_kb, share_kb
from nodes.wire.links import Link

SENT_EVERY_S = 1.0
"""To list the counters of the links takes a process of its own."""
_US_PER_TICK = 1_000_000 // os.sysconf("SC_CLK_TCK")


class Usage:
    """Counts for each node, which go on when it is started again.

    ``roots``: the processes of a node that were started last; their children count.
    ``counts``: what has passed on each link.
    """

    def __init__(
        self,
        nodes: Collection[str],
        roots: Callable[[str], list[int]],
        counts: Callable[[], Mapping[Link, Count]],
    ) -> None:
        self._roots, self._counts = roots, counts
        self._lock = threading.Lock()
        self._before = dict.fromkeys(nodes, 0)
        self._cpu_us = dict.fromkeys(nodes, 0)
        self._peak_kb = dict.fromkeys(nodes, 0)
        self._syncs: dict[str, int] = {}
        self._syncs_before = dict.fromkeys(nodes, 0)
        self._sent = dict.fromkeys(nodes, Count(0, 0))
        self._sent_at = 0.0

    def starts(self, node: str) -> None:
        """Its next processes count from 0."""
        with self._lock:
            self._before[node] += self._cpu_us[node]
            self._cpu_us[node] = 0
            self._syncs_before[node] += self._syncs.get(node, 0)
            if node in self._syncs:
                self._syncs[node] = 0

    def synced(self, node: str, count: int) -> None:
        """So often its processes have synced their disk since they started."""
        with self._lock:
            self._syncs[node] = count

    def counters(self, node: str) -> dict[str, int]:
        """``cpu_us``, ``bytes_sent`` to other nodes (with the headers of packets),
        ``packets_lost`` on the way there, ``memory_peak_kb``: the most that its processes have
        had in memory; of several, the most that was there whenever this was called; and, if it was
        told, ``log_commits``: syncs of its disk."""
        with self._lock:
            processes = [pid for root in self._roots(node) for pid in _family(root)]
            # Less than before: a process has ended, and what it used is not in its parent's count.
            self._cpu_us[node] = max(self._cpu_us[node], sum(map(_cpu_us, processes)))
            self._peak_kb[node] = max(self._peak_kb[node], _memory_kb(processes))
            if time.monotonic() - self._sent_at > SENT_EVERY_S:
                self._look_at_links()
            told = {
                "cpu_us": self._before[node] + self._cpu_us[node],
                "bytes_sent": self._sent[node].bytes,
                "packets_lost": self._sent[node].lost,
                "memory_peak_kb": self._peak_kb[node],
            }
            if node in self._syncs:
                told["log_commits"] = self._syncs_before[node] + self._syncs[node]
            return told

    def look(self) -> None:
        """Count the bytes and packets of all links anew."""
        with self._lock:
            self._look_at_links()

    def _look_at_links(self) -> None:
        try:
            counts = self._counts()
        except TargetFailed:  # A run that depends on them, since it cuts links, fails by itself.
            return
        between = {link: count for link, count in counts.items() if link[1] in self._before}
        for node in self._before:
            own = [count for (src, _), count in between.items() if src == node]
            self._sent[node] = Count(0, sum(c.bytes for c in own), sum(c.lost for c in own))
        self._sent_at = time.monotonic()


def _family(root: int) -> Iterator[int]:
    """The process and all below it."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(root).children(recursive=True)
        yield from (root, *(child.pid for child in children))


def _memory_kb(processes: list[int]) -> int:
    """What they have in memory; the most that one alone has had. Several may share most of it, as
    PostgreSQL's do, and have had their peaks at different times."""
    share = share_kb if len(processes) > 1 else peak_kb
    return sum(map(share, processes))


def _cpu_us(pid: int) -> int:
    """In user and kernel mode, with that of children that have ended; 0: there is no process."""
    with contextlib.suppress(OSError):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, after_name[11:15])) * _US_PER_TICK
    return 0
