"""Is every rule of the weaker models needed, and would brute force notice its loss?"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from bench.checkers import causal, reads_from, sequential, staleness
from bench.checkers.sessions import follows, guarantees
from bench.checkers.sessions.guarantees import GUARANTEES
from bench.record.columns import Columns
from bench.record.history import OperationRecord
from tests.checkers import brute_force as by_definition
from tests.checkers.test_brute_force import Judged, judge, judged
from tests.checkers.test_mutants import compiled, mutant_name
from tests.checkers.test_rules import CASES, with_ids

PATIENCE = 1000
"""Histories after which a mutant counts as not noticed."""

SOURCES = {
    module: Path(str(module.__file__)).read_text()
    for module in (reads_from, sequential, causal, staleness, follows, guarantees)
}
"""Each file imports those before it."""

MUTANTS = {
    "a CAS of unknown outcome that was seen read nothing": (
        "counts[sure:] = [row in took_effect for row in unsure.tolist()]",
        "counts[sure:] = False",
    ),
    "a CAS of unknown outcome always took effect": (
        "counts[sure:] = [row in took_effect for row in unsure.tolist()]",
        "counts[sure:] = True",
    ),
    "what a CAS of unknown outcome rests on need not have been": (
        "            took_effect.add(parent)\n",
        "",
    ),
    "a CAS may be refused although it saw what it expected": (
        "    if len(matched):\n",
        "    if False:\n",
    ),
    "a value from nowhere passes": ("    if len(nobodys) == 0:\n", "    if True:\n"),
    "a refused CAS is no read": (
        "of_refused = np.flatnonzero(ok & refused & (c.seen >= 0))",
        "of_refused = np.flatnonzero(ok & refused & (c.seen > len(c.values)))",
    ),
    "a write of unknown outcome is not after what was before": (
        "    same = last >= 0\n",
        "    same = (last >= 0) & (certain >= 0)\n",
    ),
    "what follows comes after a write of unknown outcome": (
        "certain = np.where(c.outcome[rows] != INFO, places, -1)",
        "certain = places",
    ),
    "a CAS does not weld": (
        "        block[order] = np.repeat(heads, lengths)\n",
        "",
    ),
    "a process may read before it writes": ("    if len(own):\n", "    if False:\n"),
    "order inside a chain does not matter": (
        "inside & (blocks.place[source] > blocks.place[target])",
        "inside & (blocks.place[source] > len(c) * 9)",
    ),
    "the initial value may come back": (
        "~inside & (blocks.of[target] < clusters.n_keys)",
        "~inside & (blocks.of[target] < 0)",
    ),
    "a lane knows nothing when it begins": (
        "                    self.clock[~row] = self.clock[p]\n",
        "",
    ),
    "a write of unknown outcome stays in its process": (
        "if outcome[place] == INFO and goes_on:",
        "if False:",
    ),
    "what takes time may come first": (
        "np.lexsort((c.takes_time[rows], c.invoked[rows], *keys, c.process[rows]))",
        "np.lexsort((c.invoked[rows], *keys, c.process[rows]))",
    ),
    "operations of one process that touch are concurrent": (
        "self.touches = bool((touch & (ended[:-1] != NEVER)).any())",
        "self.touches = False",
    ),
    "what a session knew may have begun later": (
        "is_older |= (own > reads.known) & (",
        "is_older |= (own > reads.known) | (",
    ),
    "the earlier write need not be acknowledged": (
        "asking = np.flatnonzero(c.outcome[write] == OK)",
        "asking = np.arange(len(write))",
    ),
    "nothing follows the initial value": (
        "ok = np.flatnonzero(~seen.is_final[shown.rows])",
        "ok = np.flatnonzero(~seen.is_final[shown.rows] & (shown.write >= 0))",
    ),
    "what a CAS wrote does not follow what it saw": (
        "np.where(wrote, 0, 1)",
        "1",
    ),
    "what follows a CAS of unknown outcome follows what it saw": (
        "np.arange(len(ok) + len(unsure)) >= len(ok)",
        "np.zeros(len(ok) + len(unsure), np.bool_)",
    ),
    "a write follows itself": (
        "itself = np.flatnonzero((own < len(c)) & (begin < end))",
        "itself = np.flatnonzero(begin > end)",
    ),
    "an applied CAS is never stale": (
        "((c.op == READ) | is_cas)",
        "((c.op == READ) | refused)",
    ),
    "a write is stale against itself": (
        "    placed = np.maximum(placed, began)\n",
        "",
    ),
}


def load(rule: str, bent: str) -> dict[str, ModuleType]:
    assert sum(text.count(rule) for text in SOURCES.values()) >= 1, "it does not fit any more"
    modules = {}
    for original, text in SOURCES.items():
        for imported in SOURCES:
            text = text.replace(f"from {imported.__name__} ", f"from {mutant_name(imported)} ")
        name = original.__name__.rpartition(".")[2]
        modules[name] = compiled(text.replace(rule, bent), mutant_name(original))
    return modules


def differs(modules: dict[str, Any], h: Judged) -> bool:
    c = Columns.from_records(h.records)
    code = c.code_of(h.initial)
    for check, want in (
        (modules["sequential"].check_sequential(c, code), h.sequential),
        (modules["causal"].check_causal(c, code), h.causal),
    ):
        if check.verdict != "unknown" and (check.verdict == "valid") != want:
            return True
    c = c.widened(h.clock_error)
    stale = modules["staleness"].stale_reads(c, code)
    ages = {h.records[row].id: age for row, age in zip(stale.rows, stale.age_ns, strict=True)}
    details = modules["guarantees"].check_sessions(c, code).details
    broken = {name: getattr(details, name).violations or 0 for name in GUARANTEES}
    return (ages, broken) != seen_by_definition(h)


def seen_by_definition(h: Judged) -> tuple[dict[int, float], dict[str, int]]:
    """The ages of stale reads, and how many reads break each session guarantee."""
    if h.seed not in SEEN:
        error = h.clock_error
        SEEN[h.seed] = (
            by_definition.stale_ages(h.records, h.initial, clock_error=error),
            by_definition.session_violations(h.records, h.initial, clock_error=error),
        )
    return SEEN[h.seed]


SEEN: dict[int, tuple[dict[int, float], dict[str, int]]] = {}


RARE = ("info-write-then-going-on", "info-cas-on-an-info-cas", "info-cas-then-going-on")
"""What chance seldom makes: operations of unknown outcome of which the place or the ground is
known."""


@cache
def rare(number: int) -> Judged:
    lines = with_ids(CASES / f"{RARE[number]}.jsonl")
    records = [msgspec.json.decode(line, type=OperationRecord) for line in lines]
    return judge(-1 - number, records)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_loss_of_a_rule_is_noticed(name: str) -> None:
    modules = load(*MUTANTS[name])
    for h in (*map(rare, range(len(RARE))), *map(judged, range(PATIENCE))):
        try:
            if differs(modules, h):
                return
        except (AssertionError, IndexError, KeyError, StopIteration):
            return
    pytest.fail("nothing was noticed")
