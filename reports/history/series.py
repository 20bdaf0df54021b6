"""A series of runs of one plan over versions: what changed, and at which version.

A version is a commit of capbench or, for systems of others, their own version. Figures change only
where a test shows it (`reports.history.changes`) and the step counts (`reports.formats.diff`); a
claim that is newly refuted, or no longer, always counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from markupsafe import Markup

from bench.record.quantities import plural
from bench.record.run_folder import Manifest
from reports.charts.drawing import Axis, Drawing, Style
from reports.data import compare
from reports.data.compare import SIMULATED, WORDS, Cell
from reports.data.plan import SYSTEM
from reports.data.summary import RunSummary, cut
from reports.formats.diff import Direction, Look, Side, looks, value_of_each, verdict_of_repeats
from reports.formats.figure_page import Figure, write_figures
from reports.history import changes

MOST_CHARTS = 60
SHOWN = ("throughput.before", "latency_ms.p99")
"""The figures that have a chart though nothing changed."""
UNITS = {
    "availability": "share",
    "throughput": "op/s",
    "latency": "ms",
    "recovery": "s",
    "lost": "writes",
}
"""By kind of figure: what its chart counts."""
LEAST_MS = 0.001
METHOD = (
    "A version is a commit of capbench or, for a system of others, its own version; versions are "
    "in order of their first run. Runs that were cut short are left out.",
    "Change points: E-divisive (Matteson and James, 2014); each is tested by Welch's t-test "
    f"against the runs before and after it (Fleming et al., 2023), at a level of "
    f"{changes.LEVEL:g} divided by the number of places at which the series could change. "
    f"It takes {changes.LEAST} runs on "
    "each side at least. Latencies are tested as logarithms. Smaller steps than those of "
    "`capbench report --diff` are not named.",
)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A commit or version with its runs. ``verdict``: invalid if one of them is, unknown if all."""

    name: str
    started_utc: str
    runs: int
    verdict: str


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """A figure, or the verdict, that changed at ``version``; ``before``: the version before it.
    ``p``: the probability of such a change by chance; 0 for a verdict."""

    figure: str
    before: str
    version: str
    old: str
    new: str
    direction: Direction
    p: float
    words: str


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one plan. ``figures``: of each run, in the order of the versions; null: not
    measured, or not a number."""

    experiment: str
    protocol: str
    target: str
    simulated: bool
    versions: list[Version]
    figures: dict[str, list[float | None]]
    shifts: list[Shift]

    @property
    def title(self) -> str:
        """Protocol and experiment."""
        return f"{self.protocol} in {self.experiment}{SIMULATED * self.simulated}"


class History(msgspec.Struct, frozen=True, kw_only=True):
    """All series. ``alone``: runs whose plan has one version only. ``cut_short``: were left out."""

    schema: int = 1
    series: list[Series]
    alone: int
    cut_short: int


def history(runs: Side) -> History:
    """The series of all plans with at least two versions."""
    groups: dict[tuple[str, ...], list[tuple[RunSummary, Manifest]]] = {}
    cut_short = 0
    for summary, manifest in runs:
        if manifest.complete and not summary.cut_windows:
            groups.setdefault(_plan(summary), []).append((summary, manifest))
        else:
            cut_short += 1
    several = [group for group in groups.values() if len(set(_names(group))) > 1]
    return History(
        series=[_series(group) for group in several],
        alone=sum(map(len, groups.values())) - sum(map(len, several)),
        cut_short=cut_short,
    )


def _plan(run: RunSummary) -> tuple[str, ...]:
    """What is equal in a series."""
    digest = run.plan.of_any_version().digest()
    return run.experiment, run.protocol, digest


def _names(group: Side) -> list[str]:
    """The version of each run."""
    systems = [summary.plan.protocol.get(SYSTEM) for summary, _ in group]
    if len(set(systems)) > 1:
        return [each or "no version" for each in systems]
    return [manifest.commit or manifest.capbench_version for _, manifest in group]


def versions_of(runs: Side) -> set[str]:
    """All by which a run can be named, also one whose plan has no other version."""
    own = {manifest.commit or manifest.capbench_version for _, manifest in runs}
    systems = {summary.plan.protocol.get(SYSTEM) for summary, _ in runs}
    return own | {each for each in systems if each}


def _series(group: Side) -> Series:
    names = _names(group)
    first: dict[str, str] = {}
    for name, (_, manifest) in zip(names, group, strict=True):
        first[name] = min(first.get(name, manifest.started_utc), manifest.started_utc)
    order = sorted(
        range(len(group)),
        key=lambda n: (first[names[n]], names[n], group[n][1].started_utc),
    )
    runs, names = [group[n][0] for n in order], [names[n] for n in order]
    versions = [_version(name, first[name], runs, names) for name in dict.fromkeys(names)]
    cell = Cell(runs[0].protocol, runs[0].experiment, runs)
    measured = {look.name: (look, value_of_each(runs, look)) for look in looks(cell)}
    figures = {name: each for name, each in measured.items() if any(map(_known, each[1]))}
    shifts = _verdicts(versions, runs[0])
    for look, values in figures.values():
        shifts += _shifts(look, values, names, runs[0])
    return Series(
        experiment=runs[0].experiment,
        protocol=runs[0].protocol,
        target=runs[0].target,
        simulated=runs[0].simulated,
        versions=versions,
        figures={
            name: [value if math.isfinite(value) else None for value in values]
            for name, (_, values) in figures.items()
        },
        shifts=shifts,
    )


def _known(value: float) -> bool:
    return not math.isnan(value)


def _version(name: str, first: str, runs: Sequence[RunSummary], names: Sequence[str]) -> Version:
    verdicts = [run.verdict for run, own in zip(runs, names, strict=True) if own == name]
    return Version(
        name=name, started_utc=first, runs=len(verdicts), verdict=verdict_of_repeats(verdicts)
    )


def _verdicts(versions: Sequence[Version], run: RunSummary) -> list[Shift]:
    found = []
    for before, after in itertools.pairwise(versions):
        if before.verdict == after.verdict:
            continue
        better = after.verdict == "valid" or before.verdict == "invalid"
        old, new = WORDS[before.verdict], WORDS[after.verdict]
        found.append(
            Shift(
                figure="verdict",
                before=before.name,
                version=after.name,
                old=old,
                new=new,
                direction="better" if better else "worse",
                p=0.0,
                words=_words("the verdict", run, old, new, after.name),
            )
        )
    return found


def _shifts(
    look: Look, values: Sequence[float], names: Sequence[str], run: RunSummary
) -> list[Shift]:
    kept = [n for n, value in enumerate(values) if _known(value)]
    own, where = [values[n] for n in kept], [names[n] for n in kept]
    points = changes.change_points(_scaled(look, own), where)
    bounds = [0, *(at for at, _ in points), len(own)]
    found = []
    for number, (at, p) in enumerate(points):
        before, after = own[bounds[number] : at], own[at : bounds[number + 2]]
        old, new = (sum(part) / len(part) for part in (before, after))
        if not math.isinf(max(old, new)) and not look.counts(old, new):
            continue
        told = look.shown(old), look.shown(new)
        found.append(
            Shift(
                figure=look.words,
                before=where[at - 1],
                version=where[at],
                old=told[0],
                new=told[1],
                direction="better" if (new > old) == look.more_is_better else "worse",
                p=p,
                words=f"{_words(look.words, run, *told, where[at])} "
                f"({plural(len(before), 'run')} before, {len(after)} after, p < {_chance(p)})",
            )
        )
    return found


def _scaled(look: Look, values: Sequence[float]) -> list[float]:
    """What is tested: latencies as logarithms, since a busy machine makes some many times as
    long, and such a tail would hide a change of all the others."""
    if look.kind != "latency":
        return list(values)
    return [math.log(max(value, LEAST_MS)) for value in values]


def _words(figure: str, run: RunSummary, old: str, new: str, version: str) -> str:
    where = f"{run.protocol} in {run.experiment}{SIMULATED * run.simulated}"
    return f"{figure} of {where} went from {old} to {new} at {cut(version, 24)}"


def _chance(p: float) -> str:
    return next((f"{level:g}" for level in (1e-6, 1e-5, 1e-4) if p < level), f"{changes.LEVEL:g}")


# --- what it says ---


def sentences(found: History) -> list[str]:
    """Every change in a sentence, worse ones first."""
    shifts = [shift for series in found.series for shift in series.shifts]
    ordered = sorted(shifts, key=lambda shift: shift.direction != "worse")
    return [f"{shift.direction}: {shift.words}" for shift in ordered]


HEAD = ("protocol", "experiment", "runs", "versions", "first", "last", "op/s", "p99", "changes")


def rows(found: History) -> list[list[str]]:
    """One row per series; figures are means over the runs of the first and the last version."""
    return [
        [
            each.protocol,
            each.experiment + SIMULATED * each.simulated,
            str(sum(version.runs for version in each.versions)),
            str(len(each.versions)),
            cut(each.versions[0].name, 12),
            cut(each.versions[-1].name, 12),
            _ends(each, "throughput.before", compare.per_second),
            _ends(each, "latency_ms.p99", compare.milliseconds),
            str(len(each.shifts)) if each.shifts else "none",
        ]
        for each in found.series
    ]


def _ends(series: Series, name: str, shown: Callable[[float], str]) -> str:
    values = series.figures.get(name)
    if values is None:
        return "–"
    ends = values[: series.versions[0].runs], values[-series.versions[-1].runs :]
    means = []
    for end in ends:
        known = [value for value in end if value is not None]
        means.append(shown(sum(known) / len(known)) if known else "–")
    return " → ".join(means)


def text(found: History) -> str:
    """For the terminal."""
    lines = ["capbench history", ""]
    lines += compare.columns(HEAD, rows(found))
    lines += ["", *(line for said in sentences(found) for line in compare.wrap(" ", said))]
    if not any(series.shifts for series in found.series):
        lines.append(f" {_nothing(found)}")
    lines += [f" {said}" for said in _left_out(found)]
    return "\n".join(lines) + "\n"


def _nothing(found: History) -> str:
    if not found.series:
        return "no plan has runs of two versions: there is nothing to compare"
    return f"nothing changed in {len(found.series)} series"


def _left_out(found: History) -> list[str]:
    said = []
    if found.alone:
        said.append(f"{plural(found.alone, 'run')} of plans with one version only: not compared")
    if found.cut_short:
        said.append(f"{plural(found.cut_short, 'run')} cut short: left out")
    return said


def write_page(found: History, out: Path, folder: str) -> Path:
    """The page ``out``; returns its path."""
    table = Figure("All series", "From the first version to the last.", [], list(HEAD), rows(found))
    charts = [chart for each in found.series for chart in _charts(each)]
    said = sentences(found) or [f"{_nothing(found).capitalize()}."]
    return write_figures(
        out,
        title="Over time",
        tag="history",
        setting=folder,
        question="What changed, and at which version?",
        lines=[*said, *_left_out(found)],
        figures=[table, *charts[:MOST_CHARTS]],
        method=METHOD,
    )


def _charts(series: Series) -> list[Figure]:
    changed = {shift.figure for shift in series.shifts}
    cell = {look.name: look for look in _looks_of(series)}
    return [
        _chart(series, look, series.figures[name])
        for name, look in cell.items()
        if name in SHOWN or look.words in changed
    ]


def _looks_of(series: Series) -> list[Look]:
    known = looks(Cell(series.protocol, series.experiment, []))
    return [look for look in known if look.name in series.figures]


def _chart(series: Series, look: Look, values: Sequence[float | None]) -> Figure:
    places = [n for n, each in enumerate(series.versions, 1) for _ in range(each.runs)]
    points = [(at, value) for at, value in zip(places, values, strict=True) if value is not None]
    count = len(series.versions)
    numbers = range(1, count + 1, 1 + (count - 1) // 12)
    top = max((value for _, value in points), default=1.0)
    unit = UNITS[look.kind]
    x = Axis(0.5, count + 0.5, "version", marked=list(numbers))
    drawing = Drawing(x, Axis(0, top * 1.05, unit))
    shifts = [shift for shift in series.shifts if shift.figure == look.words]
    names = [each.name for each in series.versions]
    for shift in shifts:
        at = names.index(shift.version) + 1
        drawing.band(at - 0.5, at + 0.5, f"{shift.old} → {shift.new}")
    drawing.marks([at for at, _ in points], [value for _, value in points], Style("grey"), "runs")
    means = _means(points)
    drawing.line(list(means), list(means.values()), Style("blue"), "mean of the version")
    title = f"{look.words} of {series.title}"
    drawn = Markup(drawing.inline(title))
    table = [
        [
            *(
                str(number),
                cut(each.name, 12),
                each.started_utc[:19].replace("T", " "),
                str(each.runs),
                WORDS[each.verdict],
            ),
            look.shown(means[number]) if number in means else "–",
        ]
        for number, each in enumerate(series.versions, 1)
    ]
    head = ["number", "version", "first run (UTC)", "runs", "verdict", look.words]
    how = "A mark is a run; " + (
        "shaded is the version at which the figure changed." if shifts else "no change is shown."
    )
    return Figure(title, how, [drawn], head, table)


def _means(points: Sequence[tuple[int, float]]) -> Mapping[int, float]:
    of: dict[int, list[float]] = {}
    for at, value in points:
        of.setdefault(at, []).append(value)
    return {at: sum(values) / len(values) for at, values in of.items()}
