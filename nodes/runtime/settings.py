"""What a live node is told at its start: one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from nodes.contract.names import BadName, check_name
from nodes.errors import InvalidInput
from nodes.faults.injected import Injected


class Endpoint(msgspec.Struct, frozen=True):
    """A TCP address."""

    host: str
    port: int


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node of a cluster.

    ``links``: peer -> where to connect for the directed link to it (a proxy in front of the
    broker). ``reply_links``: client group -> where to connect for the replies to that group.
    ``injected``: what it does wrong on purpose from the start, by number.
    ``tls_ca``: the certificate of the authority that signed the broker's; None: no TLS.
    ``ready_file``: is there as long as the node expects to serve, for a container's health check.
    ``status_every_s``: seconds between two status messages. ``mqtt_version``: 5, or 4 (MQTT 3.1.1)
    where the broker knows no more. ``coalesce``: inputs that arrive together are stepped together,
    and what waits for one destination leaves as one PUBLISH. Without, each input is a step and each
    message a PUBLISH of its own, which is there to measure what coalescing is worth.
    """

    cluster: str
    node: str
    nodes: list[str]
    protocol: str
    parameters: dict[str, Any] = {}
    data_dir: str
    broker: Endpoint
    links: dict[str, Endpoint]
    reply_links: dict[str, Endpoint] = {}
    username: str | None = None
    password: str | None = None
    tls_ca: str | None = None
    ready_file: str | None = None
    status_every_s: float = 0.2
    mqtt_version: int = 5
    coalesce: bool = True
    injected: dict[str, Injected] = {}


class BadSettings(InvalidInput):
    """The settings cannot be used: one line that says why."""


def read_settings(path: Path) -> NodeSettings:
    """Raises BadSettings."""
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=NodeSettings)
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: {error}") from None
    try:
        check_name(settings.cluster, f"{path}: cluster")
        for node in settings.nodes:
            check_name(node, f"{path}: node")
    except BadName as error:
        raise BadSettings(str(error)) from None
    missing = set(settings.nodes) - {settings.node} - set(settings.links)
    if settings.node not in settings.nodes or missing:
        raise BadSettings(
            f"{path}: node must be one of nodes, and links must name every other node "
            f"(missing: {', '.join(sorted(missing)) or 'none'})"
        )
    return settings
