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

from bench.checkers import zones
from bench.checkers.bruteforce import is_linearizable
from bench.checkers.columns import Columns
from bench.checkers.zones import unique_keys
from bench.history import OperationRecord
from tests.checkers.generator import tiny_history

PATIENCE = 20_000
"""Histories after which a mutant counts as not noticed. Most are noticed within a few hundred."""

MUTANTS = {
    "a failed write explains a read": (
        "is_write = admitted & (c.outcome != FAIL)",
        "is_write = admitted & (c.outcome <= INFO)",
    ),
    "reads that failed count": ("is_read = admitted & ok &", "is_read = admitted &"),
    "a refused CAS is not a read": ("((c.op == READ) | refused)", "(c.op == READ)"),
    "a refused CAS writes": ("(c.op != READ) & ~refused", "(c.op != READ)"),
    "a refusal of the expected value passes": ("if matched.any():", "if False:"),
    "a value from nowhere passes": (
        "if unexplained and not writes_missing:",
        "if False and writes_missing:",
    ),
    "an expected value from nowhere passes": (
        "rows = np.concatenate((bad, bad_cas))",
        "rows = bad",
    ),
    "a read may end before its write begins": ("if len(early) == 0:", "if True:"),
    "ties of a read and its write are ordered": (
        "k.f[written] < k.start[rows]",
        "k.f[written] <= k.start[rows]",
    ),
    "an info write ends when the client gave up": (
        "    finish[info] = span - 1\n",
        "    finish[info] = start[info]\n",
    ),
    "the initial value is not before everything": (
        "    f[first_initial:] = 0\n",
        "    f[first_initial:] = span - 1\n",
    ),
    "reads do not end a zone": ("np.minimum.at(f, of_reads, finish[reads])", "pass"),
    "reads do not extend a zone": ("np.maximum.at(s, of_reads, start[reads])", "pass"),
    "every info CAS counts": (
        "    dropped = np.array([row for row in unsure.tolist() if row not in counted], np.int64)",
        "    dropped = np.zeros(0, np.int64)",
    ),
    "no info CAS counts": (
        "    dropped = np.array([row for row in unsure.tolist() if row not in counted], np.int64)",
        "    dropped = unsure",
    ),
    "an info CAS counts only if it was read": ("    seen[parent[sure]] = True\n", ""),
    "what an info CAS rests on need not count": (
        "            todo.append(before)\n",
        "            pass\n",
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
        "single = np.flatnonzero(k.exists & ~on_chain)",
        "single = np.flatnonzero(k.exists)\n    order, first = order[:0], first[:0]",
    ),
    "forward zones may overlap": ("    if len(bad):\n", "    if False:\n"),
    "forward zones that touch overlap": (
        "f_sorted[1:] < s_sorted[:-1]",
        "f_sorted[1:] <= s_sorted[:-1]",
    ),
    "a backward zone may be inside a forward zone": (
        "    if len(inside) == 0:\n",
        "    if True:\n",
    ),
    "a backward zone that touches is inside": (
        'np.searchsorted(f_sorted, s_backward[order], "left")',
        'np.searchsorted(f_sorted, s_backward[order], "right")',
    ),
    "a backward zone that touches the end is inside": (
        "(s_sorted[np.maximum(before, 0)] > f_at[backward])",
        "(s_sorted[np.maximum(before, 0)] >= f_at[backward])",
    ),
    "keys share their time": ("    base = key * span\n", "    base = key * 0\n"),
    "one value on two keys is one": ("    if one_key:\n", "    if True:\n"),
}


def load(source: str) -> ModuleType:
    module = ModuleType("mutant_of_zones")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(source, "mutant", "exec"), module.__dict__)
    return module


@cache
def judged(seed: int) -> tuple[Columns, int, bool]:
    """A tiny history, the code of its initial value, and what brute force says of it."""
    rng = random.Random(seed)
    keys, initial = rng.choice((1, 1, 2)), rng.choice((None, None, 7))
    history = tiny_history(
        rng, keys=keys, initial=initial, cas=rng.random() < 0.6, most=6 if keys == 1 else 4
    )
    if seed % 4 == 0:
        history = same_values(history)
    c = Columns.from_records(history)
    code = c.code_of(initial)
    admitted = unique_keys(c, code)
    linearizable = all(
        is_linearizable([r for r in history if r.key == key], initial)
        for number, key in enumerate(c.keys)
        if admitted[number]
    )
    return c, code, linearizable


def same_values(history: list[OperationRecord]) -> list[OperationRecord]:
    """A history on one key, and the same a little later on another."""
    first = [record for record in history if record.key == "k0"]
    return first + [
        msgspec.structs.replace(
            record,
            key="other",
            invoked_ns=record.invoked_ns + 5,
            completed_ns=None if record.completed_ns is None else record.completed_ns + 5,
        )
        for record in first
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
    source = Path(zones.__file__).read_text()
    rule, bent = MUTANTS[name]
    assert source.count(rule) == 1, "the mutant does not fit the source any more"
    assert noticed(load(source.replace(rule, bent)))


def test_the_checker_itself_is_no_mutant() -> None:
    assert not noticed(load(Path(zones.__file__).read_text()), patience=300)
