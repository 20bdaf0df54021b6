"""`capbench status`: what the nodes of running clusters report."""

from __future__ import annotations

import contextlib
from typing import Any, TypeAlias

import msgspec
import typer

from bench.record.cluster_file import ClusterFile, SystemFile
from bench.record.run_folder import FaultRecord, NodeRecord
from chaos.commands.options import Cluster
from chaos.console import Json, print_json

app = typer.Typer()

Known: TypeAlias = ClusterFile | SystemFile
ANSWER_S = 2.0
"""A node that has reported nothing for this long is shown as silent."""


@app.command()
def status(
    name: Cluster = None,
    json: Json = False,
) -> None:
    """Show what every node of a running cluster reports; without --name, of all clusters. A cluster
    that is no longer running is listed with the reason. Exit code 3: none is running. Example:
    capbench status
    """
    from chaos.clusters import by_name as clusters

    running = clusters.all_running() if name is None else []
    names = [keeper.name for keeper in running] or [clusters.find(name).name]
    answers = [_ask(clusters.reach(each)) for each in names]
    dead = {each: clusters.why_dead(each) for each in clusters.all_dead()} if name is None else {}
    if json:
        shown = [_as_json(*each) for each in answers]
        shown += [{"cluster": each, "not_running": why} for each, why in dead.items()]
        print_json(shown[0] if len(shown) == 1 else {"clusters": shown})
        return
    for each in answers:
        _print(*each)
    for cluster, why in dead.items():
        print(f"{cluster}: not running: {why}; `capbench down --name {cluster}` removes it")


def _ask(cluster: Known) -> tuple[Known, dict[str, NodeRecord], list[FaultRecord]]:
    """What its nodes report, and the active faults."""
    from chaos.clusters import by_name as clusters
    from chaos.clusters.monitor import Monitor
    from chaos.errors import TargetFailed
    from chaos.targets import by_hand

    if isinstance(cluster, SystemFile):
        socket = clusters.socket_path(cluster.cluster)
        statuses = by_hand.ask(socket, by_hand.Statuses()).statuses
        return cluster, statuses, by_hand.ask(socket, by_hand.Faults()).faults
    with Monitor(cluster) as monitor:
        monitor.wait(lambda: len(monitor.statuses()) == len(cluster.nodes), ANSWER_S)
        statuses = dict(monitor.statuses())
    faults: list[FaultRecord] = []
    with contextlib.suppress(TargetFailed):  # its keeper has just ended
        faults = by_hand.ask(clusters.socket_path(cluster.cluster), by_hand.Faults()).faults
    return cluster, statuses, faults


def _as_json(
    cluster: Known, statuses: dict[str, NodeRecord], faults: list[FaultRecord]
) -> dict[str, Any]:
    return {
        "cluster": cluster.cluster,
        "protocol": cluster.protocol,
        "nodes": {
            node: msgspec.to_builtins(statuses[node]) if node in statuses else None
            for node in cluster.nodes
        },
        "faults": faults,
    }


def _print(cluster: Known, statuses: dict[str, NodeRecord], faults: list[FaultRecord]) -> None:
    from rich.console import Console
    from rich.table import Table

    from bench.record.fault_words import described

    columns: list[str] = []
    for record in statuses.values():
        columns += [name for name in record.probe if name not in columns]
    shown = Table(title=f"{cluster.cluster}: {cluster.protocol}", title_justify="left", box=None)
    for column in ("node", *columns, "frames dropped", "refused"):
        shown.add_column(column, no_wrap=True)
    for node in cluster.nodes:
        if node not in statuses:
            shown.add_row(node, "silent")
            continue
        probe, counters = statuses[node].probe, statuses[node].counters
        refused = sum(count for name, count in counters.items() if name.startswith("bad_"))
        cells = ["-" if probe.get(column) is None else str(probe[column]) for column in columns]
        shown.add_row(node, *cells, str(counters.get("frames_dropped", 0)), str(refused))
    console = Console()
    # Full width for a file or a pipe: it cannot be widened later.
    (console if console.is_terminal else Console(width=400)).print(shown)
    for fault in faults:
        print(f"fault {described(fault)}")
