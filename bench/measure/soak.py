"""``capbench soak``: memory and disk of a cluster under millions of operations.

A closed loop runs at full speed, in stretches, so that the load itself does not pile up latencies.
A thread keeps looking at every process and data directory; the figure of a stretch is the peak.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.measure.closed_loop import ClosedLoop, drive
from bench.measure.figures import hardware
from bench.measure.live import Live, live_cluster
from bench.record.soak_file import Sample, Soak, write_soak
from chaos.progress import Bar, Lines

LOOK_EVERY_S = 0.25


def run_soak(
    folder: Path,
    protocol: str,
    load: ClosedLoop,
    *,
    operations: int,
    nodes: int,
    command: list[str],
    progress: Lines | Bar,
) -> tuple[Soak, bool]:
    """Load a new cluster, in stretches of ``load.seconds``, until so many operations have ended ok;
    write ``soak.json`` in ``folder``, which is empty, after each stretch. Returns the soak, and
    whether it was interrupted. It stops early, and records why, if a process ends or nothing is
    answered any more. Raises NoCluster, BrokerUnreachable."""
    path = folder / "soak.json"
    soak = Soak(
        capbench=importlib.metadata.version("capbench"),
        command=command,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        hardware=hardware(),
        protocol=protocol,
        nodes=nodes,
        clients=load.clients,
        value_bytes=load.value_bytes,
        keys=load.keys,
        wanted=operations,
    )
    progress.run(f"soak {protocol}")
    progress.phase(f"start {nodes} nodes and a broker")
    interrupted = False
    try:
        with live_cluster(protocol, nodes=nodes) as live:
            started = time.monotonic()
            while soak.operations < operations and soak.stopped is None:
                _stretch(soak, live, load, started)
                write_soak(path, soak)
                progress.tick(soak.operations, operations, "operations")
    except (KeyboardInterrupt, SystemExit):
        interrupted, soak.stopped = True, "interrupted"
    except psutil.NoSuchProcess as error:
        soak.stopped = f"process {error.pid} ended during the load"
    write_soak(path, soak)
    return soak, interrupted


def _stretch(soak: Soak, live: Live, load: ClosedLoop, started: float) -> None:
    with _looking(live) as most:
        measured = drive(live.cluster, load)
    soak.failed += measured.failed
    soak.unanswered += measured.unanswered
    soak.error = soak.error or measured.error
    if not measured.answered:
        soak.stopped = f"nothing was answered any more ({measured.error or 'no error given'})"
        return
    soak.samples.append(
        Sample(
            t_s=time.monotonic() - started,
            operations=soak.operations + measured.answered,
            ok_per_s=measured.ok_per_s,
            rss_bytes=most.rss_bytes,
            disk_bytes=most.disk_bytes,
        )
    )


class _Most:
    """The peaks of each process and each directory."""

    def __init__(self, live: Live) -> None:
        self.rss_bytes: dict[str, int] = {}
        self.disk_bytes: dict[str, int] = {}
        self._processes = {**live.processes, "load": psutil.Process()}
        self._directories = live.data_directories()
        self.failure: psutil.NoSuchProcess | None = None

    def look(self) -> None:
        """Measure once more. Raises psutil.NoSuchProcess."""
        for name, process in self._processes.items():
            rss = process.memory_info().rss
            self.rss_bytes[name] = max(rss, self.rss_bytes.get(name, 0))
        for node, directory in self._directories.items():
            self.disk_bytes[node] = max(size_of(directory), self.disk_bytes.get(node, 0))


def size_of(directory: Path) -> int:
    """Bytes of the files in a directory. A file that disappears meanwhile does not count."""
    total = 0
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            total += entry.stat().st_size
    return total


@contextlib.contextmanager
def _looking(live: Live) -> Iterator[_Most]:
    """Keep measuring in a thread. Raises psutil.NoSuchProcess at the end of the context."""
    most, done = _Most(live), threading.Event()
    most.look()

    def look() -> None:
        try:
            while not done.wait(LOOK_EVERY_S):
                most.look()
        except psutil.NoSuchProcess as error:
            most.failure = error

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()
    if most.failure is not None:
        raise most.failure
