"""A node in a container: its settings from the environment, as an orchestrator gives them.

    python -m nodes.container

| variable | meaning | default |
|---|---|---|
| CAPBENCH_NODE | its id, or a name with a number at the end: ``node-0`` is n1 | required |
| CAPBENCH_NODES | how many nodes the installation has | 5 |
| CAPBENCH_PROTOCOL | the protocol | raft |
| CAPBENCH_PARAMETERS | the protocol's parameters, JSON | {} |
| CAPBENCH_BROKER | ``host:port`` of the broker | broker:1883 |
| CAPBENCH_TOXIPROXY | host of Toxiproxy; each link has its fixed port (`nodes.wire.links`) |
toxiproxy |

Its volume ``/data`` holds the password that the set-up left (``login.json``), the authority of the
broker's certificate if TLS is on (``ca.pem``), and the log. Whoever runs an experiment on the
container puts ``run.json`` there (`RunOrder`) before the node starts; without it, the node is one
of the cluster ``demo``. Data of other clusters than its own is removed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from nodes import registry
from nodes.contract.names import BadName, check_name
from nodes.faults.injected import Injected
from nodes.runtime import own_folder
from nodes.runtime.settings import BadSettings, Endpoint, NodeSettings
from nodes.wire.links import GROUP, link_ports

DATA = Path("/data")
READY_FILE = "/tmp/ready"
DEFAULT_CLUSTER = "demo"


class Login(msgspec.Struct, frozen=True):
    """Who somebody is at the broker."""

    username: str
    password: str


class RunOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is for the time of an experiment. ``nodes``: those that take part."""

    cluster: str
    protocol: str
    nodes: list[str]
    parameters: dict[str, Any] = {}
    injected: dict[str, Injected] = {}


def settings(environment: Mapping[str, str], data: Path = DATA) -> NodeSettings:
    """What the environment and the volume say. Raises BadSettings."""
    node = _node_id(environment)
    try:
        everybody = registry.node_ids(int(environment.get("CAPBENCH_NODES", "5")))
        parameters = msgspec.json.decode(
            environment.get("CAPBENCH_PARAMETERS", "{}"), type=dict[str, Any]
        )
    except (ValueError, msgspec.DecodeError) as error:
        raise BadSettings(f"CAPBENCH_NODES or CAPBENCH_PARAMETERS: {error}") from None
    order = _read(data / "run.json", RunOrder) or RunOrder(
        cluster=DEFAULT_CLUSTER,
        protocol=environment.get("CAPBENCH_PROTOCOL", "raft"),
        nodes=list(everybody),
        parameters=parameters,
    )
    login = _read(data / "login.json", Login)
    if login is None:
        raise BadSettings(f"{data / 'login.json'}: not there; the set-up leaves it")
    broker, colon, port = environment.get("CAPBENCH_BROKER", "broker:1883").rpartition(":")
    if not (colon and port.isdigit()):
        raise BadSettings("CAPBENCH_BROKER: use host:port")
    toxiproxy = environment.get("CAPBENCH_TOXIPROXY", "toxiproxy")
    ports = link_ports(everybody, (GROUP,))
    if node not in order.nodes or not set(order.nodes) <= set(everybody):
        raise BadSettings(
            f"{node} is none of the nodes {', '.join(order.nodes)}, or they are more than "
            f"CAPBENCH_NODES={len(everybody)}"
        )
    try:
        check_name(order.cluster, "cluster")
    except BadName as error:
        raise BadSettings(f"{data / 'run.json'}: {error}") from None
    authority = data / "ca.pem"
    return NodeSettings(
        cluster=order.cluster,
        node=node,
        nodes=order.nodes,
        protocol=order.protocol,
        parameters=order.parameters,
        data_dir=str(data / "clusters" / order.cluster),
        broker=Endpoint(broker, int(port)),
        links={
            peer: Endpoint(toxiproxy, ports[node, peer]) for peer in order.nodes if peer != node
        },
        reply_links={GROUP: Endpoint(toxiproxy, ports[node, GROUP])},
        username=login.username,
        password=login.password,
        tls_ca=str(authority) if authority.exists() else None,
        ready_file=READY_FILE,
        injected=order.injected,
    )


def _node_id(environment: Mapping[str, str]) -> str:
    name = environment.get("CAPBENCH_NODE", "")
    if re.fullmatch(r"n[1-9]\d*", name):
        return name
    numbered = re.fullmatch(r".*-(\d+)", name)
    if numbered is None:
        raise BadSettings(f"CAPBENCH_NODE is {name!r}; use n1, or a name such as node-0")
    return f"n{int(numbered[1]) + 1}"


def _read(path: Path, kind: type[Any]) -> Any:
    """None: it is not there, or ``null``. Raises BadSettings."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind | None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: {error}") from None


def make_room(data_dir: Path) -> None:
    """Mark the folder of this cluster's data as ours, and remove those of clusters that this node
    was part of before. Raises nodes.runtime.own_folder.NotOurs."""
    if not own_folder.is_ours(data_dir) and (data_dir / "log").is_file():
        (data_dir / own_folder.MARK).touch()  # from before there were marks
    own_folder.make(data_dir)
    for other in data_dir.parent.iterdir():
        if other != data_dir:
            own_folder.remove(other)


def main() -> int:
    """Run the node of this container. Exit codes as those of ``python -m nodes``."""
    from nodes.__main__ import EXIT_BAD_SETTINGS, EXIT_DISK, run

    try:
        chosen = settings(os.environ)
    except BadSettings as error:
        print(f"capbench node: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    try:
        make_room(Path(chosen.data_dir))
    except OSError as error:
        print(f"capbench node {chosen.node}: {error}", file=sys.stderr)
        return EXIT_DISK
    return run(chosen)


if __name__ == "__main__":
    sys.exit(main())
