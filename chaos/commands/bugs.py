"""What the simulator catches and what it misses: `capbench bugs`, planted by hand, and `capbench
mutants`, made by machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from chaos import errors as exit_codes
from chaos.commands.options import (
    SEED,
    SEEDS,
    WITH_SOURCE,
    Jobs,
    Minutes,
    count,
    distinct,
    number,
)
from chaos.commands.simulate import how_it_ended, say, some_workers
from chaos.console import Json, print_json

if TYPE_CHECKING:
    from chaos.seeds.mutants.operators import Mutant
    from chaos.seeds.mutants.record import Record
    from chaos.seeds.mutants.sources import Target
    from chaos.seeds.simulate import Stop

app = typer.Typer()

DEFAULT_SEEDS = 400
SECONDS_EACH = 60.0
MUTANTS_RECORD = Path("results") / "mutants.json"
TABLE_WIDTH = 130

# --- planted bugs ---


@app.command("bugs")
def bugs_command(
    seeds: Annotated[
        int, typer.Option(parser=SEEDS, help="Seeds to try for each.")
    ] = DEFAULT_SEEDS,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Also shrink what is caught, and measure the result.")
    ] = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """The planted bugs, and what caught them.

    Exit code 1: one was missed, or with --shrink fewer than 90 percent shrank to a readable size
    (200 messages, crashes and operations) within 30 CPU seconds. Example: capbench bugs --seeds 400
    """
    from rich.console import Console

    from chaos.progress import make_progress
    from chaos.seeds.bugs import SHRINK_CPU_S, SHRUNK_SHARE, sweep_bugs
    from nodes.simulator.shrink import READABLE

    with some_workers(jobs) as workers, make_progress() as progress:
        progress.run("planted bugs")
        result = sweep_bugs(
            seeds,
            workers,
            to_shrink=shrink,
            on_progress=lambda done, total: progress.tick(done, total, "bugs"),
        )
    if json:
        print_json(_as_data(result, shrink))
    else:
        Console(width=max(Console().width, TABLE_WIDTH)).print(table(result, shrink))
        print(f"{sum(row.caught for row in result.bugs)} of {len(result.bugs)} bugs caught")
        if shrink:
            print(
                f"{result.readable} of {len(result.shrunk)} shrunk to at most {READABLE} messages,"
                f" crashes and operations within {SHRINK_CPU_S:g} CPU seconds"
            )
    short = all(row.caught for row in result.bugs) and (
        not shrink or result.readable >= SHRUNK_SHARE * len(result.bugs)
    )
    kept = "what was found so far is printed"
    ended = how_it_ended(result, "bugs", kept, "another run begins with the first of them")
    raise typer.Exit(ended or (0 if short else exit_codes.OBJECTIVE))


def _as_data(result: Any, shrink: bool) -> list[Any]:
    """The rows; after shrinking with ``told``, ``shrunk`` and ``shrink_cpu_s`` in each."""
    if not shrink:
        return list(result.bugs)
    rows = []
    for row in result.bugs:
        story = result.shrunk.get(row.bug)
        values = (None, None, None) if story is None else msgspec.structs.astuple(story)
        names = ("told", "shrunk", "shrink_cpu_s")
        rows.append({**msgspec.to_builtins(row), **dict(zip(names, values, strict=True))})
    return rows


def table(result: Any, shrink: bool = False) -> Any:
    """A row for each bug, caught or missed."""
    from rich.table import Table

    table = Table(box=None, title="planted bugs", title_justify="left")
    for column in ("bug", "protocol", "caught", "check"):
        table.add_column(column, no_wrap=column != "check")
    for column in ("CPU s per catch", "seeds tried"):
        table.add_column(column, justify="right")
    for column in ("events", "shrunk", "CPU s") if shrink else ():
        table.add_column(column, justify="right")
    for row in result.bugs:
        caught = "yes" if row.caught else "MISSED" if row.seeds else "not tried"
        cpu = "-" if row.cpu_s_per_catch is None else f"{row.cpu_s_per_catch:.2f}"
        cells = [row.bug, row.protocol, caught, row.check or "-", cpu, str(row.seeds)]
        if shrink:
            story = result.shrunk.get(row.bug)
            cells += (
                ["-", "-", "-"]
                if story is None
                else [str(story.told), str(story.events), f"{story.cpu_s:.1f}"]
            )
        table.add_row(*cells)
    return table


# --- mutants ---


@app.command("mutants")
def mutants_command(
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            **WITH_SOURCE.typed,
            callback=distinct,
            help="A protocol; again for more. Its variants are run, too. [default: all]",
        ),
    ] = None,
    seconds_each: Annotated[
        float, typer.Option(parser=number(0, 3600, excluded=True), help="CPU seconds for each.")
    ] = SECONDS_EACH,
    only: Annotated[
        list[str] | None,
        typer.Option(help="FILE or FILE:LINE: the mutants of a file or a line. Repeatable."),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(parser=count(1), help="Try at most this many per file.")
    ] = None,
    seed: Annotated[int, typer.Option(parser=SEED, help="Draws which come first.")] = 1,
    minutes: Minutes = None,
    record: Annotated[
        Path, typer.Option(help="The file that records what became of each.")
    ] = MUTANTS_RECORD,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Small changes to a protocol's source, each run on seeds until it is caught or time is up.

    It resumes where it stopped, as long as the code is unchanged. Exit code 1: fewer than 90
    percent of a file's mutants were caught; 5: some are left to try. Example: capbench mutants
    --protocol raft --sample 20
    """
    from chaos.seeds.mutants.marks import Marks
    from chaos.seeds.mutants.record import BadRecord, begin, in_order, report
    from chaos.seeds.mutants.sources import Target, chosen
    from nodes.registry import INTERNAL, PROTOCOLS

    target = Target(protocol or [*PROTOCOLS, *INTERNAL])
    mutants = chosen(target, only or [])
    marks = Marks(target)
    wanted = in_order([each for each in mutants if not marks.reason(each)], seed, sample)
    try:
        kept, other_code = begin(record, target)
        if other_code:
            say(f"{record} was made with other code and no longer counts: starting over")
        record.parent.mkdir(parents=True, exist_ok=True)
        stop = _hunt(wanted, target, kept, record, jobs, seconds_each, minutes)
    except (BadRecord, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise exit_codes.BadOption(f"--record {record}: {reason}") from None
    found = report(target, mutants, wanted, kept, marks, seconds_each)
    if json:
        print_json(found)
    else:
        _print_mutants(found)
    then = "the same command goes on from there"
    ended = how_it_ended(stop, "mutants", f"what was found so far is kept in {record}", then)
    ended = ended or (exit_codes.UNKNOWN if found.left else 0)
    raise typer.Exit(ended or (exit_codes.OBJECTIVE if found.falls_short else 0))


def _hunt(
    mutants: Sequence[Mutant],
    target: Target,
    known: Record,
    path: Path,
    jobs: int | None,
    budget_s: float,
    minutes: float | None,
) -> Stop:
    """See `chaos.seeds.mutants.hunt`; in processes of its own, and with progress."""
    from chaos.progress import make_progress
    from chaos.seeds.mutants.hunt import hunt

    with (
        some_workers(jobs, apart=True) as workers,
        make_progress() as progress,
    ):
        progress.run("mutants")

        def on_progress(done: int, caught: int) -> None:
            progress.tick(done, len(mutants), f"mutants, {done - caught} not caught")

        return hunt(
            mutants,
            target,
            known,
            path,
            workers,
            budget_s=budget_s,
            minutes=minutes,
            on_progress=on_progress,
        )


def _print_mutants(found: Any) -> None:
    for survivor in found.survivors:
        mutant, trial = survivor.mutant, survivor.trial
        print(f"{mutant.file}:{mutant.at} in {mutant.function}: {mutant.change}")
        print(f"  {trial.status} {trial.seeds} seeds, {trial.cpu_s:g} CPU seconds")
        print(survivor.diff + "\n")
    names = ("mutants", "tried", "caught", "survived", "died", "equivalent", "score")
    print(f"{'file':<44}" + "".join(f" {name:>10}" for name in names))
    for score in found.scores:
        share = "-" if score.share is None else f"{score.share:.0%}"
        if score.share is not None and not score.is_whole:
            share = "~" + share
        counts = (score.mutants, score.counted, score.caught, score.survived, score.died)
        cells = [f"{each:,}" for each in (*counts, score.equivalent)]
        print(f"{score.file:<44}" + "".join(f" {cell:>10}" for cell in (*cells, share)))
    if not all(score.is_whole for score in found.scores):
        print("\n~: not all were tried; those that were are a sample, drawn by --seed")
    if found.left:
        print(f"{found.left:,} are left to try")
    for mark in found.stale:
        say(f"equivalent.toml: no mutant is {mark.function}: {mark.line} [{mark.change}] any more")
