"""Child processes that never outlive us, and free ports for them.

Theory of operation
-------------------
A *guard* process leads a process group of its own and reads a pipe whose only writing end is ours.
Every child joins the guard's group. However we end, SIGKILL included, the system closes our end of
the pipe; the guard then reads end-of-file and kills its whole group, itself included. It ignores
the signals a terminal or a supervisor sends to whole groups. Since the group is not the foreground
one, Ctrl-C reaches only us, and we decide what to stop in which order."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

from bench.children import environment
from bench.record.cluster_file import Address
from bench.record.files import no_space
from chaos.clusters import locks
from chaos.clusters.leftovers import HELD_BY, lives
from chaos.errors import TargetFailed
from nodes.errors import InfrastructureFailed

_GUARD = """
import os, signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
os.write(1, b"r")
while os.read(0, 4096):
    pass
os.kill(0, signal.SIGKILL)
"""


class ProcessError(InfrastructureFailed):
    """A child that cannot be started, or is not there: one line with its name and the reason."""


_REASONS = (re.compile(r'"level":"(panic|fatal)"'), re.compile(r"^(panic|fatal error): |FATAL"))
"""What a line says of an end, with the reason if there is a line of the first kind."""
_TRACE_LINES = 200


def last_words(log: Path) -> str:
    """How a process's log ends, for an error line: with the reason, if a trace is behind it."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    if not lines:
        return f"its log {log} is empty{no_space(log.parent)}"
    end = lines[-_TRACE_LINES:]
    reasons = [line for reason in _REASONS for line in reversed(end) if reason.search(line)]
    return f"its log {log} ends: {(reasons or lines[-1:])[0][:300]}{no_space(log.parent)}"


class ProcessGroup:
    """Starts children by name and stops them all, at the latest when this process is gone.

    Use as a context manager. Methods may be called from several threads. ``token``: what the
    children have in their environment (`chaos.clusters.leftovers`).
    """

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        self._lock = threading.RLock()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._killed: set[str] = set()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, HELD_BY: self.token},
            process_group=0,
        )
        # No child before the guard has its signals set: until then it could be killed like any
        # other.
        assert self._guard.stdout is not None
        with self._guard.stdout as output:
            if output.read(1) != b"r":
                raise ProcessError("the guard of the child processes did not start")

    def wait_for(self, name: str, address: Address, log: Path) -> None:
        """Wait until a process takes connections. Raises TargetFailed, which tells how its ``log``
        ends."""
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((address.host, address.port), timeout=1).close()
                return
            except OSError:
                code = self.ended().get(name)
                if code is not None or time.monotonic() > deadline:
                    why = "did not come up in 10 s" if code is None else f"ended with code {code}"
                    raise TargetFailed(
                        f"{name} on port {address.port} {why}; {last_words(log)}"
                    ) from None
                time.sleep(0.01)

    def spawn(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        stdout_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a child. Its output, errors included, is appended to ``stdout_path``. ``env``: all
        of its environment; None: that of `bench.children`.

        A name can be used again once its child has ended. Raises ProcessError.
        """
        with self._lock:
            if self._guard.poll() is not None:
                raise ProcessError(f"cannot start {name}: the process group is closed")
            if self.running(name):
                raise ProcessError(f"cannot start {name}: it is running already")
            stdout_path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with stdout_path.open("ab") as output:
                    child = subprocess.Popen(
                        [str(part) for part in argv],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env={**(environment() if env is None else env), HELD_BY: self.token},
                        cwd=cwd,
                        process_group=self._guard.pid,
                    )
            except OSError as error:
                raise ProcessError(f"cannot start {name}: {error}") from None
            self._children[name] = child
            self._killed.discard(name)
            return child

    def running(self, name: str) -> bool:
        """Whether the child of that name was started and has not ended."""
        child = self._children.get(name)
        return child is not None and child.poll() is None

    def pid(self, name: str) -> int:
        """The child's process id. Raises ProcessError for a name that was never started."""
        child = self._children.get(name)
        if child is None:
            raise ProcessError(f"there is no process {name}")
        return child.pid

    def kill(self, name: str) -> None:
        """SIGKILL the child and wait until it is gone. Nothing happens if it has ended already.
        Raises ProcessError for a name that was never started."""
        with self._lock:
            child = self._children.get(name)
            if child is None:
                raise ProcessError(f"cannot kill {name}: there is no such process")
            self._killed.add(name)
            child.kill()
            child.wait()

    def signal_all(self, name: str, number: signal.Signals) -> bool:
        """As `signal`, for the child and its descendants, also those that they start meanwhile."""
        reached: set[int] = set()
        while more := [process for process in self._family(name) if process.pid not in reached]:
            for process in more:
                reached.add(process.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        return bool(reached)

    def kill_all(self, name: str) -> None:
        """Kill the child and its descendants, and wait until they are gone. Nothing starts any
        more while they are ended."""
        self.signal_all(name, signal.SIGSTOP)
        family = self._family(name)
        self.kill(name)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        while any(lives(process) for process in family):
            time.sleep(0.005)

    def _family(self, name: str) -> list[psutil.Process]:
        """The child and its descendants, each behind its parent; none if it has ended."""
        if not self.running(name):
            return []
        try:
            child = psutil.Process(self.pid(name))
            return [child, *child.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def signal(self, name: str, number: signal.Signals) -> bool:
        """Send a signal to the child; False if it is gone. Raises ProcessError for a name that was
        never started."""
        with self._lock:
            child = self._children.get(name)
            if child is None:
                raise ProcessError(f"cannot signal {name}: there is no such process")
            if child.poll() is not None:
                return False
            child.send_signal(number)
            return True

    def ended(self) -> dict[str, int]:
        """The children that ended on their own, and their exit codes (negative: by that signal)."""
        with self._lock:
            codes = {name: child.poll() for name, child in self._children.items()}
            return {
                name: code
                for name, code in codes.items()
                if code is not None and name not in self._killed
            }

    def terminate(self, grace_s: float = 3.0) -> None:
        """SIGTERM to all children, SIGKILL to those that are still there after ``grace_s``."""
        with self._lock:
            living = {name: c for name, c in self._children.items() if c.poll() is None}
            self._killed.update(living)
            for child in living.values():
                child.terminate()
                child.send_signal(signal.SIGCONT)  # a stopped child could not act on SIGTERM
            deadline = time.monotonic() + grace_s
            for child in living.values():
                try:
                    child.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def close(self, grace_s: float = 3.0) -> None:
        """Stop all children, and whatever they started in the group. May be called again."""
        with self._lock:
            try:
                self.terminate(grace_s)
            finally:
                # Also after a second Ctrl-C above: the guard takes whoever is left.
                pipe = self._guard.stdin
                assert pipe is not None
                pipe.close()
                self._guard.wait()
                for child in self._children.values():
                    child.wait()

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


# --- ports -------------------------------------------------------------------------------------

FIRST_PORT = 10_000
LAST_PORT = 31_999
"""Below 32768, where systems begin to take ports for outgoing connections."""
BLOCK = 500


class NoFreePorts(InfrastructureFailed):
    """There are not enough ports: says how many were wanted and where they were looked for."""


class _PortBlock:
    """A range of ports that this process alone hands out, as long as it holds the file's lock (the
    system drops it when the process ends, however it ends)."""

    def __init__(self) -> None:
        self._lock_file: IO[bytes] | None = None
        self._ports: list[int] = []
        self._next = 0

    def take(self, count: int) -> list[int]:
        """``count`` ports that nothing listens on, going round in the block, so that a port handed
        out before comes again as late as possible."""
        if not self._ports:
            self._reserve()
        free: list[int] = []
        for _ in range(BLOCK):
            if len(free) == count:
                return free
            port = self._ports[self._next % BLOCK]
            self._next += 1
            if _is_free(port):
                free.append(port)
        if len(free) == count:
            return free
        raise NoFreePorts(
            f"{count} free ports wanted, {len(free)} found"
            f" between {self._ports[0]} and {self._ports[-1]} on 127.0.0.1"
        )

    def _reserve(self) -> None:
        directory = Path(tempfile.gettempdir()) / f"capbench-ports-{os.getuid()}"
        directory.mkdir(mode=0o700, exist_ok=True)
        for first in range(FIRST_PORT, LAST_PORT - BLOCK + 2, BLOCK):
            path = directory / str(first)
            lock_file = locks.take(path)
            if lock_file is None:
                continue
            self._lock_file = lock_file
            atexit.register(locks.give_back, path, lock_file)
            self._ports = list(range(first, first + BLOCK))
            return
        raise NoFreePorts(f"every block of ports is locked; see {directory}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_block = _PortBlock()
_block_lock = threading.Lock()


def free_ports(count: int) -> list[int]:
    """``count`` ports on 127.0.0.1 that are free now and that no other capbench process of this
    user is given. Raises NoFreePorts."""
    with _block_lock:
        return _block.take(count)
