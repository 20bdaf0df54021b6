"""One node of a system on loopback, without a lab, and a proxy that cuts where it is told to.

All of 127.0.0.0/8 is this machine: each server has an address of its own, and its usual ports.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from bench.record.cluster_file import Address, SystemFile
from chaos.clusters.processes import ProcessGroup
from chaos.systems.system import Node, Programs, System
from tests.waiting import wait_for

Point = Literal[
    "refused", "before the request", "in the request", "after the request", "in the reply"
]
POINTS: tuple[Point, ...] = (
    "refused",
    "before the request",
    "in the request",
    "after the request",
    "in the reply",
)
_IDLE_S = 0.1
_count = itertools.count(1)


def own_host() -> str:
    """An address that no other test has."""
    pid = os.getpid()
    return f"127.{100 + pid // 250 % 100}.{pid % 250}.{next(_count)}"


@contextlib.contextmanager
def one_node(system: System, programs: Programs, folder: Path) -> Iterator[SystemFile]:
    """A cluster of one, which serves."""
    host = own_host()
    data = folder / "n1"
    data.mkdir(parents=True)
    node = Node(name="n1", number=1, host=host, data=data, hosts={"n1": host})
    system.prepare(node, programs)
    with ProcessGroup() as group:
        for process in system.processes(node, programs):
            group.spawn(
                f"n1.{process.name}",
                process.argv,
                stdout_path=folder / "log",
                env={**os.environ, **programs.environment, **process.environment},
                cwd=data,
            )

        def answers() -> bool:
            with contextlib.suppress(OSError, ValueError):
                system.probe(host)
                return True
            return False

        def serves() -> bool:
            with contextlib.suppress(OSError, ValueError):
                return system.probe(host).ready
            return False

        wait_for(answers, f"{system.name}: {(folder / 'log').read_text()[-500:]}")
        system.form({"n1": host})
        wait_for(serves, f"{system.name} to serve: {(folder / 'log').read_text()[-500:]}")
        endpoints = {str(port): Address(host, port) for port in system.client_ports}
        yield reached(system, host, endpoints)
        for process in system.processes(node, programs):
            group.kill_all(f"n1.{process.name}")


def reached(system: System, host: str, endpoints: dict[str, Address]) -> SystemFile:
    return SystemFile(
        cluster="one",
        protocol=system.name,
        nodes=["n1"],
        operations=list(system.operations),
        system=system.name,
        hosts={"n1": host},
        endpoints={"n1": endpoints},
    )


class Cutter:
    """A proxy for one port that lets connections through until it is told to cut: then the next
    request, after ``spared`` others, is cut at that point, and the connection closed."""

    def __init__(self, upstream: Address) -> None:
        self._upstream = upstream
        self._server = socket.create_server((own_host(), 0))
        self.address = Address(*self._server.getsockname()[:2])
        self.point: Point | None = None
        self.spared = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Closing alone would leave the thread that waits in accept.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def hang_up(self) -> None:
        """Close all connections, and wait until the clients could know it."""
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        time.sleep(_IDLE_S)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection((self._upstream.host, self._upstream.port)) as server,
        ):
            while request := _request(client, server):
                point = self.point
                if point is not None and self.spared:
                    self.spared, point = self.spared - 1, None
                if point == "before the request":
                    return
                if point == "in the request":
                    server.sendall(request[: len(request) // 2])
                    return
                server.sendall(request)
                reply = _all_there_is(server)
                if point == "after the request":
                    return
                if point == "in the reply":
                    client.sendall(reply[: len(reply) // 2])
                    return
                client.sendall(reply)


def _request(client: socket.socket, server: socket.socket) -> bytes:
    """What the client says next. What the server says unasked is passed on."""
    while True:
        speaking, _, _ = select.select([client, server], [], [])
        if client in speaking:
            return _all_there_is(client)
        if not (said := server.recv(1 << 16)):
            return b""
        client.sendall(said)


def _all_there_is(sock: socket.socket) -> bytes:
    """What has come until nothing more comes; empty at the end."""
    sock.settimeout(None)
    said = sock.recv(1 << 16)
    sock.settimeout(_IDLE_S)
    with contextlib.suppress(TimeoutError):
        while said and (more := sock.recv(1 << 16)):
            said += more
    return said
