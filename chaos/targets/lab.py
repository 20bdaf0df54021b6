"""The target lab: a system of others, in namespaces of its own.

Everything of a lab is in its namespaces: the nodes, the proxies, the load, the nemesis
(`chaos.targets.in_lab`). This module is outside: it gets the programs, makes the namespaces, and
waits. However it ends, the kernel ends all that is inside.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench.children import environment, python
from bench.record.cluster_file import SystemFile, read_reachable
from chaos.clusters.by_name import last_line
from chaos.clusters.lab import sandbox
from chaos.clusters.leftovers import held
from chaos.clusters.processes import ProcessGroup
from chaos.clusters.toxiproxy import find_toxiproxy
from chaos.errors import TargetFailed
from chaos.systems.catalogue import findable_name
from chaos.systems.system import Programs, System
from chaos.targets.run import Run

STOP_S = 20.0
_LOOK_EVERY_S = 0.1


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the process inside is to do: conduct the run of ``run_folder``, or, if that is None,
    keep a cluster and take faults at ``socket``. ``directory``: for data and logs."""

    system: str
    programs: Programs
    nft: list[str]
    nodes: list[str]
    cluster: str
    directory: str
    run_folder: str | None = None
    socket: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended. ``failure``: what went wrong in the run; ``raised``: why there was none."""

    failure: str | None = None
    raised: str | None = None


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of progress: a new phase, or how many seconds of how many are done."""

    phase: str = ""
    done: float = 0
    total: float = 0


def refuse() -> None:
    """Raise NoLab or ToxiproxyMissing if there can be no lab on this machine."""
    sandbox.refuse()
    sandbox.nft()
    find_toxiproxy()


def order(system: System, nodes: tuple[str, ...], directory: Path, **more: Any) -> Order:
    """An order for this system, with all programs got. Raises NotToBeHad, NoLab and
    ToxiproxyMissing."""
    refuse()
    return Order(
        system=findable_name(system),
        programs=system.programs(),
        nft=sandbox.nft(),
        nodes=list(nodes),
        directory=str(directory.resolve()),
        **more,
    )


class Inside:
    """The process inside, as seen from outside. It ends with ``processes``, at the latest."""

    def __init__(self, processes: ProcessGroup, order: Order) -> None:
        self._directory = Path(order.directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._said = 0
        self._processes = processes
        argv = [*python("chaos.targets.in_lab"), msgspec.json.encode(order).decode()]
        self._sandbox: subprocess.Popen[bytes] = processes.spawn(
            "lab",
            sandbox.command(argv),
            stdout_path=self.log,
            env=environment(),
        )

    @property
    def log(self) -> Path:
        """What it printed: nothing, as long as all is well."""
        return self._directory / "lab.log"

    def pid(self) -> int | None:
        """The first process of the namespaces; None: there is none, or no more."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._sandbox.pid).children():
                return int(child.pid)
        return None

    def follow(self, on_said: Callable[[Said], None], until: Callable[[], bool]) -> None:
        """Hand over what it says of its progress, until it ends or ``until`` holds."""
        while self._sandbox.poll() is None and not until():
            self._more(on_said)
            time.sleep(_LOOK_EVERY_S)
        self._more(on_said)

    def _more(self, on_said: Callable[[Said], None]) -> None:
        path = progress_path(self._directory)
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._said)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._said += len(whole)
        for line in whole.splitlines():
            on_said(msgspec.json.decode(line, type=Said))

    def stop(self) -> None:
        """Let it heal and stop what it started, as far as it takes no longer than `STOP_S`."""
        pid = self.pid()
        if pid is None or not _catches(pid, signal.SIGTERM):
            # It has started nothing yet, and as the first process of its namespace it would never
            # see a signal that it does not catch.
            self._processes.kill_all("lab")
        else:
            with contextlib.suppress(psutil.NoSuchProcess):
                # unshare itself takes no notice of signals.
                psutil.Process(pid).send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._sandbox.wait(STOP_S)

    def outcome(self) -> Outcome:
        """How it ended. Raises TargetFailed if there was no run, or nobody knows."""
        try:
            outcome = msgspec.json.decode(outcome_path(self._directory).read_bytes(), type=Outcome)
        except FileNotFoundError:
            said = last_line(self.log) or "it printed nothing"
            raise TargetFailed(
                f"the lab ended with code {self._sandbox.poll()}; its log {self.log} ends: {said}"
            ) from None
        if outcome.raised is not None:
            raise TargetFailed(outcome.raised)
        return outcome


def conduct(run: Run) -> str | None:
    """See `chaos.targets`."""
    system, nodes = run.system, run.experiment.node_ids()
    directory = run.folder.path / "cluster"
    run.progress.phase(f"look for {system.name} and what a lab needs")
    name = run.folder.path.name.replace("@", "-")  # A cluster's name has no version.
    wanted = order(system, nodes, directory, cluster=name, run_folder=str(run.folder.path))
    data = [directory.resolve() / node for node in nodes]
    with ProcessGroup() as processes, held(processes.token, data, run.folder.path):
        inside = Inside(processes, wanted)
        try:
            inside.follow(lambda said: _show(run, said), until=lambda: False)
        except BaseException:
            inside.stop()
            raise
        return inside.outcome().failure


def keep(
    system: System,
    nodes: tuple[str, ...],
    name: str,
    directory: Path,
    socket: Path,
    on_up: Callable[[SystemFile], None],
) -> None:
    """Hold a cluster that takes faults at ``socket``, until it ends or this process is told to.
    ``on_up``: called when it serves. Raises TargetFailed."""
    wanted = order(system, nodes, directory, cluster=name, socket=str(socket))
    data = [directory / node for node in nodes]
    what = f"the cluster {name} in {directory}"
    with ProcessGroup() as processes, held(processes.token, data, None, what=what):
        inside = Inside(processes, wanted)
        try:
            inside.follow(lambda _: None, until=socket.exists)
            if socket.exists():
                cluster = read_reachable(directory / "cluster.json")
                assert isinstance(cluster, SystemFile)
                on_up(msgspec.structs.replace(cluster, network_of=inside.pid()))
            inside.follow(lambda _: None, until=lambda: False)
            inside.outcome()
        finally:
            inside.stop()
        raise TargetFailed(f"the cluster {name} ended; see {inside.log}")


def _show(run: Run, said: Said) -> None:
    if said.phase:
        run.progress.phase(said.phase)
    else:
        run.progress.tick(said.done, said.total)


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for the signal."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
    return False


def outcome_path(directory: Path) -> Path:
    """Where the process inside leaves its outcome."""
    return directory / "outcome.json"


def progress_path(directory: Path) -> Path:
    """Where it says how far it is, a line each."""
    return directory / "progress.jsonl"
