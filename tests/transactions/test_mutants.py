"""Is every rule of the checkers of transactions needed, and is its loss noticed?"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from bench.checkers.transactions import (
    anti,
    cycles,
    graph,
    internal,
    judge,
    list_append,
    lists,
    registers,
    rw_register,
    schedule,
    unseen,
    versions,
    weak,
    witness,
)
from bench.record.transactions.builder import transactions_of
from bench.record.verdict import VerdictValue
from bench.suites.micro.transactions import register_history
from tests.checkers.test_mutants import compiled, mutant_name
from tests.transactions.brute_force import History, Txn, levels_of_lists, rows
from tests.transactions.stores import tiny
from tests.transactions.test_list_append import a, committed, r, txns
from tests.transactions.test_published import LISTS as LIST_EXAMPLES
from tests.transactions.test_published import REGISTERS as REGISTER_EXAMPLES
from tests.transactions.test_published import v, w

PATIENCE = 300
"""Histories after which a mutant counts as not noticed."""

SOURCES = {
    module: Path(str(module.__file__)).read_text()
    for module in (
        graph,
        anti,
        lists,
        internal,
        cycles,
        witness,
        unseen,
        judge,
        list_append,
        registers,
        schedule,
        versions,
        weak,
        rw_register,
    )
}
"""Each file imports those before it."""

LISTS = {
    "what ended info and was seen is not committed": (
        "    committed[owner[seen_info]] = True\n",
        "",
    ),
    "an aborted append may be seen": (
        "            if self.owner[row] != self.owner[append]:\n",
        "            if False:\n",
    ),
    "a value may be twice in a list": ("_is_twice(writer)", "False"),
    "lists need be no prefixes of each other": ("_is_branching(t.lists)", "False"),
    "no write comes before the next": (
        "np.flatnonzero(v.is_in_order & (v.parent",
        "np.flatnonzero((v.parent < 0) & (v.parent",
    ),
    "no write comes before its reads": ("    some = seen != EMPTY\n", "    some = seen < EMPTY\n"),
    "no read comes before the next write": (
        "    some = following > 0\n",
        "    some = following > 1 << 30\n",
    ),
    "the empty list comes before nothing": (
        "np.where(seen == EMPTY, v.first[t.key[reads]], v.following[seen])",
        "v.following[seen]",
    ),
    "an append in no list comes behind nothing": (
        "    if len(versions.unseen):\n",
        "    if False:\n",
    ),
    "who read the last list and appended to it is no exception": (
        "    only = writes[~both[writes]]\n",
        "    only = writes\n",
    ),
    "an intermediate version may be read": (
        "    found = ~is_last[append] &",
        "    found = is_last[append] & ~is_last[append] &",
    ),
    "a transaction need not see its own appends": (
        "    own = has_written & (v.last_append[number] != own_row)\n",
        "    own = has_written & False\n",
    ),
    "a transaction may see what it appends later": (
        "v.is_in_order[seen] & (next_number <= seen)",
        "v.is_in_order[seen] & (next_number < 0)",
    ),
    "appends of a transaction may be in any order": (
        "number_of[earlier] > number_of[g.row[pairs]]",
        "number_of[earlier] > 1 << 40",
    ),
    "process order counts for nothing": (
        "        there[there] &= t.process[rows[before[there]]] == t.process[rows[there]]\n",
        "        there &= False\n",
    ),
    "what ended info comes before what its process did next": (
        "np.where(t.outcome[rows] == INFO, -1, places)",
        "places",
    ),
    "touching transactions are ordered": (
        't.invoked[rows] - self.clock_error, side="left"',
        't.invoked[rows] - self.clock_error, side="right"',
    ),
    "real time counts for nothing": (
        "np.flatnonzero(self.committed)\n        finished",
        "np.flatnonzero(self.committed & False)\n        finished",
    ),
    "two rw edges may be adjacent": (
        "(plain.target, plain.target, anti.target + count,",
        "(plain.target, plain.target, anti.target,",
    ),
    "the order of appends in no list is not tried": (
        "        if unordered and _is_open(judged):\n",
        "        if False:\n",
    ),
    "what was seen is committed at read uncommitted, too": (
        '    if "read-uncommitted" in judged.refuted and (t.outcome == INFO).any():\n',
        "    if False:\n",
    ),
}

REGISTERS = {
    "an aborted write may be read": ("    if len(aborted):\n", "    if False:\n"),
    "a value from nowhere passes": ("    if len(phantom):\n", "    if False:\n"),
    "what was overwritten by its own transaction may be read": (
        "    if len(some):\n        row, write",
        "    if False:\n        row, write",
    ),
    "a transaction need not see its own writes": ("    if wrong.any():\n", "    if False:\n"),
    "a key may change under a transaction": ("    if changed.any():\n", "    if False:\n"),
    "null may be read after a write": ("        parts += before_all(", "        before_all("),
    "a transaction that read null knows of nothing": ("    if len(too_new):\n", "    if False:\n"),
    "read committed: reads of one key one after the other": (
        "_of_others(r, [chained, found])",
        "_of_others(r, [found])",
    ),
    "read committed: reads of several keys": (
        "_of_others(r, [chained, found])",
        "_of_others(r, [chained])",
    ),
    "read committed knows what is read later": (
        'group * size + row[of], side="right"',
        'group * size, side="left"',
    ),
    "read atomic: whom it read from": (
        "    parts = [Inferred(writes, r.source[reads], r.reads[reads])]\n",
        "    parts = [Inferred(writes[:0], r.source[reads][:0], r.reads[reads][:0])]\n",
    ),
    "read atomic: what its process did": ("    if sessions:\n", "    if False:\n"),
    "causal: what the process knew": (
        "for each in (earlier, *sources) if earlier >= 0 else sources:",
        "for each in sources:",
    ),
    "causal: what those knew whom it read from": (
        "                maximum(own, self.clock[each], out=own)\n",
        "",
    ),
    "any lane will do": (
        "own[: self.lanes] == self.ends[: self.lanes]",
        "own[: self.lanes] >= -1",
    ),
    "a version that is read again later is put away": (
        "        _, cyclic = on_cycles(graph.count, joined([base, _behind_source(r, inferred)]))\n",
        "        _, cyclic = on_cycles(graph.count, base)\n",
    ),
    "any order of the versions fits": (
        "    if not len(on_cycles(count, joined([data, process, realtime]))[1]):\n",
        "    if True:\n",
    ),
    "dependencies that are not certain refute read committed": (", order_is_told=False", ""),
}

SCHEDULES = {
    "a version may be overwritten before all have read it": (
        "if left[now[key]] != own:",
        "if False:",
    ),
    "what is not there may be read": (
        "            if now[key] != version:\n",
        "            if False:\n",
    ),
    "whatever may come next is never wrong": ("self.begin[other] <= self.end[version]", "False"),
    "a wrong choice is final": ("if not choices or len(dead) > most:", "if True:"),
    "who read what was taken back has read it": ("self.left[version] += 1", "pass"),
    "what begins later may come first": ("self.early[self.waiting[self.at]] <= until", "True"),
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


@cache
def of_lists(number: int) -> tuple[History, dict[str, bool]]:
    """What chance seldom makes, then what it makes, with what the brute force says."""
    known = [*RARE_LISTS, *(example.history for example in LIST_EXAMPLES)]
    history = known[number] if number < len(known) else tiny(number)
    return history, levels_of_lists(history)


@cache
def of_registers(number: int) -> tuple[History, dict[str, VerdictValue]]:
    """The same with what the checker says as it is: what it knows must not be lost, either."""
    known = [*RARE_REGISTERS, *(example.history for example in REGISTER_EXAMPLES)]
    history = known[number] if number < len(known) else tiny(number, register=True)
    found: dict[str, VerdictValue] = {}
    found.update(rw_register.check_rw_register(transactions_of(rows(history))).levels)  # type: ignore[arg-type]
    return history, found


RARE_LISTS = [
    [  # what ended info is before nothing, also in its process
        Txn("p", 0, 5, "info", (a("x", 1),)),
        Txn("p", 6, 7, "ok", (r("x"),)),
        Txn("q", 0, 9, "ok", (r("x", 1),)),
    ],
    txns([a("x", 1)], [r("x")], t1=(0, 5), t2=(5, 9)),  # they touch
    txns(  # write skew of two that also append to one key, which nobody reads
        [a("k", 1), a("k", 2), r("j")], [r("k"), a("j", 3), a("j", 4), a("k", 5)]
    ),
    txns([a("x", 1)], [a("x", 2)], [r("x", 1)], [r("x", 2)]),  # lists that share nothing
    txns([a("x", 1), a("x", 2)], [r("x", 2)]),  # the first append of a transaction is missing
    [  # seen, and rolled back
        Txn("lost", 0, None, "info", (a("x", 1),)),
        *txns([r("x", 1)], [a("x", 2)], [r("x", 2)]),
    ],
]
RARE_REGISTERS = [
    # What is known through another one, of two sessions: one of them is in its lane.
    txns([w("x", 1)], [w("u", 1)], [v("x", 1), v("u", 1), w("y", 1)], [v("y", 1), v("x", None)]),
    txns([w("x", 1)], [w("u", 1)], [v("x", 1), v("u", 1), w("y", 1)], [v("y", 1), v("u", None)]),
    txns([w("x", 1)], [w("x", 2)], [v("x", 1), v("x", 2)], [v("x", 2), v("x", 1)]),
    # What is known between two reads of the same.
    txns(
        [w("x", 1)], [w("x", 2)], [v("x", 1), v("x", 1), v("x", 2)], [v("x", 2)] * 2 + [v("x", 1)]
    ),
    # Neither refuted nor proven: the order of the writes to x is not told.
    txns([w("x", 1)], [w("x", 2), v("y", None)], [w("y", 3)], [w("y", 5), v("x", 1)]),
    [
        Txn("p0", 1, 4, "ok", (w("x", 1),)),
        Txn("p0", 5, 10, "ok", (w("x", 2), v("y", None))),
        Txn("p1", 8, 15, "ok", (w("y", 3),)),
        Txn("p0", 12, 18, "ok", (w("x", 4),)),
        Txn("p1", 16, 22, "ok", (w("y", 5), v("x", 1))),
    ],
]


@pytest.mark.parametrize("name", LISTS)
def test_the_loss_of_a_rule_of_lists_is_noticed(name: str) -> None:
    check = load(*LISTS[name])["list_append"].check_list_append
    for seed in range(PATIENCE):
        history, told = of_lists(seed)
        if committed(history):
            try:
                found = check(transactions_of(rows(history))).levels
            except (AssertionError, IndexError, KeyError, ValueError):
                return
            if {level: verdict == "valid" for level, verdict in found.items()} != told:
                return
    pytest.fail("nothing was noticed")


@pytest.mark.parametrize("name", REGISTERS)
def test_the_loss_of_a_rule_of_registers_is_noticed(name: str) -> None:
    check = load(*REGISTERS[name])["rw_register"].check_rw_register
    for seed in range(PATIENCE):
        history, told = of_registers(seed)
        if committed(history):
            try:
                found = check(transactions_of(rows(history))).levels
            except (AssertionError, IndexError, KeyError, ValueError):
                return
            if found != told:
                return
    pytest.fail("nothing was noticed")


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_loss_of_a_rule_of_the_schedule_is_noticed(name: str) -> None:
    check = load(*SCHEDULES[name])["rw_register"].check_rw_register
    histories = [
        register_history(100, keys=5, seed=1),
        register_history(60, keys=10, clients=30, seed=1),
    ]
    assert all(rw_register.check_rw_register(each).verdict == "valid" for each in histories)
    assert any(check(each).verdict == "unknown" for each in histories)
