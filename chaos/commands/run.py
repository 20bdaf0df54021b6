"""`capbench run` and `capbench compare`: run experiments, judge them, report them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec
import typer

from chaos import errors as exit_codes
from chaos.commands.check import EXIT_CODES as VERDICT_CODES
from chaos.commands.options import (
    DETECTOR_SWEEP,
    EXPERIMENT,
    RUNNABLE,
    Endpoints,
    KindOf,
    Metrics,
    Name,
    Nodes,
    Out,
    Protocols,
    Repeat,
    Seed,
    Target,
    distinct,
)
from chaos.console import Json
from chaos.experiments.limits import is_path
from chaos.interrupted import Interrupted, recorded, recording
from chaos.targets.folders import empty_folder, new_file, new_folder, stamp

if TYPE_CHECKING:
    from chaos.systems.system import System
    from chaos.targets.subjects import Subject

app = typer.Typer()

PRESET = Name("preset", lambda: ("quick", "full", "systems"))


class Planned(NamedTuple):
    """A run to come: the experiment (with its seed), what it looks at, and where. ``endpoints``:
    of a system that runs elsewhere."""

    experiment: Any
    subject: Subject
    target: Any
    endpoints: str = ""

    def compared_in(self, repeat: int) -> Path:
        """Its folder among those of a comparison."""
        seed = [str(self.experiment.seed)] if repeat > 1 else []
        return Path("runs") / "-".join([self.experiment.name, self.subject.name, *seed])


class Place(NamedTuple):
    """Where results go: ``folders``, one per run, and the ``page`` (None: in the run's folder)
    below ``root``. ``made_up``: those of these names that the user did not give; if one is taken,
    another is used. ``metrics``: the port at which they are served meanwhile."""

    root: Path
    folders: Sequence[Path]
    page: Path | None
    made_up: Literal["root", "folders"] | None
    metrics: int | None = None

    def refuse_taken(self) -> None:
        """Raise FileExistsError if a run is there already, before the first one begins."""
        from bench.record.run_folder import RunFolder

        for folder in self.folders:
            if RunFolder(self.root / folder).manifest_path.exists():
                raise FileExistsError(
                    f"{self.root / folder} holds a run already; give another --out"
                )


@app.command()
def run(
    experiment: Annotated[
        str | None,
        typer.Argument(**RUNNABLE.typed, help="A name from `capbench list`, or a YAML file."),
    ] = None,
    protocol: Protocols = None,
    seed: Seed = None,
    nodes: Nodes = None,
    target: Target = None,
    endpoints: Endpoints = "",
    repeat: Repeat = 1,
    kind: KindOf = None,
    out: Out = None,
    again: Annotated[
        Path | None,
        typer.Option(help="Repeat a run from its folder: same experiment, protocol and seed."),
    ] = None,
    metrics: Metrics = None,
    json: Json = False,
) -> None:
    """Run an experiment, judge it, report it.

    Example: capbench run leader-partition --protocol raft --seed 7
    """
    if again is not None:
        given = (experiment, nodes, seed, target, kind, endpoints or None)
        if any(each is not None for each in given) or repeat > 1:
            raise typer.BadParameter(
                "--again takes everything from the run folder; give only --out and --json"
            )
        _run_again(again, protocol, out, metrics, json=json)
        return
    if experiment is None:
        raise typer.BadParameter("name an experiment (see `capbench list`), or give --again")
    if experiment == DETECTOR_SWEEP:
        if protocol or nodes or target is not None or kind is not None or repeat > 1:
            raise typer.BadParameter(
                "detector-sweep is simulated: it takes --seed, --out and --json"
            )
        _detector_sweep(seed, out, json=json)
        return
    from chaos.experiments.experiment import load
    from chaos.targets.subjects import find

    nodes = _nodes_there(endpoints, target, protocol, nodes)
    loaded = load(_path_or_name(experiment), kind, nodes=nodes, seed=seed)
    names = protocol or list(loaded.protocols)
    root = out or Path("results") / loaded.name
    plans = plans_of([(loaded, find(name)) for name in names], repeat, target, endpoints)
    at = stamp()
    folders = [Path(f"{at}-{p.subject.name}-{p.experiment.seed}") for p in plans]
    page = None if len(plans) == 1 else Path(f"{at}-report.html")
    _run_all(plans, Place(root, folders, page, "folders", metrics), json=json)


def _nodes_there(
    endpoints: str, target: str | None, names: Sequence[str] | None, nodes: int | None
) -> int | None:
    """How many nodes a run has: as many as there are ``endpoints``, if it is of a system that runs
    elsewhere. Raises BadOption."""
    from chaos.clusters.elsewhere import parse_endpoints
    from chaos.errors import BadOption
    from chaos.systems.system import System
    from chaos.targets.subjects import find

    subjects = [find(name) for name in names or ()]
    system = next((each for each in subjects if isinstance(each, System)), None)
    if not endpoints:
        if system is not None and target == "attached":
            raise BadOption("--target attached: say where it is: --endpoints host:port,host:port")
        return nodes
    if target != "attached" or system is None or len(subjects) > 1:
        raise BadOption("--endpoints: is for one system that runs elsewhere: --target attached -p")
    there = len(parse_endpoints(endpoints, system))
    if nodes not in (None, there):
        raise BadOption(f"--nodes {nodes}: there are {there} endpoints")
    return there


def _run_again(
    again: Path, files: Sequence[str] | None, out: Path | None, metrics: int | None, *, json: bool
) -> None:
    """What was run, according to a run folder. ``files``: a file of the user's own, which a folder
    alone does not make us execute. Raises BadOption."""
    from bench.record.run_folder import RunFolder
    from chaos.errors import BadOption
    from chaos.experiments.experiment import validate
    from chaos.targets.subjects import find

    before = RunFolder(again).manifest()
    experiment = validate(
        before.experiment,
        source=str(again / "manifest.json"),
        name=before.experiment_name,
        overrides={"seed": before.seed},
    )
    root = out or Path("results") / experiment.name
    folder = Path(f"{stamp()}-{before.protocol}-{experiment.seed}")
    name = before.found_by or before.protocol
    is_file = name.endswith(".py")
    if is_file and files is None:
        raise BadOption(f"--again {again}: it ran a file of yours; say that it may run: -p {name}")
    if files is not None and (len(files) > 1 or not is_file):
        raise BadOption(f"--again {again}: it ran {name}, and takes no other -p")
    subject = find(name if files is None else files[0])
    plans = plans_of([(experiment, subject)], 1, before.target, before.endpoints)
    _run_all(plans, Place(root, [folder], None, "folders", metrics), json=json)


def _detector_sweep(seed: int | None, out: Path | None, *, json: bool) -> None:
    from chaos.console import print_json
    from chaos.progress import make_progress
    from chaos.seeds.detector_sweep import SEED, default_jobs, run_sweep
    from reports.sweeps.detector_sweep import first_screen, load_sweep, table

    seed = SEED if seed is None else seed
    made_up = Path("results") / DETECTOR_SWEEP / f"{stamp()}-{seed}"
    folder = new_folder(made_up) if out is None else empty_folder(out)
    with make_progress() as progress:
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
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            **EXPERIMENT.typed,
            help="Names from `capbench list`, or YAML files. [default: those of the preset]",
        ),
    ] = None,
    experiment: Annotated[
        list[str] | None,
        typer.Option(
            "--experiment",
            "-e",
            **EXPERIMENT.typed,
            help="The same as an option. Repeatable.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            **PRESET.typed,
            help="quick: two protocols, three experiments; full: all protocols, the catalogue; "
            "systems: systems of others beside two protocols. "
            "[default: quick, or for experiments of your own the protocols that they name]",
        ),
    ] = None,
    protocol: Protocols = None,
    seed: Seed = None,
    nodes: Nodes = None,
    target: Target = None,
    repeat: Repeat = 1,
    kind: KindOf = None,
    out: Out = None,
    metrics: Metrics = None,
    json: Json = False,
) -> None:
    """Run several protocols in several experiments, and report them side by side.

    Examples: capbench compare; capbench compare my-experiment.yaml -p raft -p gossip
    """
    from chaos.experiments.experiment import catalogue, load
    from chaos.targets.runner import PRESETS
    from chaos.targets.subjects import find
    from nodes import registry

    given = distinct([*(experiments or ()), *(experiment or ())])
    chosen = PRESETS[preset or "quick"]
    loaded = [
        load(_path_or_name(name), kind, nodes=nodes, seed=seed)
        for name in given or chosen.experiments or sorted(catalogue())
    ]
    distinct([each.name for each in loaded])
    if given and preset is None:
        named = {each.name: protocol or each.protocols for each in loaded}
    else:
        everywhere = protocol or chosen.protocols or tuple(registry.PROTOCOLS)
        named = {each.name: everywhere for each in loaded}
    pairs = [(each, find(name)) for each in loaded for name in named[each.name]]
    if preset in ("full", "systems"):
        pairs = _possible(pairs, target)
    plans = plans_of(pairs, repeat, target)
    folders = [planned.compared_in(repeat) for planned in plans]
    page = Path("report.html")
    if out is None:
        root = Path("results") / "compare" / f"{stamp()}-{loaded[0].seed}"
        place = Place(root, folders, page, "root", metrics)
    else:
        place = Place(out, folders, page, None, metrics)
        place.refuse_taken()
    _run_all(plans, place, json=json)


def plans_of(
    pairs: Sequence[tuple[Any, Subject]], repeat: int, target: Any, endpoints: str = ""
) -> list[Planned]:
    """Each pair repeated, with seeds counting up from the experiment's own. ``target``: None: what
    each has by default. Systems are got, if they are not there. Raises Unsupported,
    InvalidConfiguration, NoLab, ToxiproxyMissing and NotToBeHad: before anything runs."""
    from chaos.targets.subjects import offered, target_of
    from chaos.targets.table import refuse_kind, refuse_unsupported

    targets = [target_of(subject, target) for _, subject in pairs]
    for (experiment, subject), where in zip(pairs, targets, strict=True):
        refuse_unsupported(experiment, where, subject)
        refuse_kind(experiment.load.kind, subject.name, offered(subject))
        nodes = experiment.node_ids()
        subject.configure(nodes[0], nodes, experiment.parameters)
    for system in _in_labs(pairs, target):
        system.programs()
    return [
        Planned(
            experiment.model_copy(update={"seed": experiment.seed + number}),
            subject,
            where,
            endpoints,
        )
        for (experiment, subject), where in zip(pairs, targets, strict=True)
        for number in range(repeat)
    ]


def _possible(pairs: Sequence[tuple[Any, Subject]], target: Any) -> list[tuple[Any, Subject]]:
    """Those that can run here. Raises NoLab, ToxiproxyMissing."""
    _in_labs(pairs, target)
    return [pair for pair in pairs if _can_run(*pair, target)]


def _in_labs(pairs: Sequence[tuple[Any, Subject]], target: Any) -> list[System]:
    """The systems that need a lab, each once. Raises NoLab and ToxiproxyMissing if there are any,
    and no lab can be."""
    from chaos.systems.system import System
    from chaos.targets import lab
    from chaos.targets.subjects import target_of

    subjects = {subject.name: subject for _, subject in pairs}.values()
    systems = [
        each for each in subjects if isinstance(each, System) and target_of(each, target) == "lab"
    ]
    if systems:
        lab.refuse()
    return systems


def _can_run(experiment: Any, protocol: Subject, target: Any) -> bool:
    """Whether a protocol can take part in an experiment, and a system can be had; if not, prints
    why."""
    from chaos.systems.system import NotToBeHad, System
    from chaos.targets.subjects import offered, target_of
    from chaos.targets.table import refuse_kind, refuse_unsupported
    from nodes.errors import Unsupported
    from nodes.registry import InvalidConfiguration

    nodes = experiment.node_ids()
    try:
        refuse_unsupported(experiment, target_of(protocol, target), protocol)
        refuse_kind(experiment.load.kind, protocol.name, offered(protocol))
        protocol.configure(nodes[0], nodes, experiment.parameters)
        if isinstance(protocol, System):
            protocol.programs()
    except (Unsupported, InvalidConfiguration, NotToBeHad) as error:
        print(f"capbench: not run: {experiment.name} {protocol.name}: {error}", file=sys.stderr)
        return False
    return True


class Ran(NamedTuple):
    """What became of plans: the results of those that were begun, their summaries, the page.
    ``ended``: what to say of an end by Ctrl-C, after all else."""

    results: Sequence[Any]
    summaries: Sequence[Any]
    page: Path
    ended: Interrupted | None = None


def conduct(plans: Sequence[Planned], place: Place) -> Ran:
    """Run all plans, until they are done or interrupted by Ctrl-C, and report them on one page.
    Raises Interrupted if there is no time for a report."""
    from chaos.commands.report import write_page
    from chaos.exporter.server import exported
    from chaos.exporter.sources import OfFolder
    from chaos.progress import make_progress
    from chaos.targets.runner import RunResult, run_experiment

    root = new_folder(place.root) if place.made_up == "root" else place.root
    fresh = place.made_up == "folders"
    results: list[RunResult] = []
    with (
        exported(place.metrics) as exporter,
        make_progress() as progress,
    ):
        for number, ((experiment, protocol, target, endpoints), folder) in enumerate(
            zip(plans, place.folders, strict=True), 1
        ):
            count = f"{number}/{len(plans)} " if len(plans) > 1 else ""
            progress.run(f"{count}{experiment.name} {protocol.name}")
            path = new_folder(root / folder) if fresh else root / folder
            exporter.source = OfFolder(path)
            label = f"{experiment.name} {protocol.name}"
            with recording(label, path, _what_then(path, results, root, fresh=fresh)):
                result = run_experiment(
                    experiment,
                    protocol,
                    folder_path=path,
                    seed=experiment.seed,
                    command=["capbench", *sys.argv[1:]],
                    progress=progress,
                    target=target,
                    endpoints=endpoints,
                )
            results.append(result)
            if result.interrupted:
                break
        progress.run("report")
        progress.phase("draw")
        if place.page is None:
            page = results[0].folder / "report.html"
        else:
            page = new_file(root / place.page) if fresh else root / place.page
        folders = [result.folder for result in results]
        then = f"draw it: capbench report {' '.join(map(str, folders))}"
        with recording("the report", page.parent, then):
            summaries = write_page(folders, page)
        ended = None
        if result.interrupted:
            ended = Interrupted(label, recorded(result.folder), f"the report: {page}")
        return Ran(results, summaries, page, ended)


def _what_then(path: Path, before: Sequence[Any], root: Path, *, fresh: bool) -> str:
    """What to do with a run whose command is ended, and with those ``before`` it. ``fresh``: in
    ``root`` are others, too."""
    folders = [str(result.folder) for result in before] if fresh else [str(root)] * bool(before)
    others = f"; those before it: capbench report {' '.join(folders)}" if folders else ""
    return f"judge it: capbench check {path}{others}"


def _run_all(plans: Sequence[Planned], place: Place, *, json: bool) -> None:
    """Run all plans, report them, and end with the exit code that they deserve."""
    from chaos.commands.report import print_runs, print_screen
    from reports.data.objectives import evaluate

    results, summaries, page, ended = conduct(plans, place)
    missed = []
    codes = set()
    for (experiment, protocol, *_), result, summary in zip(plans, results, summaries, strict=False):
        label = f"{experiment.name} {protocol.name}"
        if result.failure is not None and not result.interrupted:
            print(f"capbench: {label}: {result.failure}", file=sys.stderr)
            codes.add(exit_codes.INFRASTRUCTURE)
        data = msgspec.to_builtins(summary)
        codes.add(VERDICT_CODES[summary.verdict])
        for _, met, text in evaluate(experiment.parsed_objectives(), data):
            if met is False:
                missed.append(f"{label}: {text}")
                codes.add(exit_codes.OBJECTIVE)
    if json:
        print_runs(summaries, page)
    else:
        print_screen(summaries, page, missed)
    if ended is not None:
        raise ended
    order = [
        exit_codes.INFRASTRUCTURE,
        exit_codes.VIOLATED,
        exit_codes.UNKNOWN,
        exit_codes.OBJECTIVE,
    ]
    raise typer.Exit(next((code for code in order if code in codes), 0))


def _path_or_name(text: str) -> str | Path:
    return Path(text) if is_path(text) else text
