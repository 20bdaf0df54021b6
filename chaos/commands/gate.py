"""`capbench gate`: all protocols over many seeds, without a single alarm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from chaos import errors as exit_codes
from chaos.commands.options import SEEDS, SIMULATED, Jobs, Minutes, distinct
from chaos.commands.simulate import how_it_ended, some_workers
from chaos.console import Json, print_json

app = typer.Typer()

SHOWN_BRANCHES = 40
DEFAULT_SEEDS = 10_000
RECORD = Path("results") / "gate.json"
FIRST = ("raft", "paxos", "quorum", "gossip")
"""The protocols without their variants run first, then those that only the simulator runs."""


@app.command("gate")
def gate_command(
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            **SIMULATED.typed,
            callback=distinct,
            help="A protocol; again for more. [default: all]",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(parser=SEEDS, help="Seeds of each protocol.")
    ] = DEFAULT_SEEDS,
    minutes: Minutes = None,
    record: Annotated[Path, typer.Option(help="The file that records what was run.")] = RECORD,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Simulate all protocols on seeds 1 to 10,000: there must be no alarm.

    It resumes where it stopped, as long as the code is unchanged, and says what the seeds reached:
    messages, marks, faults, and branches of the protocols' code. Exit code 4: an alarm; 5: seeds
    are left to run, or a checker has no verdict on one; 1: with all protocols and 10,000 seeds, a
    branch that none of them reached and that is not declared. Example: capbench gate --minutes 60
    """
    from chaos.progress import make_progress
    from chaos.seeds.gate import BadGate, any_missed, are_enough, begin, go_on
    from chaos.seeds.simulate import find_protocol
    from nodes.registry import INTERNAL, PROTOCOLS

    names = protocol or list(dict.fromkeys((*FIRST, *INTERNAL, *PROTOCOLS)))
    for name in names:
        find_protocol(name)
    try:
        gate, other_code = begin(record)
        if other_code:
            _say_other_code(record)
        record.parent.mkdir(parents=True, exist_ok=True)
        with some_workers(jobs) as workers, make_progress() as progress:
            progress.run("gate")

            def on_progress(name: str, done: int) -> None:
                progress.tick(done, seeds * len(names), f"seeds, now {name}")

            stopped = go_on(
                gate, record, names, seeds, workers, minutes=minutes, on_progress=on_progress
            )
    except (BadGate, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise exit_codes.BadOption(f"--record {record}: {reason}") from None
    lines = gate.of(names)
    if json:
        print_json(lines)
    else:
        _print(lines, seeds)
    ended = 0
    if stopped is not None:
        kept = f"what was found so far is kept in {record}"
        ended = how_it_ended(stopped, "gate", kept, "the same command goes on from there")
    if any(line.alarms for line in lines):
        raise typer.Exit(ended or exit_codes.VIOLATED)
    decided = all(line.seeds >= seeds and not line.undecided for line in lines)
    is_missed = protocol is None and are_enough(lines) and any_missed(lines)
    reached = exit_codes.OBJECTIVE if is_missed else 0
    raise typer.Exit(ended or (reached if decided else exit_codes.UNKNOWN))


def _say_other_code(record: Path) -> None:
    from chaos.commands.simulate import say

    say(f"{record} was made with other code and no longer counts: starting over")


def _print(lines: list[Any], seeds: int) -> None:
    from chaos.commands.simulate import print_alarm

    for line in lines:
        for alarm in line.alarms:
            print_alarm(line.protocol, alarm)
    print(
        f"{'protocol':<18} {'seeds':>7} {'alarms':>7} {'undecided':>10} {'events':>14} {'CPU s':>9}"
    )
    for line in lines:
        print(
            f"{line.protocol:<18} {line.seeds:>7,} {len(line.alarms):>7} {len(line.undecided):>10}"
            f" {line.events:>14,} {line.cpu_s:>9,.0f}"
        )
    run = sum(line.seeds for line in lines)
    alarms = sum(len(line.alarms) for line in lines)
    _print_coverage(lines)
    print(f"\n{run:,} of {seeds * len(lines):,} seeds were run, {alarms or 'none'} with an alarm")


def _print_coverage(lines: list[Any]) -> None:
    """What was seen how often, and by file the branches that were not."""
    from chaos.seeds.coverage import totals

    for line in lines:
        seen = line.coverage
        if not seen.seeds:
            continue
        print(f"\n{line.protocol}, seen in {seen.seeds:,} traced seeds:")
        for what in ("messages", "marks", "faults"):
            counts = sorted(getattr(seen, what).items(), key=lambda item: -item[1])
            told = ", ".join(f"{name} {count:,}" for name, count in counts)
            print(f"  {what}: {told or 'none'}")
    print()
    for total in totals(line.coverage for line in lines):
        missed = len(total.unreached)
        excused = f", {len(total.excused)} excused" if total.excused else ""
        print(f"{total.file}: {total.branches} branches, {missed} unreached{excused}")
        for name in total.unreached[:SHOWN_BRANCHES]:
            print(f"  {name}")
        if missed > SHOWN_BRANCHES:
            print(f"  ... and {missed - SHOWN_BRANCHES} more")
