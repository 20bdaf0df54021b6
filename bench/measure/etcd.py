"""Three nodes of etcd on loopback and etcd's own benchmark client, for `bench.measure.peers`.

Both come from PATH (``etcd``, ``etcd-benchmark``) or from ``.cache``: `chaos.systems.etcd` gets the
server, and Go builds the client. All settings are etcd's defaults, fsync included.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from chaos.clusters.processes import ProcessGroup, free_ports
from chaos.systems import etcd as system
from chaos.systems.getting import CACHE, Module, built, on_path, run, said_version
from chaos.systems.system import NotToBeHad
from nodes.errors import InfrastructureFailed
from nodes.runtime.scratch import scratch

_CLIENT = "etcd-benchmark"
_CLIENT_MODULE = Module(
    path="go.etcd.io/etcd/v3",
    version="3.5.21",
    hash="h1:a+25mPSFUiI4qTcpj6M4OO3NukKdBuVPl5uLF79nCPk=",
    hash_of_mod="h1:8LcNlc7a2Ox+keMB4tNA6xzX7D1Hmsb43y94nsdoXCM=",
    program="tools/benchmark",
)
START_TIMEOUT_S = 30.0


class NoEtcd(InfrastructureFailed):
    """etcd is not available or did not start: one line that says why."""


class Puts(msgspec.Struct, frozen=True, kw_only=True):
    """What the benchmark client measured: puts per second, and latency in ms (in steps of 0.1 ms,
    as in its output)."""

    ok_per_s: float
    latency_ms_p50: float
    latency_ms_p99: float


class Programs(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of etcd and its benchmark client, and the version of the server."""

    server: Path
    client: Path
    version: str


def programs(cache: Path = CACHE) -> Programs:
    """Find both programs, and fetch or build what is missing. Raises NoEtcd."""
    cache.mkdir(exist_ok=True)
    try:
        server = system.server(cache)
        client = on_path(_CLIENT) or built(_CLIENT, _CLIENT_MODULE, cache=cache)
        version = said_version([server, "--version"], r"etcd Version: (\S+)", {})
    except NotToBeHad as error:
        raise NoEtcd(str(error)) from None
    return Programs(server=server, client=client, version=version)


class Etcd:
    """A running cluster. ``endpoints``: where each node accepts requests."""

    def __init__(self, client: Path, endpoints: list[str], folder: Path) -> None:
        self.endpoints = endpoints
        self._client = client
        self._folder = folder

    def leader(self) -> str:
        """The endpoint of the node that leads now. Raises NoEtcd."""
        for endpoint in self.endpoints:
            url = f"http://{endpoint}/v3/maintenance/status"
            said = _said(url, _Status, data=b"{}")
            if said is not None and said.leader == said.header.member_id:
                return endpoint
        raise NoEtcd("no node of etcd says that it leads")

    def put(
        self,
        *,
        clients: int,
        total: int,
        value_bytes: int = 32,
        keys: int = 1000,
        endpoints: Sequence[str] | None = None,
    ) -> Puts:
        """Do ``total`` puts by ``clients`` clients in a closed loop, each with its own connection,
        to ``endpoints`` (None: all nodes) in turn. Raises NoEtcd."""
        command: list[str | Path] = [
            self._client,
            "put",
            f"--endpoints={','.join(endpoints or self.endpoints)}",
            f"--conns={clients}",
            f"--clients={clients}",
            f"--total={total}",
            f"--val-size={value_bytes}",
            f"--key-space-size={keys}",
        ]
        try:
            return summary(run("etcd's benchmark client", command, self._folder))
        except NotToBeHad as error:
            raise NoEtcd(str(error)) from None


def summary(said: str) -> Puts:
    """The figures in the client's output. Raises NoEtcd if they are missing or a put failed."""
    if errors := re.search(r"Error distribution:\s*(.*)", said):
        raise NoEtcd(f"puts failed: {errors[1]}")
    found = {}
    for name, pattern in (
        ("rate", r"Requests/sec:\s+([\d.]+)"),
        ("p50", r"\b50% in ([\d.]+) secs"),
        ("p99", r"\b99% in ([\d.]+) secs"),
    ):
        match = re.search(pattern, said)
        if match is None:
            raise NoEtcd(f"etcd's benchmark client did not print its {name}")
        found[name] = float(match[1])
    return Puts(
        ok_per_s=found["rate"],
        latency_ms_p50=found["p50"] * 1000,
        latency_ms_p99=found["p99"] * 1000,
    )


@contextlib.contextmanager
def etcd_cluster(found: Programs, nodes: int = 3) -> Iterator[Etcd]:
    """A new cluster, ready to serve. It ends with the context, even if this process dies. Raises
    NoEtcd, ProcessError."""
    ports = free_ports(2 * nodes)
    names = [f"e{number}" for number in range(1, nodes + 1)]
    clients = [f"http://127.0.0.1:{port}" for port in ports[:nodes]]
    peers = [f"http://127.0.0.1:{port}" for port in ports[nodes:]]
    members = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
    with scratch("etcd") as folder, ProcessGroup() as group:
        for node, client, peer in zip(names, clients, peers, strict=True):
            group.spawn(
                node,
                [
                    found.server,
                    *("--name", node, "--data-dir", folder / node),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", members, "--initial-cluster-state", "new"),
                ],
                stdout_path=folder / f"{node}.log",
            )
        _wait(group, dict(zip(names, clients, strict=True)), folder)
        yield Etcd(found.client, [client.removeprefix("http://") for client in clients], folder)


def _wait(group: ProcessGroup, clients: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    for node, client in clients.items():
        while not _healthy(client):
            if not group.running(node) or time.monotonic() > deadline:
                lines = (folder / f"{node}.log").read_text(errors="replace").strip().splitlines()
                raise NoEtcd(f"etcd did not start: {lines[-1][:200] if lines else 'no output'}")
            time.sleep(0.1)


def _healthy(client: str) -> bool:
    said = _said(f"{client}/health", _Health)
    return said is not None and said.health == "true"


class _Health(msgspec.Struct, frozen=True):
    health: str


class _Header(msgspec.Struct, frozen=True):
    member_id: str


class _Status(msgspec.Struct, frozen=True):
    header: _Header
    leader: str = ""


Said = TypeVar("Said", _Health, _Status)


def _said(url: str, kind: type[Said], data: bytes | None = None) -> Said | None:
    """The answer, or None without a good one."""
    try:
        with urllib.request.urlopen(url, data, timeout=2) as answer:
            return msgspec.json.decode(answer.read(1000), type=kind)
    except (OSError, http.client.HTTPException, msgspec.DecodeError, UnicodeDecodeError):
        return None
