"""Which protocol to choose for which requirement: by rules over the figures, never by taste.

The rules are shown with their results. A refuted claim excludes a protocol from all choices, and
unknown cells count for nothing. Simulated and live figures are never compared with each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec

from bench.record.quantities import format_share, plural
from reports.data import cost, difference, kinds
from reports.data.compare import (
    AND_SIMULATED,
    MODEL_WORDS,
    SIMULATED,
    STRENGTH,
    Cell,
    Matrix,
    lost_words,
    milliseconds,
    names_of,
    seconds,
)
from reports.data.summary import RunSummary

SERVED = 0.99
"""Both sides of a partition count as served from this share on."""
ALIKE = 0.1
"""Figures of single runs that differ by less count as equal."""
STRONGEST = STRENGTH[-1]
RULES = (
    "A protocol with a refuted claim is never chosen, and one without a judged cell in an "
    "experiment is in no choice that uses this experiment: unknown counts for nothing.",
    f"Both sides of a cut: at least {SERVED:g} of the operations wanted on the minority side were "
    "served in every experiment that had one, in the worst run.",
    "No write lost: no experiment showed that an acknowledged write was lost, and in one at least "
    "final reads looked for it. They cannot show the loss of a write that was overwritten later. "
    "Who was not judged where another one lost writes is named.",
    f"{STRONGEST.capitalize()}: it claims {STRONGEST}, every judged cell measured it, and it lost "
    "no acknowledged write in any experiment.",
    "What the same protocol or system lost or broke elsewhere on the page, in another variant or "
    "in the simulator, is said beside each choice of it.",
    f"Cheapest, fastest, soonest back: among those that are {STRONGEST}. Cost is messages per "
    "served operation, and speed the p99, both in the first experiment without a fault; back in is "
    "the longest over the experiments with faults that all of them ran.",
    f"Differences between repeated runs are tested ({difference.TEST}); with fewer than four runs "
    f"each, figures closer than {ALIKE:.0%} count as equal. Protocols that are not shown to differ "
    "from the best are named with it.",
)
"""How choices are made, in sentences."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Choose ``protocols`` if ``condition``, because of ``evidence``; empty: no protocol fits."""

    protocols: list[str]
    condition: str
    evidence: str

    @property
    def named(self) -> str:
        """The protocols: ``a, b or c``."""
        return listed(self.protocols, "or")

    @property
    def words(self) -> str:
        """The choice in a sentence."""
        if not self.protocols:
            return f"None of them if {self.condition}: {self.evidence}."
        return f"Choose {self.named} if {self.condition}: {self.evidence}."


def choices(grid: Matrix) -> list[Choice]:
    """What to choose for which requirement; empty if there is only one protocol."""
    found: list[Choice] = []
    for simulated in (False, True):
        rows = {
            name: cells
            for name in grid.protocols
            if (cells := [each for each in grid.row(name) if each.simulated == simulated])
        }
        if len(rows) > 1:
            found += [_warned(each, grid, simulated=simulated) for each in _of(rows)]
    return found


def _warned(choice: Choice, grid: Matrix, *, simulated: bool) -> Choice:
    """The choice, with what its protocols are known to have lost or broken: also in cells that were
    not compared for it."""
    said = [f"{name} {text}" for name in choice.protocols for text in _known(grid, name, simulated)]
    evidence = "; ".join([choice.evidence, *said])
    return msgspec.structs.replace(choice, evidence=evidence)


def _known(grid: Matrix, name: str, simulated: bool) -> list[str]:
    protocol = grid.row(name)[0].runs[0].protocol
    same = [cell for cell in grid.cells.values() if cell.runs[0].protocol == protocol]
    refuted = [
        cell
        for cell in same
        if cell.verdict == "invalid" and (cell.protocol, cell.simulated) != (name, simulated)
    ]
    broke = f"broke its claim in {names_of(refuted)}" if refuted else None
    return [text for text in (lost_words(same), broke) if text]


def _of(rows: Mapping[str, Sequence[Cell]]) -> list[Choice]:
    sound = {
        name: cells
        for name, cells in rows.items()
        if all(cell.verdict != "invalid" for cell in cells)
        and any(cell.verdict == "valid" for cell in cells)
    }
    strong = {
        name: cells
        for name, cells in sound.items()
        if cells[0].claim == STRONGEST
        and all(cell.measured == STRONGEST for cell in cells if cell.verdict == "valid")
        and not any(cell.lost_writes for cell in cells)
    }
    refuted = [name for name in rows if any(cell.verdict == "invalid" for cell in rows[name])]
    found = [
        _both_sides(sound, {name: rows[name] for name in refuted}),
        _nothing_lost(sound, rows),
        _strongest(strong),
        *_best(strong),
    ]
    return [each for each in found if each]


def _both_sides(
    rows: Mapping[str, Sequence[Cell]], refuted: Mapping[str, Sequence[Cell]]
) -> Choice | None:
    parted = {name: _parted(cells) for name, cells in rows.items()}
    share = {
        name: _minority(cells)
        for name, cells in parted.items()
        if cells and all(cell.verdict == "valid" for cell in cells)
    }
    if not share:
        return None
    served = [name for name in share if share[name] >= SERVED]
    best = max(share, key=lambda name: share[name])
    if served:
        least = min(share[name] for name in served)
        weakest = min((_weakest(rows[name]) for name in served), key=STRENGTH.index)
        rest = sorted((name for name in share if name not in served), key=lambda n: -share[n])
        much = "all" if least == 1 else f"never less than {format_share(least)}"
        evidence = f"{much} of the minority's operations were served"
        if rest:
            evidence += f" (next: {rest[0]}, {format_share(share[rest[0]])} at worst)"
        if weakest != STRONGEST:
            evidence += f"; the price: {_no_more_than(weakest)} at worst"
        broken = [name for name in refuted if _minority(_parted(refuted[name])) >= SERVED]
        if broken:
            evidence += f"; {listed(broken, 'and')} served them too, but broke a claim"
    else:
        evidence = f"the most was {best} with {format_share(share[best])} on the minority"
    where = SIMULATED * _sim(rows)
    condition = f"clients on both sides of a cut must be served{where}"
    return Choice(protocols=served, condition=condition, evidence=evidence)


def _no_more_than(model: str) -> str:
    if model == "none":
        return f"{MODEL_WORDS[model]} consistency"
    return f"{model} consistency"


def _parted(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.least("availability.minority") is not None]


def _minority(cells: Sequence[Cell]) -> float:
    """The least share served on the minority side; 0 without a partition."""
    return min((cell.least("availability.minority") or 0.0 for cell in cells), default=0.0)


def _weakest(cells: Sequence[Cell]) -> str:
    known = [cell.measured for cell in cells if cell.measured in STRENGTH]
    return min(known, key=STRENGTH.index, default=STRENGTH[0])


def _nothing_lost(
    rows: Mapping[str, Sequence[Cell]], everybody: Mapping[str, Sequence[Cell]]
) -> Choice | None:
    """Who lost no acknowledged write; None if nobody is known to have lost one."""
    losing = {name: text for name, cells in everybody.items() if (text := lost_words(cells))}
    if not losing:
        return None
    kept = [
        name
        for name, cells in rows.items()
        if name not in losing
        and any(run.lost_writes == 0 for c in cells if c.verdict == "valid" for run in c.runs)
    ]
    evidence = [f"{name} {text}" for name, text in losing.items()]
    return Choice(
        protocols=kept,
        condition=f"no acknowledged write may be lost{SIMULATED * _sim(everybody)}",
        evidence="; ".join([*evidence, *_not_judged_there(kept, everybody)]),
    )


def _not_judged_there(kept: Sequence[str], everybody: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Who has no verdict where somebody lost writes, in words."""
    judged = {
        name: {cell.experiment for cell in everybody[name] if cell.verdict == "valid"}
        for name in kept
    }
    lost = [cell.experiment for cells in everybody.values() for cell in cells if cell.lost_writes]
    found = []
    for experiment in dict.fromkeys(lost):
        names = [name for name in kept if experiment not in judged[name]]
        if names:
            were = "was" if len(names) == 1 else "were"
            where = experiment.removesuffix(SIMULATED)
            found.append(f"{listed(names, 'and')} {were} not judged in {where}")
    return found


def _strongest(rows: Mapping[str, Sequence[Cell]]) -> Choice | None:
    if not rows:
        return Choice(
            protocols=[],
            condition="a read must see every write that was acknowledged before",
            evidence=f"none both claims {STRONGEST} and was measured so wherever it was judged",
        )
    judged = [sum(cell.verdict == "valid" for cell in cells) for cells in rows.values()]
    unknown = {
        name: count
        for name, cells in rows.items()
        if (count := sum(cell.verdict == "unknown" for cell in cells))
    }
    but = "".join(f"; {name}: {count} unknown" for name, count in unknown.items())
    several = max(judged) > min(judged)
    number = f"{min(judged)} to {max(judged)} judged experiments"
    number = number if several else plural(min(judged), "judged experiment")
    where_judged = "the one judged experiment" if max(judged) == 1 else f"each of {number}"
    where = SIMULATED * _sim(rows)
    return Choice(
        protocols=list(rows),
        condition=f"a read must see every write that was acknowledged before{where}",
        evidence=f"{STRONGEST} in {where_judged}{but}",
    )


def _best(rows: Mapping[str, Sequence[Cell]]) -> list[Choice]:
    """The cheapest, fastest and soonest back, of two or more."""
    if len(rows) < 2:
        return []
    found = []
    simulated = AND_SIMULATED * _sim(rows)
    calm = _shared(rows, lambda cell: kinds.kind(cell.runs[0]) == kinds.NONE)
    if calm:
        cells = {name: next(c for c in rows[name] if c.experiment == calm[0]) for name in rows}
        where = f" (in {calm[0].removesuffix(SIMULATED)}{simulated})"
        messages = {name: cell.values("cost.messages") for name, cell in cells.items()}
        text = f"it must be {STRONGEST} and cost few messages{where}"
        found.append(_least(messages, text, lambda value: cost.quantity(value), "per operation"))
        p99 = {name: [_p99_ms(run) for run in cell.runs] for name, cell in cells.items()}
        text = f"it must be {STRONGEST} and answer fast{where}"
        found.append(_least(p99, text, milliseconds, "at p99"))
    hard = _shared(rows, lambda cell: cell.has_fault)
    if hard:
        back = {
            name: [max(_back_s(cell) for cell in rows[name] if cell.experiment in hard)]
            for name in rows
        }
        which = f"{len(hard)} experiments" if len(hard) > 1 else hard[0].removesuffix(SIMULATED)
        text = f"it must be {STRONGEST} and back soon after a fault ({which}{simulated})"
        found.append(_least(back, text, _span, "at worst"))
    return [each for each in found if each]


def _sim(rows: Mapping[str, Sequence[Cell]]) -> bool:
    return next(iter(rows.values()))[0].simulated


def _shared(rows: Mapping[str, Sequence[Cell]], fits: Callable[[Cell], bool]) -> list[str]:
    """The experiments that fit and in which all protocols have a verdict."""
    found = [
        [cell.experiment for cell in cells if cell.verdict == "valid" and fits(cell)]
        for cells in rows.values()
    ]
    return [name for name in found[0] if all(name in names for names in found)]


def _p99_ms(run: RunSummary) -> float:
    value = run.latency_ms.at("p99")
    return math.inf if value is None else value


def _back_s(cell: Cell) -> float:
    return max(math.inf if run.recovery_s is None else run.recovery_s for run in cell.runs)


def _span(value: float) -> str:
    return "not back" if math.isinf(value) else seconds(value)


def _least(
    values: Mapping[str, list[float]], condition: str, shown: Callable[[float], str], unit: str
) -> Choice | None:
    """The protocols with the least figure; None if one of them has no figure."""
    if not all(values.values()):
        return None
    middle = {name: sorted(own)[len(own) // 2] for name, own in values.items()}
    best = min(middle, key=lambda name: middle[name])
    if math.isinf(middle[best]):
        return None
    alike = [name for name in values if name == best or _alike(values[best], values[name])]
    rest = [name for name in sorted(middle, key=lambda n: middle[n]) if name not in alike]
    own = ", ".join(f"{name} {shown(middle[name])}" for name in alike)
    told = "".join(f", {name} {shown(middle[name])}" for name in rest)
    equal = "; no difference shown between " + listed(alike, "and") if len(alike) > 1 else ""
    evidence = f"{own}{told} {unit}{equal}"
    return Choice(protocols=alike, condition=condition, evidence=evidence)


def _alike(best: Sequence[float], other: Sequence[float]) -> bool:
    """Whether no difference is shown."""
    if min(len(best), len(other)) >= 4:
        return not difference.shown(best, other)
    one, two = sorted(best)[len(best) // 2], sorted(other)[len(other) // 2]
    return two <= one * (1 + ALIKE)


def listed(names: Sequence[str], word: str) -> str:
    """``a, b or c``, with that word."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {word} {names[-1]}"
