"""The attached target: a cluster run by others, reached by its addresses only.

For an orchestrator (Kubernetes, another machine's compose file), whose engine is out of our reach:
faults that need only Toxiproxy and the broker work, those that kill or start processes are refused
before the run. The nodes are taken as they are, so the protocol and the number of nodes must be
theirs, and their data must be empty: a checker has to know every write.

``CAPBENCH_CLUSTER_FILE`` (default ``/clients/cluster.json``) says where everything is, and
``CAPBENCH_RUNNER_LOGIN`` (``/runner/login.json``) who the nemesis is at the broker: both come from
the set-up (`chaos.clusters.containers.setup`). ``CAPBENCH_TOXIPROXY_API`` (``toxiproxy-api:8474``)
is where Toxiproxy takes commands, which only the runner needs to know.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from bench.record.cluster_file import Address, BadClusterFile, ClusterFile, read_cluster_file
from bench.record.run_folder import NodeRecord
from chaos.clusters.capabilities import OfAttached
from chaos.clusters.containers import engine
from chaos.clusters.links import Links
from chaos.clusters.live import LiveCluster
from chaos.clusters.monitor import Monitor
from chaos.clusters.processes import ProcessGroup
from chaos.clusters.toxiproxy import Toxiproxy, ToxiproxyError
from chaos.errors import TargetFailed
from nodes.container import Login
from nodes.wire.links import GROUP, link_names, link_ports

TOXIPROXY_API = f"{engine.TOXIPROXY_API}:8474"
ANSWER_TIMEOUT_S = 10.0


class AttachedCluster(LiveCluster, OfAttached):
    """A cluster that exists already, and stays."""

    def __init__(
        self,
        cluster_path: Path,
        login_path: Path,
        *,
        record: Callable[[NodeRecord], None] | None = None,
        seed: int = 0,
    ) -> None:
        self.cluster_file = _cluster(cluster_path)
        self.cluster_path = cluster_path.resolve()
        self._login = _login(login_path)
        super().__init__(tuple(self.cluster_file.nodes), record=record, seed=seed)
        self.logs = "those of whoever runs the nodes"
        self._stack = contextlib.ExitStack()

    def refuse(self, protocol: str, nodes: int) -> None:
        """Raises TargetFailed if a run of ``protocol`` on that many nodes is for another cluster
        than this."""
        cluster = self.cluster_file
        if (protocol, nodes) != (cluster.protocol, len(cluster.nodes)):
            raise TargetFailed(
                f"the run is for {nodes} nodes of {protocol}, the cluster of "
                f"{self.cluster_path} has {len(cluster.nodes)} of {cluster.protocol}; use "
                f"--protocol {cluster.protocol} --nodes {len(cluster.nodes)}, or start it otherwise"
            )

    def __enter__(self) -> AttachedCluster:
        try:
            self._attach()
        except ToxiproxyError as error:
            self._stack.close()
            raise TargetFailed(f"Toxiproxy: {error}") from None
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _attach(self) -> None:
        host = next(iter(self.cluster_file.request_links.values())).host
        api = _api()
        self.toxiproxy = Toxiproxy(api)
        self._stack.callback(self.toxiproxy.close)
        if not self.toxiproxy.is_up():
            raise TargetFailed(
                f"Toxiproxy does not answer at {api.host}:{api.port}; see CAPBENCH_TOXIPROXY_API"
            )
        ports = link_ports(self.nodes, (GROUP,))
        self.links = Links(
            self.toxiproxy,
            self.cluster_file.broker,
            self.nodes,
            (GROUP,),
            [ports[link] for link in link_names(self.nodes, (GROUP,))],
            host=host,
            listen="0.0.0.0",
        )
        self.links.create()
        self._stack.callback(partial(_quietly, self.links.heal_all))
        self.processes = self._stack.enter_context(ProcessGroup())
        as_runner = msgspec.structs.replace(
            self.cluster_file, username=self._login.username, password=self._login.password
        )
        self.monitor = self._stack.enter_context(Monitor(as_runner, self._record))
        self.wait_ready()
        if not self.monitor.holds_nothing(self.nodes, ANSWER_TIMEOUT_S):
            raise TargetFailed(
                "the nodes hold data from before, of which a checker would know nothing: start "
                "them with empty volumes"
            )

    def running(self, name: str) -> bool:
        """See `LiveCluster`. Nobody here could tell otherwise."""
        return True

    def ended(self) -> dict[str, int]:
        """See `LiveCluster`."""
        return {}

    def last_words(self, name: str) -> str:
        """See `LiveCluster`."""
        return f"its log is {self.logs}"

    def versions(self) -> dict[str, str]:
        """See `LiveCluster`."""
        return {"broker": "as attached", "nodes": "as attached"}


def _quietly(do: Callable[[], object]) -> None:
    with contextlib.suppress(ToxiproxyError):
        do()


def _api() -> Address:
    host, _, port = os.environ.get("CAPBENCH_TOXIPROXY_API", TOXIPROXY_API).rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65_536):
        raise TargetFailed("CAPBENCH_TOXIPROXY_API: use host:port")
    return Address(host, int(port))


def _login(path: Path) -> Login:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Login)
    except (OSError, msgspec.DecodeError) as error:
        raise TargetFailed(f"{path}: {error}; see CAPBENCH_RUNNER_LOGIN") from None


def _cluster(path: Path) -> ClusterFile:
    try:
        return read_cluster_file(path)
    except BadClusterFile as error:
        raise TargetFailed(f"{error}; see CAPBENCH_CLUSTER_FILE") from None
