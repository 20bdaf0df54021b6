"""The standing clusters, by name: where each is recorded, and which are running.

``capbench up --name A`` makes the folder ``.capbench/A`` in the working directory, which holds
everything of that cluster:

    cluster.json     how to reach it (`bench.record.cluster_file`)
    keeper.json      the process that holds it (`Keeper`), written last
    keeper.log       what that process says
    socket           where it takes faults by hand (`chaos.targets.by_hand`)
    faults.jsonl, n1.log, n1/ ...

A cluster runs as long as its keeper lives.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.record.cluster_file import (
    STANDING,
    ClusterFile,
    SystemFile,
    read_cluster_file,
    read_reachable,
)
from chaos.clusters.pids import started
from chaos.errors import TargetFailed
from nodes.contract.names import check_name, did_you_mean
from nodes.errors import InvalidInput
from nodes.runtime import own_folder

DIRECTORY = STANDING
HOW_TO_START = "start one with `capbench up`"
_OF_BEFORE = DIRECTORY / "cluster.json"


class NotRunning(TargetFailed):
    """No such cluster: one line that lists the clusters, or says how to start one."""


class WhichCluster(InvalidInput):
    """Several clusters run, and none was named: one line with their names."""


class NoSuchCluster(InvalidInput):
    """Nothing here has that name: one line with the existing names."""


class Keeper(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds a cluster. ``started``: which process that is, see
    `chaos.clusters.pids.started`. ``broker``: None where a system needs none."""

    name: str
    pid: int
    started: str
    protocol: str
    nodes: int
    broker: str | None
    directory: str


def folder(name: str) -> Path:
    """Where everything of that cluster is. Raises nodes.contract.names.BadName."""
    return DIRECTORY / check_name(name, "--name")


def keeper_path(name: str) -> Path:
    """Where the keeper is written down."""
    return folder(name) / "keeper.json"


def cluster_path(name: str) -> Path:
    """Where clients read how to reach it."""
    return folder(name) / "cluster.json"


def socket_path(name: str) -> Path:
    """Where the keeper takes faults by hand."""
    return folder(name) / "socket"


def running(name: str) -> Keeper | None:
    """The keeper of that cluster, if it lives."""
    try:
        keeper = msgspec.json.decode(keeper_path(name).read_bytes(), type=Keeper)
    except (OSError, msgspec.DecodeError):
        return None
    # A folder that was copied or moved is not a cluster.
    here = keeper.directory == str(folder(name).resolve())
    return keeper if here and started(keeper.pid) == keeper.started else None


def known() -> list[str]:
    """The names that have a folder, whether the cluster runs or not."""
    if not DIRECTORY.is_dir():
        return []
    return sorted(path.name for path in DIRECTORY.iterdir() if own_folder.is_ours(path))


def all_running() -> list[Keeper]:
    """The keepers of the clusters that run, by name."""
    return [keeper for name in known() if (keeper := running(name)) is not None]


def all_dead() -> list[str]:
    """The names of clusters that are no longer running and have not been removed."""
    return [name for name in known() if running(name) is None]


def why_dead(name: str) -> str:
    """Why a cluster of `all_dead` is not running, in a few words."""
    silent = "its keeper was killed" if keeper_path(name).exists() else "it did not start"
    return last_line(folder(name) / "keeper.log") or silent


def require_known(name: str) -> None:
    """Raise NoSuchCluster if no cluster has that name, running or not, and
    nodes.contract.names.BadName."""
    check_name(name, "--name")
    if name not in known():
        raise NoSuchCluster(f"no cluster here is named {did_you_mean(name, known())}")


def find(name: str | None) -> Keeper:
    """The cluster of that name; None: the one that runs. Raises NotRunning, WhichCluster and
    nodes.contract.names.BadName."""
    if name is not None:
        if (keeper := running(name)) is not None:
            return keeper
        raise NotRunning(_why_not(name))
    found = all_running()
    if len(found) > 1:
        names = ", ".join(keeper.name for keeper in found)
        raise WhichCluster(f"several clusters are running: {names}; say which with --name")
    if not found:
        raise NotRunning(why_none())
    return found[0]


def read(name: str | None) -> ClusterFile:
    """How to reach the cluster of that name, or the one that runs, if it is one of a protocol.
    Raises as `find`, and bench.record.cluster_file.BadClusterFile."""
    return read_cluster_file(cluster_path(find(name).name))


def reach(name: str | None) -> ClusterFile | SystemFile:
    """The same of a protocol or a system."""
    return read_reachable(cluster_path(find(name).name))


def last_line(log: Path) -> str:
    """The last line of a log, as an error line can have it; empty if there is none."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else ""


def _why_not(name: str) -> str:
    if name in known():
        return f"cluster {name} is not running: {why_dead(name)}; {HOW_TO_START}"
    names = ", ".join(keeper.name for keeper in all_running())
    others = f"running are: {names}" if names else HOW_TO_START
    return f"cluster {name} is not running; {others}"


def why_none() -> str:
    """One line: no cluster is running, and why, if known."""
    dead = known()
    if len(dead) == 1:
        return _why_not(dead[0])
    if dead:
        return f"no cluster is running: of {', '.join(dead)} none is left; {HOW_TO_START}"
    if _OF_BEFORE.is_file():
        return (
            f"{_OF_BEFORE}: is of an earlier version, whose clusters this one does not steer: end "
            f"that cluster's process (its number is in {DIRECTORY}/*.keeper.json), remove the "
            f"file, and {HOW_TO_START}"
        )
    return f"no cluster is running here; {HOW_TO_START}"
