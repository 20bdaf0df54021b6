"""What nodes say of themselves (`Replica.probe`), held against disks, placements and each other at
rest, when there is one right answer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from nodes.contract.disk import Disk
from nodes.contract.pace import Pace
from nodes.parts.placement import Placement, first_placement
from nodes.simulator.cluster import Cluster

Finding = tuple[str, str]
"""A check, and what it found."""


def misreported(cluster: Cluster, pace: Pace) -> Iterator[Finding]:
    """A node whose probe says anything else than what is so. Fields that it does not have are not
    asked for."""
    probes = {
        node: host.replica.probe()
        for node, host in cluster.hosts.items()
        if host.replica is not None and not host.paused
    }
    leaders = [node for node, probe in probes.items() if probe.get("role") == "leader"]
    if pace.unrest and len(leaders) != 1:
        yield "status", f"at rest {leaders or 'nobody'} leads"
        return
    common: dict[str, Any] = {"ready": True}
    if pace.unrest:
        first = probes[leaders[0]]
        common |= {"leader": leaders[0], "term": first["term"], "commit": first["commit"]}
    for node, probe in probes.items():
        disk = cluster.hosts[node].storage.synced
        if "bytes_moved" in probe and probe["bytes_moved"] not in _copied(cluster, node):
            yield "status", f"{node} says that bytes_moved is {probe['bytes_moved']}, not as marked"
            return
        wanted = {**common, **_of_disk(cluster, node, disk, probe)}
        for name, right in wanted.items():
            if name in probe and probe[name] != right:
                yield "status", f"{node} says that {name} is {probe[name]!r}, not {right!r}"
                return


def too_sure(cluster: Cluster, lost: Collection[tuple[str, str]]) -> Iterator[Finding]:
    """A node that says which share of the copies agree, and has not heard for long of a peer that
    has some. ``lost``: pairs of a node and a peer that it does not hear."""
    for node in dict.fromkeys(observer for observer, _ in lost):
        said = cluster.replica(node).probe().get("replication_ratio")
        if said is not None:
            peers = ",".join(peer for observer, peer in lost if observer == node)
            told = f"{node} says that replication_ratio is {said!r}, and does not hear {peers}"
            yield "status", told
            return


def _of_disk(cluster: Cluster, node: str, disk: Disk, probe: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from a disk on which all is that the node knows."""
    wanted: dict[str, Any] = {"pending": 0, "copying": 0, "replication_ratio": 1.0}
    hard_state, promised = disk.get("hard_state"), disk.get("promised")
    if hard_state is not None:
        wanted["term"] = hard_state.term
    elif promised is not None:
        wanted |= {"term": promised.ballot.round, "ballot": str(promised.ballot)}
    if "commit" in probe:
        wanted["applied"] = probe["commit"]
        wanted["last_index"] = disk.last_index
        wanted["members"] = ",".join(cluster.nodes)
    keys = sum(1 for name, record in disk.items() if name.startswith("k/") and record is not None)
    if "tombstones" in probe:
        wanted["keys"] = keys - probe["tombstones"]
    if "placement_numbers" in probe:
        wanted |= _of_placements(cluster, node, disk)
    elif "keys" in probe:
        replica = cluster.hosts[node].replica
        assert replica is not None
        wanted["keys"] = len(replica.state())
        wanted["tombstones"] = keys - wanted["keys"]
    if probe.get("replication_ratio") is None:
        wanted.pop("replication_ratio", None)
    return wanted


def _of_placements(cluster: Cluster, node: str, disk: Disk) -> dict[str, Any]:
    """What follows from the placements on disk, all of whose members are ready."""
    parameters: Any = cluster.hosts[node].config.parameters
    known: list[Placement] = [
        disk.get(
            f"p/{number}", first_placement(number, cluster.nodes, parameters.replication_factor)
        )
        for number in range(parameters.ranges)
    ]
    load = {each: sum(each in placement.nodes for placement in known) for each in cluster.nodes}
    return {
        "placement_numbers": sum(placement.number for placement in known),
        "placement": " ".join(f"{each}:{count}" for each, count in load.items()),
        "ranges": _in_short([p.range for p in known if node in p.nodes]),
    }


def _in_short(numbers: list[int]) -> str:
    """``0-2,5``."""
    first = [number for number in numbers if number - 1 not in numbers]
    last = [number for number in numbers if number + 1 not in numbers]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(first, last, strict=True))


def _copied(cluster: Cluster, node: str) -> list[int]:
    """How many bytes a node can have copied since it was started, whenever that was."""
    sums = [0]
    for mark in reversed(cluster.marks):
        if mark.node == node and mark.name == "re_replicated":
            sums.append(sums[-1] + mark.details["bytes"])
    return sums
