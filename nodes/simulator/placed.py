"""Who can serve, where not every node does: because keys are placed on few nodes, or because
somebody changed the members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nodes.parts.placement import Placement, Placements
from nodes.parts.quorum import is_majority
from nodes.parts.recovery import PlacedReplica
from nodes.simulator.cluster import Cluster


class Members:
    """The members that were committed last, as the logs say: the first node to commit an entry
    shows it. An observer of `nodes.simulator.cluster.Cluster`."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.committed = tuple(nodes)
        self._index = 0
        self._since = 0

    def observe(self, node: str, replica: Any) -> None:
        """Look at what was committed since."""
        if replica.commit <= self._index:
            return
        disk = replica.disk
        if disk.snapshot_index > self._index:
            self._set(disk.snapshot_index, disk.snapshot.members)
            self._index = disk.snapshot_index
        for index in range(self._index + 1, replica.commit + 1):
            members = disk.entry(index).members
            if members is not None:
                self._set(index, members)
        self._index = max(self._index, replica.commit)

    def _set(self, index: int, members: tuple[str, ...]) -> None:
        if members != self.committed:
            self.committed, self._since = members, index

    def lacking(self, cluster: Cluster, up: Sequence[str]) -> list[str]:
        """Who has to be up besides ``up``, if a change that was under way leaves these no majority
        of the members; nobody as long as no majority of the new members holds their entry, since
        until then a majority of those before must do."""
        held = [
            node
            for node in self.committed
            if cluster.hosts[node].storage.synced.last_index >= self._since
        ]
        lacking: list[str] = []
        if is_majority(held, self.committed):
            for node in self.committed:
                if not is_majority([*up, *lacking], self.committed) and node not in up:
                    lacking.append(node)
        return lacking


def unready_range(cluster: Cluster, nodes: Sequence[str]) -> str | None:
    """A range of which ``nodes`` have no majority of members that are ready, in words; None if
    there is none, or if every node holds every key.

    A member that still copies its range counts as one that is lost: with it, a protocol needs not
    survive what it survives without. A node that is down says nothing, so it is not ready."""
    known = _placements(cluster)
    for newest in _newest(known):
        number = newest.range
        ready = [
            node
            for node, joined in newest.members
            if node in nodes and node in known and known[node].ready[number] == joined
        ]
        if 2 * len(ready) <= len(newest.members):
            return f"{newest} is served by {' '.join(ready) or 'nobody'} of {' '.join(nodes)}"
    return None


def is_placed(cluster: Cluster) -> bool:
    """Whether keys are on fewer nodes than there are."""
    return bool(_placements(cluster))


def unrestored_range(cluster: Cluster, nodes: Sequence[str]) -> str | None:
    """A range that is not as it should be once ``nodes``, and no others, have been up for long, in
    words; None if there is none: each is on as many of them as before, all of whom are ready and
    know it, and none has two ranges more than another."""
    known = {node: each for node, each in _placements(cluster).items() if node in nodes}
    newest = _newest(known)
    if not newest or len(known) < len(newest[0].members):
        return None
    load = dict.fromkeys(nodes, 0)
    for placement in newest:
        for node in placement.nodes:
            if node not in known:
                return f"{placement} still counts on {node}"
            load[node] += 1
            if not known[node].serves(placement.range):
                return f"{placement} is not served by {node}"
        for node, each in known.items():
            if each.current[placement.range] != placement:
                return f"{node} has not heard of {placement}"
    if len(nodes) == len(cluster.nodes) and max(load.values()) > min(load.values()) + 1:
        return f"the nodes have very different numbers of ranges: {load}"
    return None


def _placements(cluster: Cluster) -> dict[str, Placements]:
    """What each node that is up knows; nothing where every node holds every key."""
    return {
        node: host.replica.recovery.placements
        for node, host in cluster.hosts.items()
        if isinstance(host.replica, PlacedReplica) and host.replica.recovery is not None
    }


def newest_placements(cluster: Cluster) -> list[Placement]:
    """Of each range, where keys are on fewer nodes than there are."""
    return _newest(_placements(cluster))


def settled_placements(cluster: Cluster) -> list[Placement]:
    """Those of `newest_placements` that every node knows, with members that all are ready, as every
    node knows as well; and nobody proposes the next one."""
    known = _placements(cluster).values()
    return [
        placement
        for placement in newest_placements(cluster)
        if all(
            each.current[placement.range] == placement
            and each.is_complete(placement.range)
            and not each.proposes(placement.range)
            for each in known
        )
    ]


def _newest(known: dict[str, Placements]) -> list[Placement]:
    """The newest placement of each range that any of them knows."""
    ranges = next(iter(known.values())).ranges if known else 0
    return [
        max(
            (placements.current[number] for placements in known.values()),
            key=lambda placement: placement.number,
        )
        for number in range(ranges)
    ]
