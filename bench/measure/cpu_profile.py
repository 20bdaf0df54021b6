"""Where the CPU time of an operation goes, process by process, sampled by py-spy.

    python -m bench.measure.cpu_profile --protocol raft

It runs a cluster under the closed loop of the base point (`bench.record.sweep_file.Point`). py-spy
samples the stacks of each Python process without stopping it. A sample counts for the innermost
frame that belongs to a part; shares are multiplied by the process's CPU time. The broker is not
Python: only its user and kernel times are known. py-spy must be on PATH (``pip install py-spy``)
and may need permission to look at other processes (root, or ptrace_scope 0).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.load.mqtt_client import BrokerUnreachable
from bench.measure.closed_loop import ClosedLoop, drive
from bench.measure.live import Live, NoCluster, live_cluster
from bench.record.sweep_file import Point
from nodes import registry
from nodes.errors import InfrastructureFailed
from nodes.runtime.scratch import scratch

INVALID_INPUT, INFRASTRUCTURE_FAILED = 2, 3
RATE = 250
"""Samples per second."""
PARTS: dict[str, tuple[str, ...]] = {
    "protocol": (
        *(
            "nodes/protocols/",
            "nodes/parts/forwarding.py",
            "nodes/parts/replicated_map.py",
            "nodes/contract/disk.py",
        ),
        *(
            "nodes/contract/replica.py",
            "nodes/parts/sessions.py",
            "nodes/parts/synod.py",
            "nodes/parts/key_digest.py",
        ),
        *("nodes/parts/placement.py", "nodes/parts/recovery.py", "nodes/parts/vector_clock.py"),
    ),
    "frames": ("nodes/wire/codec.py",),
    "log": ("nodes/runtime/durable_log.py",),
    "driver": ("nodes/runtime/driver.py", "nodes/runtime/injected.py", "nodes/wire/topics.py"),
    "load": ("bench/measure/closed_loop.py",),
    "sockets": ("_sock_send (", "_sock_recv ("),
    "MQTT": ("nodes/runtime/mqtt.py", "bench/load/mqtt_client.py", "aiomqtt/", "paho/"),
    "threads": ("concurrent/futures/",),
}
"""Part -> what the names of its frames contain: files, or functions of paho that make system calls.
Everything else (event loop, interpreter) is ``other``."""
OTHER = "other"


class NoProfiler(InfrastructureFailed):
    """py-spy is missing or not permitted: says which, and what to do."""


def shares(lines: Iterable[str]) -> dict[str, float]:
    """Part -> its share of the samples, from py-spy's raw format: frames from outermost to
    innermost, separated by semicolons, then a space and the number of samples."""
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rstrip().rpartition(" ")
        if stack:
            counts[_part(stack.split(";"))] += int(count)
    total = sum(counts.values())
    return {part: counts[part] / total for part in (*PARTS, OTHER) if counts[part]}


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for part, names in PARTS.items():
            if any(name in frame for name in names):
                return part
    return OTHER


def profile(point: Point, seconds: float) -> dict[str, dict[str, float]]:
    """Process -> part -> CPU microseconds per operation; for the broker, kernel and user time.
    Raises NoProfiler, NoCluster, BrokerUnreachable."""
    program = shutil.which("py-spy")
    if program is None:
        raise NoProfiler("py-spy is not on PATH; get it with `pip install py-spy`")
    load = ClosedLoop(
        clients=point.clients,
        think_s=point.think_s,
        seconds=seconds,
        value_bytes=point.value_bytes,
    )
    with (
        scratch("profile") as folder,
        live_cluster(point.protocol, nodes=point.nodes) as live,
    ):
        watched = {name: live.processes[name].pid for name in live.cluster.nodes}
        watched["load"] = os.getpid()
        cpu_s: list[dict[str, float]] = []
        broker_s: list[tuple[float, float]] = []
        spies: list[subprocess.Popen[bytes]] = []

        def at_edge() -> None:
            cpu_s.append(live.cpu_s())
            times = live.processes["broker"].cpu_times()
            broker_s.append((times.system, times.user))
            if not spies:
                spies.extend(
                    _spy(program, pid, seconds, folder / name) for name, pid in watched.items()
                )

        measured = drive(live.cluster, load, at_edge)
        found = {}
        for (name, _), spy in zip(watched.items(), spies, strict=True):
            if spy.wait(timeout=30) != 0:
                said = (folder / f"{name}.log").read_text(errors="replace").strip()
                raise NoProfiler(f"py-spy on {name}: {said.splitlines()[-1] if said else '?'}")
            found[name] = shares((folder / name).read_text().splitlines())
        per_us = 1e6 / max(1, measured.ok)
        used = _differences(live, cpu_s, measured.client_cpu_s)
        costs = {
            name: {part: share * used[name] * per_us for part, share in found[name].items()}
            for name in watched
        }
        kernel, user = (after - before for before, after in zip(*broker_s, strict=True))
        costs["broker"] = {"kernel": kernel * per_us, OTHER: user * per_us}
        return costs


def _spy(program: str, pid: int, seconds: float, out: Path) -> subprocess.Popen[bytes]:
    command = [program, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds)))]
    command += ["--rate", str(RATE), "--format", "raw", "--nonblocking", "--output", str(out)]
    with out.with_name(f"{out.name}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--full-filenames"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _differences(live: Live, cpu_s: list[dict[str, float]], load_s: float) -> dict[str, float]:
    before, after = cpu_s
    return {**{name: after[name] - before[name] for name in live.processes}, "load": load_s}


def table(costs: dict[str, dict[str, float]]) -> Table:
    """The costs as a table."""
    shown = Table(title="CPU µs per operation", title_justify="left")
    parts = [*PARTS, OTHER, "kernel"]
    for column in ("process", *parts, "all"):
        shown.add_column(column, justify="left" if column == "process" else "right")
    for name, cost in costs.items():
        cells = [f"{cost[part]:.2f}" if part in cost else "" for part in parts]
        shown.add_row(name, *cells, f"{sum(cost.values()):.2f}")
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Print the table. Exit code 2: invalid input; 3: no cluster or no profiler."""
    base = Point(protocol="raft")
    parser = argparse.ArgumentParser(
        prog="python -m bench.measure.cpu_profile",
        description="Where an operation's CPU time goes.",
    )
    parser.add_argument("--protocol", default=base.protocol)
    parser.add_argument("--nodes", type=int, default=base.nodes)
    parser.add_argument("--clients", type=int, default=base.clients)
    parser.add_argument("--value-bytes", type=int, default=base.value_bytes)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args(arguments)
    try:
        point = Point(
            protocol=registry.get(options.protocol).name,
            nodes=options.nodes,
            clients=options.clients,
            value_bytes=options.value_bytes,
        )
        costs = profile(point, options.seconds)
    except (ValueError, registry.InvalidConfiguration) as error:
        print(f"cpu profile: {error}", file=sys.stderr)
        return INVALID_INPUT
    except (NoCluster, NoProfiler, BrokerUnreachable) as error:
        print(f"cpu profile: {error}", file=sys.stderr)
        return INFRASTRUCTURE_FAILED
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"{point}, {options.seconds:g} s, py-spy at {RATE} samples/s")
    console.print(table(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
