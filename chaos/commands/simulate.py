"""`capbench simulate`: many seeds in the simulator, or one in detail."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import msgspec
import typer

from chaos import errors as exit_codes
from chaos.commands.options import SEED, SEEDS, SIMULATED, Jobs, Minutes
from chaos.console import Json, print_json
from chaos.interrupted import Interrupted

app = typer.Typer()

DEFAULT_SEEDS = 1000
SHOWN_ALARMS = 5
SHOWN_CHARACTERS = 600
RESULTS = Path("results") / "simulate"


@app.command("simulate")
def simulate_command(
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            "-p",
            **SIMULATED.typed,
            help="A protocol, or a planted bug (capbench bugs).",
        ),
    ],
    seeds: Annotated[
        int | None,
        typer.Option(parser=SEEDS, help="How many. [default: 1000; with --minutes: no limit]"),
    ] = None,
    first_seed: Annotated[int, typer.Option(parser=SEED, help="Begin with this one.")] = 1,
    seed: Annotated[int | None, typer.Option(parser=SEED, help="This one only.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Its transcript.")] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Find the smallest schedule that fails the same way.")
    ] = False,
    jobs: Jobs = None,
    dask: Annotated[
        str | None, typer.Option(help="A Dask scheduler, tcp://host:8786, instead of processes.")
    ] = None,
    until_bug: Annotated[
        bool, typer.Option("--until-bug", help="Stop at the first seed with an alarm.")
    ] = False,
    minutes: Minutes = None,
    json: Json = False,
) -> None:
    """Run thousands of random chaos experiments in virtual time; every failure is a seed.

    Exit code 4: an alarm. Example: capbench simulate --protocol raft --seeds 1000
    """
    from chaos.seeds.simulate import find_protocol

    find_protocol(protocol)
    require(dask is None or jobs is None, "--dask and --jobs exclude each other")
    if seed is not None:
        sweeping = (seeds, jobs, dask, minutes) != (None,) * 4 or until_bug or first_seed != 1
        require(not sweeping, "--seed is one seed: leave out the options of a sweep")
    detail = trace or shrink
    require(not detail or seed is not None, "--trace and --shrink need a --seed")
    require(not (trace and shrink), "--shrink prints a transcript: leave out --trace")
    require(not (detail and json), "--trace and --shrink print text: leave out --json")
    if detail:
        assert seed is not None
        raise typer.Exit(_shrink(protocol, seed) if shrink else _trace(protocol, seed))
    if seed is not None:
        wanted = range(seed, seed + 1)
        jobs = 1
    else:
        count = seeds
        if count is None:
            count = DEFAULT_SEEDS if minutes is None else sys.maxsize - first_seed
        wanted = range(first_seed, first_seed + count)
    raise typer.Exit(
        _sweep(protocol, wanted, jobs, dask, until_bug=until_bug, minutes=minutes, json=json)
    )


# --- sweeps ---


def some_workers(
    jobs: int | None, dask: str | None = None, *, apart: bool = False
) -> AbstractContextManager[Any]:
    """The worker processes, or the cluster, that were asked for. ``apart``: never this process
    itself. Raises InvalidConfiguration."""
    from chaos.seeds.simulate import dask_workers, default_jobs, local_workers

    if dask:
        return dask_workers(dask)
    return local_workers(default_jobs() if jobs is None else jobs, apart=apart)


def _sweep(
    protocol: str,
    seeds: range,
    jobs: int | None,
    dask: str | None,
    *,
    until_bug: bool,
    minutes: float | None,
    json: bool,
) -> int:
    from chaos.progress import make_progress
    from chaos.seeds.simulate import sweep

    with some_workers(jobs, dask) as workers, make_progress() as progress:
        progress.run(f"simulate {protocol}")

        def on_progress(done: int, alarms: int) -> None:
            unit = f"seeds, {alarms} with an alarm"
            progress.tick(done, len(seeds) if minutes is None else None, unit)

        result = sweep(
            protocol,
            seeds,
            workers,
            until_bug=until_bug,
            minutes=minutes,
            on_progress=on_progress,
        )
    if json:
        print_json(result.as_data())
    else:
        for alarm in result.alarms[:SHOWN_ALARMS]:
            print_alarm(protocol, alarm)
        if len(result.alarms) > SHOWN_ALARMS:
            print(f"... and {len(result.alarms) - SHOWN_ALARMS} more alarms; --json lists all\n")
        count = len(result.outcomes)
        failed = len({alarm.seed for alarm in result.alarms})
        speed = f"{result.events_per_cpu_s or 0:,.0f} per CPU second"
        print(
            f"{protocol}: {count:,} seed{'' if count == 1 else 's'}, {failed or 'none'} with an "
            f"alarm; {result.events:,} events, {speed}; trace hash {result.trace_hash}"
        )
    for outcome in result.undecided[:SHOWN_ALARMS]:
        say(f"seed {outcome.seed} is undecided: {outcome.undecided}")
    if len(result.undecided) > SHOWN_ALARMS:
        say(f"{len(result.undecided)} seeds are undecided in total")
    after = next_seed(seeds.start, [outcome.seed for outcome in result.outcomes])
    ended = how_it_ended(
        result,
        f"simulate {protocol}",
        "what was found so far is printed",
        f"go on with --first-seed {after}",
    )
    if result.alarms:
        return ended or exit_codes.VIOLATED
    return ended or (exit_codes.UNKNOWN if result.undecided else 0)


def next_seed(first: int, ran: Sequence[int]) -> int:
    """The first one, from ``first`` on, that has not run: some end before others."""
    done = set(ran)
    return next(seed for seed in itertools.count(first) if seed not in done)


def how_it_ended(result: Any, what: str, kept: str, then: str) -> int:
    """Print why the seeds did not all run, what is ``kept`` and what to do ``then``; returns the
    exit code, 0 if they did. Raises Interrupted."""
    if result.failure is not None:
        say(f"{result.failure}; {kept}; {then}")
        return exit_codes.INFRASTRUCTURE
    if result.interrupted:
        raise Interrupted(what, kept, then)
    return 0


def print_alarm(protocol: str, alarm: Any) -> None:
    """What happened, and the command that replays it."""
    print(f"seed {alarm.seed}: {alarm.check}")
    print(f"  {shorten(alarm.message, SHOWN_CHARACTERS, placeholder=' ... (--json has it whole)')}")
    print(f"  replay it: capbench simulate --protocol {protocol} --seed {alarm.seed} --trace\n")


# --- one seed in detail ---


def _trace(name: str, seed: int) -> int:
    from chaos.seeds.simulate import find_protocol, judge
    from nodes.simulator.simulate import simulate

    protocol = find_protocol(name)
    result = simulate(protocol, seed, trace=True)
    alarms, undecided = judge(protocol, result)
    _print_setup(name, seed, result)
    for line in result.transcript:
        print(line)
    print(f"\n{result.events:,} events, trace hash {result.trace_hash}")
    for alarm in alarms:
        print(f"\nALARM {alarm.check}: {alarm.message}")
    if undecided is not None:
        say(f"seed {seed} is undecided: {undecided}")
    if alarms:
        return exit_codes.VIOLATED
    return exit_codes.UNKNOWN if undecided is not None else 0


def _shrink(name: str, seed: int) -> int:
    from chaos.progress import make_progress
    from chaos.seeds.simulate import check_of, find_protocol, judge
    from nodes.registry import InvalidConfiguration
    from nodes.simulator.shrink import shrink
    from nodes.simulator.simulate import simulate
    from reports.charts.message_diagram import Diagram, write_diagram

    protocol = find_protocol(name)
    fails_by = check_of(protocol)
    result = simulate(protocol, seed)
    if fails_by(result) is None:
        raise InvalidConfiguration(f"seed {seed} of {name} raises no alarm: nothing to shrink")
    with make_progress() as progress:
        progress.run(f"simulate {name}")
        progress.phase(f"shrink {result.events:,} events")
        case = shrink(protocol, result, fails_by)
    small = case.run(protocol, trace=True)
    alarms, _ = judge(protocol, small)
    assert small.story is not None
    folder = RESULTS / f"{name}-{seed}"
    command = f"capbench simulate --protocol {name} --seed {seed} --shrink"
    page = folder / "diagram.html"
    write_diagram(
        page,
        Diagram(
            title=f"{name}, seed {seed}: {alarms[0].check}",
            message=alarms[0].message,
            command=command,
            facts=_setup_lines(seed, small),
            nodes=[f"n{number}" for number in range(1, small.nodes + 1)],
            story=small.story,
            transcript=small.transcript,
        ),
    )
    _print_setup(name, seed, small)
    for line in small.transcript:
        print(line)
    print(f"\nALARM {alarms[0].check}: {alarms[0].message}")
    print(f"\nshrunk from {result.events:,} events to {small.events:,}; again: {command}")
    print(f"message diagram: {page}")
    return exit_codes.VIOLATED


def _print_setup(name: str, seed: int, result: Any) -> None:
    print(f"{name}, seed {seed}")
    for line in _setup_lines(seed, result):
        print(f"  {line}")
    print()


def _setup_lines(seed: int, result: Any) -> list[str]:
    """The run's settings except its seed, a line each."""
    lines = [f"{result.nodes} nodes, {result.duration_s:g} virtual seconds"]
    if result.seed != seed:
        lines.append(f"its random streams are those of seed {result.seed}")
    for part in ("mix", "policy", "quality", "timing", "parameters"):
        values = msgspec.to_builtins(getattr(result.setup, part))
        text = ", ".join(f"{name} {value}" for name, value in values.items())
        lines.append(f"{part}: {text or 'as usual'}")
    for number, fault in enumerate(result.tape, 1):
        args = ", ".join(f"{name} {value}" for name, value in fault.args.items())
        lines.append(
            f"fault {number}: {fault.kind} at {fault.at_s:g} s for {fault.for_s:g} s: {args}"
        )
    return lines


# --- helpers ---


def require(condition: bool, problem: str) -> None:
    """Raises typer.BadParameter with ``problem`` if the condition does not hold."""
    if not condition:
        raise typer.BadParameter(problem)


def say(line: str) -> None:
    """A line for the user, apart from the result."""
    print(f"capbench: {line}", file=sys.stderr)
