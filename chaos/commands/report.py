"""`capbench report` and `capbench serve`: what is on disk, in the requested form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.record.files import shown, write_whole
from bench.record.run_folder import BadRunFolder
from chaos import errors as exit_codes
from chaos.commands.options import PORT, Name
from chaos.console import Json, json_text, print_json
from chaos.errors import BadOption
from nodes.contract.names import did_you_mean

if TYPE_CHECKING:
    from reports.data.metrics import RunTables

app = typer.Typer()

FORMATS = ("html", "md", "json", "csv", "png", "junit", "hdr")
DIFF_FORMATS = ("text", "md", "json")
AGAINST_FORMATS = ("html", "md", "json")
FILES_OF = ("csv", "png", "hdr")
"""The formats that are several files."""
FORMAT = Name("format", lambda: dict.fromkeys(FORMATS + DIFF_FORMATS + AGAINST_FORMATS))
FILES = Path("results") / "report"
"""The default folder for csv, png and hdr files."""


@app.command()
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or folders of runs (comparisons).")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            autocompletion=FORMAT.complete,
            help="html (a page and the table), md, json or junit (on standard output without -o), "
            "csv, png or hdr (HdrHistogram logs; files into a folder); with --against: html, md or "
            "json; with --diff: text, md or json.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The file; for csv, png and hdr the folder [default: results/report].",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Test what changed against the runs in this folder, of the same plans: each "
            "verdict and figure of the runs that are named.",
            show_default=False,
        ),
    ] = None,
    diff: Annotated[
        bool,
        typer.Option("--diff", help="Show how any two differ, untested: --diff OLD NEW."),
    ] = False,
    json: Json = False,
) -> None:
    """Report what is on disk, or what changed between two comparisons.

    Exit code 0; with --against, 4 if a claim is newly refuted, 1 if a figure is shown to be worse,
    5 if a claim is newly unknown, there are too few runs to show anything, or a new run cannot be
    read; with --diff, 4 and 5 for claims. Examples: capbench report results/compare/* --format md;
    capbench report results/after --against results/before; capbench report --diff results/before
    results/after
    """
    given = runs or []
    if diff and against is not None:
        raise BadOption("--diff and --against exclude each other")
    formats = DIFF_FORMATS if diff else FORMATS if against is None else AGAINST_FORMATS
    form = _known_format(form, formats, json=json)
    if not given:
        raise BadOption("report: name a run folder, or a folder of runs (results/...)")
    if against is not None:
        _against(given, against, form, out)
        return
    if diff:
        _diff(given, form, out)
        return
    loaded, unreadable = _load(given)
    if form == "html":
        _html(given, loaded, unreadable, out)
    elif form in FILES_OF:
        _files(loaded, form, out or FILES)
    else:
        _emit(_as_text(given, loaded, form), out)


def _known_format(form: str | None, formats: Sequence[str], *, json: bool) -> str:
    if json and form not in (None, "json"):
        raise BadOption(f"--json and --format {form} exclude each other")
    form = "json" if json else form or formats[0]
    if form not in formats:
        raise BadOption(f"--format: unknown format {did_you_mean(form, formats, 'use')}")
    return form


def _load(folders: Sequence[Path]) -> tuple[list[tuple[str, RunTables]], list[str]]:
    """The runs with their names, and those that cannot be read. A run that stands there twice
    counts once: else it would pass for two. Raises BadRunFolder if none can be read."""
    from reports.data.folders import find_runs, load_run, run_name

    loaded: dict[Path, tuple[str, RunTables]] = {}
    unreadable = []
    for folder in folders:
        for path in find_runs(folder):
            try:
                if path not in loaded:
                    loaded[path] = (run_name(path, folder), load_run(path))
            except BadRunFolder as error:
                unreadable.append(str(error))
    if not loaded:
        raise BadRunFolder("\n".join(unreadable))
    once = _once(loaded)
    again = [f"{shown(path)}: the same run as {name}" for path, name in once.items() if name]
    for line in [*unreadable, *again]:
        typer.echo(f"capbench: left out: {line}", err=True)
    distinct = [(path, run) for path, run in loaded.items() if not once[path]]
    return _distinct(distinct), unreadable


def _once(loaded: Mapping[Path, tuple[str, RunTables]]) -> dict[Path, str]:
    """Of each run that is a copy of one before it, or the same seed simulated again with the same
    result, the path of that one; of the others ""."""
    import msgspec

    seen: dict[tuple[str, bytes], Path] = {}
    found = {}
    for path, (_, run) in loaded.items():
        started = "" if run.summary.simulated else run.manifest.started_utc
        figures = msgspec.json.encode(msgspec.structs.replace(run.summary, folder=""))
        first = seen.setdefault((started, figures), path)
        found[path] = "" if first == path else shown(first)
    return found


def _distinct(loaded: Sequence[tuple[Path, tuple[str, RunTables]]]) -> list[tuple[str, RunTables]]:
    """Runs in different folders may share a name: then their paths are their names."""
    names = [name for _, (name, _) in loaded]
    return [(name if names.count(name) == 1 else shown(path), run) for path, (name, run) in loaded]


def _html(
    given: Sequence[Path],
    loaded: Sequence[tuple[str, RunTables]],
    unreadable: Sequence[str],
    out: Path | None,
) -> None:
    from reports.formats.render import write_loaded

    page = out or _usual_page(given)
    if page.is_dir() or (not page.suffix and not page.exists()):
        page /= "report.html"
    write_loaded([run for _, run in loaded], page, unreadable=unreadable)
    missed = [f"{name}: {result.words}" for name, run in loaded for result in run.summary.missed()]
    print_screen([run.summary for _, run in loaded], page, missed)


def _usual_page(given: Sequence[Path]) -> Path:
    return (given[0] if len(given) == 1 else Path()) / "report.html"


def _files(loaded: Sequence[tuple[str, RunTables]], form: str, folder: Path) -> None:
    from reports.formats.export import write_charts, write_csv
    from reports.formats.hdr import write_hdr

    if folder.is_file():
        raise BadOption(f"-o {folder}: is a file; {form} needs a folder for its files")
    write = {"csv": write_csv, "png": write_charts, "hdr": write_hdr}[form]
    try:
        written = write(loaded, folder)
    except ImportError:
        raise BadOption(
            f"--format {form} needs the library `hdrhistogram`: pip install 'capbench[hdr]'"
        ) from None
    print(f" {len(written)} files in {folder}")


def _as_text(given: Sequence[Path], loaded: Sequence[tuple[str, RunTables]], form: str) -> str:
    from reports.data.cases import cases_of
    from reports.formats.junit import junit
    from reports.formats.markdown import markdown

    if form == "md":
        return markdown(cases_of(loaded))
    if form == "junit":
        return junit(cases_of(loaded))
    page = _usual_page(given)
    return json_text(
        _runs_body([run.summary for _, run in loaded], page if page.exists() else None)
    )


def _emit(text: str, out: Path | None) -> None:
    """To standard output, or into a file that is written whole or not at all."""
    if out is None:
        print(text, end="")
        return
    if out.is_dir():
        raise BadOption(f"-o {out}: is a folder; name a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, text.encode(errors="backslashreplace"))


def _diff(given: Sequence[Path], form: str, out: Path | None) -> None:
    from reports.formats import diff as differences

    if len(given) != 2:
        raise BadOption(f"--diff takes two folders, OLD and NEW, not {len(given)}")
    sides = [[(run.summary, run.manifest) for _, run in _load([folder])[0]] for folder in given]
    found = differences.diff(sides[0], sides[1], (str(given[0]), str(given[1])))
    if form == "json":
        _emit(json_text(found), out)
    else:
        _emit(differences.text(found) if form == "text" else differences.markdown(found), out)
    verdicts = {change.new for change in found.changes if change.figure == "verdict"}
    if "invalid" in verdicts:
        raise typer.Exit(exit_codes.VIOLATED)
    if "unknown" in verdicts:
        raise typer.Exit(exit_codes.UNKNOWN)


def _against(given: Sequence[Path], baseline: Path, form: str, out: Path | None) -> None:
    from reports.history import against as compared

    sides = [_load(side) for side in ([baseline], given)]
    old, new = ([(run.summary, run.manifest) for _, run in runs] for runs, _ in sides)
    refused = compared.refusal(old, new)
    if refused is not None:
        raise BadOption(f"--against {shown(baseline)}: {refused}; --diff shows how any two differ")
    found = compared.against(
        old,
        new,
        (shown(baseline), ", ".join(map(shown, given))),
        unreadable=[len(lines) for _, lines in sides],
    )
    if form == "html":
        page = compared.write_page(found, out or given[0] / "against.html")
        print(f"{compared.text(found)}\n page: {page}")
    else:
        _emit(compared.markdown(found) if form == "md" else json_text(found), out)
    if "invalid" in found.newly:
        raise typer.Exit(exit_codes.VIOLATED)
    if found.figures_worse:
        raise typer.Exit(exit_codes.OBJECTIVE)
    if found.newly or found.undecided or found.unreadable[1]:
        raise typer.Exit(exit_codes.UNKNOWN)


@app.command()
def history(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs, or run folders, of several versions.")
    ],
    since: Annotated[
        str | None,
        typer.Option(
            help="A commit or version: only changes at it or after it decide the exit code.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page [default: history.html in the first folder]"),
    ] = None,
    json: Json = False,
) -> None:
    """Show what changed over commits or versions, among all runs of a plan.

    Exit code 4: a claim is newly refuted; 1: a figure became worse; 5: newly unknown; 0: neither.
    Examples: capbench history results/; capbench history results/ --since 1a2b3c4
    """
    from reports.history import series as over_time

    loaded = [(run.summary, run.manifest) for _, run in _load(runs)[0]]
    found = over_time.history(loaded)
    if since is not None and not any(
        _is_named(name, since) for name in over_time.versions_of(loaded)
    ):
        raise BadOption(f"--since {since}: no run has that commit or version")
    later = _versions_since(found, since)
    page = over_time.write_page(found, out or runs[0] / "history.html", ", ".join(map(shown, runs)))
    if json:
        print_json(found)
    else:
        print(over_time.text(found))
        print(f" page: {page}")
    worse = [
        shift
        for series, names in zip(found.series, later, strict=True)
        for shift in series.shifts
        if shift.direction == "worse" and shift.version in names
    ]
    verdicts = {shift.new for shift in worse if shift.figure == "verdict"}
    if "REFUTED" in verdicts:
        raise typer.Exit(exit_codes.VIOLATED)
    if any(shift.figure != "verdict" for shift in worse):
        raise typer.Exit(exit_codes.OBJECTIVE)
    if verdicts:
        raise typer.Exit(exit_codes.UNKNOWN)


def _versions_since(found: Any, since: str | None) -> list[set[str]]:
    """The versions of each series that decide: those from ``since`` on, all without it."""
    later = []
    for series in found.series:
        names = [version.name for version in series.versions]
        if since is not None:
            fits = [_is_named(name, since) for name in names]
            names = names[fits.index(True) :] if any(fits) else []
        later.append(set(names))
    return later


def _is_named(version: str, given: str) -> bool:
    """Whether it is this version that was given; a hash may be shorter here or there."""
    return version.startswith(given) or given.startswith(version)


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="A folder of runs.")] = Path("results"),
    port: Annotated[int, typer.Option(parser=PORT, help="Where to listen.")] = 8090,
) -> None:
    """Browse the run folders: list, filter, open, compare. Ctrl-C ends it.

    Exit code 2: there is no run; 3: the port is taken. Example: capbench serve results/
    """
    from chaos.commands.serve import make_server
    from chaos.exporter.server import HOST

    with make_server(folder, port) as server:
        print(f"{folder}: http://{HOST}:{port}/ (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except (KeyboardInterrupt, SystemExit):
            print("stopped")


# --- also printed by a run ---


def write_page(folders: Sequence[Path], page: Path) -> list[Any]:
    """Write the page; return the summaries of the runs. Raises BadRunFolder."""
    from reports.data.metrics import load
    from reports.formats.render import write_loaded

    runs = [load(folder) for folder in folders]
    write_loaded(runs, page)
    return [run.summary for run in runs]


def print_runs(summaries: Sequence[Any], page: Path) -> None:
    """The figures of runs as JSON."""
    print_json(_runs_body(summaries, page))


def _runs_body(summaries: Sequence[Any], page: Path | None) -> dict[str, Any]:
    from reports.data.choose import choices
    from reports.data.compare import matrix
    from reports.data.repeats import repeats

    where = None if page is None else str(page)
    return {
        "schema": 1,
        "report": where,
        "runs": summaries,
        "repeats": repeats(summaries),
        "choices": choices(matrix(summaries)),
    }


def print_screen(summaries: Sequence[Any], page: Path, missed: Sequence[str]) -> None:
    """The first screen for the terminal, missed objectives, and where the page is."""
    from reports.data.choose import choices
    from reports.data.compare import first_screen, matrix, wrap
    from reports.data.repeats import lines

    print(first_screen(summaries))
    for choice in choices(matrix(summaries)):
        print("\n".join(wrap(" · ", choice.words)))
    if repeats := lines(summaries):
        print(" means of the repeats, with 95% intervals (bootstrap):")
    for line in repeats:
        print("\n".join(wrap("  ", line)))
    for text in missed:
        print(f" objective missed: {text}")
    print(f"\n report: {page}")
