"""`capbench sweep`: the cost of an operation, by nodes, value size and clients. `capbench soak`:
whether memory and disk stay bounded over millions of operations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.record.files import write_whole
from chaos import errors as exit_codes
from chaos.commands.options import (
    NODES,
    PROTOCOL,
    Name,
    Out,
    Protocol,
    count,
    distinct,
    folder,
    number,
)
from chaos.commands.simulate import say
from chaos.console import Json, print_json
from chaos.errors import BadOption
from chaos.interrupted import Interrupted, recorded
from chaos.targets.folders import empty_folder, new_folder, stamp

if TYPE_CHECKING:
    from bench.record.sweep_file import Sweep

app = typer.Typer()


DIMENSION = Name("dimension", lambda: ("nodes", "value_bytes", "clients", "proxied", "coalesced"))


Protocols = Annotated[
    list[str] | None,
    typer.Option(
        "--protocol",
        "-p",
        **PROTOCOL.typed,
        callback=distinct,
        help="A protocol; again for more. [default: raft, paxos, quorum, gossip]",
    ),
]


@app.command("sweep")
def sweep_command(
    protocol: Protocols = None,
    dimension: Annotated[
        list[str] | None,
        typer.Option(
            "--dimension",
            "-d",
            **DIMENSION.typed,
            callback=distinct,
            help="nodes, value_bytes, clients, proxied or coalesced; again for more. "
            "[default: all]",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the extremes, one second each: about 3 minutes.")
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(parser=number(0.1, 3600), help="Length of each measurement. [default: 4]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            parser=folder,
            help="Folder for the results. What was measured there already is not measured again.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure live protocols over nodes, value size and clients, one at a time; about 8 minutes.

    Writes points.csv, processes.csv, sweep.json, tables.md and report.html. Ctrl-C keeps what was
    measured; the same --out resumes. Exit code 3: points are missing. Example: capbench sweep
    --protocol raft
    """
    from bench.measure.sweep import PROTOCOLS, points_of, run_sweep
    from bench.record.sweep_file import DIMENSIONS, BadSweep
    from chaos.progress import make_progress
    from nodes import registry

    names = protocol or list(PROTOCOLS)
    for name in names:
        registry.get(name)
    chosen = dimension or list(DIMENSIONS)
    place = new_folder(Path("results") / "sweep" / stamp()) if out is None else out
    measured_s = seconds or (1.0 if quick else 4.0)
    try:
        with make_progress() as progress:
            sweep, interrupted = run_sweep(
                place,
                points_of(names, chosen, quick),
                seconds=measured_s,
                warm_up_s=min(1.0, measured_s),
                command=["capbench", *sys.argv[1:]],
                progress=progress,
            )
    except BadSweep as error:
        raise BadOption(f"--out {error}") from None
    missing = _tell_sweep(sweep, place, json)
    if interrupted:
        raise Interrupted("sweep", recorded(place), f"go on with --out {place}")
    if missing:
        raise typer.Exit(exit_codes.INFRASTRUCTURE)


def _tell_sweep(sweep: Sweep, place: Path, json: bool) -> int:
    """Write the pages, and print what they begin with. How many points are missing."""
    from reports.sweeps.sweep import first_screen, write_files
    from reports.sweeps.sweep_tables import tables

    page = write_files(place, sweep)
    write_whole(place / "tables.md", tables(sweep).encode())
    missing = sum(row.missing is not None for row in sweep.rows)
    if json:
        print_json(sweep)
    else:
        print(first_screen(sweep))
        print(f" {page}")
    if missing:
        say(f"{missing} of {len(sweep.rows)} points are missing; try again with --out {place}")
    return missing


@app.command("soak")
def soak_command(
    protocol: Protocol = "raft",
    operations: Annotated[
        int, typer.Option(parser=count(1, 10**12), help="That end ok.")
    ] = 5_000_000,
    nodes: Annotated[int, typer.Option(parser=NODES, help="Number of nodes.")] = 3,
    clients: Annotated[
        int, typer.Option(parser=count(1, 100_000), help="The most operations in flight.")
    ] = 128,
    value_bytes: Annotated[
        int, typer.Option(parser=count(1, 1 << 20), help="Of each written value.")
    ] = 32,
    stretch_s: Annotated[
        float,
        typer.Option(parser=number(0.1, 3600), help="Seconds of load between two samples."),
    ] = 5.0,
    out: Out = None,
    json: Json = False,
) -> None:
    """Put millions of operations on a live cluster: memory and disk must stay bounded.

    Writes samples.csv, soak.json and report.html. Exit code 1: something keeps growing; 3: it ended
    early; 5: too few samples to tell. Example: capbench soak --operations 5000000
    """
    from bench.measure.closed_loop import ClosedLoop
    from bench.measure.soak import run_soak
    from chaos.progress import make_progress
    from nodes import registry
    from reports.sweeps.soak import first_screen, verdict, write_files

    registry.get(protocol)
    if out is None:
        place = new_folder(Path("results") / "soak" / f"{stamp()}-{registry.get(protocol).name}")
    else:
        place = empty_folder(out)
    load = ClosedLoop(clients=clients, seconds=stretch_s, warm_up_s=0.0, value_bytes=value_bytes)
    with make_progress() as progress:
        soak, interrupted = run_soak(
            place,
            protocol,
            load,
            operations=operations,
            nodes=nodes,
            command=["capbench", *sys.argv[1:]],
            progress=progress,
        )
    page = write_files(place, soak)
    if json:
        print_json(soak)
    else:
        print(first_screen(soak))
        print(f" {page}")
    if interrupted:
        raise Interrupted("soak", recorded(place), f"the page: {page}")
    if soak.stopped is not None:
        raise typer.Exit(exit_codes.INFRASTRUCTURE)
    codes = {True: 0, False: exit_codes.OBJECTIVE, None: exit_codes.UNKNOWN}
    raise typer.Exit(codes[verdict(soak)])
