"""The search: against brute force, within its budget, and with a small witness."""

from __future__ import annotations

import random
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.checkers import search as searching
from bench.checkers.budget import Budget
from bench.checkers.linearizability import check_linearizable
from bench.checkers.search import search, smaller, steps
from bench.record.columns import Columns
from bench.record.history import OperationRecord
from tests.checkers.brute_force import is_linearizable
from tests.checkers.generator import tiny_history
from tests.checkers.test_mutants import compiled
from tests.checkers.test_zones import HISTORIES, op


def some_history(seed: int) -> tuple[list[OperationRecord], int | None]:
    rng = random.Random(seed)
    initial = rng.choice((None, None, 2))
    history = tiny_history(
        rng, initial=initial, cas=rng.random() < 0.6, unique=rng.random() < 0.2, most=7
    )
    return history, initial


def test_agrees_with_brute_force() -> None:
    verdicts = {True: 0, False: 0}
    some = map(some_history, range(HISTORIES))
    for seed, (history, initial) in enumerate(chain(seldom(), some)):
        c = Columns.from_records(history)
        code = c.code_of(initial)
        result = search(steps(c, np.arange(len(c))), code, Budget())
        want = is_linearizable(history, initial)
        assert result.outcome == ("valid" if want else "invalid"), f"seed {seed}: {history}"
        if not want:
            rows = smaller(c, result.rows, code, Budget(2.0))
            assert not is_linearizable([history[row] for row in rows], initial), f"seed {seed}"
        verdicts[want] += 1
    assert min(verdicts.values()) > HISTORIES // 20, verdicts


def seldom() -> list[tuple[list[OperationRecord], int]]:
    """What chance seldom makes, initially 0. In the first, what never ends needs a place of its
    own, or an operation that was answered would count as spent; in the second it matters which of
    those that never end are spent."""
    first = [
        op("cas", "      [", 0, expected=2, outcome="info"),
        op("read", "[-]", 1),
        op("write", " [", 1, outcome="info"),
        op("cas", "[-]", 0, expected=0),
    ]
    second = [
        op("write", "  [", 0, outcome="info"),
        op("cas", "        [---]", 0, expected=0),
        op("read", "[-]", 1),
        op("write", " [", 2, outcome="info"),
        op("read", "[-]", 2),
        op("cas", "[---]", 1, expected=2),
    ]
    return [(first, 0), (second, 0)]


MUTANTS = {
    "a looker takes effect at any value": (
        "return (step.value == value) == (step.kind == LOOK)",
        "return True",
    ),
    "a refused CAS may have seen what it expected": (
        "step = Step(row, LOOK, _NO_VALUE, 0, invoked, returns)",
        "step = Step(row, LOOK, seen, 0, invoked, returns)",
    ),
    "a CAS applies at any value": (
        "            if kind == _SWAP and expected != value:\n                continue\n",
        "",
    ),
    "operations of unknown outcome never apply": (
        "or step.kind == LOOK or step.value in seen",
        "or step.kind == LOOK",
    ),
    "operations of unknown outcome are answered": (
        "returns = None if outcome == INFO or completed == NEVER else completed",
        "returns = invoked + 3 if outcome == INFO or completed == NEVER else completed",
    ),
    "an answer before an invocation at the same instant": (
        "moments.append((step.returns, 1, number))",
        "moments.append((step.returns, -1, number))",
    ),
    "open operations do not take effect before the answer of another": (
        "            if this is None:\n",
        "            if this is not asked:\n",
    ),
    "whoever only looks may be answered anything": (
        "                elif mask & this.bit:\n                    mask ^= this.bit\n",
        "                elif mask & this.bit or this.step.kind == LOOK:\n"
        "                    mask &= ~this.bit\n",
    ),
    "whoever spent more does for both": (
        "less & spent == less for less",
        "less & spent == spent for less",
    ),
    "operations take effect before they begin": (
        "if this.begin < place and not mask & this.bit:",
        "if not mask & this.bit:",
    ),
    "who looks does so when he comes only": (
        "mask | this.bit | self._lookers_of(place, leaves)",
        "mask | this.bit",
    ),
    "the value does not tell configurations apart": (
        "self.known.setdefault((place, mask ^ spent, value), [])",
        "self.known.setdefault((place, mask ^ spent, 0), [])",
    ),
    "an operation takes effect twice": (
        "if this.begin < place and not mask & this.bit:",
        "if this.begin < place:",
    ),
    "failed operations apply": ("if outcome == FAIL or (op", "if (op"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_loss_of_a_rule_is_noticed(name: str) -> None:
    source = Path(searching.__file__).read_text()
    rule, bent = MUTANTS[name]
    assert source.count(rule) == 1, "the mutant does not fit the source any more"
    mutant = compiled(source.replace(rule, bent), "mutant_of_search")
    for history, initial in chain(seldom(), map(some_history, range(20_000))):
        c = Columns.from_records(history)
        try:
            found = mutant.steps(c, np.arange(len(c)))
            outcome = mutant.search(found, c.code_of(initial), Budget()).outcome
        except (AssertionError, KeyError):
            return
        if (outcome == "valid") != is_linearizable(history, initial):
            return
    pytest.fail("nothing was noticed")


def crowd(count: int) -> list[OperationRecord]:
    """Writes of seven values, all open at once, and reads of two of them in turn, more often than
    these were written."""
    writes = [op("write", "[", place % 5) for place in range(count)]
    writes += [op("write", "[", 5 + place % 2) for place in range(6)]
    for place, record in enumerate(writes):
        record.invoked_ns, record.completed_ns = 0, 1000 + place
    reads = [op("read", "[-]", 5 + place % 2) for place in range(8)]
    for place, record in enumerate(reads):
        record.invoked_ns, record.completed_ns = 10 * place + 1, 10 * place + 5
    return [*writes, *reads]


@pytest.mark.parametrize(
    ("budget", "spent"),
    [({"seconds": 0.0}, "time"), ({"configurations": 50}, "memory")],
)
def test_over_budget_is_unknown(budget: dict[str, Any], spent: str) -> None:
    check = check_linearizable(Columns.from_records(crowd(200)), budget=Budget(**budget))
    assert check.verdict == "unknown"
    assert check.summary.endswith(f"the search ran out of {spent}")
    assert check.details.keys_undecided == 1


def test_each_key_has_the_algorithm_that_fits() -> None:
    unique = [op("write", "[-]", 1, key="a"), op("read", "    [-]", 1, key="a")]
    repeated = [
        op("write", "[-]", 1, key="b"),
        op("delete", "    [-]", key="b"),
        op("read", "        [-]", None, key="b"),
    ]
    both = check_linearizable(Columns.from_records([*unique, *repeated]))
    assert (both.verdict, both.algorithm) == ("valid", "zones and search")
    assert both.details.why.startswith("on 1 of 2 keys")
    assert check_linearizable(Columns.from_records(unique)).algorithm == "zones"
    assert check_linearizable(Columns.from_records(repeated)).algorithm == "search"


def test_a_deleted_value_does_not_come_back() -> None:
    records = [
        op("write", "[-]", 1),
        op("write", "[-]", 5),
        op("read", "    [-]", 1),
        op("delete", "        [-]"),
        op("read", "            [-]", 1),
        op("read", "                [-]", 1),
    ]
    check = check_linearizable(Columns.from_records(records))
    assert (check.verdict, check.details.kind) == ("invalid", "search")
    assert [line.operation.op for line in check.witness] == ["write", "delete", "read"]


def test_a_refused_cas_that_hides_what_it_saw() -> None:
    write = op("write", "[-]", 1)
    hidden = op("cas", "    [-]", 2, expected=1, applied=False)
    assert check_linearizable(Columns.from_records([write, hidden])).verdict == "invalid"
    other = op("write", "   [--]", 3)
    assert check_linearizable(Columns.from_records([write, hidden, other])).verdict == "valid"


def test_many_operations_of_unknown_outcome() -> None:
    lost = [op("write", "[", i % 3, outcome="info") for i in range(60)]
    for record in lost:
        record.invoked_ns = 0
    seen = []
    for place in range(40):
        read = op("read", "[-]", place % 3)
        read.invoked_ns, read.completed_ns = 10 * place + 5, 10 * place + 9
        seen.append(read)
    check = check_linearizable(Columns.from_records([*lost, *seen]), budget=Budget(20))
    assert (check.verdict, check.algorithm) == ("valid", "search")
    too_often = op("read", "[-]", 0)
    more = [*seen]
    for place in range(40, 70):
        read = op("read", "[-]", place % 3)
        read.invoked_ns, read.completed_ns = 10 * place + 5, 10 * place + 9
        more.append(read)
    too_often.invoked_ns, too_often.completed_ns = 705, 709
    check = check_linearizable(Columns.from_records([*lost, *more, too_often]), budget=Budget(20))
    assert check.verdict == "invalid"  # 60 writes cannot explain more changes than there are
