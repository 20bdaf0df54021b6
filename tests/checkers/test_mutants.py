"""Is every rule of the zone algorithm needed, and would the tests notice its loss?

Each mutant is the checker with one rule removed or bent. It must disagree with brute force on some
tiny history.
"""

from __future__ import annotations

import random
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from bench.checkers import arrays, clusters, zones
from bench.checkers.clusters import unique_keys
from bench.record.columns import Columns
from bench.record.history import OperationRecord
from tests.checkers.brute_force import is_linearizable
from tests.checkers.generator import tiny_history

PATIENCE = 20_000
"""Histories after which a mutant counts as not noticed. Most are noticed within a few hundred."""

MUTANTS = {
    "a failed write explains a read": (
        "(c.op != READ) & (c.outcome != FAIL) & c.applied",
        "(c.op != READ) & c.applied",
    ),
    "reads that failed count": (
        "(c.outcome == OK) & (c.op == READ) & (c.value >= 0)",
        "(c.op == READ) & (c.value >= 0)",
    ),
    "a refused CAS is not a read": ("    is_read[refused] = True\n", ""),
    "a refused CAS writes": (
        "(c.op != READ) & (c.outcome != FAIL) & c.applied",
        "(c.op != READ) & (c.outcome != FAIL)",
    ),
    "a refusal of the expected value passes": ("if len(matched):", "if False:"),
    "a value from nowhere passes": (
        "if unexplained and not writes_missing:",
        "if False and writes_missing:",
    ),
    "an expected value from nowhere passes": (
        "reads, cas = k.of_reads >= k.known, k.parents >= k.known",
        "reads, cas = k.of_reads >= k.known, k.parents > len(k.f)",
    ),
    "a read may end before its write begins": ("if len(early) == 0:", "if True:"),
    "ties of a read and its write are ordered": (
        "k.f[: k.written] < k.started",
        "k.f[: k.written] <= k.started",
    ),
    "an info write ends when the client gave up": (
        "        some[endless] = span - 1\n",
        "        some[endless] = times[0][endless] if some is times[1] else span - 1\n",
    ),
    "the initial value is not before everything": (
        "(finished, np.zeros(n_keys, np.int64), np.full(unknown, span - 1))",
        "(finished, np.full(n_keys + unknown, span - 1))",
    ),
    "reads do not end a zone": ("np.minimum.at(f, of_reads, read_finished)", "pass"),
    "reads do not extend a zone": ("np.maximum.at(s, of_reads, read_started)", "pass"),
    "every info CAS counts": (
        "[number not in counted for number in before]",
        "[False for number in before]",
    ),
    "no info CAS counts": (
        "[number not in counted for number in before]",
        "[True for number in before]",
    ),
    "an info CAS counts only if it was read": ("    seen[parents[~is_unsure]] = True\n", ""),
    "what an info CAS rests on need not count": (
        "            counted.add(parent)\n",
        "",
    ),
    "two CAS of one value pass": (
        """    twice = np.flatnonzero(child[parents] != children)
""",
        """    children = child[parents]
    twice = child[:0]
""",
    ),
    "a circle of CAS passes": (
        "astray = np.flatnonzero(has_parent & ~on_chain)",
        "astray = child[:0]",
    ),
    "the order inside a chain does not matter": (
        "late = np.flatnonzero(after[1:] < s_at[:-1])",
        "late = child[:0]",
    ),
    "ties inside a chain are ordered": ("after[1:] < s_at[:-1]", "after[1:] <= s_at[:-1]"),
    "only the next of a chain is compared": (
        "after = np.minimum.accumulate(f_at[::-1])[::-1]",
        "after = f_at",
    ),
    "chains are mixed up": (
        "f_at, s_at = k.f[order] + chain * k.span, k.s[order] + chain * k.span",
        "f_at, s_at = k.f[order], k.s[order]",
    ),
    "a CAS does not weld": (
        "single = np.flatnonzero(~on_chain)",
        "single = np.arange(len(k.f))\n    order, first = order[:0], first[:0]",
    ),
    "forward zones may overlap": (
        "    if (f_sorted[1:] < s_sorted[:-1]).any():\n",
        "    if False:\n",
    ),
    "forward zones that touch overlap": (
        "(f_sorted[1:] < s_sorted[:-1])",
        "(f_sorted[1:] <= s_sorted[:-1])",
    ),
    "a backward zone may be inside a forward zone": (
        "    if len(inside) == 0:\n",
        "    if True:\n",
    ),
    "a backward zone that touches is inside": (
        "count_below(f_sorted, s_at[backward])",
        "count_below(f_sorted, s_at[backward] + 1)",
    ),
    "a backward zone that touches the end is inside": (
        "ends[before] > f_at[backward]",
        "ends[before] >= f_at[backward]",
    ),
    "keys share their time": ("    base = key * np.int64(span)\n", "    base = key * 0\n"),
    "one value on two keys is one": ("    if astray.any():\n", "    if (cluster < 0).any():\n"),
    "a number is as far on as its table says": (
        "todo = np.flatnonzero(padded[found] < limits)",
        "todo = np.flatnonzero(padded[found] < 0)",
    ),
}


SOURCES = {module: Path(str(module.__file__)).read_text() for module in (arrays, clusters, zones)}
"""What the algorithm consists of; each file imports those before it."""


def load(rule: str = "", bent: str = "") -> ModuleType:
    """The algorithm, with the one place that reads ``rule`` changed to ``bent``."""
    assert not rule or sum(text.count(rule) for text in SOURCES.values()) == 1, (
        "the mutant does not fit the source any more"
    )
    for original, text in SOURCES.items():
        for imported in SOURCES:
            text = text.replace(f"from {imported.__name__} ", f"from {mutant_name(imported)} ")
        module = compiled(text.replace(rule, bent) if rule else text, mutant_name(original))
    return module


def compiled(source: str, name: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module  # where imports and dataclasses look for it
    exec(compile(source, name, "exec"), module.__dict__)
    return module


def mutant_name(module: ModuleType) -> str:
    return f"mutant_of_{module.__name__.rpartition('.')[2]}"


@cache
def judged(seed: int) -> tuple[Columns, int, bool]:
    """A tiny history, the code of its initial value, and what brute force says of it."""
    rng = random.Random(seed)
    keys, initial = rng.choice((1, 1, 2)), rng.choice((None, None, 7))
    history = tiny_history(
        rng, keys=keys, initial=initial, cas=rng.random() < 0.6, most=6 if keys == 1 else 4
    )
    if seed % 4 == 0:
        history = same_values(history, rng)
    c = Columns.from_records(history)
    code = c.code_of(initial)
    admitted = unique_keys(c, code)
    linearizable = all(
        is_linearizable([r for r in history if r.key == key], initial)
        for number, key in enumerate(c.keys)
        if admitted[number]
    )
    return c, code, linearizable


def same_values(history: list[OperationRecord], rng: random.Random) -> list[OperationRecord]:
    """A history on one key, and the same a little later on another; a part of it, sometimes."""
    first = [record for record in history if record.key == "k0"]
    share = rng.choice((0.8, 1))
    return first + [
        msgspec.structs.replace(
            record,
            key="other",
            invoked_ns=record.invoked_ns + 5,
            completed_ns=None if record.completed_ns is None else record.completed_ns + 5,
        )
        for record in first
        if share == 1 or rng.random() < share
    ]


def noticed(module: ModuleType, patience: int = PATIENCE) -> bool:
    for seed in range(patience):
        c, code, want = judged(seed)
        try:
            if (module.check_zones(c, initial=code, candidates=0).kind is None) != want:
                return True
        except Exception:
            return True
    return False


@pytest.mark.parametrize("name", MUTANTS)
def test_the_loss_of_a_rule_is_noticed(name: str) -> None:
    assert noticed(load(*MUTANTS[name]))


def test_the_checker_itself_is_no_mutant() -> None:
    assert not noticed(load(), patience=300)
