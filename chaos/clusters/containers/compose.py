"""The compose target: the containers of `docker compose up`, taken for the time of a run.

The nodes that a run wants are stopped, told what they are (`nodes.container.RunOrder`), and started
with a cluster name of their own, so that nothing that was there before is in the way; the others
are stopped. Afterwards every container is what it was before: running, on its network, one of the
cluster ``demo`` again, with an empty log.

Faults of processes are those of the engine: kill, start, pause (all processes of the container are
frozen), a network taken away. Links are Toxiproxy's, as everywhere.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.record.cluster_file import Address, ClusterFile, write_cluster_file
from bench.record.run_folder import NodeRecord
from chaos.clusters.capabilities import OfCompose
from chaos.clusters.containers.engine import Engine, is_inside
from chaos.clusters.containers.installation import RUN_FILE, taken
from chaos.clusters.leftovers import held
from chaos.clusters.links import Links
from chaos.clusters.monitor import Monitor
from chaos.clusters.owned import OwnedCluster
from chaos.clusters.processes import ProcessGroup
from chaos.clusters.toxiproxy import Toxiproxy, ToxiproxyError
from chaos.errors import TargetFailed
from nodes.container import Login, RunOrder
from nodes.registry import Protocol
from nodes.wire.links import GROUP, link_names, link_ports

BROKER_PORT = 1883
TOXIPROXY_PORT = 8474
UP_S = 10.0
"""How long Toxiproxy may take to answer once it was started."""


class ComposeCluster(OwnedCluster, OfCompose):
    """An installation of docker-compose.yml, for the time of a run.

    ``directory`` takes what load needs to reach it. ``recorded``: the run folder, for whoever has
    to clean up after us.
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
        seed: int = 0,
        recorded: Path | None = None,
    ) -> None:
        super().__init__(nodes, record=record, seed=seed)
        self._protocol = protocol
        self._parameters = dict(parameters or {})
        self._directory = directory.resolve()
        self._cluster = cluster
        self._recorded = recorded
        self._killed: set[str] = set()
        self._closed = False
        """From here on the containers are not ours. A nemesis that is still healing, since nobody
        would wait for it, finds nothing to heal."""
        self._stack = contextlib.ExitStack()
        for node in nodes:
            protocol.configure(node, nodes, self._parameters)

    # --- start and stop ---

    def __enter__(self) -> ComposeCluster:
        try:
            self._start_all()
        except ToxiproxyError as error:
            self._stack.close()
            raise TargetFailed(f"Toxiproxy: {error}; {self.logs}") from None
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._stack.close()

    def _start_all(self) -> None:
        self._engine = engine = Engine()
        self._stack.callback(engine.close)
        self.logs = f"docker compose -p {engine.project} logs"
        everybody = engine.nodes()
        if not set(self.nodes) <= set(everybody):
            raise TargetFailed(
                f"the experiment wants {len(self.nodes)} nodes, the installation has "
                f"{len(everybody)}: {', '.join(everybody)}"
            )
        self.processes = ProcessGroup()
        note = held(self.processes.token, [], self._recorded, installation=engine.project)
        self._stack.enter_context(note)
        if put_right := self._stack.enter_context(taken(engine, self._recorded)):
            self.notes.append(put_right)
        self._stack.callback(self.processes.close)
        self._directory.mkdir(parents=True, exist_ok=True)

        ports = link_ports(everybody, (GROUP,))
        proxy_host = engine.address("toxiproxy")
        self.toxiproxy = Toxiproxy(Address(proxy_host, TOXIPROXY_PORT))
        self._stack.callback(self.toxiproxy.close)
        if not self._toxiproxy_is_up():
            raise TargetFailed(
                f"Toxiproxy does not answer at {proxy_host}:{TOXIPROXY_PORT}. Its API is on a "
                "network of the runner's only, which this machine may not reach; then run this "
                "in a container: docker compose run --rm capbench run ..."
            )
        self.links = Links(
            self.toxiproxy,
            Address("broker", BROKER_PORT),
            self.nodes,
            (GROUP,),
            [ports[link] for link in link_names(self.nodes, (GROUP,))],
            host=proxy_host,
            listen="0.0.0.0",
        )
        self.links.create()
        self.links.restart_server = self._restart_toxiproxy
        self._stack.callback(_quietly, self.links.heal_all)

        self.cluster_file = self._make_cluster_file()
        self.cluster_path = self._directory / "cluster.json"
        write_cluster_file(self.cluster_path, self.cluster_file)
        # It has a password in it, and a run folder is for showing around.
        self._stack.callback(self.cluster_path.unlink, missing_ok=True)
        runner = self._login("runner")
        as_runner = msgspec.structs.replace(
            self.cluster_file, username=runner.username, password=runner.password
        )
        self.monitor = self._stack.enter_context(Monitor(as_runner, self._record))
        engine.all_of(everybody, engine.kill)
        engine.all_of(self.nodes, self._start)
        self.wait_ready()

    def _make_cluster_file(self) -> ClusterFile:
        login = self._login("clients")
        authority = self._engine.setup_file("clients/ca.pem")
        ca_path = self._directory / "ca.pem"
        if authority is not None:
            ca_path.write_bytes(authority)
        host, port = self._engine.address("broker"), BROKER_PORT
        if not is_inside() and (published := self._engine.published("broker", BROKER_PORT)):
            host, port = published
        return ClusterFile(
            cluster=self._cluster,
            protocol=self._protocol.name,
            nodes=list(self.nodes),
            operations=list(self._protocol.operations),
            broker=Address(host, port),
            group=GROUP,
            request_links={node: self.links.address(GROUP, node) for node in self.nodes},
            username=login.username,
            password=login.password,
            tls_ca=None if authority is None else str(ca_path),
        )

    def _login(self, whose: str) -> Login:
        login = self._engine.setup_file(f"{whose}/login.json")
        if login is None:
            raise TargetFailed(
                f"the set-up left no login for {whose}; see docker compose -p "
                f"{self._engine.project} logs setup"
            )
        return msgspec.json.decode(login, type=Login)

    # --- what `LiveCluster` asks for ---

    def running(self, name: str) -> bool:
        """See `LiveCluster`."""
        return not self._closed and bool(self._engine.state(name)["Running"])

    def ended(self) -> dict[str, int]:
        """See `LiveCluster`."""
        states = self._engine.services()
        return {
            name: int(self._engine.state(name)["ExitCode"])
            for name in (*self.nodes, "broker", "toxiproxy")
            if states.get(name) in ("exited", "dead") and name not in self._killed
        }

    def last_words(self, name: str) -> str:
        """See `LiveCluster`."""
        return f"its log ({self.logs} {name}) ends: {self._engine.last_line(name)}"

    def versions(self) -> dict[str, str]:
        """See `LiveCluster`."""
        return {name: self._engine.image(name) for name in ("broker", "toxiproxy", self.nodes[0])}

    def unplug(self, node: str) -> None:
        """Take it off the network."""
        with self._data_lock:
            self._engine.disconnect(node)
            self._unplugged.add(node)
            self.monitor.forget(node)
        self._tell(node, "unplugged")

    def plug(self, node: str) -> None:
        """Put it on the network again."""
        with self._data_lock:
            if not self._closed:
                self._engine.connect(node)
            self._unplugged.discard(node)
        self._tell(node, "plugged")
        self._tell_injected(node)

    def _kill(self, name: str) -> None:
        self._killed.add(name)
        if not self._closed:
            self._engine.kill(name)

    def _start(self, name: str) -> None:
        if self._closed:
            return
        if name in self.nodes:
            order = RunOrder(
                cluster=self._cluster,
                protocol=self._protocol.name,
                nodes=list(self.nodes),
                parameters=self._parameters,
                injected={str(number): each for number, each in self._injected[name].items()},
            )
            self._engine.write(name, RUN_FILE, msgspec.json.encode(order))
        self._engine.start(name)
        self._killed.discard(name)  # not before: somebody may be looking just then

    def _suspend(self, name: str) -> bool:
        return not self._closed and self._engine.pause(name)

    def _continue(self, name: str) -> bool:
        return not self._closed and self._engine.unpause(name)

    def _log_path(self) -> str:
        return f"/data/clusters/{self._cluster}/log"

    def _read_log(self, node: str) -> bytes:
        log = self._engine.read(node, self._log_path())
        if log is None:
            raise TargetFailed(f"{node} has no log at {self._log_path()}")
        return log

    def _write_log(self, node: str, log: bytes) -> None:
        self._engine.write(node, self._log_path(), log)

    def _restart_toxiproxy(self) -> None:
        was = "answered no more" if self.running("toxiproxy") else "ended"
        self.notes.append(
            f"Toxiproxy {was} and was replaced: for a moment every link was down, whatever the "
            "schedule says"
        )
        self._engine.kill("toxiproxy")
        self._engine.start("toxiproxy")
        if not self._toxiproxy_is_up():
            raise TargetFailed(f"Toxiproxy did not come up in {UP_S:.0f} s; {self.logs}")

    def _toxiproxy_is_up(self) -> bool:
        deadline = time.monotonic() + UP_S
        while not self.toxiproxy.is_up():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def _quietly(do: Callable[[], object]) -> None:
    with contextlib.suppress(ToxiproxyError):
        do()
