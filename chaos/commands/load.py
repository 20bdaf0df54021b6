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
from chaos.interrupted import Interrupted, recorded
from chaos.targets.folders import new_folder, stamp

app = typer.Typer()

TARGETS = Name("target", lambda: ("attached",))
DEFAULT_TIME_S = 20.0
DEFAULT_PORT = 8089
OUTCOMES = ("ok", "fail", "info")


Workload = Annotated[
    str | None,
    typer.Option(help="a, b, c, d or f of YCSB, or a .json file [default: half reads]"),
]
Rate = Annotated[
    float | None,
    typer.Option(
        parser=number(0, MAX_RATE_PER_S),
        help="Operations per second; 0: closed loop [default: 300]",
    ),
]
Shape = Annotated[
    str | None,
    typer.Option(
        help="How the rate changes, or in a closed loop the users: ramp:0-500/30s,"
        " steps:100,200/10s, spike:100,900/10s,5s,20s."
    ),
]
Users = Annotated[
    int,
    typer.Option(
        "--users", "-u", parser=count(1, 10_000), help="Locust's users, who share the load."
    ),
]
RunTime = Annotated[
    float | None,
    typer.Option(
        "--run-time",
        "-t",
        parser=duration(ABOVE_ZERO_S, whole_seconds=True),
        help="For how long, such as 20s or 5m [default: 20s, or the shape's]",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(parser=count(1, 256), help="Worker processes, besides a master [default: none]"),
]
Web = Annotated[
    bool, typer.Option("--web", help="Start Locust's web page instead; Ctrl-C ends it.")
]
Port = Annotated[int, typer.Option(parser=PORT, help="Of the web page.")]
ClusterFileOf = Annotated[
    Path | None, typer.Option(help="For a cluster that `capbench up` did not start.")
]
Elsewhere = Annotated[
    str | None,
    typer.Option(
        **TARGETS.typed,
        help="attached: a system (-p) that runs elsewhere, at --endpoints.",
    ),
]
SystemElsewhere = Annotated[
    str | None,
    typer.Option("--protocol", "-p", **SUBJECT.typed, help="The system that runs elsewhere."),
]
HistoryFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        parser=folder,
        help="Folder for the history [default: results/load/TIME]",
    ),
]


@app.command("load", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def load_command(
    context: typer.Context,
    workload: Workload = None,
    kind: KindOf = None,
    rate: Rate = None,
    shape: Shape = None,
    users: Users = 1,
    run_time: RunTime = None,
    processes: Processes = None,
    web: Web = False,
    port: Port = DEFAULT_PORT,
    name: Cluster = None,
    cluster_file: ClusterFileOf = None,
    target: Elsewhere = None,
    protocol: SystemElsewhere = None,
    endpoints: Endpoints = "",
    out: HistoryFolder = None,
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
    from chaos.targets.load import run_headless, run_page

    if name is not None and cluster_file is not None:
        raise typer.BadParameter("--name and --cluster-file exclude each other")
    if run_time is None and shape is None and not web:
        run_time = DEFAULT_TIME_S
    options = _options(
        *("--users", users, "--spawn-rate", users, "--workload", workload, "--kind", kind),
        *("--rate", rate, "--shape", shape, "--processes", processes),
        *("--run-time", None if run_time is None else f"{run_time:g}s"),
    )
    options += [extra for extra in context.args if extra != "--"]
    wanted = refuse_early(options)
    elsewhere = _is_elsewhere(
        (target, protocol, endpoints), no_others=not (name or cluster_file or web)
    )
    folder_path = out or Path("results") / "load" / stamp()
    with contextlib.ExitStack() as stack:
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
    print_json(loaded) if json else _print(loaded)
    if loaded.interrupted:
        where = Path(loaded.folder)
        raise Interrupted("load", recorded(where), f"judge it: capbench check {where}")
    raise typer.Exit(exit_codes.INFRASTRUCTURE if loaded.failures else loaded.exit_code)


def _options(*words: str | float | None) -> list[str]:
    """Names of options, each with its value after it, without those whose value is None."""
    return [
        word if isinstance(word, str) else f"{word:g}"
        for name, value in zip(words[::2], words[1::2], strict=True)
        if value is not None
        for word in (name, value)
    ]


def _is_elsewhere(where: tuple[str | None, str | None, str], *, no_others: bool) -> bool:
    """Whether the load is for a system that others run. ``where``: --target, --protocol and
    --endpoints. ``no_others``: no other option says which cluster. Raises BadParameter."""
    if not any(where):
        return False
    if not (all(where) and no_others):
        raise typer.BadParameter(
            "a cluster that runs elsewhere takes --target attached, -p SYSTEM and --endpoints, and "
            "no --name, --cluster-file or --web"
        )
    return True


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
