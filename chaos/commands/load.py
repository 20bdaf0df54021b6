"""`capbench load`: put load on a running cluster with Locust."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from bench.record.quantities import ABOVE_ZERO_S, MAX_RATE_PER_S
from chaos import errors as exit_codes
from chaos.commands.options import (
    PORT,
    SUBJECT,
    Cluster,
    Endpoints,
    KindOf,
    Metrics,
    Name,
    count,
    duration,
    folder,
    number,
)
from chaos.console import Json, print_json
from chaos.targets.folders import new_folder, stamp

app = typer.Typer()

TARGETS = Name("target", lambda: ("attached",))
DEFAULT_TIME_S = 20.0
DEFAULT_PORT = 8089
OUTCOMES = ("ok", "fail", "info")


@app.command("load", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def load_command(
    context: typer.Context,
    workload: Annotated[
        str | None,
        typer.Option(help="a, b, c, d or f of YCSB, or a .json file [default: half reads]"),
    ] = None,
    kind: KindOf = None,
    rate: Annotated[
        float | None,
        typer.Option(
            parser=number(0, MAX_RATE_PER_S),
            help="Operations per second; 0: closed loop [default: 300]",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="How the rate changes, or in a closed loop the users: ramp:0-500/30s,"
            " steps:100,200/10s, spike:100,900/10s,5s,20s."
        ),
    ] = None,
    users: Annotated[
        int,
        typer.Option(
            "--users", "-u", parser=count(1, 10_000), help="Locust's users, who share the load."
        ),
    ] = 1,
    run_time: Annotated[
        float | None,
        typer.Option(
            "--run-time",
            "-t",
            parser=duration(ABOVE_ZERO_S, whole_seconds=True),
            help="For how long, such as 20s or 5m [default: 20s, or the shape's]",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            parser=count(1, 256), help="Worker processes, besides a master [default: none]"
        ),
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="Start Locust's web page instead; Ctrl-C ends it.")
    ] = False,
    port: Annotated[int, typer.Option(parser=PORT, help="Of the web page.")] = DEFAULT_PORT,
    name: Cluster = None,
    cluster_file: Annotated[
        Path | None, typer.Option(help="For a cluster that `capbench up` did not start.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            **TARGETS.typed,
            help="attached: a system (-p) that runs elsewhere, at --endpoints.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", "-p", **SUBJECT.typed, help="The system that runs elsewhere."),
    ] = None,
    endpoints: Endpoints = "",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            parser=folder,
            help="Folder for the history [default: results/load/TIME]",
        ),
    ] = None,
    metrics: Metrics = None,
    json: Json = False,
) -> None:
    """Put load on a running cluster with Locust, and record every operation.

    All other options are passed to Locust and our locustfile: --mix read=9,write=1, --keys 100,
    --tags read; `capbench load --web -- --help` shows all of it. Exit code 1: operations failed; 2:
    bad input; 3: the cluster cannot be reached, or the load is incomplete (a load process was lost,
    or stopped by someone else). Example: capbench load --workload a --rate 500 --run-time 30s
    """
    from bench.load.options import refuse_early
    from chaos.clusters.by_name import cluster_path, find
    from chaos.clusters.processes import signals_as_exit
    from chaos.targets.load import run_headless, run_page

    if name is not None and cluster_file is not None:
        raise typer.BadParameter("--name and --cluster-file exclude each other")
    options = ["--users", str(users), "--spawn-rate", str(max(users, 1))]
    if workload is not None:
        options += ["--workload", workload]
    if kind is not None:
        options += ["--kind", kind]
    if rate is not None:
        options += ["--rate", f"{rate:g}"]
    if shape is not None:
        options += ["--shape", shape]
    if processes is not None:
        options += ["--processes", str(processes)]
    if run_time is None and shape is None and not web:
        run_time = DEFAULT_TIME_S
    if run_time is not None:
        options += ["--run-time", f"{run_time:.0f}s"]
    options += [extra for extra in context.args if extra != "--"]
    wanted = refuse_early(options)
    elsewhere = (target, protocol, endpoints) != (None, None, "")
    if elsewhere and (not (target and protocol and endpoints) or name or cluster_file or web):
        raise typer.BadParameter(
            "a cluster that runs elsewhere takes --target attached, -p SYSTEM and --endpoints, and "
            "no --name, --cluster-file or --web"
        )
    folder_path = out or Path("results") / "load" / stamp()
    with signals_as_exit(), contextlib.ExitStack() as stack:
        if elsewhere:
            folder_path = out or new_folder(folder_path)
            cluster_file = stack.enter_context(_attached(str(protocol), endpoints, folder_path))
        cluster_file = cluster_file or cluster_path(find(name).name)
        on_folder = stack.enter_context(_watched(metrics, cluster_file))
        if web:
            run_page(cluster_file, port, options, on_up=lambda url: print(f"load: {url}"))
            return
        loaded = run_headless(
            cluster_file,
            folder_path,
            options,
            kind=wanted.kind,
            made_up=out is None and not elsewhere,
            command=sys.argv,
            show=_show,
            on_folder=on_folder,
        )
    if json:
        print_json(loaded)
    else:
        _print(loaded)
    if loaded.interrupted:
        raise typer.Exit(exit_codes.INTERRUPTED)
    if loaded.failures:
        raise typer.Exit(exit_codes.INFRASTRUCTURE)
    raise typer.Exit(loaded.exit_code)


@contextlib.contextmanager
def _watched(metrics: int | None, cluster_file: Path) -> Iterator[Callable[[Path], None]]:
    """Serve metrics of the load whose folder the function gets, and of its cluster's nodes."""
    from bench.record.cluster_file import ClusterFile, read_reachable
    from chaos.clusters.monitor import Monitor
    from chaos.exporter.server import exported
    from chaos.exporter.sources import OfFolder

    if metrics is None:
        yield lambda path: None
        return
    cluster = read_reachable(cluster_file)
    with contextlib.ExitStack() as stack:
        exporter = stack.enter_context(exported(metrics))
        statuses = None
        if isinstance(cluster, ClusterFile):
            statuses = stack.enter_context(Monitor(cluster)).statuses

        def begin(path: Path) -> None:
            exporter.source = OfFolder(path, statuses)

        yield begin


@contextlib.contextmanager
def _attached(protocol: str, endpoints: str, folder_path: Path) -> Iterator[Path]:
    """The cluster file of a system that runs elsewhere, for as long as proxies stand before it."""
    from bench.record.run_folder import RunFolder
    from chaos.clusters.elsewhere import ElsewhereCluster, parse_endpoints
    from chaos.systems.catalogue import get
    from nodes.runtime.scratch import scratch

    system = get(protocol)
    addresses = parse_endpoints(endpoints, system)
    with scratch("attached") as place:
        cluster = ElsewhereCluster(system, addresses, place, RunFolder(folder_path))
        with cluster:
            print(f"load: only keys that begin with {cluster.keys} are touched", file=sys.stderr)
            yield cluster.cluster_path
        for note in cluster.notes:
            print(f"load: {note}", file=sys.stderr)


def _show(text: bytes) -> None:
    sys.stderr.buffer.write(text)
    sys.stderr.flush()


def _print(loaded: object) -> None:
    from bench.load.losses import NOT_WHOLE
    from chaos.targets.load import Loaded

    assert isinstance(loaded, Loaded)
    print(f"{'':8}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES))
    for op, counts in loaded.operations.items():
        print(f"{op:8}" + "".join(f"{counts.get(outcome, 0):>10}" for outcome in OUTCOMES))
    print(f"wanted {loaded.intended}, dropped {loaded.dropped}", end="")
    if loaded.lateness_ms_p50 is not None and loaded.lateness_ms_p99 is not None:
        late = (loaded.lateness_ms_p50, loaded.lateness_ms_p99)
        print("; sent late by {:.1f} ms in the median, {:.1f} ms at p99".format(*late), end="")
    print()
    if loaded.asked_leader is not None:
        print(f"{loaded.asked_leader} of them asked the leader, the others any node in turn")
    for failure in loaded.failures:
        print(f"{NOT_WHOLE}{failure}")
    print(f"judge it:  capbench check {loaded.folder}")
    print(f"report:    capbench report {loaded.folder}")
