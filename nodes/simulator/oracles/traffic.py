"""The messages that a cluster sends, counted while somebody watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from nodes.simulator.cluster import Cluster


class Traffic:
    """Counts messages by type, those of a node to itself left out, from ``with`` to its end.
    ``samples``: one of each type, with sender and receiver. ``full``: one of which the field named
    in ``bare`` is not empty."""

    def __init__(self, cluster: Cluster, bare: Mapping[str, str]) -> None:
        self.counts: Counter[str] = Counter()
        self.samples: dict[str, tuple[str, str, Any]] = {}
        self.full: tuple[str, str, Any] | None = None
        self.seconds = 0.0
        self._bare = bare
        self._cluster = cluster
        self._began_s = cluster.now

    def __enter__(self) -> Traffic:
        self._began_s = self._cluster.now
        self._set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = self._cluster.now - self._began_s
        self._set(None)

    def _set(self, tap: Traffic | None) -> None:
        for (src, dst), link in self._cluster.links.items():
            if src != dst:
                link.tap = tap

    def __call__(self, src: str, dst: str, msg: Any) -> None:
        """Is told of a message."""
        name = type(msg).__name__
        self.counts[name] += 1
        self.samples.setdefault(name, (src, dst, msg))
        field = self._bare.get(name)
        if field is not None and getattr(msg, field):
            self.full = (src, dst, msg)
