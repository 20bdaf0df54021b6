"""An installation in containers: who is using it, and how it is given back.

Whoever takes an installation leaves a mark in the runner's volume and takes it back at the end. A
note on this machine (`chaos.clusters.leftovers`) would not do: a runner in a container that is
killed takes all its files along. A mark whose holder is gone is of a run that was killed, and the
next command there, or the next run, gives the containers back first.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from chaos.clusters import locks
from chaos.clusters.containers.engine import Engine, EngineFailed, is_inside
from chaos.clusters.pids import started
from chaos.errors import TargetFailed

RUN_FILE = "/data/run.json"
"""What a node is for the time of a run: `nodes.container.RunOrder`, or null."""
MARK = "runner/taken.json"
SECRETS = ("cluster.json", "ca.pem")
"""What load needs to reach the cluster, in the folder ``cluster`` of a run: for that time only."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who has an installation: the container with the id ``container``, else the process ``pid`` of
    the machine, which ``started`` tells from others of that number. ``recorded``: the run
    folder."""

    container: str | None
    pid: int
    started: str
    recorded: str | None


def _ourselves(recorded: Path | None) -> Holder:
    return Holder(
        container=socket.gethostname() if is_inside() else None,
        pid=os.getpid(),
        started=started(os.getpid()) or "",
        recorded=None if recorded is None else str(recorded),
    )


@contextlib.contextmanager
def taken(engine: Engine, recorded: Path | None) -> Iterator[str | None]:
    """Within it, the installation is ours alone. Yields what had to be put right before, None if
    nothing had. Afterwards the containers are given back. Raises TargetFailed where another run
    has it, or where it cannot be put right."""
    with _alone(engine.project):
        ours, holder = _ourselves(recorded), _holder(engine)
        if holder is not None and _lives(engine, holder):
            raise TargetFailed(_refusal(engine.project, holder))
        found = troubles(engine)
        if holder is not None or found:
            _forget(holder.recorded if holder else None)
            restore(engine)
            if left := troubles(engine):
                raise TargetFailed(f"the installation {engine.project}: {'; '.join(left)}")
        engine.write("setup", f"/volumes/{MARK}", msgspec.json.encode(ours))
        try:
            yield f"put right before the run: {'; '.join(found)}" if found else None
        finally:
            _give_back(engine)


def restore_after(project: str, recorded: str | None) -> str:
    """Clean up after a run of this machine that was killed. Returns what was done, for the user."""
    try:
        engine = Engine(project)
    except EngineFailed as error:
        _forget(recorded)
        return f"its containers were not restored ({error})"
    try:
        _forget(recorded)
        with _alone(project):
            holder = _holder(engine)
            if holder is not None and _lives(engine, holder):
                raise TargetFailed(_refusal(project, holder))
            _give_back(engine)
            left = troubles(engine)
    except TargetFailed as error:
        return f"its containers were not restored ({error})"
    finally:
        engine.close()
    if left:
        return f"its containers were not all restored ({'; '.join(left)})"
    return f"restored the containers of {project}"


def restore_abandoned() -> str | None:
    """In a container of the installation: clean up after a run in another one that was killed.
    Returns what was done, for the user; None if there was nothing to do."""
    try:
        engine = Engine()
    except EngineFailed:
        return None  # whoever needs it will find out
    try:
        holder = _holder(engine)
        if holder is None or holder.container is None or _lives(engine, holder):
            return None
        return f"a run was killed: {restore_after(engine.project, holder.recorded)}"
    except EngineFailed as error:
        return str(error)
    finally:
        engine.close()


def restore(engine: Engine) -> None:
    """Every container is what it was before any run: on its network, running, and a node of the
    cluster ``demo`` with an empty log; nothing is on a link. What cannot be done is left; see
    `troubles`."""
    _quietly(partial(engine.unpause, "broker"))
    _quietly(partial(engine.start, "broker"))
    # A new Toxiproxy reads its file again: whatever was on its links is gone.
    _quietly(partial(engine.unpause, "toxiproxy"))
    _quietly(partial(engine.kill, "toxiproxy"))
    _quietly(partial(engine.start, "toxiproxy"))

    def back(node: str) -> None:
        _quietly(partial(engine.unpause, node))
        _quietly(partial(engine.connect, node))
        engine.kill(node)
        engine.write(node, RUN_FILE, b"null")
        engine.start(node)

    _quietly(lambda: engine.all_of(engine.nodes(), back))


def troubles(engine: Engine) -> list[str]:
    """What keeps the installation from being what `docker compose up` had made: a few words each.
    Raises EngineFailed."""
    states = engine.services()
    found = [f"{name} is {state}" for name, state in states.items() if state != "running"]
    for node in engine.nodes():
        if not engine.is_connected(node):
            found.append(f"{node} is off its network")
        elif engine.read(node, RUN_FILE) not in (None, b"null"):
            found.append(f"{node} is a node of another cluster")
    return sorted(found)


def _give_back(engine: Engine) -> None:
    restore(engine)
    with contextlib.suppress(EngineFailed):
        if not troubles(engine):
            engine.write("setup", f"/volumes/{MARK}", b"null")


def _holder(engine: Engine) -> Holder | None:
    mark = engine.setup_file(MARK)
    try:
        return None if mark is None else msgspec.json.decode(mark, type=Holder | None)
    except msgspec.DecodeError as error:
        raise TargetFailed(f"the mark of who has the installation: {error}") from None


def _lives(engine: Engine, holder: Holder) -> bool:
    """Whether it is another run that goes on, or that may."""
    if holder.container is not None:
        ours = is_inside() and holder.container == socket.gethostname()
        return not ours and engine.runs(holder.container)
    # A process of the machine cannot be seen from within a container: nobody's is taken from him.
    same = holder.pid == os.getpid() and holder.started == started(os.getpid())
    return is_inside() or (not same and started(holder.pid) == holder.started)


def _refusal(project: str, holder: Holder) -> str:
    if holder.container is not None:
        return f"a run in the container {holder.container} is using the installation {project}"
    busy = f"a run, process {holder.pid} of the machine, is using the installation {project}"
    return f"{busy}; if it was killed, `capbench list` there gives it back" if is_inside() else busy


def _forget(recorded: str | None) -> None:
    """Remove the passwords from a run folder."""
    if recorded is not None:
        folder = Path(recorded) / "cluster"
        for name in SECRETS:
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def _alone(project: str) -> Iterator[None]:
    """One run of this machine at a time on an installation."""
    # In a folder that only we can open: whoever knew the name could hold the lock in our place.
    path = locks.directory() / f"installation-{project}.lock"
    lock = locks.take(path)
    if lock is None:
        raise TargetFailed(f"another run is using the installation {project}")
    try:
        yield
    finally:
        locks.give_back(path, lock)


def _quietly(do: Callable[[], object]) -> None:
    with contextlib.suppress(EngineFailed):
        do()
