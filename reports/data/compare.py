"""Protocols side by side: one cell per protocol and experiment, for the terminal, the page and CSV.

Runs of one plan (`reports.data.plan`) are repeats: a cell shows the median of their figures and the
worst of their verdicts. Runs with other plans or targets get their own columns, or rows if their
protocol differs.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from bench.record.quantities import format_share, plural
from reports.data import cost, kinds
from reports.data.objectives import Result
from reports.data.plan import Plan, differences
from reports.data.summary import RunSummary, cut

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 120
WORDS = {"valid": "holds", "invalid": "REFUTED", "unknown": "unknown"}
SYMBOLS = {"valid": "✔", "invalid": "✖", "unknown": "?"}
STRENGTH = ["none", "eventual", "causal", "sequential", "linearizable"]
SHORT_CLAIMS = {"linearizable": "lineariz."}
MODEL_WORDS = {"none": "not even eventual"}
MARKS = "*†‡§¶"
SIMULATED = " (simulated)"
AND_SIMULATED = ", simulated"
"""The same, within brackets."""
OF_TARGETS = ("target", "broker")
"""What a lab and the local target cannot have in common."""
MOST_NAMED = 5
"""With more experiments than this, a line only counts them."""
COLUMNS = (
    "op/s, p99, shares: of what was wanted while a fault was on; served = it ended ok before its "
    "time-out, even after the heal · back in: from the start of a fault to the end of the outage "
    "that began in it, or was on (the worst fault)"
)
OF_SYSTEMS = (
    "lost: writes that were acknowledged and of which the final reads have no trace, at least · "
    "stale: reads of a value after a newer one was acknowledged (both: the worst run)"
)
LEGEND = (
    "holds = the claim was not refuted · REFUTED = a counterexample is shown · "
    "unknown = cut short, or low load or budget"
)


@dataclass(frozen=True)
class Cell:
    """One protocol in one experiment. Figures are medians over ``runs``; None: not applicable.
    ``protocol`` and ``experiment``: the names of row and column, longer than those of the runs if
    there are several plans or targets."""

    protocol: str
    experiment: str
    runs: list[RunSummary]

    @property
    def simulated(self) -> bool:
        """Whether the figures come from the simulator (a cell never mixes)."""
        return self.runs[0].simulated

    @property
    def claim(self) -> str:
        """What the protocol claims."""
        return self.runs[0].claim

    @property
    def version(self) -> str:
        """The versions of a system of others; nothing for protocols of ours."""
        return ", ".join(sorted({run.setup.system for run in self.runs if run.setup.system}))

    @property
    def verdict(self) -> str:
        """The worst of the runs: invalid, else unknown, else valid."""
        verdicts = {run.verdict for run in self.runs}
        return next(v for v in ("invalid", "unknown", "valid") if v in verdicts)

    @property
    def word(self) -> str:
        """The verdict in a word; if runs differ, with the number of runs that have it."""
        count = sum(run.verdict == self.verdict for run in self.runs)
        of = f" {count}/{len(self.runs)}" if count < len(self.runs) else ""
        return WORDS[self.verdict] + of

    @property
    def measured(self) -> str:
        """The weakest model measured; ``unknown`` if no run could decide it."""
        known = [run.measured_model for run in self.runs if run.measured_model in STRENGTH]
        return min(known, key=STRENGTH.index) if known else "unknown"

    @property
    def has_fault(self) -> bool:
        """Whether there was a *during* phase."""
        return self.figure("availability.during") is not None

    @property
    def has_sides(self) -> bool:
        """Whether a partition had sides."""
        sides = (self.figure("availability.majority"), self.figure("availability.minority"))
        return sides != (None, None)

    def values(self, name: str) -> list[float]:
        """A figure such as ``throughput.during`` of each run that has it; runs in which that window
        was cut count only if it was cut in all."""
        window = name.rpartition(".")[2]
        values = []
        for run in [run for run in self.runs if window not in run.cut_windows] or self.runs:
            value: object = run
            for part in name.split("."):
                value = getattr(value, part, None)
            if isinstance(value, int | float):
                values.append(value)
        return values

    def figure(self, name: str) -> float | None:
        """The median of `values`."""
        values = self.values(name)
        return statistics.median(values) if values else None

    def least(self, name: str) -> float | None:
        """The least of `values`."""
        return min(self.values(name), default=None)

    def latency(self, name: str) -> str:
        """The median of a percentile such as ``p99``, in words: ``> 2 s`` if it exceeds the service
        time."""
        found = [(run.latency_ms.at(name), run.latency_ms.bound_ms) for run in self.runs]
        values = [value for value, _ in found if value is not None]
        if not values:
            return milliseconds(None)
        return milliseconds(
            statistics.median(values), min(bound for _, bound in found if bound is not None)
        )

    @property
    def rate(self) -> float | None:
        """Served operations/s during the faults; without faults, in the whole load."""
        during = self.figure("throughput.during")
        return self.figure("throughput.before") if during is None else during

    @property
    def back_in(self) -> str:
        """The recovery time; ``not back`` if at least half of the runs never recovered; ``unknown``
        if all were cut short."""
        if not self.has_fault:
            return "–"
        whole = [run for run in self.runs if "during" not in run.cut_windows]
        if not whole:
            return "unknown"
        spans = [math.inf if run.recovery_s is None else run.recovery_s for run in whole]
        middle = statistics.median(spans)
        return "not back" if math.isinf(middle) else seconds(middle)

    @property
    def back_words(self) -> str:
        """The same in a sentence: ``back in 1.4 s``."""
        words = {
            "not back": "not back",
            "unknown": "the run was cut short",
            seconds(0): "no outage",
        }
        return words.get(self.back_in, f"back in {self.back_in}")

    @property
    def lost_writes(self) -> int:
        """At least so many acknowledged writes were lost in the worst run; 0: none is known of."""
        return max(run.lost_writes or 0 for run in self.runs)

    @property
    def lost(self) -> str:
        """The same as a figure: 0 only if the final reads could tell."""
        found = [run.lost_writes for run in self.runs if run.lost_writes is not None]
        return f"{max(found):,}" if found else "–"

    @property
    def stale(self) -> str:
        """The share of stale reads of the worst run."""
        found = [run.stale_reads.fraction for run in self.runs if run.stale_reads is not None]
        return percent(max(found)) if found else "–"

    @property
    def cpu(self) -> str:
        """CPU time for each served operation, of all nodes."""
        return cost.quantity(self.figure("cost.cpu_us"), "µs")

    def missed(self) -> list[str]:
        """The objectives that runs missed, with the figure of the first run that did."""
        found: dict[str, list[Result]] = {}
        for result in (result for run in self.runs for result in run.missed()):
            found.setdefault(result.asked, []).append(result)
        return [
            results[0].words
            + (f" (missed in {len(results)} of {len(self.runs)} runs)" if self.runs[1:] else "")
            for results in found.values()
        ]

    def note(self) -> str | None:
        """What a reader must know besides the verdict, in one sentence; None if nothing."""
        parts: list[str] = []
        worst = next(run for run in self.runs if run.verdict == self.verdict)
        if self.verdict == "invalid":
            measured = MODEL_WORDS.get(self.measured, self.measured)
            parts.append(f"claimed {self.claim}, measured {measured}: {cut(worst.reason, 600)}")
        converged_s = self.figure("converged_s")
        if any(run.converged is False for run in self.runs):
            parts.append("did not converge")
        elif converged_s and self.measured != "linearizable":
            parts.append(f"had converged when read, {seconds(converged_s)} after the heal")
        if self.lost_writes and "acknowledged write" not in worst.reason:
            parts.append(f"lost at least {plural(self.lost_writes, 'acknowledged write')}")
        stale = stale_words(self.runs)
        if stale:
            parts.append(stale)
        shown = next((run for run in [worst, *self.runs] if run.counterexample), None)
        if self.verdict != "invalid" and shown:
            parts.append(f"not linearizable: {shown.counterexample}")
        why = [worst.reason.removeprefix("the run ")] if self.verdict == "unknown" else []
        if why:
            parts.append(f"unknown: {worst.reason}")
        # What is missing may be the reason, in more words.
        gaps = {gap for run in self.runs for gap in run.missing}
        parts += sorted(gap for gap in gaps if not any(gap.endswith(said) for said in why))
        dropped = sum(run.dropped for run in self.runs)
        if dropped:
            parts.append(f"{plural(dropped, 'operation')} dropped (counted as not available)")
        return "; ".join(parts) or None


@dataclass(frozen=True)
class Matrix:
    """All cells, with rows and columns in order of first occurrence. ``plans``: how the plans of
    rows and columns differ, in sentences."""

    protocols: list[str]
    experiments: list[str]
    cells: dict[tuple[str, str], Cell]
    plans: list[str]

    @property
    def has_systems(self) -> bool:
        """Whether systems of others are compared, with each other or with protocols of ours."""
        return any(run.target == "lab" for cell in self.cells.values() for run in cell.runs)

    def row(self, protocol: str) -> list[Cell]:
        """The cells of a protocol."""
        return [cell for (name, _), cell in self.cells.items() if name == protocol]

    def column(self, experiment: str) -> list[Cell]:
        """The cells of an experiment."""
        return [cell for (_, name), cell in self.cells.items() if name == experiment]


def matrix(summaries: Iterable[RunSummary]) -> Matrix:
    """Group runs into cells. Each target and each plan has its own column, named if there are
    several."""
    runs = list(summaries)
    place = _places(runs)
    live = {place[run.target] for run in runs if not run.simulated}
    columns, plans = _columns(runs)
    rows, of_protocols = _rows(runs, columns)
    groups: dict[tuple[str, str], list[RunSummary]] = {}
    for run, row, column in zip(runs, rows, columns, strict=True):
        where = SIMULATED if run.simulated else f" ({place[run.target]})" if len(live) > 1 else ""
        groups.setdefault((row, column + where), []).append(run)
    return Matrix(
        protocols=list(dict.fromkeys(protocol for protocol, _ in groups)),
        experiments=list(dict.fromkeys(experiment for _, experiment in groups)),
        cells={key: Cell(*key, runs) for key, runs in groups.items()},
        plans=[*plans, *of_protocols],
    )


def _places(runs: Sequence[RunSummary]) -> dict[str, str]:
    """Target -> the target in whose columns its runs stand. A lab stands beside the local target:
    the same machine, load and faults, but systems of others instead of our protocols."""
    targets = {run.target for run in runs}
    return {each: "local" if each == "lab" and "local" in targets else each for each in targets}


def _columns(runs: Sequence[RunSummary]) -> tuple[list[str], list[str]]:
    """The name of each run's column without its target: experiment and plan."""
    found: dict[tuple[str, str, bool], dict[str, dict[str, str]]] = {}
    marks = []
    place = _places(runs)
    own = OF_TARGETS if place.get("lab") == "local" else ()
    for run in runs:
        setting = {name: v for name, v in run.plan.setting.items() if name not in own}
        plan = {**run.plan.experiment, **setting}
        group = (run.experiment, place[run.target], run.simulated)
        mark = Plan(experiment=plan).digest()
        found.setdefault(group, {})[mark] = plan
        marks.append((group, mark))
    several = {group: list(plans) for group, plans in found.items() if len(plans) > 1}
    names = [
        f"{group[0]} · plan {several[group].index(mark) + 1}" if group in several else group[0]
        for group, mark in marks
    ]
    said = []
    for group in several:
        target = SIMULATED if group[2] else f" ({group[1]})"
        said.append(f"{group[0]}{target}: " + _each("plan", list(found[group].values())))
    return names, said


def _rows(runs: Sequence[RunSummary], columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The name of each run's row: its protocol, with a variant if a column has runs with several
    claims or parameters."""
    owns: dict[str, list[dict[str, str]]] = {}
    here: dict[tuple[str, str, str, bool], list[dict[str, str]]] = {}
    for run, column in zip(runs, columns, strict=True):
        cell = here.setdefault((run.protocol, column, run.target, run.simulated), [])
        for known in (owns.setdefault(run.protocol, []), cell):
            if run.plan.protocol not in known:
                known.append(run.plan.protocol)
    several = {protocol for (protocol, *_), plans in here.items() if len(plans) > 1}
    names = [
        f"{run.protocol} · variant {owns[run.protocol].index(run.plan.protocol) + 1}"
        if run.protocol in several
        else run.protocol
        for run in runs
    ]
    said = [f"{name}: " + _each("variant", owns[name]) for name in owns if name in several]
    return names, said


def _each(what: str, plans: Sequence[dict[str, str]]) -> str:
    numbered = enumerate(differences(plans), 1)
    return "; ".join(f"{what} {number} has {words}" for number, words in numbered)


def table(summaries: Iterable[RunSummary]) -> pd.DataFrame:
    """One row per run, nested figures as ``throughput_before`` and so on; ``plan``: equal for
    repeats; ``objectives_missed``: in words. ``to_csv`` writes it."""
    import pandas as pd

    return pd.DataFrame([_row(run) for run in summaries])


def _row(run: RunSummary) -> dict[str, object]:
    values = {
        **msgspec.to_builtins(run),
        "plan": run.plan.digest(),
        "objectives_missed": [result.words for result in run.missed()],
    }
    # These have their own table, or are listed as missed.
    return _flat(
        {name: each for name, each in values.items() if name not in ("faults", "objectives")}
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, object]:
    row: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            row |= _flat(value, f"{prefix}{name}_")
        else:
            row[prefix + name] = "; ".join(value) if isinstance(value, list) else value
    return row


# -- words and figures ----------------------------------------------------------------------------


def ratio(value: float | None) -> str:
    """A share; a dash if missing."""
    return "–" if value is None or math.isnan(value) else format_share(value)


def per_second(value: float | None) -> str:
    """A rate without its unit."""
    return "–" if value is None else f"{value:.0f}"


def milliseconds(value: float | None, bound_ms: float | None = None) -> str:
    """A latency: ``9 ms``, ``1.2 s``; ``> 2 s`` if it is infinite, that is, exceeds the bound."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "> time-out" if bound_ms is None else f"> {bound_ms / 1000:g} s"
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{max(value, 1):.0f} ms"


def seconds(value: float | None) -> str:
    """A duration: ``1.4 s``."""
    return "–" if value is None else f"{value:.1f} s"


def percent(share: float) -> str:
    """A share: ``4.7%``, ``0.012%``, ``0``."""
    hundredths = share * 100
    return f"{hundredths:.{1 if hundredths >= 0.1 else 3}f}%" if share else "0"


def stale_words(runs: Sequence[RunSummary]) -> str | None:
    """The staleness of the worst run: ``4.7% of reads were stale (median 3.2 s, worst 15.4 s)``."""
    stale = [run.stale_reads for run in runs if run.stale_reads and run.stale_reads.fraction > 0]
    if not stale:
        return None
    worst = max(stale, key=lambda each: each.fraction)
    ages = [
        f"{name} {milliseconds(value * 1000)}"
        for name, value in (("median", worst.median_s), ("worst", worst.worst_s))
        if value is not None
    ]
    return f"{percent(worst.fraction)} of reads were stale" + (
        f" ({', '.join(ages)})" if ages else ""
    )


def plain_line(cells: Sequence[Cell]) -> str:
    """A protocol in plain words, over all its cells: was it consistent, and were clients served?"""
    said = _consistency(cells)
    lost = lost_words(cells)
    if lost and "acknowledged write" not in said:
        said += f"; {lost}"
    return f"{said}; {_answers(cells)}."


def cost_words(cells: Sequence[Cell]) -> str:
    """What a served operation cost, over all cells: ``CPU: 1,997 to 2,121 µs an operation.``"""
    found = [value for cell in cells if (value := cell.figure("cost.cpu_us")) is not None]
    if not found:
        return ""
    least, most = cost.quantity(min(found)), cost.quantity(max(found))
    span = most if least == most else f"{least} to {most}"
    return f"CPU: {span} µs an operation."


def lost_words(cells: Sequence[Cell]) -> str | None:
    """What a protocol lost: ``lost at least 3 acknowledged writes in node-loss``, the most of an
    experiment; None if nothing is known to be lost."""
    losing = [cell for cell in cells if cell.lost_writes]
    if not losing:
        return None
    most, where = max(cell.lost_writes for cell in losing), names_of(losing, MOST_NAMED)
    if len(losing) > 1:
        return f"lost acknowledged writes in {where} (at least {most:,} in the worst)"
    return f"lost at least {plural(most, 'acknowledged write')} in {where}"


def _consistency(cells: Sequence[Cell]) -> str:
    claim = cells[0].claim
    refuted = [cell for cell in cells if cell.verdict == "invalid"]
    if refuted:
        worst = min(refuted, key=lambda cell: _strength(cell.measured))
        measured = MODEL_WORDS.get(worst.measured, worst.measured)
        run = next(run for run in worst.runs if run.verdict == "invalid")
        # A reason ends with its counterexample, which a reader finds at the run.
        why = cut(run.reason.partition(": ")[0], 100)
        return f"BROKE its claim ({claim}) in {names_of(refuted)}: measured {measured} ({why})"
    unknown = [cell for cell in cells if cell.verdict == "unknown"]
    but = f" (unknown in {names_of(unknown)})" if unknown else ""
    if len(unknown) == len(cells):
        return "unknown whether it kept its claim"
    weak = [cell for cell in cells if _strength(cell.measured) < _strength("linearizable")]
    if not weak:
        return f"stayed consistent{but}"
    stale = stale_words([run for cell in weak for run in cell.runs])
    what = "gave stale answers" if stale else "not linearizable"
    gave = f"{what} in {names_of(weak, MOST_NAMED)}"
    allowed = f", as its claim ({claim}) allows" if claim != "linearizable" else ""
    return f"{gave}{allowed}" + (f": {stale}" if stale else "") + but


def _answers(cells: Sequence[Cell]) -> str:
    """What was served in the protocol's worst experiment, preferably one that was not cut short;
    all figures are from that one."""
    cells = [cell for cell in cells if cell.back_in != "unknown"] or cells
    # Of equal ones, one in which nothing else happened.
    parted = sorted(
        (cell for cell in cells if cell.has_sides),
        key=lambda cell: kinds.kind(cell.runs[0]) != kinds.CUT,
    )
    if parted:
        sides = ("availability.majority", "availability.minority")
        if len(parted) > 1 and all(cell.least(side) == 1 for cell in parted for side in sides):
            return f"in all {len(parted)} cuts, it served both sides in full"
        cell = _worst(parted, *sides)
        majority = cell.figure("availability.majority")
        minority = cell.figure("availability.minority")
        back = f" ({cell.back_words})" if cell.back_in != seconds(0) else ""
        if minority is None:
            said = f"{_share(majority)} the majority's operations"
        elif majority is None or (majority == minority == 1):
            said = _both(minority)
        else:
            said = (
                f"{_share(minority)} the minority's operations and "
                f"{_share(majority)} the majority's"
            )
        return f"in {names_of([cell])}, it served {said}{back}"
    faulty = [cell for cell in cells if cell.has_fault]
    phase = "during" if faulty else "before"
    cell = _worst(faulty or cells, f"availability.{phase}")
    said = f"{_share(cell.figure(f'availability.{phase}'))} the operations"
    when = " during the faults" * bool(faulty)
    if all(phase in run.cut_windows for run in cell.runs):
        when = f"{when} until the run was cut short"
    elif not faulty and all(run.cut_windows for run in cell.runs):
        when = " before the run was cut short"
    return f"in {names_of([cell])}, it served {said}{when}"


def _both(share: float | None) -> str:
    if share == 1:
        return "both sides of the cut in full"
    return f"{_share(share)} the operations on both sides of the cut"


def _worst(cells: Sequence[Cell], *names: str) -> Cell:
    """The cell with the least first figure; of equal ones, with the least second, and so on."""

    def figures(cell: Cell) -> list[float]:
        found = [cell.figure(name) for name in names]
        return [math.inf if value is None else value for value in found]

    return min(cells, key=figures)


def _least(cells: Sequence[Cell], name: str) -> float | None:
    return min((v for cell in cells if (v := cell.figure(name)) is not None), default=None)


def _share(value: float | None) -> str:
    if value is None:
        return "an unknown share of"
    words = {0.0: "none", 1.0: "all"}.get(value, format_share(value))
    return f"{words} of"


def _strength(model: str) -> int:
    return STRENGTH.index(model) if model in STRENGTH else len(STRENGTH)


def names_of(cells: Sequence[Cell], most: int | None = None) -> str:
    """The names of experiments; only their number if there are more than ``most``."""
    simulated = all(cell.simulated for cell in cells)
    names = [
        cell.experiment.removesuffix(SIMULATED) if simulated else cell.experiment for cell in cells
    ]
    listed = ", ".join(names) if most is None or len(names) <= most else f"{len(names)} experiments"
    return listed + SIMULATED * simulated


# -- the terminal ---------------------------------------------------------------------------------


def heading(summaries: Sequence[RunSummary]) -> str:
    """What was measured, in one line: nodes, load, seeds, repeats, target."""
    if not summaries:
        return "no runs"
    parts: list[str] = []
    nodes = sorted({run.setup.nodes for run in summaries})
    parts.append(f"{_either(nodes)} nodes")
    offered = sorted({run.setup.offered_per_s for run in summaries if run.setup.offered_per_s})
    if offered:
        parts.append(f"{_either(offered)} op/s offered")
    parts.append(f"seed {_either(sorted({run.seed for run in summaries}))}")
    repeats = max(len(cell.runs) for cell in matrix(summaries).cells.values())
    if repeats > 1:
        parts.append(f"{repeats} repeats (medians)")
    live = list(dict.fromkeys(run.target for run in summaries if not run.simulated))
    if live:
        brokers = sorted({word for s in summaries for word in (s.setup.broker or "").split()[:1]})
        on = "" if live == ["local"] else f" on {' and '.join(live)}"
        parts.append(f"live{on}" + (f" ({', '.join([*brokers, 'toxiproxy'])})" if brokers else ""))
    if any(run.simulated for run in summaries):
        parts.append("simulated")
    named = {
        f"{s.protocol.partition('@')[0]} {s.setup.system}" for s in summaries if s.setup.system
    }
    parts += sorted(named)
    cores = sorted({run.setup.cores for run in summaries if run.setup.cores})
    if cores:
        parts.append(f"{_either(cores)} cores")
    return " · ".join(parts)


def _either(values: Sequence[float]) -> str:
    first, last = f"{values[0]:g}", f"{values[-1]:g}"
    if len(values) == 1:
        return first
    return f"{first} {'or' if len(values) == 2 else 'to'} {last}"


def first_screen(summaries: Sequence[RunSummary]) -> str:
    """The comparison as plain text, at most 120 columns wide."""
    if not summaries:
        return "capbench compare: no runs\n"
    grid = matrix(summaries)
    notes: dict[str, str] = {}
    blocks = [_block(grid, experiment, notes) for experiment in grid.experiments]
    claims = {name: grid.row(name)[0].claim for name in grid.protocols}
    left = [
        "",
        _left("protocol", "claims", grid),
        *(_left(name, claims[name], grid) for name in grid.protocols),
    ]
    command = "compare" if len(grid.cells) > 1 else "run"
    lines = textwrap.wrap(f"capbench {command} · {heading(summaries)}", WIDTH)
    for group in _fit([_pad(left)], [_pad(block) for block in blocks]):
        lines += ["", *("  ".join(parts).rstrip() for parts in zip(*group, strict=True))]
    lines.append("")
    pad = max(map(len, grid.protocols))
    for name in grid.protocols:
        lines += wrap(f" {name.ljust(pad)}  ", plain_line(grid.row(name)))
    lines += [*_costs(grid), ""]
    for note, mark in notes.items():
        lines += wrap(f" {mark} ", note)
    for text in grid.plans:
        lines += wrap(" no repeats of each other: ", text)
    if any(cell.has_fault for cell in grid.cells.values()):
        lines += wrap(" ", COLUMNS)
    if grid.has_systems:
        lines += wrap(" ", OF_SYSTEMS)
    lines += wrap(" ", LEGEND)
    return "\n".join(lines) + "\n"


def _costs(grid: Matrix) -> list[str]:
    """A table of what each consistency costs, for experiments with systems of others."""
    lines = []
    for experiment in grid.experiments:
        cells = grid.column(experiment)
        columns = cost.counted(cells)
        if not columns or all(run.target != "lab" for cell in cells for run in cell.runs):
            continue
        rows = [[column.name for column in columns], *(cost.row(cell, columns) for cell in cells)]
        names = ["", *(cell.protocol for cell in cells)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        pad = max(map(len, names))
        lines += ["", f"{experiment}: {cost.EXPLAINED}"]
        lines += [
            "  ".join([name.ljust(pad), *map(str.rjust, row, widths)])
            for name, row in zip(names, rows, strict=True)
        ]
    return lines


def _left(name: str, claim: str, grid: Matrix) -> str:
    pad = max(len("protocol"), *map(len, grid.protocols))
    return f"{name.ljust(pad)}  {SHORT_CLAIMS.get(claim, claim)}"


def _block(grid: Matrix, experiment: str, notes: dict[str, str]) -> list[str]:
    """The lines of one experiment: its name, its column heads, one line per protocol."""
    cells = grid.column(experiment)
    if any(cell.has_sides for cell in cells):
        heads = ["op/s", "during: majority | minority", "back in", "verdict"]
    elif (least := _least(cells, "availability.during")) is not None and least < 1:
        heads = ["op/s", "avail.", "back in", "verdict"]
    else:
        heads = ["op/s", "p99", "verdict"]
    if grid.has_systems:
        heads[-1:] = ["lost", "stale", "CPU", "verdict"]
    rows = [heads]
    for protocol in grid.protocols:
        cell = grid.cells.get((protocol, experiment))
        rows.append(_figures(cell, heads, notes) if cell else ["–"] * len(heads))
    lasts = [head == heads[-1] for head in heads]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = [
        "  ".join(
            text.center(width) if "|" in text else text.ljust(width) if last else text.rjust(width)
            for text, width, last in zip(row, widths, lasts, strict=True)
        )
        for row in rows
    ]
    return [experiment, *lines]


def _figures(cell: Cell, heads: list[str], notes: dict[str, str]) -> list[str]:
    figures = {
        "op/s": per_second(cell.rate),
        "p99": cell.latency("p99"),
        "avail.": ratio(cell.figure("availability.during")),
        "back in": cell.back_in,
        "lost": cell.lost,
        "stale": cell.stale,
        "CPU": cell.cpu,
        "verdict": cell.word,
    }
    sides = [ratio(cell.figure(f"availability.{side}")) for side in ("majority", "minority")]
    figures["during: majority | minority"] = " | ".join(sides)
    note = cell.note()
    if note:
        mark = notes.setdefault(f"{cell.protocol}, {cell.experiment}: {note}", _mark(len(notes)))
        figures["verdict"] += f" {mark}"
    return [figures[head] for head in heads]


def _mark(number: int) -> str:
    return MARKS[number] if number < len(MARKS) else f"[{number + 1}]"


def _pad(lines: list[str]) -> list[str]:
    width = max(map(len, lines))
    return [line.ljust(width) for line in lines]


def _fit(left: list[list[str]], blocks: list[list[str]]) -> list[list[list[str]]]:
    """Blocks side by side, in as many groups as fit the width, each with the left columns."""
    groups: list[list[list[str]]] = []
    for block in blocks:
        if groups and sum(len(b[0]) + 2 for b in [*groups[-1], block]) - 2 <= WIDTH:
            groups[-1].append(block)
        else:
            groups.append([*left, block])
    return groups


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A plain table for the terminal; nothing without rows."""
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in table)
    return [f" {line.rstrip()}" for line in lines] if rows else []


def wrap(prefix: str, text: str) -> list[str]:
    """A text with a prefix, wrapped to at most `WIDTH` columns."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=prefix,
        subsequent_indent=" " * len(prefix),
        break_on_hyphens=False,
    )
