"""The proxies of every directed link, and the faults on them.

A link is a pair (src, dst). Between nodes it is the way of protocol messages; with a client group
as one end it is the way of that group's requests to a node, or of the node's replies to the group.
So a request that is lost and a reply that is lost are cuts like any other:

    ("n1", "n2")    proxy link_n1_n2    node n1 publishes to n2
    ("g1", "n1")    proxy req_g1_n1     group g1 publishes its requests to n1
    ("n1", "g1")    proxy rep_g1_n1     node n1 publishes its replies to g1

Whoever publishes is a TCP client of the proxy, so data flows *upstream* on all of them, and every
toxic is an upstream one. The connection's other direction carries only the broker's CONNACK.

Faults may overlap: a link is cut as long as at least one fault cuts it, and latencies add up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from bench.record.cluster_file import Address
from chaos.clusters.toxiproxy import (
    Proxy,
    Stream,
    Toxic,
    Toxiproxy,
    ToxiproxyDown,
    ToxiproxyError,
    ToxiproxyWedged,
    toxic_name,
)
from nodes.faults.link_faults import LinkFaults, LinkState, UnknownLink
from nodes.wire.links import Link, link_names

SETTLE_S = 0.05
"""How long a proxy is left alone after a heal. The heal closes connections; a change that meets one
before the server has forgotten it waits for good for a toxic that nobody reads from, and the proxy
is wedged (seen within 30 rounds of heal and update under load, and never with the wait)."""


UNLIMITED = 1_000_000
"""Kilobytes a second: more than any link carries. A limit, once made, is never deleted, only raised
(the delete can deadlock the server)."""


Way: TypeAlias = tuple[str, Stream]
"""A proxy, and the direction in which it carries a link."""


class ProxiedLinks(LinkFaults):
    """Links that are directions of Toxiproxy's proxies: ``ways``, one or several for each link.

    Faults never use ``/reset``, which can deadlock the server, and disable a proxy only to close
    its connections, which a partition does not do.
    """

    def __init__(
        self,
        toxiproxy: Toxiproxy,
        proxies: Iterable[Proxy],
        ways: Mapping[Link, Sequence[Way]],
    ) -> None:
        super().__init__(ways)
        self.restart_server: Callable[[], None] | None = None
        """Replaces a server that is gone or answers no more; without it such a server is an
        error."""
        self._rebuilding = False
        self._toxiproxy = toxiproxy
        self._proxies = {proxy.name: proxy for proxy in proxies}
        self._ways = {link: tuple(ways) for link, ways in ways.items()}
        self._carried = {
            name: [link for link, ways in self._ways.items() if name in dict(ways)]
            for name in self._proxies
        }
        """Proxy -> the links whose connections it carries."""
        # What the server is known to have; a link whose last call failed is not in it.
        self._applied: dict[Link, LinkState] = {}
        self._healed_at: dict[str, float] = {}

    def create(self) -> None:
        """Create all proxies, each with its permanent ``latency`` toxic, and put on them what
        faults want now: so also what rebuilds a server that was restarted. Raises
        ToxiproxyError."""
        with self._lock:
            self._applied.clear()
            self._toxiproxy.populate(self._proxies.values())
            for proxy, stream in sorted({way for ways in self._ways.values() for way in ways}):
                self._toxiproxy.add_toxic(
                    proxy,
                    Toxic(
                        name=toxic_name("latency", stream),
                        type="latency",
                        stream=stream,
                        attributes={"latency": 0, "jitter": 0},
                    ),
                )
            self.apply(self.links)

    def rebuild(self) -> bool:
        """If the server is gone or wedged, replace it and put on it what faults want now. Returns
        whether that was so. Raises ToxiproxyError."""
        if self.restart_server is None or self._rebuilding:
            return False
        with self._lock:
            if self._toxiproxy.is_up() and not self._toxiproxy.is_wedged():
                return False
            self._rebuilding = True
            try:
                self.restart_server()
                self.create()
            finally:
                self._rebuilding = False
            return True

    def state(self) -> dict[Link, LinkState]:
        """What the server has on each link. Raises ToxiproxyError, also if a proxy is missing."""
        there = self._toxiproxy.proxies()
        state: dict[Link, LinkState] = {}
        for link, ways in self._ways.items():
            (name, stream), *_ = ways
            if name not in there:
                raise ToxiproxyError(f"the proxy {name} is gone")
            toxics = {
                toxic.name.removesuffix("_down"): toxic
                for toxic in there[name].toxics
                if toxic.stream == stream
            }
            latency = toxics["latency"].attributes["latency"] if "latency" in toxics else 0
            rate = toxics["rate"].attributes["rate"] if "rate" in toxics else UNLIMITED
            state[link] = LinkState(
                "cut" in toxics,
                latency,
                None if rate == UNLIMITED else rate,
                not there[name].enabled,
                "reset" in toxics,
                toxics["close"].attributes["delay"] if "close" in toxics else 0,
            )
        return state

    def apply(self, links: Sequence[Link]) -> None:
        """Make these links what `wanted` says. Raises ToxiproxyError."""
        failures: list[ToxiproxyError] = []
        for link in links:
            wanted, before = self.wanted(link), self._applied.pop(link, None)
            try:
                if wanted != before:
                    for way in self._ways[link]:
                        self._change(way, wanted, before)
            except ToxiproxyError as error:
                failures.append(error)
            else:
                self._applied[link] = wanted
            gone = failures and isinstance(failures[-1], ToxiproxyDown | ToxiproxyWedged)
            if gone and self.rebuild():
                return  # All links have what is wanted.
        if failures:
            first = failures[0]
            raise type(first)(f"{len(failures)} of {len(links)} links not changed: {first}")

    def _change(self, way: Way, wanted: LinkState, before: LinkState | None) -> None:
        proxy, stream = way
        settled = self._healed_at.pop(proxy, 0.0) + SETTLE_S
        time.sleep(max(0.0, settled - time.monotonic()))
        # The latency first, since after the heal it would have to wait.
        if before is None or wanted.latency_ms != before.latency_ms:
            name = toxic_name("latency", stream)
            self._toxiproxy.update_toxic(proxy, name, {"latency": wanted.latency_ms})
        if wanted.rate_kb_per_s != (before.rate_kb_per_s if before else None):
            self._limit(way, wanted.rate_kb_per_s)
        if wanted.close_ms != (before.close_ms if before else 0):
            self._set_toxic(way, "close", "slow_close", {"delay": wanted.close_ms})
        if wanted.reset != (before.reset if before else False):
            self._reset(way, on=wanted.reset)
        if wanted.closed != (before.closed if before else False):
            # A connection has two directions, and goes with either of them.
            closed = any(self.wanted(link).closed for link in self._carried[proxy])
            self._toxiproxy.enable(proxy, enabled=not closed)
            self._healed_at[proxy] = time.monotonic()  # it closes connections too
            if wanted.cut != (before.cut if before else None):
                time.sleep(SETTLE_S)
        if before is not None and wanted.cut == before.cut:
            return
        if wanted.cut:
            self._toxiproxy.cut(proxy, stream)
        elif self._toxiproxy.heal(proxy, stream):
            self._healed_at[proxy] = time.monotonic()

    def _limit(self, way: Way, rate_kb_per_s: int | None) -> None:
        rate = UNLIMITED if rate_kb_per_s is None else rate_kb_per_s
        self._set_toxic(way, "rate", "bandwidth", {"rate": rate})

    def _set_toxic(self, way: Way, what: str, kind: str, attributes: dict[str, int]) -> None:
        """Once there, a toxic is only ever updated."""
        proxy, stream = way
        name = toxic_name(what, stream)
        toxic = Toxic(name=name, type=kind, stream=stream, attributes=attributes)
        # What is there already is left as it is.
        self._toxiproxy.add_toxic(proxy, toxic)
        self._toxiproxy.update_toxic(proxy, name, attributes)

    def _reset(self, way: Way, *, on: bool) -> None:
        proxy, stream = way
        name = toxic_name("reset", stream)
        if on:
            toxic = Toxic(name=name, type="reset_peer", stream=stream, attributes={"timeout": 0})
            self._toxiproxy.add_toxic(proxy, toxic)
        else:
            self._toxiproxy.remove_toxic(proxy, name)
            self._healed_at[proxy] = time.monotonic()  # it closes connections
            time.sleep(SETTLE_S)


class Links(ProxiedLinks):
    """The links of a live cluster, each through a Toxiproxy proxy of its own.

    ``ports``: one for each of `count` links, in order. ``upstream``: the broker as Toxiproxy
    reaches it. ``host``: where nodes and clients reach Toxiproxy; ``listen``: the address that it
    listens on.
    """

    def __init__(
        self,
        toxiproxy: Toxiproxy,
        upstream: Address,
        nodes: Sequence[str],
        groups: Sequence[str],
        ports: Sequence[int],
        *,
        host: str = "127.0.0.1",
        listen: str = "127.0.0.1",
    ) -> None:
        names = link_names(nodes, groups)
        if len(ports) < len(names):
            raise ValueError(f"{len(names)} links need as many ports, not {len(ports)}")
        proxies = [
            Proxy(name=name, listen=f"{listen}:{port}", upstream=str(upstream))
            for name, port in zip(names.values(), ports, strict=False)
        ]
        super().__init__(
            toxiproxy, proxies, {link: [(name, "upstream")] for link, name in names.items()}
        )
        self._addresses = {
            link: Address(host, port) for link, port in zip(names, ports, strict=False)
        }

    @staticmethod
    def count(nodes: int, groups: int) -> int:
        """How many links, and so ports, that many nodes and client groups need."""
        return nodes * (nodes - 1) + 2 * nodes * groups

    def address(self, src: str, dst: str) -> Address:
        """Where ``src`` connects to publish to ``dst``. Raises UnknownLink."""
        try:
            return self._addresses[(src, dst)]
        except KeyError:
            raise UnknownLink(f"there is no link from {src} to {dst}") from None
