"""The cluster file: how the load generator finds a running cluster. The runner or `capbench up`
writes it as JSON. Active faults are announced over the broker (`FaultOn`).

A cluster of a protocol is reached through a broker (`ClusterFile`), one of a real system at its
nodes' own ports (`SystemFile`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.record.files import NotReadable, naming, read_named
from nodes.contract.names import BadName, check_name
from nodes.errors import InvalidInput

STANDING = Path(".capbench")
"""Where `capbench up` keeps its clusters, one folder each."""
MAX_BYTES = 1 << 20
STALE_S = 2.0
"""A node that has been silent for longer is shown as silent."""


class Address(msgspec.Struct, frozen=True):
    """A TCP address. As a text: ``host:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Reachable(msgspec.Struct, frozen=True, kw_only=True):
    """What every running cluster has. ``protocol``: the name of a protocol or a system."""

    cluster: str
    protocol: str
    nodes: list[str]
    operations: list[str]


class ClusterFile(Reachable, frozen=True, kw_only=True):
    """Where the nodes of a running cluster of a protocol accept requests.

    ``broker``: clients subscribe to their replies there. ``request_links``: node -> the proxy
    through which client group ``group`` publishes requests to that node, so that a fault can hit
    the requests of one node. ``username`` and ``password``: None if the broker accepts anonymous
    clients (loopback only). ``tls_ca``: the certificate of the authority that signed the broker's;
    None: no TLS. ``mqtt_version``: 5, or 4 (MQTT 3.1.1) if the broker supports no more.
    """

    broker: Address
    group: str
    request_links: dict[str, Address]
    username: str | None = None
    password: str | None = None
    tls_ca: str | None = None
    mqtt_version: int = 5


class SystemFile(Reachable, frozen=True, kw_only=True):
    """Where the nodes of a running system accept requests.

    ``system``: what `chaos.systems.catalogue.get` finds it by. ``hosts``: node -> its own address,
    as the system tells it to its clients. ``endpoints``: node -> port -> the proxy through which
    the one client group reaches that port, so that a fault can hit its requests and its replies.
    ``network_of``: a process (of this machine) in whose network all of that is; None: in ours.
    ``prefix``: how every key of ours begins there, in a store that others use too.
    """

    system: str
    hosts: dict[str, str]
    endpoints: dict[str, dict[str, Address]]
    network_of: int | None = None
    prefix: str = ""

    def address(self, node: str, port: int) -> Address:
        """Where clients reach that port of the node."""
        return self.endpoints[node][str(port)]

    def node_at(self, host: str) -> str | None:
        """The node that has this address, as a system names its nodes; None: it is none of them."""
        return next((node for node, known in self.hosts.items() if known == host), None)


class FaultOn(msgspec.Struct, frozen=True, kw_only=True):
    """An active fault. ``what``: number, name and parameters in words. ``since``: time of day
    (UTC)."""

    what: str
    since: str


class BadClusterFile(InvalidInput):
    """The file is missing or invalid: names it and says what to do."""


class _Kind(msgspec.Struct):
    system: str | None = None


def read_cluster_file(path: str | Path | None) -> ClusterFile:
    """The file at ``path``, by default that of the only cluster in this directory. Raises
    BadClusterFile, also for the cluster of a system."""
    cluster = read_reachable(path)
    if not isinstance(cluster, ClusterFile):
        raise BadClusterFile(f"{cluster.cluster} runs the system {cluster.protocol}, no protocol")
    return cluster


def read_reachable(path: str | Path | None) -> ClusterFile | SystemFile:
    """The same for a protocol or a system. Raises BadClusterFile."""
    path = Path(path) if path else _only_one()
    try:
        text = read_named(path, MAX_BYTES)
        cluster: ClusterFile | SystemFile
        if msgspec.json.decode(text, type=_Kind).system is None:
            cluster = msgspec.json.decode(text, type=ClusterFile)
        else:
            cluster = msgspec.json.decode(text, type=SystemFile)
        check_name(cluster.cluster, "cluster")
        return cluster
    except FileNotFoundError:
        raise BadClusterFile(
            f"{path}: not found; start a cluster with `capbench up --protocol raft --nodes 3`"
        ) from None
    except NotReadable as error:
        raise BadClusterFile(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, BadName) as error:
        raise BadClusterFile(f"{path}: not a cluster file: {error}") from None


def _only_one() -> Path:
    found = sorted(STANDING.glob("*/cluster.json"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadClusterFile("no cluster is running here; start one with `capbench up`")
    names = ", ".join(map(str, found))
    raise BadClusterFile(f"several clusters are running: {names}; say which with --cluster-file")


def write_cluster_file(path: Path, cluster: Reachable) -> None:
    """Write the file, readable by its owner only: it may hold a password."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with naming(path):
        path.write_bytes(msgspec.json.format(msgspec.json.encode(cluster), indent=2) + b"\n")
