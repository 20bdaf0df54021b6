"""What killed commands left behind, and how the next command cleans it up.

Whatever holds a cluster writes down, in a folder of this user, who it is and where its cluster
lies, and takes the note back when it has stopped everything. A note whose writer is gone belongs to
a killed command (SIGKILL, a crashed machine). Its processes are usually gone already, since their
guard goes with it (`chaos.clusters.processes`); those that are left know their holder by a token in
their environment, so that nobody else's process is ever touched. The data of a run's nodes is
removed, and so are temporary folders (`nodes.runtime.scratch`), silently. That of a cluster that
stays is its user's: it lies there until `capbench down`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import psutil

from bench.record.files import naming
from chaos.clusters.locks import directory
from chaos.clusters.pids import started
from nodes.runtime import own_folder
from nodes.runtime.scratch import sweep

HELD_BY = "CAPBENCH_HELD_BY"
"""The environment variable by which a process of a cluster knows its holder."""
_GONE_S = 5.0


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a cluster. ``started``: which process that is, since pids are used again.
    ``data``: folders to remove when a run is gone, if they carry our mark
    (`nodes.runtime.own_folder`). ``recorded``: where a run's results are; None: it is no run, but a
    cluster that stays, whose data its user may still want. ``what``: words that name such a
    cluster, and where it lies. ``installation``: the containers that a run took, by compose's name
    of the project."""

    pid: int
    started: str
    token: str
    data: list[str]
    recorded: str | None
    what: str = "a cluster"
    installation: str | None = None


@contextlib.contextmanager
def held(
    token: str,
    data: Sequence[Path],
    recorded: Path | None,
    *,
    what: str = "a cluster",
    installation: str | None = None,
) -> Iterator[None]:
    """Within it, this process holds a cluster whose processes know ``token``. See `Holder`."""
    holder = Holder(
        pid=os.getpid(),
        started=started(os.getpid()) or "",
        token=token,
        data=[str(path) for path in data],
        recorded=None if recorded is None else str(recorded),
        what=what,
        installation=installation,
    )
    note = directory() / f"{token}.json"
    partial = note.with_suffix(".partial")
    with naming(note):
        partial.write_bytes(msgspec.json.encode(holder))
    os.replace(partial, note)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def clean_up() -> list[str]:
    """Clean up after every holder that is gone. Returns a line for each, for the user."""
    sweep()
    lines = []
    for note in sorted(directory().glob("*.json")):
        try:
            holder = msgspec.json.decode(note.read_bytes(), type=Holder)
        except (OSError, msgspec.DecodeError):
            continue  # being written, or taken back
        if _lives(holder):
            continue
        # Two commands may find it: the one that takes the note away cleans up.
        claimed = note.with_suffix(f".{os.getpid()}")
        try:
            os.rename(note, claimed)
        except FileNotFoundError:
            continue
        lines.append(_clean(holder))
        claimed.unlink()
    if os.environ.get("CAPBENCH_INSIDE") == "1":
        # A run in another container, whose notes went with it.
        from chaos.clusters.containers.installation import restore_abandoned

        if line := restore_abandoned():
            lines.append(line)
    return lines


def _lives(holder: Holder) -> bool:
    return started(holder.pid) == holder.started


def _clean(holder: Holder) -> str:
    ended = _end(holder.token)
    is_run = holder.recorded is not None
    removed = [path for path in holder.data if own_folder.remove(Path(path))] if is_run else []
    done = []
    if ended:
        done.append(f"ended {', '.join(ended)}")
    if removed:
        done.append(f"removed the data of {len(removed)} nodes")
    if holder.installation is not None:
        from chaos.clusters.containers.installation import restore_after

        done.append(restore_after(holder.installation, holder.recorded))
    what = f"the run {holder.recorded}" if is_run else holder.what
    kept = "; what it had recorded is kept" if is_run else ""
    if holder.data and not is_run:
        kept = "; its data and logs are kept until `capbench down`"
    return f"{what} was killed: {' and '.join(done) or 'nothing of it was left'}{kept}"


def _end(token: str) -> list[str]:
    """SIGKILL to every process that has the token; the names of those that were there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(HELD_BY) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    names = sorted(_name(process) for process in found)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + _GONE_S
    while any(lives(process) for process in found) and time.monotonic() < deadline:
        time.sleep(0.01)
    return names


def lives(process: psutil.Process) -> bool:
    """Whoever has ended may be a zombie for long, where nobody takes up orphans."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return f"{process.name()} ({process.pid})"
    except psutil.Error:
        return str(process.pid)
