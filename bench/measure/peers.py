"""`make bench-peers`: three nodes of our raft against three of etcd, on one machine in one run.

    python -m bench.measure.peers [FOLDER]

Closed loops of 1, 16 and 128 clients without think time write 32 bytes to 1,000 keys, to each
cluster in turn, with fsync: etcd by its own benchmark client, raft by `bench.measure.closed_loop`.
They ask all nodes (one client: another node each round), and then the leader alone, of both. Both
clusters run all the time, so that conditions are equal; figures are the median round. Writes to
``results/bench`` (or the folder given): ``peers.json``, a list of figures as in
`bench.measure.figures`, and ``peers-hardware.json``, the machine and the versions.

Exit code 0, even if goals are missed; 3: a cluster could not be started, or lost operations.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from bench.load.workload import Ask
from bench.measure.closed_loop import ClosedLoop, drive
from bench.measure.etcd import Etcd, Puts, etcd_cluster, programs
from bench.measure.figures import figure, hardware, is_met, table, with_ratios
from bench.measure.live import Live, LoadFailed, live_cluster
from bench.measure.measuring import SCALE
from bench.record.run_folder import write_json
from chaos.errors import INFRASTRUCTURE
from chaos.interrupted import Interrupted, signals_as_exit
from nodes.errors import CapbenchError

PROTOCOL = "raft"
GOALS = {1: 0.7, 16: 1.0, 128: 1.0}
"""Clients -> the goal: operations per second relative to etcd."""
MOST_TIMES_P50 = 1.5
"""The goal for the median latency of one client, relative to etcd's."""
ROUNDS = 5
SECONDS = 4.0
"""The approximate length of each measurement."""
VALUE_BYTES = 32


def rows(etcd: Etcd, live: Live) -> list[dict[str, Any]]:
    """The figures without ratios. Raises NoEtcd, LoadFailed, OSError."""
    figures = []
    for ask in get_args(Ask):
        for clients in GOALS:
            theirs, ours = [], []
            total = _total(etcd, clients)
            for number in range(ROUNDS):
                _say(f"{clients} in flight, ask {ask}, round {number + 1} of {ROUNDS}")
                endpoints = _asked(clients, number, etcd.endpoints)
                if ask == "leader":
                    endpoints = [etcd.leader()]
                theirs.append(
                    etcd.put(
                        clients=clients, total=total, value_bytes=VALUE_BYTES, endpoints=endpoints
                    )
                )
                ours.append(_ours(live, clients, _asked(clients, number, live.cluster.nodes), ask))
            figures += _figures(clients, ask, theirs, ours)
    return figures


def _asked(clients: int, number: int, nodes: Sequence[str]) -> Sequence[str]:
    """One client asks one node, another one each round: its rate would depend on whether that node
    happens to lead. So the median is that of a follower."""
    return nodes if clients > 1 else [nodes[number % len(nodes)]]


def _figures(
    clients: int, ask: Ask, theirs: Sequence[Puts], ours: Sequence[Puts]
) -> list[dict[str, Any]]:
    figures = []
    goals = {"ok_per_s": GOALS[clients]}
    if clients == 1:
        goals["latency_ms_p50"] = MOST_TIMES_P50
    whom = "" if ask == "any" else f", {ask} asked"
    for name, unit in (
        ("ok_per_s", "operations/s"),
        ("latency_ms_p50", "ms"),
        ("latency_ms_p99", "ms"),
    ):
        what = "" if name == "ok_per_s" else f", {name[-3:]}"
        base = f"peers: etcd, {clients} in flight{whom}{what}"
        other = statistics.median(getattr(each, name) for each in theirs)
        value = statistics.median(getattr(each, name) for each in ours)
        figures.append(figure(base, other, unit))
        figures.append(
            figure(
                f"peers: {PROTOCOL}, {clients} in flight{whom}{what}",
                value,
                unit,
                compared_with=base,
                goal=goals[name] * other if name in goals else None,
            )
        )
    return figures


def _total(etcd: Etcd, clients: int) -> int:
    """How many puts etcd does in about `SECONDS`: its client counts puts, not time. Also warms it
    up."""
    # The client reports no p99 of fewer than a hundred.
    least = max(200, 50 * clients)
    first = etcd.put(clients=clients, total=least, value_bytes=VALUE_BYTES)
    return max(least, round(first.ok_per_s * SECONDS * SCALE))


def _ours(live: Live, clients: int, nodes: Sequence[str], ask: Ask) -> Puts:
    measured = drive(
        live.cluster,
        ClosedLoop(
            clients=clients,
            think_s=0.0,
            seconds=max(0.3, SECONDS * SCALE),
            warm_up_s=0.3,
            value_bytes=VALUE_BYTES,
            nodes=tuple(nodes),
            ask=ask,
        ),
    )
    if not measured.ok or measured.failed or measured.unanswered:
        raise LoadFailed(
            f"{PROTOCOL}: {measured.failed} operations failed and {measured.unanswered} were not"
            f" answered, without a fault: {measured.error}"
        )
    assert measured.latency_ms_p50 is not None
    assert measured.latency_ms_p99 is not None
    return Puts(
        ok_per_s=measured.ok_per_s,
        latency_ms_p50=measured.latency_ms_p50,
        latency_ms_p99=measured.latency_ms_p99,
    )


def _say(what: str) -> None:
    print(f"peers: {what}", file=sys.stderr, flush=True)


def run(folder: Path) -> list[dict[str, Any]]:
    """Measure and write the files. Raises CapbenchError, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    _say("looking for etcd and its benchmark client (fetched and built the first time)")
    found = programs()
    with etcd_cluster(found) as etcd, live_cluster(PROTOCOL) as live:
        figures = with_ratios(rows(etcd, live))
    machine = {**hardware(), "etcd": found.version}
    for name, data in (("peers-hardware.json", machine), ("peers.json", figures)):
        write_json(folder / name, data)
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Measure, write and print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.measure.peers", description="Our raft beside etcd."
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("results/bench"))
    folder: Path = parser.parse_args(arguments).folder
    try:
        with signals_as_exit():
            figures = run(folder)
    except (CapbenchError, OSError) as error:
        print(f"peers: {error}; no figures were written", file=sys.stderr)
        return INFRASTRUCTURE
    except (KeyboardInterrupt, SystemExit):
        told = Interrupted("peers", "no figures were written")
        print(told, file=sys.stderr)
        return told.exit_code
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(figures))
    met = [is_met(each) for each in figures if each["goal"] is not None]
    console.print(f"{met.count(False)} of {len(met)} goals missed · {folder / 'peers.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
