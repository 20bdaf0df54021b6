"""What faults do to links, added up: a link is cut as long as at least one fault cuts it, and
latencies add up."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from nodes.errors import InvalidInput
from nodes.wire.links import Link

Number = TypeVar("Number", int, float)


class UnknownLink(InvalidInput):
    """A pair that is not a link of this cluster."""


class LinkState(msgspec.Struct, frozen=True):
    """The state of a link. ``rate_kb_per_s``: None is no limit, 0 a stall. ``closed``: no
    connection stays open or is accepted. ``reset``: connections end as soon as they carry data.
    ``close_ms``: how much later the broker sees that a connection was closed."""

    cut: bool = False
    latency_ms: int = 0
    rate_kb_per_s: int | None = None
    closed: bool = False
    reset: bool = False
    close_ms: int = 0


class LinkFaults:
    """The combined effect of all active faults on each link. Targets implement it in `apply`. Calls
    may come from several threads."""

    def __init__(self, links: Iterable[Link]) -> None:
        self.links: tuple[Link, ...] = tuple(links)
        self._known = frozenset(self.links)
        self._lock = threading.RLock()
        self._cuts: Counter[Link] = Counter()
        self._latency_ms: Counter[Link] = Counter()
        self._rates: dict[Link, list[int]] = {link: [] for link in self.links}
        self._closed: Counter[Link] = Counter()
        self._resets: Counter[Link] = Counter()
        self._close_ms: dict[Link, list[int]] = {link: [] for link in self.links}

    def cut(self, links: Iterable[Link]) -> None:
        """One more fault cuts these links."""
        self._more(self._cuts, links)

    def heal(self, links: Iterable[Link]) -> None:
        """One fault fewer cuts these links; those that no other fault cuts work again."""
        self._fewer(self._cuts, links)

    def add_latency(self, latency_ms: Mapping[Link, int]) -> None:
        """Delay messages on these links, one way, on top of their current latency."""
        links = self._checked(latency_ms)
        with self._lock:
            self._latency_ms.update(dict(latency_ms))
            self.apply(links)

    def remove_latency(self, latency_ms: Mapping[Link, int]) -> None:
        """Take back what `add_latency` added."""
        links = self._checked(latency_ms)
        with self._lock:
            for link, added_ms in latency_ms.items():
                self._latency_ms[link] = max(0, self._latency_ms[link] - added_ms)
            self.apply(links)

    def limit(self, links: Iterable[Link], rate_kb_per_s: int) -> None:
        """One more fault limits these links, to kilobytes a second (0: nothing passes); the lowest
        limit counts."""
        self._put(self._rates, links, rate_kb_per_s)

    def unlimit(self, links: Iterable[Link], rate_kb_per_s: int) -> None:
        """Take back what `limit` did."""
        self._take(self._rates, links, rate_kb_per_s)

    def close(self, links: Iterable[Link]) -> None:
        """One more fault keeps the connections of these links closed."""
        self._more(self._closed, links)

    def reopen(self, links: Iterable[Link]) -> None:
        """One fault fewer does; those that no other fault closes take connections again."""
        self._fewer(self._closed, links)

    def reset(self, links: Iterable[Link]) -> None:
        """One more fault resets the connections of these links."""
        self._more(self._resets, links)

    def unreset(self, links: Iterable[Link]) -> None:
        """One fault fewer does."""
        self._fewer(self._resets, links)

    def close_slowly(self, links: Iterable[Link], delay_ms: int) -> None:
        """One more fault delays the end of these links' connections; the longest delay counts."""
        self._put(self._close_ms, links, delay_ms)

    def close_quickly(self, links: Iterable[Link], delay_ms: int) -> None:
        """Take back what `close_slowly` did."""
        self._take(self._close_ms, links, delay_ms)

    def heal_all(self) -> None:
        """Remove all faults from all links."""
        with self._lock:
            self._cuts.clear()
            self._latency_ms.clear()
            self._closed.clear()
            self._resets.clear()
            for values in (*self._rates.values(), *self._close_ms.values()):
                values.clear()
            self.apply(self.links)

    def wanted(self, link: Link) -> LinkState:
        """What should lie on the link now."""
        return LinkState(
            self._cuts[link] > 0,
            self._latency_ms[link],
            min(self._rates[link], default=None),
            self._closed[link] > 0,
            self._resets[link] > 0,
            max(self._close_ms[link], default=0),
        )

    def _more(self, faults: Counter[Link], links: Iterable[Link]) -> None:
        links = self._checked(links)
        with self._lock:
            faults.update(links)
            self.apply(links)

    def _fewer(self, faults: Counter[Link], links: Iterable[Link]) -> None:
        links = self._checked(links)
        with self._lock:
            for link in links:
                faults[link] = max(0, faults[link] - 1)
            self.apply(links)

    def _put(self, faults: dict[Link, list[Number]], links: Iterable[Link], value: Number) -> None:
        links = self._checked(links)
        with self._lock:
            for link in links:
                faults[link].append(value)
            self.apply(links)

    def _take(self, faults: dict[Link, list[Number]], links: Iterable[Link], value: Number) -> None:
        links = self._checked(links)
        with self._lock:
            for link in links:
                if value in faults[link]:
                    faults[link].remove(value)
            self.apply(links)

    def apply(self, links: Sequence[Link]) -> None:
        """Bring these links into the state `wanted`. Targets override it. It tries all of them
        before it raises, so that one that fails does not keep the others from healing."""
        raise NotImplementedError

    def _checked(self, links: Iterable[Link]) -> tuple[Link, ...]:
        links = tuple(links)
        for link in links:
            if link not in self._known:
                raise UnknownLink(f"there is no link from {link[0]} to {link[1]}")
        return links
