"""`capbench bugs`: the planted bugs, what caught them, and how short their stories become."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from chaos import errors as exit_codes
from chaos.commands.options import SEEDS, Jobs
from chaos.commands.simulate import how_it_ended, some_workers
from chaos.console import Json, print_json

app = typer.Typer()

DEFAULT_SEEDS = 400
TABLE_WIDTH = 130


@app.command("bugs")
def bugs_command(
    seeds: Annotated[
        int, typer.Option(parser=SEEDS, help="Seeds to try for each.")
    ] = DEFAULT_SEEDS,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Shrink what is caught, and measure that.")
    ] = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """The planted bugs, and what caught them.

    Exit code 1: one was missed, or with --shrink fewer than 90 percent became readable (200
    messages, crashes and operations, within 30 CPU seconds). Example: capbench bugs --seeds 400
    """
    from rich.console import Console

    from chaos.clusters.processes import signals_as_exit
    from chaos.progress import make_progress
    from chaos.seeds.bugs import SHRINK_CPU_S, SHRUNK_SHARE, sweep_bugs
    from nodes.simulator.shrink import READABLE

    with signals_as_exit(), some_workers(jobs) as workers, make_progress() as progress:
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
    raise typer.Exit(how_it_ended(result) or (0 if short else exit_codes.OBJECTIVE))


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

    told = Table(box=None, title="planted bugs", title_justify="left")
    for column in ("bug", "protocol", "caught", "check"):
        told.add_column(column, no_wrap=column != "check")
    for column in ("CPU s per catch", "seeds tried"):
        told.add_column(column, justify="right")
    for column in ("told", "shrunk", "CPU s") if shrink else ():
        told.add_column(column, justify="right")
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
        told.add_row(*cells)
    return told
