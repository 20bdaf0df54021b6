"""Is every rule of the weaker models needed, and would brute force notice its loss?"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from bench.checkers import causal, reads_from, sequential, staleness
from bench.record.columns import Columns
from bench.record.history import OperationRecord
from tests.checkers import brute_force as by_definition
from tests.checkers.test_brute_force import Judged, judged
from tests.checkers.test_mutants import compiled, mutant_name
from tests.checkers.test_rules import CASES, with_ids

PATIENCE = 1000
"""Histories after which a mutant counts as not noticed."""

SOURCES = {
    module: Path(str(module.__file__)).read_text()
    for module in (reads_from, sequential, causal, staleness)
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
    stale = modules["staleness"].stale_reads(c, code)
    ages = {h.records[row].id: age for row, age in zip(stale.rows, stale.age_ns, strict=True)}
    return ages != by_definition.stale_ages(h.records, h.initial)


def rare() -> Judged:
    """What chance seldom makes: a write of unknown outcome, and two keys that tell its place."""
    lines = with_ids(CASES / "info-write-then-going-on.jsonl")
    records = [msgspec.json.decode(line, type=OperationRecord) for line in lines]
    return Judged(-1, records, None, 0, False, False, False)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_loss_of_a_rule_is_noticed(name: str) -> None:
    modules = load(*MUTANTS[name])
    for h in (rare(), *map(judged, range(PATIENCE))):
        try:
            if differs(modules, h):
                return
        except (AssertionError, IndexError, KeyError, StopIteration):
            return
    pytest.fail("nothing was noticed")
