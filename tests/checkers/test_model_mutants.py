"""Is every rule of the models' checkers needed, and would the tests notice its loss?"""

from __future__ import annotations

import random
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest

from bench.checkers.models import appends, banks, check, counters, ids, locks, queues, sets
from tests.checkers.tiny_models import MODELS, operations_of, rare

PATIENCE = 3_000
"""Histories after which a mutant counts as not noticed."""

MUTANTS: dict[str, tuple[ModuleType, str, str, str]] = {
    "an add that failed counts": (
        sets,
        "set",
        "return adds[o.outcome[adds] != FAIL]",
        "return adds",
    ),
    "elements from nowhere pass": (
        sets,
        "set",
        "early = np.flatnonzero(first_seen < self.begun)",
        "early = first_seen[:0]",
    ),
    "a read may have what is added later": (
        sets,
        "set",
        "first_seen < self.begun",
        "(first_seen < self.begun) & (self.begun == NEVER)",
    ),
    "elements twice pass": (sets, "set", "twice=np.flatnonzero(counts > 1)", "twice=pairs[:0]"),
    "nothing is lost": (
        sets,
        "set",
        "lost = late & (last_present < missed)",
        "lost = late & False",
    ),
    "what is missed once is lost": (
        sets,
        "set",
        "lost = late & (last_present < missed)",
        "lost = late",
    ),
    "only the answer to an add makes it known": (
        sets,
        "set-full",
        "known = np.minimum(self.acknowledged, first_seen)",
        "known = self.acknowledged",
    ),
    "only reads make known": (
        sets,
        "set",
        "known = np.minimum(self.acknowledged, first_seen)",
        "known = first_seen",
    ),
    "a read that overlaps what makes it known is late": (
        sets,
        "set",
        "(known < missed)",
        "(known <= missed)",
    ),
    "the first read that misses it counts, not the last": (
        sets,
        "set",
        "np.argsort(-o.invoked[found], kind",
        "np.argsort(o.invoked[found], kind",
    ),
    "late reads are no matter": (
        sets,
        "set-full",
        "late = is_missed & (known < missed)",
        "late = is_missed & False",
    ),
    "reads need not be ordered": (
        sets,
        "set-full",
        "torn = np.flatnonzero(union != sizes[by_size])",
        "torn = union[:0]",
    ),
    "adds need not be ordered": (
        sets,
        "set-full",
        "skipped = np.flatnonzero(before < self.begun[order])",
        "skipped = order[:0]",
    ),
    "adds of one read are ordered": (
        sets,
        "set-full",
        '-slot[order], "left")',
        '-slot[order], "right")',
    ),
    "an add that failed is counted": (
        counters,
        "counter",
        "adds[o.outcome[adds] != FAIL]",
        "adds",
    ),
    "no read is too low": (counters, "counter", "self.value < low", "self.value < low - 99"),
    "no read is too high": (counters, "counter", "self.value > high", "self.value > high + 99"),
    "what overlaps a read is certain": (
        counters,
        "counter",
        "amount, begins, inclusive=False)",
        "amount, begins, inclusive=True)",
    ),
    "what begins when a read ends is not seen": (
        counters,
        "counter",
        "part, ends, inclusive=True)",
        "part, ends, inclusive=False)",
    ),
    "any sum within the bounds will do": (
        counters,
        "counter",
        "if (np.abs(amount) == 1).all():",
        "if True:",
    ),
    "reads may go back": (
        counters,
        "counter",
        "places = np.flatnonzero(self.value < seen)",
        "places = seen[:0]",
    ),
    "reads go back where somebody subtracts": (
        counters,
        "counter",
        "if (self.amount < 0).any() or ",
        "if ",
    ),
    "overlapping reads are ordered": (
        counters,
        "counter",
        'o.invoked[self.reads], "left")',
        'o.invoked[self.reads], "right")',
    ),
    "what failed was enqueued": (
        queues,
        "queue",
        "        if outcome == FAIL:\n            continue\n",
        "",
    ),
    "elements may come from nowhere": (
        queues,
        "queue",
        "            if not elements:\n",
        "            if not elements:\n                continue\n            if False:\n",
    ),
    "elements may come early": (
        queues,
        "queue",
        "if o.completed[row] < o.invoked[element.row]:",
        "if False:",
    ),
    "elements may come twice": (
        queues,
        "queue",
        "elif len(rows) > len(elements):",
        "elif False:",
    ),
    "nothing is lost from a queue": (
        queues,
        "total-queue",
        "        if worst < 0:\n            return 0\n",
        "        if True:\n            return most\n",
    ),
    "what overlaps an empty queue is lost": (
        queues,
        "total-queue",
        "gone = bisect_left(since, int(o.invoked[row]))",
        "gone = len(waiting)",
    ),
    "a dequeue of unknown outcome takes nothing": (
        queues,
        "total-queue",
        "return bisect_right(self.unsure_since, until)",
        "return 0",
    ),
    "a full queue may be found empty": (
        queues,
        "total-queue",
        "        if not rows:\n            return\n        begin",
        "        if True:\n            return\n        begin",
    ),
    "elements that are one behind the other leave the queue empty": (
        queues,
        "total-queue",
        "ends[-1] = max(ends[-1], end)",
        "ends[-1] = end",
    ),
    "an empty queue that is touched is covered": (
        queues,
        "total-queue",
        'np.searchsorted(begins, self.o.invoked[row], "left")',
        'np.searchsorted(begins, self.o.invoked[row], "right")',
    ),
    "overlapping dequeues are ordered": (
        queues,
        "queue",
        "o.invoked[latest.taken] > ended:",
        "o.invoked[latest.taken] >= ended:",
    ),
    "elements may be passed over": (
        queues,
        "queue",
        "        if len(waiting) <= count:",
        "        if True:",
    ),
    "what was enqueued at an unknown time has an order": (
        queues,
        "queue",
        "if o.outcome[element.row] != OK:",
        "if False:",
    ),
    "a dequeue of unknown outcome explains nothing": (
        queues,
        "queue",
        '            self.findings.undecided = (\n                "elements',
        '            _ = (\n                "elements',
    ),
    "locks are shared": (
        locks,
        "lock",
        "later.earliest < earlier.latest:",
        "False:",
    ),
    "locks that touch overlap": (
        locks,
        "lock",
        "later.earliest < earlier.latest:",
        "later.earliest <= earlier.latest:",
    ),
    "a short hold inside another passes": (
        locks,
        "lock",
        "if around.latest > hold.earliest:",
        "if False:",
    ),
    "anybody may release": (
        locks,
        "lock",
        '        if not self.unsure["acquire"]:\n            return False\n',
        '        if not self.unsure["acquire"]:\n            return True\n',
    ),
    "an acquire of unknown outcome is none": (
        locks,
        "lock",
        '        if not self.unsure["acquire"]:',
        "        if True:",
    ),
    "a release of unknown outcome is none": (
        locks,
        "lock",
        'if self.current is not None and self.unsure["release"]:',
        "if False:",
    ),
    "a release of unknown outcome frees before the acquire": (
        locks,
        "lock",
        "self.current.latest = int(begun.max())",
        "self.current.latest = int(begun.min())",
    ),
    "numbers may repeat": (
        locks,
        "fenced-lock",
        "    if len(twice):\n",
        "    if False:\n",
    ),
    "numbers may fall": (locks, "fenced-lock", "    if len(late):\n", "    if False:\n"),
    "numbers of overlapping acquires are ordered": (
        locks,
        "fenced-lock",
        "] < o.invoked[acquires[falling]])",
        "] <= o.invoked[acquires[falling]])",
    ),
    "money is made": (banks, "bank", "if amount != wanted:", "if False:"),
    "accounts may be missing": (banks, "bank", "        if missing:\n", "        if False:\n"),
    "accounts may be overdrawn": (banks, "bank", "        if below:\n", "        if False:\n"),
    "ids may repeat": (ids, "unique-ids", "if earlier != row:", "if False:"),
    "ids of failed operations count": (
        ids,
        "unique-ids",
        "ended_ok(o, rows).tolist()",
        "rows.tolist()",
    ),
    "a mutex is released to be held": (
        appends,
        "mutex",
        "value = np.where(is_acquire, held, NULL)",
        "value = np.where(is_acquire, held, held)",
    ),
    "an append may follow two texts": (
        appends,
        "append-kv",
        "before.setdefault(row, state) != state",
        "before.setdefault(row, state) == ''",
    ),
    "an append that nobody saw is forgotten": (
        appends,
        "append-kv",
        '_Deed(WRITE, f"unseen {row}")',
        "_Deed(READ, None, is_told=False)",
    ),
    "an append does not weld": (
        appends,
        "append-kv",
        "_Deed(CAS, before[row] + text, before[row])",
        "_Deed(WRITE, before[row] + text)",
    ),
}
CHECKS = {
    sets: ("check_set",),
    counters: ("check_counter",),
    queues: ("check_queue",),
    locks: ("check_lock", "check_fenced_lock"),
    banks: ("check_bank",),
    ids: ("check_unique_ids",),
    appends: ("texts_as_registers", "mutex_as_register"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_loss_of_a_rule_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, model, rule, bent = MUTANTS[name]
    source = Path(str(module.__file__)).read_text()
    assert source.count(rule) == 1, "the mutant does not fit the source any more"
    mutant = ModuleType(module.__name__)
    monkeypatch.setitem(__import__("sys").modules, module.__name__, mutant)
    exec(compile(source.replace(rule, bent), module.__name__, "exec"), mutant.__dict__)
    for function in CHECKS[module]:
        monkeypatch.setattr(check, function, getattr(mutant, function))
    make, holds = MODELS[model]
    some = (make(random.Random(seed)) for seed in range(PATIENCE))
    for ops in chain(rare(model), some):
        try:
            verdict = check.check_model(operations_of(ops), model).verdict
        except (IndexError, ValueError, KeyError, AssertionError):
            return
        if verdict != "unknown" and (verdict == "valid") != holds(ops):
            return
    raise AssertionError(f"not noticed within {PATIENCE} histories")
