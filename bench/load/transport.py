"""What load needs of whatever carries its requests: the smallest interface that a protocol's broker
and a system's own client share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from bench.load.mqtt_client import MqttClient
from bench.load.system_client import SystemTransport
from bench.record.cluster_file import ClusterFile, SystemFile
from nodes.contract.replica import Reply, Request


class Transport(Protocol):
    """Carries requests to nodes and brings replies. One thread (or greenlet) calls it."""

    def connect(self, timeout_s: float = 5.0) -> None:
        """Come to where requests can be sent. Raises nodes.errors.InfrastructureFailed."""

    def publish(self, node: str, requests: Sequence[Request]) -> bool:
        """Send requests to a node. False: none of them left, nor ever will."""

    def poll(self, timeout_s: float) -> None:
        """Hand over the replies that came, and wait for some, at most ``timeout_s``, never long."""

    def close(self) -> None:
        """Close all connections."""


def make_transport(
    cluster: ClusterFile | SystemFile,
    name: str,
    on_reply: Callable[[Reply], object],
    *,
    timeout_s: float,
) -> Transport:
    """What reaches this cluster. ``name``: of the client process. ``on_reply``: called for each
    reply, from within `Transport.poll`. ``timeout_s``: how long anybody waits for a reply. Raises
    nodes.errors.InvalidInput for a system that is not known here."""
    if isinstance(cluster, SystemFile):
        return SystemTransport(cluster, name, on_reply, timeout_s=timeout_s)
    return MqttClient(cluster, name, on_reply)
