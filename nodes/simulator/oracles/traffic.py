"""The messages that a cluster sends, counted while somebody watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any

from nodes.simulator.cluster import Cluster


class Traffic:
    """Counts messages by type, sender and receiver, those of a node to itself left out, from
    ``with`` to its end.
    ``samples``: one of each type, with sender and receiver. ``full``: one of which the field named
    in ``bare`` is not empty; ``fulls``: how many of them there were, by type."""

    def __init__(self, cluster: Cluster, bare: Mapping[str, str]) -> None:
        self.sent: Counter[tuple[str, str, str]] = Counter()
        self.samples: dict[str, tuple[str, str, Any]] = {}
        self.full: tuple[str, str, Any] | None = None
        self.fulls: Counter[str] = Counter()
        self.seconds = 0.0
        self._bare = bare
        self._cluster = cluster
        self._began_s = cluster.now

    @property
    def counts(self) -> Counter[str]:
        """How many messages of each type there were."""
        counts: Counter[str] = Counter()
        for (name, _, _), count in self.sent.items():
            counts[name] += count
        return counts

    def senders(self, name: str) -> Counter[str]:
        """How many messages of a type each node has sent."""
        senders: Counter[str] = Counter()
        for (kind, src, _), count in self.sent.items():
            if kind == name:
                senders[src] += count
        return senders

    def __enter__(self) -> Traffic:
        self._began_s = self._cluster.now
        tap(self._cluster, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = self._cluster.now - self._began_s
        tap(self._cluster, None)

    def __call__(self, src: str, dst: str, msg: Any) -> None:
        """Is told of a message."""
        name = type(msg).__name__
        self.sent[name, src, dst] += 1
        self.samples.setdefault(name, (src, dst, msg))
        field = self._bare.get(name)
        if field is not None and getattr(msg, field):
            self.full = (src, dst, msg)
            self.fulls[name] += 1


class HandedOn:
    """Reads that nodes hand on to some others, from now to its `end`. ``fields``: by type of
    message, where the request is; ``to``: the others."""

    def __init__(self, cluster: Cluster, fields: Mapping[str, str], to: Collection[str]) -> None:
        self._cluster, self._fields, self._to = cluster, fields, to
        self._reads: list[tuple[float, str, str]] = []
        if fields:
            tap(cluster, self)

    def __call__(self, src: str, dst: str, msg: Any) -> None:
        """Is told of a message."""
        field = self._fields.get(type(msg).__name__)
        if field is not None and dst in self._to and getattr(msg, field).operation.op == "read":
            self._reads.append((self._cluster.now, src, dst))

    def end(self) -> list[tuple[float, str, str]]:
        """When, from whom and to whom."""
        tap(self._cluster, None)
        return self._reads


def tap(cluster: Cluster, listener: Callable[[str, str, Any], None] | None) -> None:
    """Let ``listener`` be told of all messages between different nodes."""
    for (src, dst), link in cluster.links.items():
        if src != dst:
            link.tap = listener
