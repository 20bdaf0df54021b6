"""Who listens in the namespaces of a lab.

A proxy takes every connection, also one to a port at which nobody listens, and hangs up then. To
some programs the two are not the same: a follower of ZooKeeper tries again when its new leader
refuses connections, and elects anew when the leader hangs up. So a proxy may take connections only
as long as its node would.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nodes.errors import InfrastructureFailed

EVERY_S = 0.02
_LISTENS = "0A"
_ENOUGH_BYTES = 1 << 14
"""The kernel lists those that listen first: about a hundred of them."""
_CLONE_NEWNET = 0x40000000


class Listening:
    """Looks again and again which ports of these nodes take connections. Use as a context manager.

    ``hosts``: the address of each node. ``on_change``: called with all pairs of a node and a port
    when they are others than before, in a thread of its own. ``failure``: why it looks no more.
    """

    def __init__(
        self,
        hosts: Mapping[str, str],
        on_change: Callable[[frozenset[tuple[str, int]]], None],
        namespaces: Path = Path("/run/netns"),
    ) -> None:
        self._hosts = dict(hosts)
        self._on_change = on_change
        self._namespaces = namespaces
        self._tables: dict[str, list[int]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="listening", daemon=True)
        self.failure: str | None = None

    def __enter__(self) -> Listening:
        for node in self._hosts:
            opener = threading.Thread(target=self._open, args=(node,))
            opener.start()
            opener.join()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for table in self._tables.values():
            for descriptor in table:
                os.close(descriptor)

    def _open(self, node: str) -> None:
        """In a thread of its own, which ends in the namespace of the node. What is opened there
        goes on telling of that namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (self._namespaces / node).open("rb") as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                return
        self._tables[node] = [
            os.open(f"/proc/thread-self/net/{name}", os.O_RDONLY)
            for name in ("tcp", "tcp6")
            if os.path.exists(f"/proc/thread-self/net/{name}")
        ]

    def _look(self) -> None:
        before: frozenset[tuple[str, int]] = frozenset()
        try:
            while not self._ended.wait(EVERY_S):
                now = self._now()
                if now != before:
                    self._on_change(now)
                    before = now
        except (InfrastructureFailed, OSError, KeyError) as error:
            self.failure = f"nobody knows who listens: {error}"

    def _now(self) -> frozenset[tuple[str, int]]:
        return frozenset(
            (node, port)
            for node, host in self._hosts.items()
            for table in self._tables[node]
            for port in ports(os.pread(table, _ENOUGH_BYTES, 0).decode(), host)
        )


def ports(table: str, host: str) -> Iterator[int]:
    """The ports at which somebody listens for connections to ``host``, by /proc/net/tcp or tcp6."""
    own = f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}"
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 4 or words[3] != _LISTENS:
            return
        address, _, port = words[1].partition(":")
        # An address of IPv6 ends with that of IPv4 that it stands for.
        if not address.strip("0") or address.endswith(own):
            yield int(port, 16)
