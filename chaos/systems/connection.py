"""Connections of clients, which know what they may say of a request that came to nothing.

A request that never left is NotApplied; whatever happens later raises what Python raises, and
nobody knows. All of it is plain blocking code: Locust turns it into greenlets.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from bench.record.cluster_file import Address
from chaos.systems.system import NotApplied

PROBE_S = 1.0
"""How long a probe may wait for an answer."""

FORM_S = 30.0
"""How long it may take to make a cluster of nodes that answer."""


def is_stale(sock: socket.socket) -> bool:
    """Whether an idle connection was closed by the other end, or has bytes that nobody asked for.
    What is written to it then may be lost, and nobody would know."""
    watch = select.poll()  # Not `select.select`, which knows 1024 files only.
    watch.register(sock, select.POLLIN)
    return bool(watch.poll(0))


def connected(address: Address, timeout_s: float) -> socket.socket:
    """A new connection. Raises NotApplied."""
    try:
        sock = socket.create_connection((address.host, address.port), timeout_s)
    except OSError as error:
        raise NotApplied(f"not sent: no connection: {error}") from None
    # Else a small request waits up to 40 ms for the acknowledgement of the one before it.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Connection:
    """A connection over which one thing is asked after the other: a `Session`. ``_answers``: what
    comes, buffered. Raises NotApplied if there is none."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._socket = connected(address, timeout_s)
        self._answers = self._socket.makefile("rb")

    @property
    def stale(self) -> bool:
        """See `is_stale`."""
        return is_stale(self._socket)

    def close(self) -> None:
        """Close it, without a word."""
        with contextlib.suppress(OSError):
            self._answers.close()
            self._socket.close()


class Session(Protocol):
    """What a client of a system says things over. ``stale``: see `is_stale`."""

    @property
    def stale(self) -> bool: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=Session)


class Kept(Generic[S]):
    """One session that stays open for as long as it is of use. ``begin`` makes one."""

    def __init__(self, begin: Callable[[], S]) -> None:
        self._begin = begin
        self._session: S | None = None

    def ready(self) -> S:
        """The session; a new one if there is none, or a stale one. Raises what ``begin`` does."""
        if self._session is not None and self._session.stale:
            self.close()
        if self._session is None:
            self._session = self._begin()
        return self._session

    def close(self) -> None:
        """Close the session, if there is one."""
        if self._session is not None:
            self._session.close()
            self._session = None


def page(address: Address, path: str) -> str:
    """A page that a node has for people who watch it. Raises OSError,
    http.client.HTTPException."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=PROBE_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        with connection.getresponse() as answer:
            return answer.read().decode()


class JsonOverHttp:
    """JSON objects over one HTTP connection that stays open."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._http: http.client.HTTPConnection | None = None

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """The status and the answer's object. Raises NotApplied, OSError,
        http.client.HTTPException and msgspec.DecodeError; after these it connects anew."""
        connection = self._ready()
        try:
            connection.request(
                "POST", path, msgspec.json.encode(body), {"Content-Type": "application/json"}
            )
            with connection.getresponse() as answer:
                return answer.status, msgspec.json.decode(answer.read())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._http is not None:
            with contextlib.suppress(OSError):
                self._http.close()
            self._http = None

    def _ready(self) -> http.client.HTTPConnection:
        if self._http is not None and (self._http.sock is None or is_stale(self._http.sock)):
            self.close()
        if self._http is None:
            sock = connected(self._address, self._timeout_s)
            self._http = http.client.HTTPConnection(
                self._address.host, self._address.port, timeout=self._timeout_s
            )
            self._http.sock = sock
        return self._http
