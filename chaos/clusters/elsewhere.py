"""A system that runs elsewhere: reached by its clients' ports, through a Toxiproxy of our own.

Nothing of it is started or stopped, and only clients' links can have faults. Every key that the run
touches begins with a prefix of its own, and is deleted at the end, past all faults.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.load.system_client import Prefixed, carried_out
from bench.record.cluster_file import Address, SystemFile, write_cluster_file
from bench.record.quantities import plural
from bench.record.run_folder import NodeRecord, RunFolder
from chaos.clusters.lab.watch import SystemWatch
from chaos.clusters.links import ProxiedLinks, Way
from chaos.clusters.live import SpawnedCluster
from chaos.clusters.processes import free_ports
from chaos.clusters.toxiproxy import Proxy
from chaos.errors import BadOption, TargetFailed
from chaos.systems.catalogue import findable_name
from chaos.systems.system import System, client_key
from nodes.contract.replica import Operation, OperationKind, Request
from nodes.registry import node_ids
from nodes.wire.links import GROUP, Link

LOCAL = "127.0.0.1"
ANSWERS_S = 5.0
TELLS_S = 5.0
"""For nodes to say who leads. Some never do: that is their keeper's decision."""


def parse_endpoints(text: str, system: System) -> dict[str, Address]:
    """``host:port,host:port``: node -> where it takes operations, n1 first. Raises
    BadOption."""
    if len(system.client_ports) > 1:
        ports = ", ".join(map(str, system.client_ports))
        raise BadOption(
            f"--endpoints: clients of {system.name} need several ports of each node ({ports}), "
            "and the addresses that its nodes tell each other; that is not supported"
        )
    if type(system).form is not System.form:
        raise BadOption(
            f"--endpoints: something must be made in {system.name} before it takes operations, "
            "which is not done in a cluster that runs elsewhere; that is not supported"
        )
    found: list[Address] = []
    for each in text.split(","):
        host, _, port = each.strip().rpartition(":")
        host = host.strip("[]")
        if not (host and port.isdecimal() and 0 < int(port) < 65_536):
            raise BadOption(f"--endpoints: {each.strip()!r} is no address; use host:port,host:port")
        found.append(Address(host, int(port)))
    if len(set(found)) < len(found):
        raise BadOption("--endpoints: an address is given twice")
    return dict(zip(node_ids(len(found)), found, strict=True))


class _Watch(SystemWatch):
    """Nodes that tell nothing of themselves are no failure of a run: the final reads decide."""

    def converged(self, nodes: Iterable[str], timeout_s: float) -> bool:
        """See `SystemWatch.converged`."""
        return bool(super().converged(nodes, timeout_s))


class ElsewhereCluster(SpawnedCluster):
    """The nodes of ``system`` at ``endpoints``. ``directory`` takes the log of Toxiproxy and the
    cluster file. ``folder``: the run, whose history tells which keys are to be removed."""

    monitor: SystemWatch

    def __init__(
        self,
        system: System,
        endpoints: dict[str, Address],
        directory: Path,
        folder: RunFolder,
        *,
        record: Callable[[NodeRecord], None] | None = None,
    ) -> None:
        super().__init__(tuple(endpoints), record=record)
        self._system = system
        self._endpoints = endpoints
        self._directory = directory.resolve()
        self._folder = folder
        self._clients: dict[str, Prefixed] = {}
        self._stack = contextlib.ExitStack()
        self.logs = str(directory)
        self.prefix = f"{os.getpid():x}-{time.time_ns():x}-"
        self.cluster_path = self._directory / "cluster.json"

    @property
    def keys(self) -> str:
        """How all keys begin that are touched, as the system stores them."""
        return client_key(self.prefix)

    # --- start and stop ---

    def __exit__(self, *_: object) -> None:
        try:
            self._clean_up()
        finally:
            self._stop()

    def _stop(self, *, discard: bool = False) -> None:
        self._hang_up()
        self._stack.close()
        self.processes.close()

    def _start_all(self) -> None:
        (port,) = self._system.client_ports
        api, *ports = free_ports(1 + len(self.nodes))
        self._api = Address(LOCAL, api)
        self._start_toxiproxy()
        # Past all faults, at the port that the system's probe expects: all of 127/8 is ours.
        asked = {node: f"127.{77 + i}.{os.getpid() % 250}.1" for i, node in enumerate(self.nodes)}
        proxies = []
        for node, own_port in zip(self.nodes, ports, strict=True):
            upstream = str(self._endpoints[node])
            proxies += [
                Proxy(name=f"client_{node}", listen=f"{LOCAL}:{own_port}", upstream=upstream),
                Proxy(name=f"probe_{node}", listen=f"{asked[node]}:{port}", upstream=upstream),
            ]
        ways: dict[Link, list[Way]] = {}
        for node in self.nodes:
            ways[GROUP, node] = [(f"client_{node}", "upstream")]
            ways[node, GROUP] = [(f"client_{node}", "downstream")]
        self.links = ProxiedLinks(self.toxiproxy, proxies, ways)
        self.links.create()
        self.links.restart_server = self._restart_toxiproxy
        self.cluster_file = self._file(
            {n: Address(LOCAL, p) for n, p in zip(self.nodes, ports, strict=True)}
        )
        self._direct = self._file({n: Address(host, port) for n, host in asked.items()})
        self.monitor = _Watch(self._system, asked, self._record)
        self.monitor.__enter__()
        self._answers()
        self.notes.append(
            f"the cluster runs elsewhere; only keys that begin with {self.keys} were touched"
        )
        write_cluster_file(self.cluster_path, self.cluster_file)

    def _file(self, addresses: dict[str, Address]) -> SystemFile:
        (port,) = self._system.client_ports
        return SystemFile(
            cluster="elsewhere",
            protocol=self._system.name,
            nodes=list(self.nodes),
            operations=self._system.offers,
            system=findable_name(self._system),
            hosts={node: address.host for node, address in self._endpoints.items()},
            endpoints={node: {str(port): address} for node, address in addresses.items()},
            prefix=self.prefix,
        )

    def _answers(self) -> None:
        """Every node carries out a read. Raises TargetFailed."""
        for node in self.nodes:
            try:
                # A proxy would take the connection in any case.
                at = self._endpoints[node]
                socket.create_connection((at.host, at.port), ANSWERS_S).close()
            except OSError as refused:
                error: str | None = refused.strerror or str(refused)
            else:
                error = self._ask((node,), "read", "k0")
            if error is not None:
                raise TargetFailed(
                    f"{self._system.name} at {self._endpoints[node]} ({node}) does not "
                    f"serve: {error}"
                )
        if not self.monitor.wait(self.monitor.ready, TELLS_S):
            silent = [node for node in self.nodes if node not in self.monitor.statuses()]
            if silent:
                self.notes.append(f"not told who leads by: {', '.join(silent)}")

    def _ask(self, nodes: Sequence[str], op: OperationKind, key: str) -> str | None:
        """Why none of these nodes carried it out, past all faults; None: one did."""
        error: str | None = None
        for node in nodes:
            if node not in self._clients:
                client = self._system.client(self._direct, node, ANSWERS_S)
                self._clients[node] = Prefixed(client, self.prefix)
                self._stack.callback(client.close)
            reply = carried_out(self._clients[node], Request("attach", 0, Operation(op, key)))
            if reply.outcome == "ok":
                return None
            error = reply.error or reply.outcome
        return error

    def _clean_up(self) -> None:
        """Delete what the history says was written."""
        if not self._folder.manifest_path.exists():
            return  # There was no run.
        keys = self._written()
        if "delete" not in self._system.operations:
            left = sorted(keys)
        else:
            left = [key for key in sorted(keys) if self._ask(self.nodes, "delete", key)]
        told = f"{plural(len(keys) - len(left), 'key')} that begin with {self.keys} were removed"
        if left:
            told += f"; {len(left)} could not be, and are still there"
        self.notes.append(told)
        manifest = self._folder.manifest()
        manifest.notes.append(told)
        self._folder.write_manifest(manifest)

    def _written(self) -> set[str]:
        changed = [each for each in self._folder.operations() if each.op != "read"]
        return {
            key
            for each in changed
            for key in (each.key.split() if each.op == "transaction" else [each.key])
        }

    # --- what `RunningCluster` asks for ---

    def running(self, name: str) -> bool:
        """See `RunningCluster`. Of the nodes nobody here could tell otherwise."""
        return name in self.nodes or self.processes.running(name)

    def versions(self) -> dict[str, str]:
        """See `RunningCluster`."""
        return {"system": "as attached"}
