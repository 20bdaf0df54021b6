"""What changed between two comparisons: verdicts first, then availability, throughput, latency.

A figure of one run is one sample; the next run gives another. So a change counts only beyond the
thresholds below and, if both sides have repeats, only if their confidence intervals
(`reports.data.repeats`) do not overlap. A changed verdict always counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from bench.record.run_folder import Manifest
from bench.record.verdict import Latency
from reports.data import compare
from reports.data.repeats import interval
from reports.data.summary import RunSummary, cut
from reports.formats.markdown import escape
from reports.formats.markdown import table as markdown_table

Kind: TypeAlias = Literal["verdict", "availability", "throughput", "latency", "recovery", "lost"]
Direction: TypeAlias = Literal["better", "worse", "different"]

Counts: TypeAlias = Callable[[float, float], bool]
"""Whether the step from old to new is large enough to report."""
Shown: TypeAlias = Callable[[float], str]

AVAILABILITY_STEP = 0.01
THROUGHPUT_SHARE = 0.1
LATENCY_SHARE = 0.25
RECOVERY_STEP_S = 0.5
LOST_STEP = 1
"""Smaller changes of a figure are not reported."""

SHORT_MS = 9.5
RANK = {"invalid": 0, "unknown": 1, "valid": 2}
_PHASES = ("before", "during", "after")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that changed. ``old`` and ``new``: in the unit of the summary (means over repeats),
    or words for a verdict or a percentile beyond the service time; None: there is none
    (``recovery``: never back). ``runs``: of both sides. ``sure``: a verdict, or repeats with
    disjoint intervals; not a single run against another."""

    kind: Kind
    experiment: str
    protocol: str
    figure: str
    old: float | str | None
    new: float | str | None
    direction: Direction
    sure: bool
    words: str


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """``notes``: what differs besides the protocols, so that figures are not directly comparable.
    ``changes``: by kind. ``only_old``, ``only_new``: cells missing on the other side.
    ``compared``: how many cells both sides have."""

    schema: int = 1
    old: str
    new: str
    notes: list[str]
    changes: list[Change]
    only_old: list[str]
    only_new: list[str]
    compared: int


Side: TypeAlias = Sequence[tuple[RunSummary, Manifest]]


def diff(old: Side, new: Side, names: tuple[str, str] = ("old", "new")) -> Diff:
    """Compare two sets of runs cell by cell: each cell with the one of the same plan or, if there
    is none, with the only one of its protocol and experiment."""
    left = list(compare.matrix([summary for summary, _ in old]).cells.values())
    right = list(compare.matrix([summary for summary, _ in new]).cells.values())
    both = _pairs(left, right)
    changes: list[Change] = []
    for before, after in both:
        changes += _verdict(before, after)
        changes += _figures(before, after)
    changes.sort(key=lambda change: get_args(Kind).index(change.kind))
    return Diff(
        old=names[0],
        new=names[1],
        notes=_notes(old, new),
        changes=changes,
        only_old=[_label(cell) for cell in left if all(cell is not pair[0] for pair in both)],
        only_new=[_label(cell) for cell in right if all(cell is not pair[1] for pair in both)],
        compared=len(both),
    )


def _pairs(
    left: Sequence[compare.Cell], right: Sequence[compare.Cell]
) -> list[tuple[compare.Cell, compare.Cell]]:
    """The pairs of cells to compare, in the order of the left ones; without an equal plan, the most
    similar cell."""
    looks: list[Callable[[RunSummary], Any]] = [
        lambda run: (run.target, run.plan),
        lambda run: (run.target, run.plan.experiment, run.plan.protocol),
        lambda run: run.target,
        lambda run: None,
    ]
    pairs: dict[int, tuple[compare.Cell, compare.Cell]] = {}
    rest = list(right)
    for look in looks:

        def same(a: compare.Cell, b: compare.Cell, look: Callable[..., Any] = look) -> bool:
            one, two = a.runs[0], b.runs[0]
            return _name(one) == _name(two) and bool(look(one) == look(two))

        open_ = [cell for cell in left if id(cell) not in pairs]
        for cell in open_:
            fits = [other for other in rest if same(cell, other)]
            if len(fits) == 1 and sum(same(cell, other) for other in open_) == 1:
                pairs[id(cell)] = (cell, fits[0])
                rest.remove(fits[0])
    return [pairs[id(cell)] for cell in left if id(cell) in pairs]


def _name(run: RunSummary) -> tuple[str, str, bool]:
    return run.experiment, run.protocol, run.simulated


def _label(cell: compare.Cell) -> str:
    return f"{cell.experiment} {cell.protocol}"


def _verdict(old: compare.Cell, new: compare.Cell) -> list[Change]:
    found: list[tuple[str, str, str, bool | None, str]] = []
    if old.verdict != new.verdict:
        worse = RANK[new.verdict] < RANK[old.verdict]
        reason = next(run.reason for run in new.runs if run.verdict == new.verdict)
        found.append(("verdict", old.verdict, new.verdict, worse, f": {cut(reason, 300)}"))
    if old.claim != new.claim:
        found.append(("claim", old.claim, new.claim, None, ""))
    if old.measured != new.measured:
        order = compare.STRENGTH
        known = old.measured in order and new.measured in order
        weaker = order.index(new.measured) < order.index(old.measured) if known else None
        found.append(("measured model", old.measured, new.measured, weaker, ""))
    return [
        Change(
            kind="verdict",
            experiment=new.experiment,
            protocol=new.protocol,
            figure=figure,
            old=before,
            new=after,
            direction="different" if worse is None else "worse" if worse else "better",
            sure=True,
            words=f"{figure} {_shown(figure, before)} -> {_shown(figure, after)}{more}",
        )
        for figure, before, after, worse, more in found
    ]


def _shown(figure: str, value: str) -> str:
    return compare.WORDS.get(value, value) if figure == "verdict" else value


class Look(NamedTuple):
    """A figure to compare: how it is named in a summary, whether a step of it ``counts``, whether
    more of it is better, how it is ``shown``."""

    kind: Kind
    name: str
    counts: Counts
    more_is_better: bool
    shown: Shown

    @property
    def words(self) -> str:
        """Its name for people."""
        name = self.name.replace(".", " ").replace("_ms", "").removesuffix("_s")
        return name.replace("_", " ")


def looks(cell: compare.Cell) -> list[Look]:
    """The figures that are compared."""
    step, share = _step, _share
    found: list[tuple[Kind, str, Counts, bool, Shown]] = [
        *(
            ("availability", f"availability.{part}", step(AVAILABILITY_STEP), True, compare.ratio)
            for part in (*_PHASES, "majority", "minority")
        ),
        *(
            ("throughput", f"throughput.{phase}", share(THROUGHPUT_SHARE), True, _rate)
            for phase in _PHASES
        ),
        *(
            ("latency", name, share(LATENCY_SHARE), False, _latency(cell))
            for name in ("latency_p10_ms", "latency_ms.p50", "latency_ms.p99")
        ),
        ("recovery", "recovery_s", step(RECOVERY_STEP_S), False, compare.seconds),
        ("lost", "lost_writes", step(LOST_STEP), False, _writes),
    ]
    return [Look(*each) for each in found]


def _figures(old: compare.Cell, new: compare.Cell) -> list[Change]:
    found = [_change(look, old, new) for look in looks(new)]
    return [change for change in found if change is not None]


def _latency(cell: compare.Cell) -> Shown:
    """A latency in words, ``> 2 s`` if it exceeds the service time; a short one with two digits, so
    that a step of it shows."""
    bounds = [run.latency_ms.bound_ms for run in cell.runs if run.latency_ms.bound_ms]
    bound = min(bounds, default=None)
    return lambda value: (
        f"{value:.2g} ms" if value < SHORT_MS else compare.milliseconds(value, bound)
    )


def _rate(value: float) -> str:
    return f"{value:.0f} op/s"


def _writes(count: float) -> str:
    return f"{count:.10g}"


def _step(least: float) -> Counts:
    return lambda old, new: abs(new - old) >= least - 1e-12


def _share(least: float) -> Counts:
    return lambda old, new: abs(new - old) >= least * max(abs(old), 1e-9)


def _change(look: Look, old: compare.Cell, new: compare.Cell) -> Change | None:
    kind, name, counts, more_is_better, shown = look
    before, after = values_of(old, name), values_of(new, name)
    had_fault = old.has_fault and new.has_fault
    if kind == "recovery" and not had_fault:
        return None
    sure = False
    direction: Direction = "different"
    if not before or not after:
        if not before and not after:
            return None
        if kind == "recovery":
            direction = "better" if after else "worse"
    else:
        first, second = _mean(before), _mean(after)
        if not counts(first, second):
            return None
        if len(before) > 1 and len(after) > 1:
            if not _apart(before, after):
                return None
            sure = True
        direction = "better" if (second > first) == more_is_better else "worse"
    never = "never back" if kind == "recovery" else "not measured"
    words = [shown(_mean(values)) if values else never for values in (before, after)]
    texts = [
        None if not values else word if math.isinf(_mean(values)) else _mean(values)
        for values, word in zip((before, after), words, strict=True)
    ]
    return Change(
        kind=kind,
        experiment=new.experiment,
        protocol=new.protocol,
        figure=look.words,
        old=texts[0],
        new=texts[1],
        direction=direction,
        sure=sure,
        words=f"{look.words} {' -> '.join(words)}",
    )


def values_of(cell: compare.Cell, name: str) -> list[float]:
    """A figure of each run that has it; infinite: longer than the service time."""
    found = []
    for run in cell.runs:
        value: Any = run
        for part in name.split("."):
            value = value.at(part) if isinstance(value, Latency) else getattr(value, part, None)
        if isinstance(value, int | float) and not math.isnan(value):
            found.append(float(value))
    return found


def value_of_each(runs: Sequence[RunSummary], look: Look) -> list[float]:
    """The figure of each run; NaN: it has none; infinite: never back, or beyond the time-out."""
    values = []
    for run in runs:
        own = values_of(compare.Cell(run.protocol, run.experiment, [run]), look.name)
        never = look.kind == "recovery" and run.availability.during is not None
        values.append(own[0] if own else math.inf if never else math.nan)
    return values


def verdict_of_repeats(verdicts: Sequence[str]) -> str:
    """One for all repeats: invalid if one of them is; unknown if all are."""
    return next((each for each in ("invalid", "valid") if each in verdicts), "unknown")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _apart(old: Sequence[float], new: Sequence[float]) -> bool:
    if math.isinf(max(*old, *new)):
        return max(old) < min(new) or max(new) < min(old)
    left, right = interval(old), interval(new)
    assert left is not None
    assert right is not None
    if left.low is None or left.high is None or right.low is None or right.high is None:
        return False
    return left.high < right.low or right.high < left.low


def _notes(old: Side, new: Side) -> list[str]:
    """Differences that make figures incomparable."""
    looks: list[tuple[str, Callable[[Manifest], str]]] = [
        ("capbench", lambda m: f"{m.capbench_version} ({m.commit or 'no commit'})"),
        ("hardware", lambda m: _flat(m.hardware)),
        ("target", lambda m: m.target),
        ("seed", lambda m: str(m.seed)),
        ("nodes", lambda m: str(len(m.nodes))),
        ("offered op/s", lambda m: f"{m.offered_per_s:g}" if m.offered_per_s else "closed loop"),
        ("parameters", lambda m: _flat(m.parameters)),
    ]
    notes = []
    for name, look in looks:
        sides = [sorted({look(manifest) for _, manifest in side}) for side in (old, new)]
        if sides[0] != sides[1]:
            notes.append(f"{name} differs: {_some(sides[0])} -> {_some(sides[1])}")
    plans = [_plans(side) for side in (old, new)]
    notes += [
        f"experiment {name} is not the same: its load, schedule or objectives changed"
        for name, plan in plans[0].items()
        if name in plans[1] and plans[1][name] != plan
    ]
    versions = [_versions(side) for side in (old, new)]
    for part in sorted({*versions[0], *versions[1]}):
        before, after = (side.get(part, set()) for side in versions)
        if before != after:
            notes.append(f"{part} differs: {_some(sorted(before))} -> {_some(sorted(after))}")
    return notes


def _plans(side: Side) -> dict[str, set[bytes]]:
    """The experiments of a side, as validated, without what is reported elsewhere."""
    found: dict[str, set[bytes]] = {}
    for _, manifest in side:
        plan = {k: v for k, v in manifest.experiment.items() if k not in ("seed", "protocols")}
        encoded = msgspec.json.encode(plan, order="sorted")
        found.setdefault(manifest.experiment_name, set()).add(encoded)
    return found


def _versions(side: Side) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for _, manifest in side:
        for part, version in manifest.versions.items():
            found.setdefault(part, set()).add(version)
    return found


def _flat(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items())) or "none"


def _some(values: Sequence[str]) -> str:
    shown = " / ".join(cut(value, 120) for value in values[:3]) or "none"
    return shown if len(values) <= 3 else f"{shown} and {len(values) - 3} more"


# -- as text ---------------------------------------------------------------------------------------


def text(found: Diff) -> str:
    """For the terminal."""
    lines = [f"capbench report --diff · old: {found.old} · new: {found.new}", ""]
    lines += [f" note: {note}" for note in found.notes]
    if found.notes:
        lines += [" note: so figures may differ for reasons other than the protocols", ""]
    if not found.changes:
        lines.append(f" nothing changed in {_cells(found.compared)} that both have")
    for change in found.changes:
        lines.append(
            f" {change.direction:<9} {change.experiment} {change.protocol}: {change.words}"
            + ("" if change.sure else " (may be chance)")
        )
    lines += _absent(found, " ")
    if any(not change.sure for change in found.changes):
        lines += ["", f" {CHANCE}"]
    return "\n".join(lines) + "\n"


CHANCE = (
    "may be chance: a side has one run, and another run would give other figures; "
    "`--repeat 5` on both sides would show"
)


def markdown(found: Diff) -> str:
    """For a pull request."""
    lines = [f"## What changed: {escape(found.old)} to {escape(found.new)}", ""]
    lines += [f"- note: {escape(note)}" for note in found.notes]
    if found.notes:
        lines += ["- note: so figures may differ for reasons other than the protocols", ""]
    if found.changes:
        rows = [
            [
                f"**{change.direction}**" if change.direction == "worse" else change.direction,
                escape(change.experiment),
                escape(change.protocol),
                escape(change.words) + ("" if change.sure else " (may be chance)"),
            ]
            for change in found.changes
        ]
        lines += markdown_table(["", "experiment", "protocol", "change"], rows)
    else:
        lines.append(f"Nothing changed in {_cells(found.compared)} that both have.")
    absent = [escape(line) for line in _absent(found, "")]
    lines += ["", *(f"- {line}" for line in absent)] if absent else []
    if any(not change.sure for change in found.changes):
        lines += ["", escape(CHANCE)]
    return "\n".join(lines) + "\n"


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"


def _absent(found: Diff, prefix: str) -> list[str]:
    lines = [f"{prefix}only in {found.old}: {cell}" for cell in found.only_old]
    return lines + [f"{prefix}only in {found.new}: {cell}" for cell in found.only_new]
