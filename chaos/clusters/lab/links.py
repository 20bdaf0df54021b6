"""The links of a lab, and the proof that a cut was one.

A connection carries two links: what its opener sends, and what is answered. So a directed link
between nodes lies on all proxies between the two: upstream where its sender opens the connection,
downstream where its receiver does. A client's requests and a node's answers are the two directions
of one proxy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import msgspec

from chaos.clusters.lab import network
from chaos.clusters.lab.network import Count, Network
from chaos.clusters.links import ProxiedLinks, Way
from chaos.clusters.toxiproxy import Proxy, Toxiproxy
from nodes.wire.links import Link

HELD_BYTES = 1 << 16
"""What may pass after the begin of a cut: data that was in the sockets of a proxy before it."""


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """What happened on a link while it was cut: ``bytes`` of packets with data (with headers) that
    passed nevertheless, and how often its sender tried to open ``connections``."""

    link: Link
    from_ns: int
    until_ns: int
    bytes: int
    connections: int


class LabLinks(ProxiedLinks):
    """The links of a lab. ``cuts``: each cut that has ended, in order."""

    def __init__(self, toxiproxy: Toxiproxy, ways: Sequence[network.Way], network: Network) -> None:
        proxies = [
            Proxy(name=way.name, listen=str(way.listen), upstream=str(way.upstream)) for way in ways
        ]
        super().__init__(toxiproxy, proxies, _directions(ways))
        self._network = network
        self._watching = threading.Lock()
        self._cut_since: dict[Link, tuple[int, Count]] = {}
        self.cuts: list[Cut] = []

    def apply(self, links: Sequence[Link]) -> None:
        """See `ProxiedLinks.apply`; counters are read when a cut is complete, and before it
        ends."""
        wanted = {link for link in links if self.wanted(link).cut}
        with self._watching:
            self._end(set(links) - wanted)
        self._network.cut_between({link for link in self.links if self.wanted(link).cut})
        super().apply(links)
        with self._watching:
            begun = wanted - self._cut_since.keys()
            if begun:
                counts, now_ns = self._network.counts(), time.monotonic_ns()
                self._cut_since |= {link: (now_ns, counts[link]) for link in begun}

    def _end(self, links: set[Link]) -> None:
        ended = links & self._cut_since.keys()
        if not ended:
            return
        counts, now_ns = self._network.counts(), time.monotonic_ns()
        for link in sorted(ended):
            since_ns, before = self._cut_since.pop(link)
            self.cuts.append(
                Cut(
                    link=link,
                    from_ns=since_ns,
                    until_ns=now_ns,
                    bytes=counts[link].bytes - before.bytes,
                    connections=counts[link].connections - before.connections,
                )
            )


def in_words(cuts: Sequence[Cut], strayed: Mapping[Link, int]) -> list[str]:
    """What a report says of all cuts of a run: a line each."""
    lines = []
    if cuts:
        leaks = [cut for cut in cuts if cut.bytes]
        links = len({cut.link for cut in cuts})
        tried = sum(cut.connections for cut in cuts)
        passed = ", ".join(f"{cut.bytes} bytes on {'->'.join(cut.link)}" for cut in leaks)
        lines.append(
            f"cuts: {links} directed links were cut, {len(cuts)} times in all; while they were, "
            f"{passed or '0 bytes'} passed, and nodes or clients tried to "
            f"connect {tried} times"
        )
    if strayed:
        pairs = ", ".join(
            f"{src}->{dst} ({packets} packets)" for (src, dst), packets in strayed.items()
        )
        lines.append(f"dropped, since no declared port carries it: {pairs}")
    return lines


def leak(cuts: Sequence[Cut]) -> str | None:
    """What to say of a cut that was none. What a kernel still held from before may pass."""
    for cut in cuts:
        if cut.bytes > HELD_BYTES:
            return f"the cut of {'->'.join(cut.link)} was none: {cut.bytes} bytes passed"
    return None


def _directions(ways: Sequence[network.Way]) -> dict[Link, list[Way]]:
    found: dict[Link, list[Way]] = {}
    for way in ways:
        found.setdefault((way.src, way.dst), []).append((way.name, "upstream"))
        found.setdefault((way.dst, way.src), []).append((way.name, "downstream"))
    return found
