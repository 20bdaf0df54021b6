"""`capbench serve`: run folders in a browser. On loopback only, and read-only.

    /                          every run below the folder, newest first
    /?protocol=raft&verdict=invalid&text=partition     those that match
    /?sort=p99, /?sort=-p99                            sorted by a column, up or down
    /report?run=NAME&run=NAME                          their report, one run or several side by side

A run is named by its place in the list, which is read from disk for every request; a name that is
not in the list is not found, whatever it looks like. A run that cannot be read is listed with the
reason.
"""

from __future__ import annotations

import http.server
import math
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from bench.load.same_site import refusal
from bench.record.files import shown
from bench.record.run_folder import BadRunFolder, RunFolder
from chaos.errors import TargetFailed
from chaos.exporter.server import HOST
from nodes.runtime.scratch import scratch
from reports.data.compare import SYMBOLS, WORDS, Cell, per_second
from reports.data.folders import find_runs, run_name
from reports.data.metrics import at_rest
from reports.data.summary import RunSummary
from reports.formats.render import TEMPLATES, write_report

MOST_RUNS = 200
"""In one report."""
UNREADABLE = "unreadable"


class Figure(NamedTuple):
    """A figure in the list: its column, as text, and what it is sorted by (infinite: never, or
    longer than the time-out; None: there is none)."""

    column: str
    text: str
    value: float | None


FIGURES = ("op/s", "p99", "back in", "objectives")
"""The columns of figures. op/s and p99: while faults were on, or of a run without any."""
COLUMNS = (
    *("run", "experiment", "protocol", "target", "seed", "started", "verdict", "measured"),
    *FIGURES,
)
"""The columns that can be sorted by."""


@dataclass(frozen=True)
class Row:
    """A run in the list. ``verdict``: valid, invalid, unknown, ``unchecked``, or ``unreadable``;
    then only ``why`` is known. ``figures``: none if the run was not checked."""

    name: str
    path: Path
    experiment: str = ""
    protocol: str = ""
    target: str = ""
    seed: int | None = None
    started: str = ""
    verdict: str = UNREADABLE
    measured: str = ""
    why: str = ""
    figures: tuple[Figure, ...] = ()

    @property
    def word(self) -> str:
        """The verdict as all pages say it."""
        return verdict_word(self.verdict)


def verdict_word(verdict: str) -> str:
    """``✔ holds`` for ``valid``; what is no verdict, as it is."""
    word = WORDS.get(verdict)
    return f"{SYMBOLS[verdict]} {word}" if word else verdict


def rows(root: Path) -> list[Row]:
    """Every run, newest first, with the unreadable ones last. Raises BadRunFolder if there is
    none."""
    found = [_row(path, root) for path in find_runs(root)]
    return sorted(found, key=lambda row: (row.started, row.name), reverse=True)


def _row(path: Path, root: Path) -> Row:
    folder, name = RunFolder(path), run_name(path, root)
    try:
        manifest = folder.manifest()
        verdict = folder.verdict()
        figures = _figures(at_rest(folder))
    except BadRunFolder as error:
        return Row(name=name, path=path, why=str(error))
    return Row(
        name=name,
        path=path,
        experiment=manifest.experiment_name,
        protocol=manifest.protocol,
        target=manifest.target,
        seed=manifest.seed,
        started=_to_the_second(manifest.started_utc),
        verdict=verdict.verdict if verdict else "unchecked",
        measured=verdict.measured_model if verdict else "",
        figures=figures,
    )


def _figures(summary: RunSummary | None) -> tuple[Figure, ...]:
    if summary is None:
        return ()
    cell = Cell(summary.protocol, summary.experiment, [summary])
    missed, asked = len(summary.missed()), len(summary.objectives)
    unknown = sum(result.met is None for result in summary.objectives)
    told = f"{missed} of {asked} missed" if missed else f"{asked} met" if asked else "–"
    if unknown and not missed:
        told = f"{unknown} of {asked} unknown"
    back = math.inf if cell.back_in == "not back" else summary.recovery_s
    texts = (per_second(cell.rate), cell.latency("p99"), cell.back_in, told)
    values = (cell.rate, summary.latency_ms.at("p99"), back, float(missed) if asked else None)
    return tuple(map(Figure, FIGURES, texts, values))


def in_order(found: Sequence[Row], column: str) -> list[Row]:
    """The rows sorted by a column, downwards if it begins with a minus; what has no value is last.
    An unknown column sorts nothing."""
    down, name = column.startswith("-"), column.removeprefix("-")
    if name not in COLUMNS:
        return list(found)

    def value(row: Row) -> str | float | None:
        if name in FIGURES:
            return next((each.value for each in row.figures if each.column == name), None)
        found: str | int | None = getattr(row, {"run": "name"}.get(name, name))
        return found

    keyed = [(value(row), row) for row in found]
    known = [pair for pair in keyed if pair[0] not in (None, "")]
    known.sort(key=lambda pair: pair[0], reverse=down)  # type: ignore[arg-type,return-value]
    return [row for _, row in known] + [row for each, row in keyed if each in (None, "")]


def _to_the_second(utc: str) -> str:
    """``2026-11-26 12:17:32`` of an ISO time."""
    return utc[: len("2026-11-26T12:17:32")].replace("T", " ")


def chosen(all_rows: Sequence[Row], wanted: Mapping[str, str]) -> list[Row]:
    """The runs that match every given value; ``text``: anywhere in name or experiment."""
    text = wanted.get("text", "").lower()
    return [
        row
        for row in all_rows
        if all(
            not wanted.get(field) or getattr(row, field) == wanted[field]
            for field in ("protocol", "experiment", "target", "verdict")
        )
        and text in f"{row.name} {row.experiment}".lower()
    ]


def _sorted_by(wanted: Mapping[str, str], name: str) -> str:
    """The address of the same list sorted by a column; by the same once more, the other way."""
    sort = f"-{name}" if wanted.get("sort") == name else name
    filters = {field: value for field, value in wanted.items() if field != "sort"}
    return "/?" + urllib.parse.urlencode({**filters, "sort": sort})


def _direction(sort: str, name: str) -> str:
    return {name: "ascending", f"-{name}": "descending"}.get(sort, "none")


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, root: Path, environment: jinja2.Environment, *connection: Any) -> None:
        self._root = root
        self._environment = environment
        super().__init__(*connection)

    def do_GET(self) -> None:
        refused = refusal(self.command, self.headers)
        if refused is not None:
            self._send(HTTPStatus.FORBIDDEN, self._message(f"Refused: {refused}."))
            return
        address = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(address.query)
        try:
            if address.path == "/":
                self._send(HTTPStatus.OK, self._list(query))
            elif address.path == "/report":
                self._send(*self._report(query.get("run", [])))
            else:
                self._send(HTTPStatus.NOT_FOUND, self._message("There is no such page."))
        except BadRunFolder as error:
            self._send(HTTPStatus.NOT_FOUND, self._message(str(error)))
        except (BrokenPipeError, ConnectionResetError):
            pass  # The client has gone.

    def _list(self, query: Mapping[str, list[str]]) -> str:
        everything = rows(self._root)
        wanted = {name: values[0] for name, values in query.items()}
        sort = wanted.get("sort", "")
        choices = {
            field: sorted({getattr(row, field) for row in everything} - {""})
            for field in ("protocol", "experiment", "target", "verdict")
        }
        page = self._environment.get_template("runs.html")
        return page.render(
            root=shown(self._root),
            rows=in_order(chosen(everything, wanted), sort),
            columns=[(name, _sorted_by(wanted, name), _direction(sort, name)) for name in COLUMNS],
            figures=FIGURES,
            sort=sort,
            unreadable=sum(row.verdict == UNREADABLE for row in everything),
            total=len(everything),
            choices=choices,
            wanted={**dict.fromkeys((*choices, "text"), ""), **wanted},
        )

    def _report(self, names: Sequence[str]) -> tuple[HTTPStatus, str]:
        by_name = {row.name: row for row in rows(self._root)}
        unknown = [name for name in names if name not in by_name]
        if unknown or not names:
            what = f"There is no run {unknown[0]!r} here." if unknown else "Choose a run first."
            return HTTPStatus.NOT_FOUND, self._message(what)
        if len(names) > MOST_RUNS:
            return HTTPStatus.BAD_REQUEST, self._message(f"At most {MOST_RUNS} runs at once.")
        with scratch("page") as folder:
            page = write_report([by_name[name].path for name in names], folder / "r.html")
            return HTTPStatus.OK, page.read_text(encoding="utf-8")

    def _message(self, text: str) -> str:
        return self._environment.get_template("message.html").render(text=text)

    def _send(self, status: HTTPStatus, page: str) -> None:
        body = page.encode(errors="backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads along."""


def make_server(root: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Listening, and ready for ``serve_forever``. Raises BadRunFolder and TargetFailed."""
    rows(root)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["said"] = verdict_word
    handler = partial(_Handler, root, environment)
    try:
        return http.server.ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise TargetFailed(
            f"port {port} on {HOST}: {error.strerror}; give another one with --port"
        ) from None
