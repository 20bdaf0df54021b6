"""The interface that the load generator needs to send requests, shared by a protocol's broker and a
system's own client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from bench.load.mqtt_client import MqttClient
from bench.load.system_client import SystemTransport
from bench.record.cluster_file import ClusterFile, SystemFile
from nodes.contract.replica import Reply, Request


class Transport(Protocol):
    """Carries requests to nodes and replies back. One thread (or greenlet) calls it."""

    def connect(self, timeout_s: float = 5.0) -> None:
        """Connect, until requests can be sent. Raises nodes.errors.InfrastructureFailed."""

    def publish(self, node: str, requests: Sequence[Request]) -> bool:
        """Send requests to a node. False: none was sent or ever will be."""

    def poll(self, timeout_s: float) -> None:
        """Hand over replies, waiting for some for at most ``timeout_s``."""

    def close(self) -> None:
        """Close all connections."""


def make_transport(
    cluster: ClusterFile | SystemFile,
    name: str,
    on_reply: Callable[[Reply], object],
    *,
    timeout_s: float,
    final: bool = False,
) -> Transport:
    """The transport of this cluster. ``name``: of the client process. ``on_reply``: called for each
    reply, from within `Transport.poll`. ``timeout_s``: how long to wait for a reply. ``final``:
    see `chaos.systems.system.System.final_client`. Raises nodes.errors.InvalidInput for an unknown
    system."""
    if isinstance(cluster, SystemFile):
        return SystemTransport(cluster, name, on_reply, timeout_s=timeout_s, final=final)
    return MqttClient(cluster, name, on_reply)
