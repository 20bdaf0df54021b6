"""Availability, percentiles, outages and recovery of histories that are known by construction, and
whether these would notice a definition that is bent.

Each mutant is the checker with one definition changed in a small way; at least one of the histories
must then give other figures.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from bench.checkers import availability, outages, windows
from bench.checkers.availability import check_availability
from tests.known import ALL, Known

SOURCES = {
    module: Path(str(module.__file__)).read_text() for module in (windows, outages, availability)
}
"""What the definitions consist of; each file imports those before it."""

MUTANTS = {
    "wanted is when it was sent": (
        "return record.invoked_ns if record.intended_ns is None else record.intended_ns",
        "return record.invoked_ns",
    ),
    "served is a little less than the service time": (
        "served = latency <= service_ns",
        "served = latency < service_ns",
    ),
    "served is any ok answer": ("served = latency <= service_ns", "served = latency < NEVER"),
    "an info operation was answered": (
        'NEVER if r.outcome != "ok" or r.completed_ns is None else r.completed_ns',
        "NEVER if r.completed_ns is None else r.completed_ns",
    ),
    "the service time counts from when it was sent": (
        "latency = np.where(answered == NEVER, NEVER, answered - wanted)",
        "sent = np.array([*(r.invoked_ns for r in records), *lost], np.int64)\n"
        "    latency = np.where(answered == NEVER, NEVER, answered - sent)",
    ),
    "within 1 s is a little less": (
        "quick = asked.latency <= min(",
        "quick = asked.latency < min(",
    ),
    "dropped operations were not wanted": (
        "[*map(wanted_ns, records), *lost]",
        "[*map(wanted_ns, records), *lost][: len(records)]",
    ),
    "dropped operations are on no side": (
        "return [*load.dropped_nodes, *[",
        "return [*[",
    ),
    "dropped operations do not count as dropped": (
        "dropped = np.arange(len(asked.wanted)) >= sent",
        "dropped = np.arange(len(asked.wanted)) > sent",
    ),
    "sides are swapped": ("MAJORITY if majority and node in", "MINORITY if majority and node in"),
    "a half is a majority": ("needed = majority(len(nodes))", "needed = len(nodes) // 2"),
    "the first group is the majority": ("if len(group) >= needed)", "if group)"),
    "the sides are those of the first cut": (
        "sides(manifest.nodes, [span.record for span in on.values()])",
        "sides(manifest.nodes, [span.record for span in spans[:1]] if on else [])",
    ),
    "the sides are those of the cut before": (
        "sides(manifest.nodes, [span.record for span in on.values()])",
        "sides(manifest.nodes, [s.record for s in spans if s.start_ns < edge][-1:])",
    ),
    "a fault begins when it is applied": (
        "start = fault.applied_ns if fault.started_ns is None else fault.started_ns",
        "start = fault.applied_ns",
    ),
    "a fault ends when its heal begins": (
        "end = NEVER if fault.healed_ns is None else max(start, fault.healed_ns)",
        "end = NEVER if fault.healed_ns is None else max(start, fault.heal_started_ns)",
    ),
    "what is wanted when a fault begins is before it": (
        'np.searchsorted(self.edges, times_ns, "right")',
        'np.searchsorted(self.edges, times_ns, "left")',
    ),
    "before means between, too": (
        "phases.append(DURING if on else AFTER)",
        "phases.append(DURING if on else AFTER if edge == edges[-1] else BEFORE)",
    ),
    "what overlaps ends with the first heal": (
        "            del on[id(span)]\n",
        "            on.clear()\n",
    ),
    "percentiles of what was served only": (
        "latency_ms=_percentiles(served_ns, wanted, service_s)",
        "latency_ms=_percentiles(served_ns, int((here & labels.served).sum()), service_s)",
    ),
    "the rank is rounded down": ("int(np.ceil(round(", "int(np.floor(round("),
    "the rank is one too high": ("np.partition(served_ns, rank - 1)[rank - 1]", "max(served_ns)"),
    "p99 is p98": (
        "for percent in (50, 99))",
        "for percent in (50, 98))",
    ),
    "nothing wanted is as bad as nothing served": (
        "dict.fromkeys(WINDOWS, Latency())",
        "dict.fromkeys(WINDOWS, Latency(bound_ms=service_s * 1e3))",
    ),
    "outages are those of everybody": (
        "seen = ~((asked.labels.side == MINORITY)",
        "seen = ~((asked.labels.side == -1)",
    ),
    "an outage is that of the first fault": (
        "min(possible, key=lambda s: abs(s.start_ns - outage.start_ns), default=None)",
        "possible[0] if possible else None",
    ),
    "what was under way is not hit": (
        "<= outage.start_ns + under_way_ns",
        "<= outage.start_ns",
    ),
    "back in counts from the first fault": (
        "else (ended_ns - span.start_ns) / SECOND_NS",
        "else (ended_ns - spans.faults[0].start_ns) / SECOND_NS",
    ),
    "back in is how long the outage was": (
        "else (ended_ns - span.start_ns) / SECOND_NS",
        "else (ended_ns - (own[0].start_ns if own else ended_ns)) / SECOND_NS",
    ),
    "back in is the end of the last outage": (
        "ended_ns = own[0].end_ns if own",
        "ended_ns = own[-1].end_ns if own",
    ),
    "who is not back is back at once": (
        "return max(back, default=None) if len(back) == len(faults) else None",
        "return max(back, default=0.0)",
    ),
    "the best of the faults": ("return max(back, default=None)", "return min(back, default=None)"),
    "a silence begins before its fault": (
        "lengths = here.ends - np.maximum(here.starts, span.start_ns)",
        "lengths = here.ends - here.starts",
    ),
    "a pause is a silence": ("SILENCE_S = 0.25", "SILENCE_S = 0.15"),
    "there are no silences": ("SILENCE_S = 0.25", "SILENCE_S = 99"),
    "a silence begins with the last answer": (
        "starts = wanted[np.minimum(place, len(wanted) - 1)]",
        "starts = before",
    ),
    "good is when all were served": ("GOOD_PERCENT = 99", "GOOD_PERCENT = 100"),
    "good is when most were served": ("GOOD_PERCENT = 99", "GOOD_PERCENT = 95"),
    "an outage ends with any operation that was served": (
        "    ends = ends[good(ends)]\n",
        "",
    ),
    "an outage may end when less than a second is left": (
        "ends = ends[ends + SECOND_NS <= load_ended_ns]",
        "ends = ends[ends <= load_ended_ns]",
    ),
}


def details(known: Known, module: ModuleType) -> list[str]:
    """Where the figures are not the known ones."""
    check = module.check_availability(
        known.manifest(), known.records(), known.faults, known.loads()
    )
    return known.problems(msgspec.to_builtins(check.details))


@pytest.mark.parametrize("known", ALL, ids=lambda known: known.name)
def test_the_figures_are_the_known_ones(known: Known) -> None:
    assert details(known, availability) == []
    assert (
        check_availability(known.manifest(), known.records(), known.faults, []).verdict == "valid"
    )


@pytest.fixture(autouse=True)
def _no_mutant_stays() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.startswith("mutant_of_")]:
        del sys.modules[name]


def bent(rule: str, to: str) -> ModuleType:
    """The checker, with the one place that reads ``rule`` changed."""
    assert sum(text.count(rule) for text in SOURCES.values()) == 1, (
        "the mutant does not fit the source any more"
    )
    module = availability
    for original, source in SOURCES.items():
        text = source.replace(rule, to)
        for imported in SOURCES:
            text = text.replace(f"from {imported.__name__} ", f"from {mutant_name(imported)} ")
        module = ModuleType(mutant_name(original))
        sys.modules[module.__name__] = module
        exec(compile(text, module.__name__, "exec"), module.__dict__)
    return module


def mutant_name(module: ModuleType) -> str:
    return f"mutant_of_{module.__name__.rpartition('.')[2]}"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_bent_definition_is_noticed(name: str) -> None:
    mutant = bent(*MUTANTS[name])

    def differs(known: Known) -> bool:
        try:
            return bool(details(known, mutant))
        except (ValueError, IndexError, TypeError):
            return True

    assert any(differs(known) for known in ALL)
