"""One self-contained HTML page from run folders: no network, charts as inline SVG.

The charts are drawn in advance (`reports.charts.charts`): drawings open at once, print, and stay
small. A thousand of them are smaller than the libraries that would draw them in the browser. Their
colours are CSS variables, so they follow the reader's dark or light theme.

A script of ours (`explore.js`, with uPlot) makes charts of the drawings that can be zoomed. It is
the only one that the page's policy allows, by its hash; without it, the drawings stay.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from bench.record.files import NotReadable, read_regular, write_whole
from bench.record.run_folder import MOST_BYTES, BadRunFolder
from bench.record.verdict import Check, WitnessLine
from bench.record.witness import duration
from reports.charts.anomaly import Messages, picture, read_messages
from reports.charts.drawing import STYLE
from reports.charts.quiet import sentences
from reports.data import choose, compare, cost, difference, recovery, repeats, rows
from reports.data.folders import SENSELESS, load_run
from reports.data.metrics import RunTables
from reports.data.summary import RunSummary, explained_check, explanation, witness_of
from reports.formats.drawn import Figure, column_words, figure, plain
from reports.formats.overview import COLUMN_ORDERS, ROW_ORDERS, heat_map

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
BENCHMARKS = Path("results/bench/latest.json")
"""Where `make bench` writes its figures."""
MOST_CHART_BYTES = 2_660_000
"""Charts beyond this total are left out, and the page says so."""
MOST_POINTS = 9_000
"""The most single operations drawn on the whole page."""
MOST_EVENTS = 800
"""The most node events listed on the whole page."""
MOST_EVENTS_PER_RUN = 80
COMPARED = "Replication protocols compared"
"""The title of a page of several cells; one cell alone is its own title."""
OPEN_RUNS = 6
"""With more runs than this, runs are folded; with more experiments, experiments."""
FULL_TABLES = 24
"""With more runs than this, only the charts of experiments have their numbers on the page, and can
be zoomed; `capbench report` of a run has those of its charts."""


TOOK_PLACE = {True: "yes", False: "NO", None: "not recorded"}


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of `make bench`; ``ratio``: to the figure ``compared_with`` of the same run."""

    name: str
    value: float
    unit: str
    compared_with: str | None = None
    ratio: float | None = None
    goal: float | None = None


@dataclass(frozen=True)
class Benchmarks:
    """Figures of one run of `make bench`, and its machine."""

    figures: list[Benchmark]
    machine: dict[str, Any]


@dataclass(frozen=True)
class RunSection:
    """A run on the page. ``title``: unique, without *simulated*. ``figures``: None if left out.
    ``why``: the heading of ``witness``, which is that of ``explained``. ``messages``: those around
    it, if kept; ``diagram``: their drawing, unless the page is too large.
    ``quiet``: what needs no chart. ``costs``: what the nodes counted, in total and per served
    operation. ``proofs``: what was seen of each fault."""

    anchor: str
    title: str
    tables: RunTables
    summary: RunSummary
    cell: compare.Cell
    figures: list[Figure] | None
    why: str
    explained: Check | None
    witness: list[tuple[str, WitnessLine]]
    messages: Messages | None
    diagram: str | None
    losses: list[list[Any]]
    quiet: list[str]
    costs: list[tuple[str, str, str]]
    proofs: list[tuple[int, str, str, str]]
    events: list[dict[str, Any]]
    events_total: int


def write_report(
    folders: Sequence[Path],
    out: Path,
    title: str = COMPARED,
    *,
    benchmarks: Path = BENCHMARKS,
) -> Path:
    """Write the page and return its path. Folders that are not runs are listed on the page.

    ``benchmarks``: figures of `make bench`, shown with their machine if the file exists.

    Raises BadRunFolder if none of the folders can be read.
    """
    runs: list[RunTables] = []
    unreadable: list[str] = []
    for folder in folders:
        try:
            runs.append(load_run(folder))
        except BadRunFolder as error:
            unreadable.append(str(error))
    if not runs:
        raise BadRunFolder("; ".join(unreadable) or "no run folders were given")
    return write_loaded(runs, out, title, unreadable, benchmarks=benchmarks)


def write_loaded(
    runs: Sequence[RunTables],
    out: Path,
    title: str = COMPARED,
    unreadable: Sequence[str] = (),
    *,
    benchmarks: Path = BENCHMARKS,
) -> Path:
    """Like `write_report`, but for runs already loaded: a million operations take a while."""
    page = render(runs, title, unreadable, read_benchmarks(benchmarks))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, page.encode(errors="backslashreplace"))
    return out


def read_benchmarks(path: Path) -> Benchmarks | None:
    """The figures of `make bench`; None if missing or malformed."""
    try:
        data = read_regular(path, MOST_BYTES)
        figures = msgspec.json.decode(data, type=list[Benchmark])
        data = read_regular(path.with_name("hardware.json"), MOST_BYTES)
        machine = msgspec.json.decode(data)
    except (OSError, NotReadable, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Benchmarks(figures, dict(machine) if isinstance(machine, dict) else {})


def render(
    runs: Sequence[RunTables],
    title: str,
    unreadable: Sequence[str] = (),
    benchmarks: Benchmarks | None = None,
) -> str:
    """The page as text."""
    from reports.charts.cap_map import cap_map
    from reports.charts.side_by_side import style_of
    from reports.formats.experiments import experiments

    summaries = [run.summary for run in runs]
    grid = compare.matrix(summaries)
    cells = {id(run): cell for cell in grid.cells.values() for run in cell.runs}
    styles = style_of(grid.protocols)
    # Of one run, the page of its experiment would say everything twice.
    of_experiments = (
        experiments(
            grid,
            {id(run.summary): run for run in runs},
            styles,
            most_bytes=MOST_CHART_BYTES,
        )
        if len(runs) > 1
        else []
    )
    size = sum(each.size for one in of_experiments for each in one.figures)
    left = max(MOST_CHART_BYTES - size, MOST_CHART_BYTES // 3)
    drawings = _draw(runs, [cells[id(s)].runs.index(s) for s in summaries], left)
    most_events = min(MOST_EVENTS_PER_RUN, MOST_EVENTS // len(runs))
    small = len(runs) <= FULL_TABLES
    sections = [
        _section(number, run, cells[id(run.summary)], figures, most_events, small=small)
        for number, (run, figures) in enumerate(zip(runs, drawings, strict=True), 1)
    ]
    anchors = {id(section.summary): section.anchor for section in sections}
    drawn = [one.figures for one in of_experiments] + [each.figures or [] for each in sections]
    script = explorer() if any(each.plot for figures in drawn for each in figures) else ""
    cap = cap_map(grid, styles) if len(grid.cells) > 1 else None
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=_heading(grid) if title == COMPARED else title,
            script=Markup(script),
            script_hash=Markup(script_hash(script)),
            heading=compare.heading(summaries),
            grid=grid,
            heat=heat_map(grid),
            row_orders=ROW_ORDERS,
            column_orders=COLUMN_ORDERS,
            choices=choose.choices(grid),
            rules=choose.RULES,
            cap=None if cap is None else figure(cap, numbers=True),
            experiments=of_experiments,
            test=difference.TEST,
            folded=len(runs) > OPEN_RUNS,
            small=small,
            experiments_folded=len(of_experiments) > OPEN_RUNS,
            lines=_lines(grid),
            sections=sections,
            anchor_of=lambda summary: anchors[id(summary)],
            unreadable=unreadable,
            repeats=[(each, repeats.rows(each)) for each in repeats.repeats(summaries)],
            benchmarks=benchmarks,
            legend=compare.LEGEND,
            started=to_the_minute(min(run.manifest.started_utc for run in runs)),
        )
    )


def _lines(grid: compare.Matrix) -> dict[str, str]:
    """Each protocol in plain words; what it cost, too, where the terminal has a column for that."""
    priced = grid.has_systems
    return {
        name: " ".join(
            [compare.plain_line(cells), *([compare.cost_words(cells)] if priced else [])]
        )
        for name in grid.protocols
        for cells in [grid.row(name)]
    }


def _heading(grid: compare.Matrix) -> str:
    if len(grid.cells) > 1:
        return COMPARED
    (cell,) = grid.cells.values()
    return f"{cell.protocol} in {cell.experiment}"


def to_the_minute(utc: str) -> str:
    """``2026-11-26 12:17 UTC`` of an ISO time; what is none, as it is."""
    try:
        time = datetime.fromisoformat(utc)
    except ValueError:
        return utc
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def explorer() -> str:
    """The script of the page: uPlot, with its licence, and ours."""
    library = (TEMPLATES / "uplot" / "uPlot.iife.min.js").read_text(encoding="utf-8")
    licence = (TEMPLATES / "uplot" / "LICENSE").read_text(encoding="utf-8").strip()
    head, _, code = library.partition("\n")
    version = head.partition("(")[2].partition(")")[0]
    ours = (TEMPLATES / "explore.js").read_text(encoding="utf-8")
    return f"/*! uPlot {version}\n{licence} */\n{code}\n{ours}"


def script_hash(script: str) -> str:
    """What a content security policy calls the script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    filters: dict[str, Callable[..., Any]] = {
        "ratio": compare.ratio,
        "per_second": compare.per_second,
        "milliseconds": compare.milliseconds,
        "seconds": compare.seconds,
        "model": lambda model: compare.MODEL_WORDS.get(model, model),
        "word": lambda verdict: compare.WORDS[verdict],
        "symbol": lambda verdict: compare.SYMBOLS[verdict],
        "plain": plain,
        "minute": to_the_minute,
        "column": column_words,
        "window_rows": rows.window_rows,
        "fault_rows": rows.fault_rows,
        "check_rows": rows.check_rows,
        "pretty_json": lambda value: json.dumps(value, indent=1, ensure_ascii=False, default=str),
    }
    environment.filters.update(filters)
    environment.globals["drawing_style"] = Markup(STYLE)
    environment.globals["loss_columns"] = list(recovery.COLUMNS)
    environment.globals["check_columns"] = rows.CHECK_COLUMNS
    return environment


def _section(
    number: int,
    run: RunTables,
    cell: compare.Cell,
    figures: list[Figure] | None,
    most_events: int,
    *,
    small: bool,
) -> RunSection:
    witness = witness_of(run.verdict)
    messages = read_messages(run.folder)
    if messages and not messages.around(witness):
        messages = None
    events = run.nodes[run.nodes["kind"] == "event"].to_dict("records")
    return RunSection(
        anchor=f"run-{number}",
        title=_title(run, cell),
        tables=run,
        summary=run.summary,
        cell=cell,
        figures=figures,
        why=explanation(run.verdict) if run.verdict else "",
        explained=explained_check(run.verdict),
        witness=_timeline(witness),
        messages=messages,
        diagram=picture(messages, "Messages around the anomaly") if messages and small else None,
        losses=_losses(run),
        quiet=list(sentences(run)),
        costs=_costs(run),
        proofs=[
            (each.number, each.fault, TOOK_PLACE[each.took_place], each.seen) for each in run.proofs
        ],
        events=[{str(k): v for k, v in event.items()} for event in events[:most_events]],
        events_total=len(events),
    )


def _title(run: RunTables, cell: compare.Cell) -> str:
    name = cell.experiment.removesuffix(compare.SIMULATED)
    number = [id(each) for each in cell.runs].index(id(run.summary)) + 1
    return f"{name}, run {number}" if len(cell.runs) > 1 else name


def _losses(run: RunTables) -> list[list[Any]]:
    try:
        return recovery.rows(run)
    except SENSELESS as error:
        run.missing.append(f"its lost nodes: {type(error).__name__}: {error}")
        return []


def _costs(run: RunTables) -> list[tuple[str, str, str]]:
    """What the nodes counted, in words."""
    served = int(run.operations["served"].sum())
    counted = sorted(run.counters.items(), key=lambda each: -each[1])
    return [cost.in_words(name, total, served) for name, total in counted if total]


def _timeline(lines: Sequence[WitnessLine]) -> list[tuple[str, WitnessLine]]:
    """Each line with the time since the start of the first."""
    first_ns = min((line.operation.invoked_ns for line in lines), default=0)
    return [
        (
            "0"
            if line.operation.invoked_ns == first_ns
            else "+" + duration(line.operation.invoked_ns - first_ns),
            line,
        )
        for line in lines
    ]


def _draw(
    runs: Sequence[RunTables], order: Sequence[int], most_bytes: int
) -> list[list[Figure] | None]:
    """The charts of each run, the first runs of cells first; None once the page is full."""
    from reports.charts.charts import charts

    drawings: list[list[Figure] | None] = [None] * len(runs)
    size = 0
    points = max(50, min(600, MOST_POINTS // len(runs)))
    tables = len(runs) <= FULL_TABLES
    for number in sorted(range(len(runs)), key=lambda n: order[n]):
        if size > most_bytes:
            break
        figures = []
        try:
            for view in charts(runs[number], most_points=points):
                figures.append(figure(view, numbers=tables, explored=tables))
                size += figures[-1].size
        except SENSELESS as error:
            runs[number].missing.append(f"its other charts: {type(error).__name__}: {error}")
        drawings[number] = figures
    return drawings
