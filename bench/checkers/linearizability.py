"""Is the history linearizable, each key a register?

The algorithm depends on the key:

- ``zones`` (`bench.checkers.zones`) if the written values are unique: exact and fast.
- ``search`` (`bench.checkers.search`) if they are not: a value was written twice, a deletion wrote
  null, which is the initial value, or a refused CAS did not say what it saw. The search has a
  budget of time and memory; beyond it the verdict is *unknown*.

A register has one value: a history with a read that returned several siblings, and no other
contradiction, is *invalid* with that read as its witness.

Ties, and times closer than the clock error, count as concurrent. But a process knows the order of
its own operations. If two operations of one process touch, or are closer than the clock error,
*valid* requires that the history is also linearizable in program order. If that cannot be shown,
program order alone may refute the history; else the verdict is *unknown*.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from bench.checkers.budget import Budget
from bench.checkers.causal import check_causal
from bench.checkers.reads_from import program_order
from bench.checkers.search import search, smaller, steps
from bench.checkers.sequential import CUT_SHORT, NOTHING_OK, check_sequential
from bench.checkers.zones import Finding, check_zones
from bench.record import witness as words
from bench.record.columns import CAS, NEVER, NULL, OK, READ, SPAN_LIMIT, Columns
from bench.record.quantities import plural
from bench.record.verdict import (
    Check,
    Linearizability,
    LinearizabilityCheck,
    VerdictValue,
)
from nodes.contract.replica import Value

_WITNESS_S = 2.0
"""At most so long a contradiction is made smaller."""

_WHY = {
    "never-written": "a value was seen that no operation can have written",
    "read-before-write": "a value was read before its write began",
    "refused-match": "a CAS was refused although it saw the value that it expected",
    "two-cas-of-one-value": "two CAS changed the same value",
    "cas-cycle": "CAS operations depend on each other in a circle",
    "chain-order": "CAS operations stand in the wrong order",
    "overlap": "the operations cannot be put in one order",
    "inside": "the operations cannot be put in one order",
    "search": "the operations cannot be put in one order",
    "program-order": "the operations of one process cannot be in its order",
    "siblings": "a read returned several values at once, a register has one",
}


def check_linearizable(
    c: Columns,
    *,
    initial: Value = None,
    history_is_cut: bool = False,
    clock_error_ns: int = 0,
    budget: Budget | None = None,
) -> LinearizabilityCheck:
    """The verdict on the operations of ``c``.

    ``initial``: the initial value of every key. ``history_is_cut``: operations may be missing, so a
    read of a value of unknown origin is no contradiction, and the verdict is never *valid*.
    ``clock_error_ns``: operations no further apart than this count as concurrent. ``budget``: the
    limits of the search.
    """
    began = time.perf_counter()
    initial_code = NULL if initial is None else c.code_of(initial)
    budget = budget or Budget()
    widened = c.widened(clock_error_ns)
    found = _decide(widened, initial_code, budget, history_is_cut)
    by_program_order: Check | None = None
    if found.is_valid and touches(widened):
        parted = in_program_order(_widened_apart(c, clock_error_ns))
        ordered = _decide(parted, initial_code, budget, history_is_cut)
        if not ordered.is_valid:
            by_program_order = _refuted_without_time(c, initial_code, budget)
            found.undecided = _TOUCH if clock_error_ns == 0 else _TOO_CLOSE
    finding, kind = found.finding, found.kind
    witness = words.lines([c.record(row) for row in found.rows])

    verdict: VerdictValue = "valid"
    of = f"{plural(len(c), 'operation')} on {plural(len(c.keys), 'key')}"
    summary = f"{of} can be put in one order"
    if kind is not None:
        verdict, summary = "invalid", f"{_WHY[kind]}: {words.sentence(witness)}"
    elif by_program_order is not None:
        verdict, kind, witness = "invalid", "program-order", by_program_order.witness
        summary = by_program_order.summary
    elif not (c.outcome == OK).any():
        verdict, summary = "unknown", NOTHING_OK if len(c) else "there are no operations"
    elif history_is_cut:
        verdict, summary = "unknown", CUT_SHORT
    elif found.undecided:
        verdict, summary = "unknown", found.undecided
    searched = len(finding.left_out)
    return LinearizabilityCheck(
        verdict=verdict,
        model="linearizable",
        algorithm="zones"
        if not searched
        else "search"
        if searched == len(c.keys)
        else "zones and search",
        operations=len(c),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=witness,
        details=Linearizability(
            kind=kind,
            why=_why(c, searched),
            keys=len(c.keys),
            keys_searched=searched,
            keys_undecided=found.keys_undecided,
            values_of_unknown_origin=len(finding.unexplained),
        ),
    )


_TOUCH = (
    "operations of one process touch in time, and the order of all others then decides: give "
    "finer times"
)
_TOO_CLOSE = (
    "operations of one process are no further apart than the clock error, and the order of all "
    "others then decides"
)


@dataclass(slots=True)
class _Decision:
    """``kind`` of the contradiction and its ``rows``, None if there is none; ``undecided``: why the
    result is unknown."""

    finding: Finding
    kind: str | None
    rows: list[int]
    keys_undecided: int
    undecided: str

    @property
    def is_valid(self) -> bool:
        return self.kind is None and not self.undecided


def _decide(c: Columns, initial: int, budget: Budget, history_is_cut: bool) -> _Decision:
    """Decide by zones and search."""
    finding = check_zones(c, initial=initial, writes_missing=history_is_cut)
    kind: str | None = finding.kind
    rows = finding.witness
    if history_is_cut and kind not in (None, "refused-match") and _rests_on_null(c, rows, initial):
        kind, rows = None, []
    keys_undecided, undecided = len(finding.left_out), ""
    if kind is None and finding.left_out and not history_is_cut:
        kind, rows, keys_undecided, spent = _search_keys(c, finding.left_out, initial, budget)
        if keys_undecided:
            undecided = (
                f"{keys_undecided} of {len(c.keys)} keys are undecided: the search ran out of "
                f"{spent}"
            )
    several = [row for row in c.siblings if c.outcome[row] == OK]
    if kind is None and several:
        kind, rows = "siblings", [min(several, key=lambda row: int(c.completed[row]))]
    return _Decision(finding, kind, rows, keys_undecided, undecided)


def _refuted_without_time(c: Columns, initial: int, budget: Budget) -> Check | None:
    """A contradiction by program order alone."""
    for check in (check_sequential(c, initial), check_causal(c, initial, budget=budget)):
        if check.verdict == "invalid":
            return check
    return None


def touches(c: Columns) -> bool:
    """Whether an operation begins no later than the previous one of its process ended."""
    if c.touches is None:
        order = program_order(c, np.arange(len(c)))
        same = c.process[order[1:]] == c.process[order[:-1]]
        c.touches = bool(
            (
                same
                & (c.completed[order[:-1]] >= c.invoked[order[1:]])
                & (c.completed[order[:-1]] != NEVER)
            ).any()
        )
    return c.touches


def _widened_apart(c: Columns, clock_error_ns: int) -> Columns:
    """``c`` widened as far as the operations of each process stay apart or touch: each gets at most
    half of the gap to the next. If the result is linearizable, so is ``c`` with the clock error and
    in program order. Not widened if that would overflow 64 bits."""
    if clock_error_ns == 0 or clock_error_ns >= SPAN_LIMIT or c.times.instants is not None:
        return c
    apart = c.take(np.arange(len(c)))
    order = program_order(c, np.arange(len(c)))
    process, begins, ends = c.process[order], c.invoked[order], c.completed[order]
    before = np.full(len(order), clock_error_ns // 2)
    after = clock_error_ns - before
    # Nothing needs to follow an operation that never ended: the last one that did counts.
    places = np.arange(len(order))
    certain = np.maximum.accumulate(np.where(ends != NEVER, places, -1))
    last = np.concatenate(([-1], certain[:-1]))
    mine = np.flatnonzero((last >= 0) & (process[last] == process))
    before[mine] = np.minimum(before[mine], np.maximum(0, begins[mine] - ends[last[mine]]) // 2)
    follows = np.flatnonzero((process[1:] == process[:-1]) & (ends[:-1] != NEVER))
    gap = np.maximum(0, begins[follows + 1] - ends[follows])
    after[follows] = np.minimum(after[follows], gap - gap // 2)
    ended = ends != NEVER
    apart.invoked[order] -= before
    apart.completed[order[ended]] += after[ended]
    return apart


def in_program_order(c: Columns) -> Columns:
    """``c`` with its instants split so that touching operations of one process come one after the
    other. That also orders some operations of other processes: if the result is linearizable, so is
    ``c``, but not conversely."""
    order = program_order(c, np.arange(len(c)))
    instants = np.unique(np.concatenate((c.invoked, c.completed)))
    invoked = np.searchsorted(instants, c.invoked)
    completed = np.searchsorted(instants, c.completed)
    process, begins, ends = c.process[order], invoked[order], completed[order]
    # The operations that begin at one instant are numbered per process; from 1 on if the previous
    # operation ended there.
    places = np.arange(len(order))
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (process[1:] != process[:-1]) | (begins[1:] != begins[:-1])
    touches = np.zeros(len(order), np.bool_)
    touches[1:] = (process[1:] == process[:-1]) & (ends[:-1] == begins[1:])
    first = np.maximum.accumulate(np.where(is_first, places, 0))
    number = places - first + touches[first]
    span = int(number.max(initial=0)) + 1
    parted = c.take(np.arange(len(c)))
    parted.invoked, parted.completed = invoked * span, completed * span
    parted.invoked[order] += number
    takes_no_time = ends == begins
    parted.completed[order[takes_no_time]] += number[takes_no_time]
    parted.completed[c.completed == NEVER] = NEVER
    parted.touches = False
    return parted


def _why(c: Columns, searched: int) -> str:
    if not searched:
        return "every written value is unique, so each read identifies its write"
    return (
        f"on {searched} of {len(c.keys)} keys a value was written more than once "
        "(a deletion writes null), or a refused CAS hides what it saw"
    )


def _search_keys(
    c: Columns, keys: list[int], initial: int, budget: Budget
) -> tuple[str | None, list[int], int, str]:
    """Search the given keys, those with few operations first. Returns the kind of contradiction and
    its rows, how many keys are undecided, and which budget ran out."""
    order = np.argsort(c.key, kind="stable")
    low = np.searchsorted(c.key[order], keys)
    high = np.searchsorted(c.key[order], keys, "right")
    undecided, spent = 0, ""
    for place in np.argsort(high - low, kind="stable").tolist():
        result = search(steps(c, order[low[place] : high[place]]), initial, budget)
        if result.outcome == "invalid":
            return "search", smaller(c, result.rows, initial, budget.part(_WITNESS_S)), 0, ""
        if result.outcome != "valid":
            undecided, spent = undecided + 1, result.outcome
    return None, [], undecided, spent


def _rests_on_null(c: Columns, rows: list[int], initial: int) -> bool:
    """Whether a missing deletion might explain the contradiction after all: only if an operation
    saw null or the initial value."""
    observed = np.where(c.op == CAS, np.where(c.applied, c.expected, c.seen), c.value)[rows]
    sees = (c.op[rows] == READ) | (c.op[rows] == CAS)
    return bool((sees & ((observed == NULL) | (observed == initial))).any())
