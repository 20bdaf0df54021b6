"""Administration of a running cluster: who leads it, and who is a member.

A command goes to the leader as a message of its protocol, and counts as done when the leader's
status shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from bench.record.cluster_file import ClusterFile
from chaos.clusters.monitor import Monitor
from chaos.errors import OBJECTIVE
from nodes import registry
from nodes.errors import CapbenchError

TIMEOUT_S = 15.0
"""A new member first copies the others' state, which may be a whole snapshot."""


class NotDone(CapbenchError):
    """The cluster refused, or did not get there in time."""

    exit_code = OBJECTIVE


def transfer_leadership(
    monitor: Monitor, cluster: ClusterFile, node: str, timeout_s: float = TIMEOUT_S
) -> str:
    """Make ``node`` the leader. Returns what happened; raises NotDone, InvalidConfiguration."""
    _refuse(cluster, "TransferLeadership", node)
    before = _leader(monitor)
    if before == node:
        return f"{node} leads already"
    _administer(
        monitor,
        {"type": "TransferLeadership", "target": node},
        lambda: monitor.leader() == node,
        f"{node} does not lead",
        timeout_s,
    )
    return f"{node} leads, {before} did before"


def change_members(
    monitor: Monitor,
    cluster: ClusterFile,
    change: Literal["add", "remove"],
    node: str,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """Add ``node``, one of the nodes that the cluster was started with, to the members, or remove
    it. Returns what happened; raises NotDone, InvalidConfiguration."""
    _refuse(cluster, "ChangeMembership", node)
    _leader(monitor)
    if (node in members(monitor)) == (change == "add"):
        return f"{node} is {'a' if change == 'add' else 'no'} member already"
    _administer(
        monitor,
        {"type": "ChangeMembership", "change": change, "node": node},
        lambda: bool(members(monitor)) and (node in members(monitor)) == (change == "add"),
        f"the change is not committed (members: {','.join(members(monitor))})",
        timeout_s,
    )
    return f"members: {','.join(members(monitor))}"


def members(monitor: Monitor) -> list[str]:
    """The committed members, as the leader reports them; none during a change."""
    status = monitor.statuses().get(monitor.leader() or "")
    members = str(status.probe.get("members", "")) if status is not None else ""
    return members.split(",") if members and " " not in members else []


def _refuse(cluster: ClusterFile, message: str, node: str) -> None:
    protocol = registry.get(cluster.protocol)
    if message not in {kind.__name__ for kind in protocol.replica.MESSAGES}:
        raise registry.InvalidConfiguration(f"{protocol.name} has no {message}")
    if node not in cluster.nodes:
        raise registry.InvalidConfiguration(
            f"{node} is not a node of cluster {cluster.cluster}; use {', '.join(cluster.nodes)} "
            "(links exist only between the nodes that it was started with)"
        )


def _leader(monitor: Monitor) -> str:
    # At first, nobody reports anything.
    monitor.wait(lambda: monitor.leader() is not None and bool(members(monitor)), 3.0)
    leader = monitor.leader()
    if leader is None:
        raise NotDone("no node leads now; see `capbench status`")
    return leader


def _administer(
    monitor: Monitor,
    message: dict[str, Any],
    done: Callable[[], bool],
    otherwise: str,
    timeout_s: float,
) -> None:
    since_ns = time.monotonic_ns()
    monitor.administer(_leader(monitor), message)
    monitor.wait(lambda: done() or monitor.refusal(since_ns) is not None, timeout_s)
    if done():
        return
    reason = monitor.refusal(since_ns)
    raise NotDone(f"refused: {reason}" if reason else f"{otherwise} after {timeout_s:g} s")
