"""`capbench reproduce`: published findings about systems, run here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from chaos import errors as exit_codes
from chaos.commands.options import Name, Out, Repeat, Seed
from chaos.commands.run import Place, conduct, plans_of
from chaos.console import Json, print_json
from chaos.experiments.limits import is_path
from chaos.targets.folders import stamp

if TYPE_CHECKING:
    from chaos.findings.finding import Finding
    from reports.data.summary import RunSummary

app = typer.Typer()


def _findings() -> list[str]:
    from chaos.findings.finding import names

    return names()


FINDING = Name("finding", _findings, is_path)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What a system showed. ``seen`` of ``runs``; ``undecided``: runs that do not tell; ``failed``:
    those that did not come to their end, and are not among ``runs``. ``measured``: the figures of
    each run, None where it does not tell."""

    system: str
    version: str
    seen: int
    runs: int
    undecided: int
    failed: int
    measured: dict[str, list[float | None]]


@app.command()
def reproduce(
    finding: Annotated[
        str | None,
        typer.Argument(**FINDING.typed, help="A finding, or a YAML file. [default: list them all]"),
    ] = None,
    repeat: Repeat = 1,
    seed: Seed = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Run a published finding about a system: what was claimed, and in how many runs it is seen.

    Without a finding, they are listed. Exit code 0: seen in at least one run; 1: in none; 3: a run
    failed, or the system cannot be had; 5: no run could tell.
    Example: capbench reproduce redis-sentinel-partition --repeat 5
    """
    from chaos.findings.finding import load
    from chaos.targets.subjects import find

    if finding is None:
        _list(json=json)
        return
    found = load(finding)
    experiment = found.experiment
    if seed is not None:
        experiment = experiment.model_copy(update={"seed": seed})
    plans = plans_of([(experiment, find(name)) for name in found.systems], repeat, None)
    root = out or Path("results") / "reproduce" / f"{stamp()}-{found.name}"
    place = Place(
        root,
        [planned.compared_in(repeat) for planned in plans],
        Path("report.html"),
        made_up="root" if out is None else None,
    )
    place.refuse_taken()
    if not json:
        _print_claim(found)
    ran = conduct(plans, place)
    failures = [each.failure for each in ran.results]
    for summary, result in zip(ran.summaries, ran.results, strict=True):
        if result.failure is not None and not result.interrupted:
            print(f"capbench: {summary.protocol}: {result.failure}", file=sys.stderr)
    rows = _rows(found, ran.summaries, failures)
    if json:
        body = {"schema": 1, "finding": _as_data(found), "rows": rows, "report": str(ran.page)}
        print_json(body)
    else:
        for row in rows:
            print(f"   {_said(row)}")
        print(f"\n report: {ran.page}")
    if ran.ended is not None:
        raise ran.ended
    raise typer.Exit(_code(rows))


def _code(rows: Sequence[Row]) -> int:
    """By the system that the finding is about, unless a run failed."""
    about = rows[0]
    if any(row.failed for row in rows):
        return exit_codes.INFRASTRUCTURE
    if about.seen:
        return 0
    return exit_codes.UNKNOWN if about.undecided == about.runs else exit_codes.OBJECTIVE


def _rows(
    found: Finding, summaries: Sequence[RunSummary], failures: Sequence[str | None]
) -> list[Row]:
    """Of all systems of which a run was begun."""
    from bench.record.run_folder import RunFolder
    from chaos.findings.finding import FIGURES
    from chaos.targets.subjects import find

    rows = []
    for subject in [find(name) for name in found.systems]:
        mine = [
            (summary, failure)
            for summary, failure in zip(summaries, failures, strict=True)
            if summary.protocol == subject.name
        ]
        if not mine:
            continue
        runs = [summary for summary, failure in mine if failure is None]
        told = [found.shown_by(run) for run in runs]
        versions = RunFolder(Path(mine[0][0].folder)).manifest().versions
        rows.append(
            Row(
                system=subject.name,
                version=versions.get("system", ""),
                seen=told.count(True),
                runs=len(runs),
                undecided=told.count(None),
                failed=len(mine) - len(runs),
                measured={
                    each.figure: [FIGURES[each.figure](run) for run in runs] for each in found.seen
                },
            )
        )
    return rows


# --- in words ---


def _list(*, json: bool) -> None:
    from chaos.findings.finding import load, names

    findings = [load(name) for name in names()]
    if json:
        print_json({"schema": 1, "findings": [_as_data(each) for each in findings]})
        return
    width = max(len(each.name) for each in findings)
    for each in findings:
        print(f"{each.name:<{width}}  {each.title}")
        print(f"{'':{width}}  {each.source}")
    print("run one: capbench reproduce FINDING --repeat 5")


def _as_data(found: Finding) -> dict[str, Any]:
    return {
        "name": found.name,
        "title": found.title,
        "published": found.published,
        "source": found.source,
        "affects": found.affects,
        "systems": list(found.systems),
        "experiment": found.experiment.name,
        "seen": [str(condition) for condition in found.seen],
        "here": found.here,
    }


def _print_claim(found: Finding) -> None:
    from reports.data.compare import wrap

    conditions = " and ".join(map(str, found.seen))
    print(f"{found.name}: {found.title}")
    lines = [("published", found.published), ("source", found.source)]
    lines += [("of", found.affects)] * bool(found.affects)
    lines += [("counts as seen", f"{conditions}, in {found.experiment.name}")]
    lines += [("when written", found.here)] * bool(found.here)
    for what, text in lines:
        print("\n".join(wrap(f" {what}: ", text)))
    sys.stdout.flush()


def _said(row: Row) -> str:
    """``redis-sentinel 7.0.15: seen in 5 of 5 runs here (lost writes: 213, 190 to 240)``"""
    import statistics

    said = f"{row.system} {row.version}".strip() + f": seen in {row.seen} of {row.runs} runs here"
    parts = []
    for figure, values in row.measured.items():
        told = sorted(value for value in values if value is not None)
        if told:
            middle, ends = statistics.median(told), {told[0], told[-1]}
            between = f", {told[0]:.3g} to {told[-1]:.3g}" if len(ends) > 1 else ""
            parts.append(f"{figure.replace('_', ' ')}: {middle:.3g}{between}")
    parts += [f"{row.undecided} do not tell"] * bool(row.undecided)
    parts += [f"{row.failed} failed"] * bool(row.failed)
    return said + (f" ({'; '.join(parts)})" if parts else "")
