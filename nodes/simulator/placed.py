"""Who can serve, where not every node does: because keys are placed on few nodes, or because
somebody changed the members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nodes.parts.placement import Placement, Placements
from nodes.parts.recovery import PlacedReplica
from nodes.simulator.cluster import Cluster


class Members:
    """The members that were committed last, as the logs say: the first node to commit an entry
    shows it. An observer of `nodes.simulator.cluster.Cluster`."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.committed = tuple(nodes)
        self._index = 0

    def observe(self, node: str, replica: Any) -> None:
        """Look at what was committed since."""
        if replica.commit <= self._index:
            return
        disk = replica.disk
        if disk.snapshot_index > self._index:
            self.committed = disk.snapshot.members
            self._index = disk.snapshot_index
        for index in range(self._index + 1, replica.commit + 1):
            members = disk.entry(index).members
            if members is not None:
                self.committed = members
        self._index = max(self._index, replica.commit)


def unready_range(cluster: Cluster, nodes: Sequence[str]) -> str | None:
    """A range of which ``nodes`` have no majority of members that are ready, in words; None if
    there is none, or if every node holds every key.

    A member that still copies its range counts as one that is lost: with it, a protocol needs not
    survive what it survives without. A node that is down says nothing, so it is not ready."""
    known: dict[str, Placements] = {}
    for node, host in cluster.hosts.items():
        if isinstance(host.replica, PlacedReplica):
            if host.replica.recovery is None:
                return None
            known[node] = host.replica.recovery.placements
    if not known:
        return None
    ranges = next(iter(known.values())).ranges
    for number in range(ranges):
        newest: Placement = max(
            (placements.current[number] for placements in known.values()),
            key=lambda placement: placement.number,
        )
        ready = [
            node
            for node, joined in newest.members
            if node in nodes and node in known and known[node].ready[number] == joined
        ]
        if 2 * len(ready) <= len(newest.members):
            return f"{newest} is served by {' '.join(ready) or 'nobody'} of {' '.join(nodes)}"
    return None
