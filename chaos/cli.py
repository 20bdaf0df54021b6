"""The console command `capbench`.

Exit codes: 0 all objectives met; 1 an objective missed; 2 invalid input; 3 infrastructure or a
fault failed; 4 a consistency claim violated; 5 a verdict is unknown; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import datetime
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer

from bench.cluster_file import BadClusterFile, read_cluster_file
from bench.history import BadHistory
from bench.run_folder import BadRunFolder, FaultRecord, RunFolder
from chaos import exit_codes
from chaos.cli_bugs import app as bugs_app
from chaos.cli_catalogue import app as catalogue_app
from chaos.cli_check import EXIT_CODES as VERDICT_CODES
from chaos.cli_check import BadOption
from chaos.cli_check import app as check_app
from chaos.cli_gate import app as gate_app
from chaos.cli_hand import app as hand_app
from chaos.cli_load import app as load_app
from chaos.cli_report import app as report_app
from chaos.cli_report import print_runs, print_screen, write_page
from chaos.cli_simulate import app as simulate_app
from chaos.cli_sweep import app as sweep_app
from chaos.console import Json, print_json
from nodes import registry
from nodes.registry import InvalidConfiguration

EXIT_OBJECTIVE, EXIT_INPUT = exit_codes.OBJECTIVE, exit_codes.INPUT
EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED = exit_codes.INFRASTRUCTURE, exit_codes.INTERRUPTED
EXIT_VIOLATED, EXIT_UNKNOWN = exit_codes.VIOLATED, exit_codes.UNKNOWN

app = typer.Typer(
    name="capbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Benchmarks and chaos tests for replication protocols: throughput, availability and "
    "measured consistency, side by side. Example: capbench compare --preset quick",
)

Protocols = Annotated[
    list[str] | None,
    typer.Option("--protocol", "-p", help="A protocol; may be given again for more."),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Seed of workload and faults, instead of the experiment's.", min=0),
]
Nodes = Annotated[
    int | None, typer.Option(help="Number of nodes, instead of the experiment's.", min=1)
]
Target = Annotated[
    str,
    typer.Option(
        help="local: processes on this machine; sim: simulated, in virtual time; compose: the "
        "containers of `docker compose up`; attached: a cluster found by addresses only.",
        envvar="CAPBENCH_TARGET",
    ),
]
Repeat = Annotated[
    int, typer.Option(help="Runs of each, with seeds that count up: gives intervals.", min=1)
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results.")]


def main() -> NoReturn:
    """Run the command line. Every user's mistake ends in one line and exit code 2."""
    # Here, since they take a while to load and every command may raise one of them.
    from bench.live import NoCluster
    from bench.mqtt_client import BrokerUnreachable
    from chaos.experiment import InvalidExperiment
    from chaos.leftovers import clean_up
    from chaos.load import BadLoad
    from chaos.monitor import BrokerSilent
    from chaos.simulate import WorkersFailed
    from chaos.targets import StoppedAtOnce, TargetFailed, Unsupported

    try:
        for line in clean_up():
            print(f"capbench: {line}", file=sys.stderr)
        app()
    except (
        InvalidExperiment,
        InvalidConfiguration,
        Unsupported,
        BadOption,
        BadLoad,
        BadRunFolder,
        BadHistory,
        BadClusterFile,
        FileExistsError,
    ) as error:
        _stop(str(error), EXIT_INPUT)
    except (TargetFailed, NoCluster, BrokerSilent, BrokerUnreachable, WorkersFailed) as error:
        _stop(str(error), EXIT_INFRASTRUCTURE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _stop(f"{where}{error.strerror or error}", EXIT_INFRASTRUCTURE)
    except StoppedAtOnce as error:
        _stop(str(error), EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        _stop("interrupted", EXIT_INTERRUPTED)
    sys.exit(0)


def _stop(message: str, code: int) -> NoReturn:
    for line in message.splitlines():
        print(f"capbench: {line}", file=sys.stderr)
    sys.exit(code)


# --- what there is ---


@app.command()
def doctor(json: Json = False) -> None:
    """What is here, what is missing, how to get it. Example: capbench doctor"""
    from rich.console import Console

    from chaos.doctor import examine, is_ready, table

    findings = examine()
    if json:
        print_json({"ready": is_ready(findings), "findings": findings})
    else:
        Console().print(table(findings))
    if not is_ready(findings):
        raise typer.Exit(EXIT_INFRASTRUCTURE)


@app.command("list")
def list_everything(json: Json = False) -> None:
    """Protocols, faults and experiments, each with a line. Example: capbench list"""
    from chaos.experiment import catalogue
    from chaos.faults import FAULTS

    protocols = [
        {
            "name": p.name,
            "claim": p.claim,
            "operations": list(p.operations),
            "summary": p.summary,
        }
        for p in registry.PROTOCOLS.values()
    ]
    faults = [
        {"name": name, "targets": sorted(fault.TARGETS), "summary": fault.summary()}
        for name, fault in FAULTS.items()
    ]
    experiments = [
        {
            "name": name,
            "title": experiment.title,
            "shows": experiment.shows.strip(),
            "protocols": list(experiment.protocols),
            "nodes": experiment.nodes,
            "duration_s": experiment.duration_s,
        }
        for name, experiment in catalogue().items()
    ]
    if json:
        print_json({"protocols": protocols, "faults": faults, "experiments": experiments})
        return
    _print_list("protocols", [(p["name"], f"{p['claim']}: {p['summary']}") for p in protocols])
    _print_list("faults", [(f["name"], f["summary"]) for f in faults])
    _print_list(
        "experiments", [(e["name"], f"{e['title']} ({e['duration_s']:.0f} s)") for e in experiments]
    )


def _print_list(title: str, rows: Sequence[tuple[Any, Any]]) -> None:
    print(title)
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"  {name:<{width}}  {text}")


# --- runs ---


@app.command()
def run(
    experiment: Annotated[
        str | None, typer.Argument(help="A name of `capbench list`, or a YAML file.")
    ] = None,
    protocol: Protocols = None,
    seed: Seed = None,
    nodes: Nodes = None,
    target: Target = "local",
    repeat: Repeat = 1,
    out: Out = None,
    again: Annotated[
        Path | None,
        typer.Option(help="Run what a run folder holds once more: its experiment, protocol, seed."),
    ] = None,
    json: Json = False,
) -> None:
    """Run an experiment, judge it, report it.

    Example: capbench run leader-partition --protocol raft --seed 7
    """
    from chaos.experiment import load, validate

    if again is not None:
        if experiment or protocol or nodes or seed is not None or target != "local" or repeat > 1:
            _stop("--again: the run folder says all of it; give only --out and --json", EXIT_INPUT)
        before = RunFolder(again).manifest()
        loaded = validate(
            before.experiment,
            source=str(again / "manifest.json"),
            name=before.experiment_name,
            overrides={"seed": before.seed},
        )
        root = out or Path("results") / loaded.name
        folder = root / f"{_stamp()}-{before.protocol}-{loaded.seed}"
        plan = [(loaded, registry.get(before.protocol))]
        where = _known_target(before.target)
        _run_all(plan, [folder], folder / "report.html", where, json=json)
        return
    if experiment is None:
        _stop("run: name an experiment (see `capbench list`), or give --again", EXIT_INPUT)
    if experiment == "detector-sweep":
        if protocol or nodes or target != "local" or repeat > 1:
            _stop("detector-sweep is simulated: it takes --seed, --out and --json", EXIT_INPUT)
        _detector_sweep(seed, out, json=json)
        return
    where = _known_target(target)
    loaded = load(_path_or_name(experiment), nodes=nodes, seed=seed)
    names = protocol or list(loaded.protocols)
    root = out or Path("results") / loaded.name
    plans = _repeated([(loaded, registry.get(name)) for name in names], repeat)
    stamp = _stamp()
    folders = [root / f"{stamp}-{p.name}-{one.seed}" for one, p in plans]
    report = folders[0] / "report.html" if len(plans) == 1 else root / f"{stamp}-report.html"
    _run_all(plans, folders, report, where, json=json)


def _detector_sweep(seed: int | None, out: Path | None, *, json: bool) -> None:
    from chaos.detector_sweep import NAME, SEED, default_jobs, run_sweep
    from chaos.processes import signals_as_exit
    from chaos.progress import make_progress
    from reports.detector_sweep import first_screen, load_sweep, table

    seed = SEED if seed is None else seed
    folder = out or Path("results") / NAME / f"{_stamp()}-{seed}"
    with signals_as_exit(), make_progress() as progress:
        page = run_sweep(folder, seed, default_jobs(), progress)
    data = folder / "sweep.json"
    if json:
        rows = table(load_sweep(data)).to_dict("records")
        print_json({"schema": 1, "report": str(page), "simulated": True, "rows": rows})
    else:
        print(first_screen(data))
        print(f"\n report: {page}")


@app.command()
def compare(
    preset: Annotated[
        str,
        typer.Option(
            help="quick: two protocols, three experiments; full: all protocols, the catalogue."
        ),
    ] = "quick",
    protocol: Protocols = None,
    seed: Seed = None,
    nodes: Nodes = None,
    target: Target = "local",
    repeat: Repeat = 1,
    out: Out = None,
    json: Json = False,
) -> None:
    """The main job: protocols x experiments, one report. Example: capbench compare"""
    from chaos.experiment import catalogue, load
    from chaos.runner import PRESETS

    where = _known_target(target)
    if preset not in PRESETS:
        _stop(f"--preset: unknown preset {preset!r}; use {', '.join(PRESETS)}", EXIT_INPUT)
    chosen = PRESETS[preset]
    experiments = [
        load(name, nodes=nodes, seed=seed) for name in chosen.experiments or sorted(catalogue())
    ]
    names = protocol or chosen.protocols or tuple(registry.PROTOCOLS)
    pairs = [(experiment, registry.get(name)) for experiment in experiments for name in names]
    if preset == "full":
        pairs = [pair for pair in pairs if _can_run(*pair, where)]
    plans = _repeated(pairs, repeat)
    root = out or Path("results") / "compare" / f"{_stamp()}-{experiments[0].seed}"
    folders = [
        root / "runs" / "-".join([one.name, p.name, *([str(one.seed)] if repeat > 1 else [])])
        for one, p in plans
    ]
    _run_all(plans, folders, root / "report.html", where, json=json)


def _repeated(
    pairs: Sequence[tuple[Any, registry.Protocol]], repeat: int
) -> list[tuple[Any, registry.Protocol]]:
    """Each of them so often, with seeds that count up from the experiment's own."""
    return [
        (experiment.model_copy(update={"seed": experiment.seed + number}), protocol)
        for experiment, protocol in pairs
        for number in range(repeat)
    ]


def _can_run(experiment: Any, protocol: registry.Protocol, target: Any) -> bool:
    """Whether a protocol can take part in an experiment; if not, it is said."""
    from chaos.targets import Unsupported, refuse_unsupported

    nodes = experiment.node_ids()
    try:
        refuse_unsupported(experiment, target)
        protocol.configure(nodes[0], nodes, experiment.parameters)
    except (Unsupported, InvalidConfiguration) as error:
        print(f"capbench: not run: {experiment.name} {protocol.name}: {error}", file=sys.stderr)
        return False
    return True


def _known_target(target: str) -> Any:
    from chaos.runner import CONDUCT

    if target not in CONDUCT:
        _stop(f"--target: unknown target {target!r}; use {', '.join(CONDUCT)}", EXIT_INPUT)
    return target


def _run_all(
    plans: Sequence[tuple[Any, registry.Protocol]],
    folders: Sequence[Path],
    report_path: Path,
    target: Any,
    *,
    json: bool,
) -> None:
    from chaos.processes import signals_as_exit
    from chaos.progress import make_progress
    from chaos.runner import RunResult, run_experiment
    from chaos.targets import refuse_unsupported
    from reports.objectives import evaluate

    for experiment, _ in plans:
        refuse_unsupported(experiment, target)
    results: list[RunResult] = []
    with signals_as_exit(), make_progress() as progress:
        for number, ((experiment, protocol), folder) in enumerate(
            zip(plans, folders, strict=True), 1
        ):
            count = f"{number}/{len(plans)} " if len(plans) > 1 else ""
            progress.run(f"{count}{experiment.name} {protocol.name}")
            result = run_experiment(
                experiment,
                protocol,
                folder_path=folder,
                seed=experiment.seed,
                command=["capbench", *sys.argv[1:]],
                progress=progress,
                target=target,
            )
            results.append(result)
            if result.interrupted:
                break
        progress.run("report")
        progress.phase("draw")
        summaries = write_page([result.folder for result in results], report_path)

    missed = []
    codes = set()
    for (experiment, protocol), result, summary in zip(plans, results, summaries, strict=False):
        label = f"{experiment.name} {protocol.name}"
        if result.failure is not None:
            print(f"capbench: {label}: {result.failure}", file=sys.stderr)
            codes.add(EXIT_INTERRUPTED if result.interrupted else EXIT_INFRASTRUCTURE)
        data = msgspec.to_builtins(summary)
        codes.add(VERDICT_CODES[summary.verdict])
        for _, met, text in evaluate(experiment.parsed_objectives(), data):
            if met is False:
                missed.append(f"{label}: {text}")
                codes.add(EXIT_OBJECTIVE)
    if json:
        print_runs(summaries, report_path)
    else:
        print_screen(summaries, report_path, missed)
    order = [
        EXIT_INTERRUPTED,
        EXIT_INFRASTRUCTURE,
        EXIT_VIOLATED,
        EXIT_UNKNOWN,
        EXIT_OBJECTIVE,
    ]
    raise typer.Exit(next((code for code in order if code in codes), 0))


# --- the simulator ---

app.add_typer(report_app)
app.add_typer(catalogue_app)
app.add_typer(check_app)
app.add_typer(simulate_app)
app.add_typer(bugs_app)
app.add_typer(gate_app)
app.add_typer(sweep_app)
app.add_typer(load_app)


# --- a cluster that stays ---

app.add_typer(hand_app)

Name = Annotated[str, typer.Option("--name", help="Name of the cluster.")]


@app.command()
def up(
    protocol: Annotated[str, typer.Option("--protocol", "-p", help="The protocol.")] = "raft",
    nodes: Annotated[int, typer.Option(help="Number of nodes.", min=1)] = 3,
    name: Name = "demo",
    broker_port: Annotated[
        int | None, typer.Option(help="The broker's port [default: 1883 if it is free]", min=1)
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A parameter of the protocol: replication_factor=3. Repeatable."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Start a cluster that stays. Example: capbench up --protocol raft --nodes 3"""
    from chaos import up as keeper_room

    parameters = _parameters(parameter or [])
    ids = registry.node_ids(nodes)
    registry.get(protocol).configure(ids[0], ids, parameters)
    keeper = keeper_room.start(name, protocol, nodes, parameters, broker_port)
    if json:
        print_json(keeper)
        return
    host, _, port_text = keeper.broker.partition(":")
    login = "" if port_text == "1883" else f"-p {port_text} "
    print(f"cluster {name}: {protocol}, {nodes} nodes, broker {host}:{port_text}")
    print(
        "try: mosquitto_rr -V 5 "
        f"{login}-t capbench/{name}/req/n1 -e reply/me "
        + "-m "
        + shlex.quote('{"op":"write","key":"k","value":1}')
    )
    print("stop it with: capbench down" + ("" if name == "demo" else f" --name {name}"))


def _parameters(settings: list[str]) -> dict[str, Any]:
    """``name=value``, where a value is JSON, or else a string."""
    parameters: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not (name and equals):
            raise registry.InvalidConfiguration(f"{setting!r} is no parameter; use name=value")
        try:
            parameters[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            parameters[name] = text
    return parameters


@app.command()
def down(name: Name = "demo") -> None:
    """Stop the cluster that `capbench up` started. Example: capbench down"""
    from chaos import up as keeper_room

    if keeper_room.stop(name):
        print(f"cluster {name}: stopped")
    else:
        print(f"cluster {name} is not running")


@app.command("transfer-leadership")
def transfer_leadership(
    node: Annotated[str, typer.Argument(help="The node that shall lead.")],
) -> None:
    """Make a node of the running cluster its leader. Example: capbench transfer-leadership n2"""
    from chaos import administration

    _administer(lambda m, cluster: administration.transfer_leadership(m, cluster, node))


@app.command()
def members(
    change: Annotated[str, typer.Argument(help="add or remove")],
    node: Annotated[str, typer.Argument(help="A node that the cluster was started with.")],
) -> None:
    """Add or remove a member of the running cluster. Example: capbench members remove n3"""
    from chaos import administration

    if change not in ("add", "remove"):
        _stop(f"members: unknown change {change!r}; use add or remove", EXIT_INPUT)
    kind: Any = change
    _administer(lambda m, cluster: administration.change_members(m, cluster, kind, node))


def _administer(what: Any) -> None:
    from chaos.administration import NotDone
    from chaos.monitor import Monitor
    from chaos.up import CLUSTER_FILE

    cluster = read_cluster_file(CLUSTER_FILE)
    try:
        with Monitor(cluster) as monitor:
            print(what(monitor, cluster))
    except NotDone as error:
        _stop(str(error), EXIT_OBJECTIVE)


@app.command()
def status(json: Json = False) -> None:
    """What every node of the running cluster says of itself. Example: capbench status"""
    from rich.console import Console
    from rich.table import Table

    from chaos import by_hand
    from chaos.fault_words import described
    from chaos.monitor import Monitor
    from chaos.targets import TargetFailed
    from chaos.up import CLUSTER_FILE, socket_path

    cluster = read_cluster_file(CLUSTER_FILE)
    with Monitor(cluster) as monitor:
        monitor.wait(lambda: len(monitor.statuses()) == len(cluster.nodes), 2.0)
        statuses = monitor.statuses()
    faults: list[FaultRecord] = []
    with contextlib.suppress(TargetFailed):  # its keeper was killed
        faults = by_hand.ask(socket_path(cluster.cluster), by_hand.Faults()).faults
    if json:
        print_json(
            {
                "cluster": cluster.cluster,
                "protocol": cluster.protocol,
                "nodes": {
                    node: msgspec.to_builtins(statuses[node]) if node in statuses else None
                    for node in cluster.nodes
                },
                "faults": faults,
            }
        )
        return
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
    # Into a file or a pipe, whole: nobody can make that wider.
    (console if console.is_terminal else Console(width=400)).print(shown)
    for fault in faults:
        print(f"fault {described(fault)}")


# --- helpers ---


def _stamp() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")


def _path_or_name(text: str) -> str | Path:
    return Path(text) if text.endswith((".yaml", ".yml")) or "/" in text else text


if __name__ == "__main__":
    main()
