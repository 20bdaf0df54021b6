"""`capbench sweep`: what an operation costs, and how that grows with nodes, value size, clients."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Annotated

import typer

from chaos import exit_codes
from chaos.cli_check import BadOption
from chaos.cli_simulate import require, say
from chaos.console import Json, print_json

app = typer.Typer()


@app.command("sweep")
def sweep_command(
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            help="A protocol; again for more. [default: raft, paxos, quorum, gossip]",
        ),
    ] = None,
    dimension: Annotated[
        list[str] | None,
        typer.Option(
            "--dimension",
            "-d",
            help="nodes, value_bytes, clients or proxied; again for more. [default: all]",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only both ends, and one second each: some 3 minutes.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(help="Of each measurement. [default: 4]")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the results. What is measured there already is not measured again.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure live protocols over nodes, value size and clients, one at a time; some 8 minutes.

    Writes points.csv, processes.csv, sweep.json and report.html. Ctrl-C keeps what was measured,
    and the same --out goes on there. Exit code 3: points are missing.
    Example: capbench sweep --protocol raft
    """
    from bench.sweep_file import DIMENSIONS, BadSweep
    from chaos.processes import signals_as_exit
    from chaos.progress import make_progress
    from chaos.sweep import PROTOCOLS, points_of, run_sweep
    from nodes import registry
    from reports.sweep import first_screen, write_files

    names = protocol or list(PROTOCOLS)
    for name in names:
        registry.get(name)
    chosen = dimension or list(DIMENSIONS)
    for name in chosen:
        require(name in DIMENSIONS, f"--dimension {name}: use {', '.join(DIMENSIONS)}")
    require(seconds is None or seconds > 0, f"--seconds {seconds}: use more than 0")
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")
    folder = out or Path("results") / "sweep" / stamp
    measured_s = seconds or (1.0 if quick else 4.0)
    try:
        with signals_as_exit(), make_progress() as progress:
            sweep, interrupted = run_sweep(
                folder,
                points_of(names, chosen, quick),
                seconds=measured_s,
                warm_up_s=min(1.0, measured_s),
                command=["capbench", *sys.argv[1:]],
                progress=progress,
            )
    except BadSweep as error:
        raise BadOption(f"--out {error}") from None
    page = write_files(folder, sweep)
    missing = [row for row in sweep.rows if row.missing is not None]
    if json:
        print_json(sweep)
    else:
        print(first_screen(sweep))
        print(f" {page}")
    if missing:
        say(f"{len(missing)} of {len(sweep.rows)} points are missing; again with --out {folder}")
    if interrupted:
        raise typer.Exit(exit_codes.INTERRUPTED)
    if missing:
        raise typer.Exit(exit_codes.INFRASTRUCTURE)
