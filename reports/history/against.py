"""What changed against a baseline: runs of the same plans, figure by figure, each with its test.

A figure changed if its Mann-Whitney test shows it after the correction for the number of figures
(`reports.data.difference`) and the step is large enough to count (`reports.formats.diff`). Of the
rest no difference is shown, which is not to say that there is none. A claim that is refuted in one
run counts without a test.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from markupsafe import Markup

from bench.record.quantities import plural
from bench.record.run_folder import Manifest
from reports.charts.drawing import Axis, Drawing, Style
from reports.data import compare, difference
from reports.data.compare import MOST_NAMED, SIMULATED, WORDS, Cell
from reports.data.plan import differences
from reports.data.repeats import Interval, interval
from reports.data.summary import RunSummary, cut
from reports.formats import diff
from reports.formats.diff import RANK, Look, Side, looks, value_of_each, verdict_of_repeats
from reports.formats.figure_page import Figure, write_figures
from reports.formats.markdown import escape
from reports.formats.markdown import table as markdown_table

Result: TypeAlias = Literal["worse", "better", "no difference shown", "the same", "too few runs"]
VERDICT = "verdict"
MOST_CELLS = 4
"""With more cells than this, the terminal and Markdown have only what changed."""
MOST_ROWS = 40
"""In the chart."""
METHOD = (
    f"Test: {difference.TEST}, of the figures of single runs; corrected for the number of figures "
    "by Benjamini and Hochberg (1995). Intervals: 95%, bootstrap, of the mean.",
    f"A step counts from {diff.LATENCY_SHARE:.0%} of a latency, {diff.THROUGHPUT_SHARE:.0%} of a "
    f"rate, {diff.AVAILABILITY_STEP:g} of a share, {diff.RECOVERY_STEP_S:g} s until back, and "
    f"{plural(diff.LOST_STEP, 'lost write')}.",
)


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure over the runs of one side. ``median``: null beyond the time-out, or never back;
    ``mean``: with its interval; null if a run has no finite value. ``verdict``: only of a verdict,
    one for all runs."""

    words: str
    verdict: str | None = None
    values: list[float | None] = []
    median: float | None = None
    mean: Interval | None = None


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a protocol in an experiment. ``p``: the probability of such a difference by
    chance; ``corrected``: for the number of figures; both null for a verdict."""

    experiment: str
    protocol: str
    simulated: bool
    figure: str
    old: Estimate
    new: Estimate
    p: float | None
    corrected: float | None
    result: Result

    @property
    def title(self) -> str:
        """Figure, protocol and experiment."""
        return f"{self.figure} of {self.protocol} in {self.experiment}{SIMULATED * self.simulated}"

    @property
    def words(self) -> str:
        """The figure on both sides, in words."""
        return f"{self.title}: {self.old.words} -> {self.new.words}"


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of the cells that both sides have. ``runs``: of the smallest cell of a side.
    ``tested``: the figures that vary at all; ``least_runs``: so many on each side show one change
    alone among them. ``cut_short``: runs that were left out. ``unreadable``: runs of the baseline,
    and new ones, that could not be read."""

    schema: int = 1
    old: str
    new: str
    versions: list[list[str]]
    runs: int
    cells: int
    tested: int
    least_runs: int
    figures: list[Compared]
    only_old: list[str]
    only_new: list[str]
    cut_short: int
    unreadable: list[int]

    @property
    def changed(self) -> list[Compared]:
        """What became worse, then what became better."""
        return [each for way in ("worse", "better") for each in self.figures if each.result == way]

    @property
    def undecided(self) -> bool:
        """Whether figures differ, and none of them has the runs to show it."""
        tested = [each.result for each in self.figures if each.figure != VERDICT]
        return set(tested) - {"the same"} == {"too few runs"}

    @property
    def figures_worse(self) -> bool:
        """Whether a figure, and not only a verdict, is worse."""
        return any(each.result == "worse" and each.figure != VERDICT for each in self.figures)

    @property
    def newly(self) -> set[str]:
        """The verdicts that cells have now and that are worse than their baseline's."""
        return {each.new.verdict or "" for each in self.changed if each.result == "worse"} - {""}


def against(
    old: Side,
    new: Side,
    names: tuple[str, str] = ("baseline", "now"),
    unreadable: Sequence[int] = (0, 0),
) -> Against:
    """Compare the runs ``new`` with the baseline ``old``, both of the same plans (`refusal`)."""
    left, right = _cells(old), _cells(new)
    both = [(left[plan], right[plan]) for plan in left if plan in right]
    drafts = [
        (look, before, after)
        for before, after in both
        for look in looks(after)
        if _measured(look, before, after)
    ]
    found = _tested(drafts)
    verdicts = [_verdict(before, after) for before, after in both]
    vary = sum(each.result != "the same" for each in found)
    order = {id(cell): n for n, (_, cell) in enumerate(both)}
    cell_of = [order[id(after)] for _, _, after in drafts]
    figures = [
        figure
        for n, verdict in enumerate(verdicts)
        for figure in [verdict, *(f for f, at in zip(found, cell_of, strict=True) if at == n)]
    ]
    return Against(
        old=names[0],
        new=names[1],
        versions=[_versions(side) for side in (old, new)],
        runs=min((len(cell.runs) for pair in both for cell in pair), default=0),
        cells=len(both),
        tested=vary,
        least_runs=difference.least_runs(max(1, vary)),
        figures=figures,
        only_old=[_label(cell) for plan, cell in left.items() if plan not in right],
        only_new=[_label(cell) for plan, cell in right.items() if plan not in left],
        cut_short=sum(not _whole(run) for side in (old, new) for run in side),
        unreadable=list(unreadable),
    )


def refusal(old: Side, new: Side) -> str | None:
    """Why the two cannot be compared, in one line: a protocol and experiment that both have, with
    no plan in common; or nothing that both have. None if they can."""
    left, right = ([cell.runs[0] for cell in _cells(side).values()] for side in (old, new))
    shared = False
    for run in right:
        theirs = [one for one in left if _name(one) == _name(run)]
        mine = [one for one in right if _name(one) == _name(run)]
        plans = [{one.plan.of_any_version().digest() for one in side} for side in (theirs, mine)]
        if theirs and not plans[0] & plans[1]:
            flat = [
                {**plan.setting, **plan.experiment, **plan.protocol}
                for plan in (theirs[0].plan.of_any_version(), run.plan.of_any_version())
            ]
            before, after = differences(flat)
            return (
                f"{run.protocol} in {run.experiment} was run by another plan: "
                f"the baseline has {before}, the new runs have {after}"
            )
        shared = shared or bool(theirs)
    return None if shared else "no protocol and experiment that both have"


def _name(run: RunSummary) -> tuple[str, str, bool]:
    return run.experiment, run.protocol, run.simulated


def _whole(run: tuple[RunSummary, Manifest]) -> bool:
    summary, manifest = run
    return manifest.complete and not summary.cut_windows


def _cells(side: Side) -> dict[tuple[str, ...], Cell]:
    """By plan, whatever the version; runs that were cut short are left out."""
    groups: dict[tuple[str, ...], list[RunSummary]] = {}
    for run in side:
        summary = run[0]
        if _whole(run):
            digest = summary.plan.of_any_version().digest()
            key = (*map(str, _name(summary)), digest)
            groups.setdefault(key, []).append(summary)
    return {key: Cell(runs[0].protocol, runs[0].experiment, runs) for key, runs in groups.items()}


def _label(cell: Cell) -> str:
    return f"{cell.protocol} in {cell.experiment}{SIMULATED * cell.simulated}"


def _versions(side: Side) -> list[str]:
    return list(dict.fromkeys(m.commit or m.capbench_version for _, m in side))


def _known(cell: Cell, look: Look) -> list[float]:
    return [value for value in value_of_each(cell.runs, look) if not math.isnan(value)]


def _measured(look: Look, before: Cell, after: Cell) -> bool:
    return bool(_known(before, look) and _known(after, look))


def _tested(drafts: Sequence[tuple[Look, Cell, Cell]]) -> list[Compared]:
    """Every figure with its test. Those that are the same in all runs of both sides are not among
    the tested: they could show nothing."""
    sides = [(_known(before, look), _known(after, look)) for look, before, after in drafts]
    varying = [n for n, (old, new) in enumerate(sides) if len({*old, *new}) > 1]
    chances = [difference.p_value(*sides[n]) for n in varying]
    corrected = dict(zip(varying, difference.corrected(chances), strict=True))
    alone = dict(zip(varying, chances, strict=True))
    return [
        Compared(
            experiment=after.experiment,
            protocol=after.protocol,
            simulated=after.simulated,
            figure=look.words,
            old=_estimate(look, sides[n][0]),
            new=_estimate(look, sides[n][1]),
            p=alone.get(n, 1.0),
            corrected=corrected.get(n, 1.0),
            result=_result(look, *sides[n], corrected.get(n)),
        )
        for n, (look, _, after) in enumerate(drafts)
    ]


def _result(look: Look, old: Sequence[float], new: Sequence[float], chance: float | None) -> Result:
    if chance is None:
        return "the same"
    if 2 / math.comb(len(old) + len(new), len(old)) >= difference.LEVEL:
        return "too few runs"
    before, after = statistics.median(old), statistics.median(new)
    large = before != after if math.isinf(max(before, after)) else look.counts(before, after)
    if chance >= difference.LEVEL or not large:
        return "no difference shown"
    return "better" if (after > before) == look.more_is_better else "worse"


def _estimate(look: Look, values: Sequence[float]) -> Estimate:
    finite = not math.isinf(max(values))
    middle = statistics.median(values)
    mean = interval(values) if finite else None
    words = "never back" if look.kind == "recovery" and math.isinf(middle) else look.shown(middle)
    if mean is not None and mean.low is not None and mean.high is not None:
        ends = [look.shown(end) for end in (mean.low, mean.high)]
        number, _, unit = ends[0].partition(" ")
        low = number if ends[1].partition(" ")[2] == unit else ends[0]
        words += f" [{low} to {ends[1]}]" if ends[0] != ends[1] else ""
    return Estimate(
        values=[value if math.isfinite(value) else None for value in values],
        median=middle if math.isfinite(middle) else None,
        mean=mean,
        words=words,
    )


def _verdict(before: Cell, after: Cell) -> Compared:
    verdicts = [[run.verdict for run in cell.runs] for cell in (before, after)]
    old, new = map(verdict_of_repeats, verdicts)
    result: Result = "the same"
    if old != new:
        result = "worse" if RANK[new] < RANK[old] else "better"
    return Compared(
        experiment=after.experiment,
        protocol=after.protocol,
        simulated=after.simulated,
        figure=VERDICT,
        old=Estimate(verdict=old, words=_counted(verdicts[0])),
        new=Estimate(verdict=new, words=_counted(verdicts[1])),
        p=None,
        corrected=None,
        result=result,
    )


def _partly_unknown(each: Compared) -> bool:
    """Whether some runs of the new cell decided nothing."""
    return each.figure == VERDICT and each.new.verdict != "unknown" and "unknown" in each.new.words


def _counted(verdicts: Sequence[str]) -> str:
    """``holds``, or ``REFUTED 1/5, holds 4/5``."""
    counts = Counter(verdicts)
    if len(counts) == 1:
        return WORDS[verdicts[0]]
    return ", ".join(f"{WORDS[v]} {counts[v]}/{len(verdicts)}" for v in RANK if counts[v])


# --- what it says ---

HEAD = ("protocol", "experiment", "figure", "baseline", "now", "p", "result")


def rows(figures: Sequence[Compared]) -> list[list[str]]:
    """One row per figure."""
    return [
        [
            *(each.protocol, each.experiment + SIMULATED * each.simulated, each.figure),
            *(each.old.words, each.new.words, _chance(each.corrected), each.result),
        ]
        for each in figures
    ]


def _chance(p: float | None) -> str:
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def sentences(found: Against) -> list[str]:
    """What changed, worse first; what of the rest can be said; what was left out."""
    said = [f"{each.result}: {each.words}" for each in found.changed]
    counts = Counter(each.result for each in found.figures if each.figure != VERDICT)
    if not found.changed:
        said.append("no verdict changed, and no figure is shown to differ")
    undecided = sum(_partly_unknown(each) for each in found.figures)
    if undecided:
        said.append(
            f"unknown in some runs, and decided by the others: {plural(undecided, 'verdict')}"
        )
    if counts["no difference shown"]:
        said.append(f"no difference shown in {plural(counts['no difference shown'], 'figure')}")
    if counts["the same"]:
        said.append(f"the same in all runs: {plural(counts['the same'], 'figure')}")
    if counts["too few runs"]:
        said.append(
            f"too few runs to show a difference in {plural(counts['too few runs'], 'figure')}: "
            f"{difference.least_runs()} on each side are the least (--repeat), and "
            f"{found.least_runs} for a change of one alone among {found.tested}"
        )
    elif found.tested and found.runs < found.least_runs:
        said.append(
            f"with {plural(found.runs, 'run')} of each, a change of one figure alone among "
            f"{found.tested} cannot be shown: {found.least_runs} of each can"
        )
    said += _alone("in the baseline", found.only_old) + _alone("in the new runs", found.only_new)
    if found.cut_short:
        said.append(f"{plural(found.cut_short, 'run')} cut short: left out")
    for where, count in zip(("of the baseline", "of the new"), found.unreadable, strict=True):
        if count:
            said.append(f"{plural(count, 'run')} {where} cannot be read: left out")
    return said


def _alone(where: str, names: Sequence[str]) -> list[str]:
    more = len(names) - MOST_NAMED
    listed = ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return [f"only {where}: {listed}"] if names else []


def _heading(found: Against) -> str:
    versions = [", ".join(cut(name, 12) for name in each) for each in found.versions]
    return f"baseline: {found.old} ({versions[0]}) · now: {found.new} ({versions[1]})"


def _listed(found: Against) -> list[Compared]:
    if found.cells > MOST_CELLS:
        return found.changed
    return [each for each in found.figures if each.result != "the same" or each.figure == VERDICT]


def text(found: Against) -> str:
    """For the terminal."""
    lines = [f"capbench report --against · {_heading(found)}", ""]
    lines += compare.columns(HEAD, rows(_listed(found)))
    lines += ["", *(line for said in sentences(found) for line in compare.wrap(" ", said))]
    lines += [line for said in METHOD for line in compare.wrap(" ", said)]
    return "\n".join(lines) + "\n"


def markdown(found: Against) -> str:
    """For a pull request."""
    lines = [f"## Against {escape(found.old)}", "", escape(_heading(found)), ""]
    lines += [f"- {escape(said)}" for said in sentences(found)]
    listed = rows(_listed(found))
    if listed:
        cells = [[escape(cell) for cell in row] for row in listed]
        lines += ["", *markdown_table(HEAD, cells)]
    return "\n".join([*lines, "", *map(escape, METHOD)]) + "\n"


def write_page(found: Against, out: Path) -> Path:
    """The page ``out``; returns its path."""
    charts = [_chart(found)] if found.changed else []
    how = "Median of the runs, with the 95% interval of their mean in brackets."
    table = Figure("All figures", how, [], list(HEAD), rows(found.figures))
    return write_figures(
        out,
        title="Against a baseline",
        tag=plural(found.cells, "cell"),
        setting=_heading(found),
        question="What changed?",
        lines=sentences(found),
        figures=[*charts, table],
        method=METHOD,
    )


def _chart(found: Against) -> Figure:
    """Changed figures that have finite means, as multiples of the baseline's."""
    drawn = [
        (each, each.old.mean, each.new.mean)
        for each in found.changed
        if each.old.mean and each.new.mean and each.old.mean.mean > 0
    ][:MOST_ROWS]
    most = max((_ends(new, old.mean)[2] for _, old, new in drawn), default=1.0)
    names = [cut(each.title, 44) for each, _, _ in drawn]
    drawing = Drawing(Axis(0, max(most, 1.2), "times the baseline's mean"), names, left=290)
    for row, (_, old, new) in enumerate(drawn):
        drawing.interval(row, *_ends(old, old.mean), Style("grey"))
        drawing.interval(row, *_ends(new, old.mean), Style("blue"))
    drawing.key("baseline", Style("grey"))
    drawing.key("now", Style("blue"))
    title = "What changed"
    table = rows(found.changed)
    how = "Means with their intervals, as multiples of the baseline's mean."
    return Figure(title, how, [Markup(drawing.inline(title))] * bool(drawn), list(HEAD), table)


def _ends(one: Interval, unit: float) -> tuple[float, float, float]:
    low, high = (one.mean if end is None else end for end in (one.low, one.high))
    return low / unit, one.mean / unit, high / unit
