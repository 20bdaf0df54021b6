"""`capbench sweep`: what an operation costs, and how that grows with nodes, value size, clients.
`capbench soak`: whether millions of operations leave memory and disk bounded."""

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


def stamp() -> str:
    """The UTC time, as folders of results are named."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")


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
            help="nodes, value_bytes, clients, proxied or coalesced; again for more. "
            "[default: all]",
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

    Writes points.csv, processes.csv, sweep.json, tables.md and report.html. Ctrl-C keeps what was
    measured, and the same --out goes on there. Exit code 3: points are missing.
    Example: capbench sweep --protocol raft
    """
    from bench.sweep_file import DIMENSIONS, BadSweep
    from chaos.processes import signals_as_exit
    from chaos.progress import make_progress
    from chaos.sweep import PROTOCOLS, points_of, run_sweep
    from nodes import registry
    from reports.sweep import first_screen, write_files
    from reports.sweep_tables import tables

    names = protocol or list(PROTOCOLS)
    for name in names:
        registry.get(name)
    chosen = dimension or list(DIMENSIONS)
    for name in chosen:
        require(name in DIMENSIONS, f"--dimension {name}: use {', '.join(DIMENSIONS)}")
    require(seconds is None or seconds > 0, f"--seconds {seconds}: use more than 0")
    folder = out or Path("results") / "sweep" / stamp()
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
    (folder / "tables.md").write_text(tables(sweep), encoding="utf-8")
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


@app.command("soak")
def soak_command(
    protocol: Annotated[str, typer.Option("--protocol", "-p", help="The protocol.")] = "raft",
    operations: Annotated[int, typer.Option(help="That end ok.", min=1)] = 5_000_000,
    nodes: Annotated[int, typer.Option(help="Number of nodes.", min=1)] = 3,
    clients: Annotated[int, typer.Option(help="Operations in flight at most.", min=1)] = 128,
    value_bytes: Annotated[int, typer.Option(help="Of each written value.", min=1)] = 32,
    stretch_s: Annotated[
        float, typer.Option(help="Seconds of load between two figures.", min=0.1)
    ] = 5.0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results.")] = None,
    json: Json = False,
) -> None:
    """Load a live cluster with millions of operations: memory and disk must stay bounded.

    Writes samples.csv, soak.json and report.html. Exit code 1: something still grows; 3: it
    ended early; 5: too few figures to tell. Example: capbench soak --operations 5000000
    """
    from bench.closed_loop import ClosedLoop
    from chaos.processes import signals_as_exit
    from chaos.progress import make_progress
    from chaos.soak import run_soak
    from nodes import registry
    from reports.soak import first_screen, verdict, write_files

    registry.get(protocol)
    folder = out or Path("results") / "soak" / f"{stamp()}-{protocol}"
    load = ClosedLoop(clients=clients, seconds=stretch_s, warm_up_s=0.0, value_bytes=value_bytes)
    with signals_as_exit(), make_progress() as progress:
        soak, interrupted = run_soak(
            folder,
            protocol,
            load,
            operations=operations,
            nodes=nodes,
            command=["capbench", *sys.argv[1:]],
            progress=progress,
        )
    page = write_files(folder, soak)
    if json:
        print_json(soak)
    else:
        print(first_screen(soak))
        print(f" {page}")
    if interrupted:
        raise typer.Exit(exit_codes.INTERRUPTED)
    if soak.stopped is not None:
        raise typer.Exit(exit_codes.INFRASTRUCTURE)
    codes = {True: 0, False: exit_codes.OBJECTIVE, None: exit_codes.UNKNOWN}
    raise typer.Exit(codes[verdict(soak)])
