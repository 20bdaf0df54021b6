"""`capbench load`: run Locust against a running cluster, and keep a run folder.

Locust itself invokes the operations (`bench/load/locustfile.py`) and shows its statistics. This
module adds fresh keys, so that the history can be judged; a guard, so that no Locust outlives us;
and a manifest, so that the folder is a run like any other.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.children import environment, python
from bench.load.losses import LOG, NOT_WHOLE, losses
from bench.load.workload import make_workload
from bench.paths import LOCUSTFILE
from bench.record.cluster_file import ClusterFile, SystemFile, read_reachable
from bench.record.files import no_space
from bench.record.models.run import Kind
from bench.record.run_folder import BadRunFolder, FaultRecord, LoadSummary, Manifest, RunFolder
from chaos import errors as exit_codes
from chaos.clusters.by_name import last_line
from chaos.clusters.lab import sandbox
from chaos.clusters.processes import ProcessGroup, free_ports
from chaos.errors import TargetFailed
from chaos.interrupted import by_what
from chaos.targets.folders import new_folder
from chaos.targets.runner import describe_machine
from chaos.targets.subjects import claimed, find
from chaos.targets.table import refuse_kind
from nodes.errors import InvalidInput
from nodes.runtime.scratch import scratch

NAME = "locust"
ENDS = (0, 1, -signal.SIGTERM)
LOOK_EVERY_S = 0.1
STOP_S = 10.0
"""For Locust to record open operations after it was asked to stop."""
PAGE_STARTS_S = 30.0


class BadLoad(InvalidInput):
    """An invalid request: one line, as Locust or the locustfile put it."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a load did. ``operations``: kind -> outcome -> how many, counted in the history.
    ``intended``: operations that the workload wanted; ``dropped``: those of them that were not
    sent. ``lateness_ms_p50`` and ``lateness_ms_p99``: after their intended time, of the worst
    process (None: closed loop). ``asked_leader``: those that went to the leader because the
    workload wants that (None: it does not). ``lost``: client processes that left no summary.
    ``failures``: why the load is incomplete, a line each. ``exit_code``: Locust's."""

    folder: str
    operations: dict[str, dict[str, int]]
    intended: int
    dropped: int
    lateness_ms_p50: float | None
    lateness_ms_p99: float | None
    asked_leader: int | None
    lost: list[str]
    failures: list[str]
    interrupted: bool
    exit_code: int


def run_headless(
    cluster_path: Path,
    folder_path: Path,
    options: Sequence[str],
    *,
    kind: Kind = "register",
    made_up: bool = False,
    command: Sequence[str],
    show: Callable[[bytes], None],
    on_folder: Callable[[Path], None] = lambda _: None,
) -> Loaded:
    """Load the cluster until Locust ends, or until Ctrl-C or SIGTERM. ``options``: Locust's, and
    those of our locustfile. ``kind``: of the workload. ``made_up``: the folder's name is generated,
    so if it exists, another one is made. ``show`` gets Locust's output as it comes, ``on_folder``
    the folder before the load begins.

    Raises BadClusterFile, FileExistsError, BadLoad and TargetFailed.
    """
    cluster = read_reachable(cluster_path)
    refuse_kind(kind, _name(cluster), cluster.operations)
    manifest = _manifest(cluster, kind, command)
    folder_path = new_folder(folder_path) if made_up else folder_path
    log = folder_path / LOG
    if log.exists():  # It would be mistaken for ours.
        raise FileExistsError(f"{log} is there already; name another folder")
    was_there = folder_path.exists()
    folder = RunFolder.create(folder_path, manifest)
    on_folder(folder.path)
    argv = _where_it_is(cluster, [*_argv(cluster_path, folder, options), "--headless"])
    stopped = False
    with ProcessGroup() as processes:
        locust = processes.spawn(NAME, argv, stdout_path=log, env=_environment())
        tail = _Tail(log, show)
        try:
            tail.follow(locust)
        except (KeyboardInterrupt, SystemExit):
            # It records what it has; a second Ctrl-C here leaves by the guard, at once.
            stopped = True
            processes.signal(NAME, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                locust.wait(STOP_S)
            tail.more()
    try:
        _refuse_what_locust_refused(locust.returncode, log, folder)
    except BadLoad:
        _take_back(folder, log, was_there=was_there)
        raise
    return _loaded(
        folder,
        log,
        cluster_path.parent,
        interrupted=stopped,
        exit_code=locust.returncode,
    )


def run_page(
    cluster_path: Path, port: int, options: Sequence[str], *, on_up: Callable[[str], None]
) -> None:
    """Show Locust's web page on loopback until Ctrl-C. Raises BadClusterFile, BadLoad and
    TargetFailed."""
    if isinstance(read_reachable(cluster_path), SystemFile):
        raise BadLoad("a system's load has no web page: it runs in the network of its lab")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise BadLoad(f"port {port} is taken; choose another with --port") from None
    argv = [*_argv(cluster_path, None, options), "--web-host", "127.0.0.1", "--web-port", str(port)]
    with scratch("load") as place, ProcessGroup() as processes:
        log = place / LOG
        locust = processes.spawn(NAME, argv, stdout_path=log, env=_environment())
        try:
            deadline = time.monotonic() + PAGE_STARTS_S
            while not _answers(port) and locust.poll() is None:
                if time.monotonic() > deadline:
                    raise TargetFailed(f"Locust's page did not come up; {_last_words(log)}")
                time.sleep(LOOK_EVERY_S)
            if locust.poll() is None:
                on_up(f"http://127.0.0.1:{port}/")
            locust.wait()
        except KeyboardInterrupt:
            processes.terminate(STOP_S)
            return
        _refuse_what_locust_refused(locust.returncode, log, None)


def _argv(cluster_path: Path, folder: RunFolder | None, options: Sequence[str]) -> list[str]:
    argv = [*python("locust"), "-f", str(LOCUSTFILE)]
    argv += ["--cluster-file", str(cluster_path), "--key-prefix", f"{time.time_ns():x}-"]
    if folder is not None:
        argv += ["--run-folder", str(folder.path)]
    if "--processes" in options:
        # Locust's default is one port, on all interfaces: the workers of a second load would join
        # the first.
        (port,) = free_ports(1)
        argv += ["--master-bind-host", "127.0.0.1", "--master-bind-port", str(port)]
        argv += ["--master-host", "127.0.0.1", "--master-port", str(port)]
    return [*argv, *options]


def _where_it_is(cluster: ClusterFile | SystemFile, argv: list[str]) -> list[str]:
    """The command, in the network of the cluster."""
    if isinstance(cluster, SystemFile) and cluster.network_of is not None:
        return sandbox.enter(cluster.network_of, argv)
    return argv


def _environment() -> dict[str, str]:
    # Its timers: epoll rounds to 1 ms, select does not.
    return environment(GEVENT_BACKEND=os.environ.get("GEVENT_BACKEND", "select"))


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


_ERROR = re.compile(rb"(\S+: )?error: ")
_SAID = re.compile(rb"^(\S+: )?error: |" + NOT_WHOLE.encode())


class _Tail:
    """Follows a file."""

    def __init__(self, path: Path, show: Callable[[bytes], None]) -> None:
        self._path = path
        self._show = show
        self._shown = 0

    def follow(self, process: subprocess.Popen[bytes]) -> None:
        """Until the process, which writes it, has ended."""
        while process.poll() is None:
            self.more()
            time.sleep(LOOK_EVERY_S)
        self.more()

    def more(self) -> None:
        """What was added since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._shown)
            new = file.read()
        if new:
            self._shown += len(new)
            # What was refused is said once, by `_refuse_what_locust_refused`, and so is what is
            # not whole, at the end.
            kept = [line for line in new.splitlines(keepends=True) if not _SAID.search(line)]
            self._show(b"".join(kept))


def _refuse_what_locust_refused(code: int, log: Path, folder: RunFolder | None) -> None:
    """Exit codes 0 and 1 (operations failed) are ends of a load. So is any other, once there is a
    history. Else the log says why there was none."""
    if code in ENDS:
        return
    lines = log.read_bytes().splitlines()
    said = next((line for line in reversed(lines) if _ERROR.match(line)), b"")
    reason = _ERROR.sub(b"", said).decode(errors="replace")
    if code == exit_codes.INPUT:
        raise BadLoad(reason or _ended_with(code, log))
    if folder is None or not any(folder.history_dir.iterdir()):
        raise TargetFailed(reason or _ended_with(code, log))


def _take_back(folder: RunFolder, log: Path, *, was_there: bool) -> None:
    """Nothing ran: make the folder usable again, by removing only what we made in it."""
    for path in (folder.manifest_path, log):
        path.unlink()
    made = [folder.history_dir, folder.load_dir, folder.nodes_dir]
    for path in made if was_there else [*made, folder.path]:
        with contextlib.suppress(OSError):
            path.rmdir()


def _ended_with(code: int, log: Path) -> str:
    return f"Locust ended with code {code}; {_last_words(log)}"


def _last_words(log: Path) -> str:
    if not (said := last_line(log)):
        return f"its log {log} is empty{no_space(log.parent)}"
    return f"its log {log} ends: {said}"


def _name(cluster: ClusterFile | SystemFile) -> str:
    return cluster.system if isinstance(cluster, SystemFile) else cluster.protocol


def _manifest(cluster: ClusterFile | SystemFile, kind: Kind, command: Sequence[str]) -> Manifest:
    elsewhere = isinstance(cluster, ClusterFile) or bool(cluster.prefix)
    protocol = find(_name(cluster))
    return Manifest(
        **describe_machine(),
        experiment_name="load",
        experiment={"title": "Load on a running cluster"},
        protocol=protocol.name,
        claim=claimed(protocol, kind),
        kind=kind,
        operations=list(cluster.operations),
        nodes=list(cluster.nodes),
        target="attached" if elsewhere else "lab",
        seed=0,
        command=list(command),
    )


def _loaded(
    folder: RunFolder, log: Path, place: Path, *, interrupted: bool, exit_code: int
) -> Loaded:
    """Count what is in the folder, and complete its manifest. ``place``: see `_injected`."""
    loads = folder.loads()
    workload = _workload(folder)
    lost = folder.lost_clients()
    failures = [] if interrupted and not lost else losses(folder)
    if not failures and (exit_code not in ENDS or not loads):
        failures.append(_ended_with(exit_code, log))
    started_ns = min((load.started_ns for load in loads), default=None)
    ended_ns = max((load.ended_ns for load in loads), default=None)
    if started_ns is not None and ended_ns is not None:
        try:
            for fault in _injected(place, started_ns, ended_ns):
                folder.append_fault(fault)
        except BadRunFolder as error:
            failures.append(f"what was injected is not known: {error}")
    manifest = msgspec.structs.replace(
        folder.manifest(),
        experiment={**folder.manifest().experiment, "workload": workload},
        seed=workload.get("seed", 0),
        offered_per_s=make_workload(workload).offered_per_s if workload else None,
        load_started_ns=started_ns,
        load_ended_ns=ended_ns,
        complete=not failures and not interrupted,
        cut_short_by="; ".join(failures) or (by_what() if interrupted else ""),
        notes=[*folder.manifest().notes, *failures],
    )
    folder.write_manifest(manifest)
    counts: dict[str, Counter[str]] = {}
    for record in folder.operations():
        counts.setdefault(record.op, Counter())[record.outcome] += 1
    return Loaded(
        folder=str(folder.path),
        operations={op: dict(outcomes) for op, outcomes in sorted(counts.items())},
        intended=sum(load.intended for load in loads),
        dropped=sum(load.dropped for load in loads),
        lateness_ms_p50=_worst(loads, "lateness_ms_p50"),
        lateness_ms_p99=_worst(loads, "lateness_ms_p99"),
        asked_leader=sum(load.asked_leader for load in loads)
        if workload.get("ask") == "leader"
        else None,
        lost=lost,
        failures=failures,
        interrupted=interrupted,
        exit_code=exit_code,
    )


def _injected(place: Path, started_ns: int, ended_ns: int) -> list[FaultRecord]:
    """What the keeper of the cluster (`chaos.targets.by_hand`), whose directory is ``place``, has
    injected in that time. Nothing where a cluster has no keeper of ours. Raises BadRunFolder."""
    return [
        record
        for record in RunFolder(place).faults()
        if record.started_ns is not None
        and record.started_ns <= ended_ns
        and (record.healed_ns is None or record.healed_ns >= started_ns)
    ]


def _workload(folder: RunFolder) -> dict[str, Any]:
    for path in sorted(folder.load_dir.glob("*.started")):
        return dict(msgspec.json.decode(path.read_bytes())["workload"])
    return {}


def _worst(loads: Sequence[LoadSummary], field: str) -> float | None:
    return max((v for load in loads if (v := getattr(load, field)) is not None), default=None)
