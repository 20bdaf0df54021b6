"""The local target: a broker, a Toxiproxy and n node processes on loopback."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from bench.children import python
from bench.record.cluster_file import Address, ClusterFile, write_cluster_file
from bench.record.files import naming
from bench.record.run_folder import NodeRecord
from chaos.clusters.broker import broker_command, find_mosquitto
from chaos.clusters.capabilities import OfLocal
from chaos.clusters.leftovers import held
from chaos.clusters.links import Links
from chaos.clusters.live import SpawnedCluster
from chaos.clusters.monitor import Monitor
from chaos.clusters.owned import OwnedCluster
from chaos.clusters.processes import free_ports
from chaos.errors import TargetFailed
from nodes.registry import Protocol, findable_name
from nodes.runtime import own_folder
from nodes.runtime.settings import Endpoint, NodeSettings
from nodes.wire.links import GROUP


class LocalCluster(SpawnedCluster, OwnedCluster, OfLocal):
    """A cluster of processes on this machine.

    ``directory`` takes the nodes' settings and data and everybody's log. ``record`` is called with
    what the nodes report (from another thread). ``broker_port``: None picks a free one.
    ``recorded``: the run folder, if there is one, for whoever has to clean up after us; what the
    nodes stored is removed at the end of a run, unless it may tell why the run failed. ``proxied``:
    without, there is no Toxiproxy, everybody connects to the broker itself, and no link can be cut:
    for benchmarks alone. ``coalesce``: see `nodes.runtime.settings.NodeSettings`.
    """

    def __init__(
        self,
        protocol: Protocol,
        nodes: tuple[str, ...],
        directory: Path,
        *,
        cluster: str,
        parameters: Mapping[str, Any] | None = None,
        record: Callable[[NodeRecord], None] | None = None,
        broker_port: int | None = None,
        seed: int = 0,
        recorded: Path | None = None,
        proxied: bool = True,
        coalesce: bool = True,
    ) -> None:
        super().__init__(nodes, record=record, seed=seed)
        self._proxied = proxied
        self._coalesce = coalesce
        self._protocol = protocol
        self._parameters = dict(parameters or {})
        self._directory = directory.resolve()
        self.logs = str(self._directory)
        self._cluster = cluster
        self._broker_port = broker_port
        self._recorded = recorded
        self._held = contextlib.ExitStack()
        # Refuses invalid parameters before anything starts.
        for node in nodes:
            protocol.configure(node, nodes, self._parameters)

    # --- start and stop ---

    def _start_all(self) -> None:
        data = [self._directory / node for node in self.nodes]
        what = f"the cluster {self._cluster} in {self._directory}"
        self._held.enter_context(held(self.processes.token, data, self._recorded, what=what))
        links = Links.count(len(self.nodes), 1) if self._proxied else 0
        port, api_port, *link_ports = free_ports(2 + links)
        self.broker = Address("127.0.0.1", self._broker_port or port)
        if self._broker_port is not None:
            _refuse_taken_port(self._broker_port)
        self._start_broker()
        self._api = Address("127.0.0.1", api_port)
        if self._proxied:
            self._start_toxiproxy()
            self.links = Links(self.toxiproxy, self.broker, self.nodes, (GROUP,), link_ports)
            self.links.create()
            self.links.restart_server = self._restart_toxiproxy
        self._wait_for_broker()
        self.cluster_file = ClusterFile(
            cluster=self._cluster,
            protocol=self._protocol.name,
            nodes=list(self.nodes),
            operations=list(self._protocol.operations),
            broker=self.broker,
            group=GROUP,
            request_links={node: self._link(GROUP, node) for node in self.nodes},
            mqtt_version=self._mqtt_version,
        )
        self.cluster_path = self._directory / "cluster.json"
        write_cluster_file(self.cluster_path, self.cluster_file)
        self.monitor = Monitor(self.cluster_file, self._record)
        self.monitor.__enter__()
        for node in self.nodes:
            self._start_node(node)
        self.wait_ready()

    def _start_broker(self) -> None:
        broker = broker_command(self._directory, self.broker.port)
        self._mqtt_version = broker.mqtt_version
        if broker.note and broker.note not in self.notes:
            self.notes.append(broker.note)
        self.processes.spawn("broker", broker.argv, stdout_path=self.log_path("broker"))

    def _wait_for_broker(self) -> None:
        self.processes.wait_for("broker", self.broker, self.log_path("broker"))

    def _link(self, src: str, dst: str) -> Address:
        return self.links.address(src, dst) if self._proxied else self.broker

    def _stop(self, *, discard: bool = False) -> None:
        self._hang_up()
        self.processes.close()
        if discard:
            self._discard()
        # Last: until then whoever finds the note cleans up in our place.
        self._held.close()

    def data_path(self, node: str) -> Path:
        """Where a node keeps its durable log."""
        return self._directory / node / "data"

    def _spawn_node(self, node: str) -> None:
        settings = NodeSettings(
            cluster=self._cluster,
            node=node,
            nodes=list(self.nodes),
            protocol=findable_name(self._protocol),
            parameters=self._parameters,
            data_dir=str(self.data_path(node)),
            broker=_endpoint(self.broker),
            links={peer: _endpoint(self._link(node, peer)) for peer in self.nodes if peer != node},
            reply_links={GROUP: _endpoint(self._link(node, GROUP))},
            mqtt_version=self._mqtt_version,
            coalesce=self._coalesce,
            injected={str(number): each for number, each in self._injected[node].items()},
        )
        path = self._directory / node / "settings.json"
        own_folder.make(path.parent)
        with naming(path):
            path.write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=2))
        self.processes.spawn(
            node,
            [*python("nodes"), "--settings", path],
            stdout_path=self.log_path(node),
        )

    # --- what `LiveCluster` asks for ---

    def check(self) -> None:
        """See `LiveCluster`. Without proxies there is none to look at."""
        if not self._proxied:
            self._look_at = sys.maxsize
        super().check()

    def versions(self) -> dict[str, str]:
        """See `LiveCluster`."""
        mosquitto = find_mosquitto()
        if mosquitto is None:
            return {"broker": f"amqtt {metadata.version('amqtt')} (embedded)"}
        # Mosquitto prints its version as the first line of its help, and exits with 3.
        said = subprocess.run([mosquitto, "-h"], capture_output=True, text=True, check=False)
        return {"broker": said.stdout.splitlines()[0] if said.stdout else "mosquitto"}

    def _kill(self, name: str) -> None:
        self.processes.kill(name)

    def _start(self, name: str) -> None:
        if name == "broker":
            self._start_broker()
            self._wait_for_broker()
        else:
            self._spawn_node(name)

    def _suspend(self, name: str) -> bool:
        return self.processes.signal(name, signal.SIGSTOP)

    def _continue(self, name: str) -> bool:
        return self.processes.signal(name, signal.SIGCONT)

    def _read_log(self, node: str) -> bytes:
        return (self.data_path(node) / "log").read_bytes()

    def _write_log(self, node: str, log: bytes) -> None:
        path = self.data_path(node) / "log"
        with naming(path):
            path.write_bytes(log)


def _endpoint(address: Address) -> Endpoint:
    return Endpoint(address.host, address.port)


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise TargetFailed(
                f"port {port} on 127.0.0.1 is taken; give another one with --broker-port"
            ) from None
