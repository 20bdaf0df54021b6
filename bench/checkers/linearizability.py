"""Is the history linearizable, each key a register?

Which algorithm decides, key by key (`auto`):

- ``zones`` (`bench.checkers.zones`) where the written values are unique: exact and fast.
- ``search`` (`bench.checkers.search`) where they are not: a value was written twice, a deletion
  wrote null, which is the initial value, or a refused CAS did not say what it saw. Within a budget
  of time and memory, over which the verdict is *unknown*.

A read that returned several siblings is no read of a register: a history that holds one, and no
other contradiction, is *invalid* with that read as its witness.
"""

from __future__ import annotations

import time

import numpy as np

from bench.checkers import witness as words
from bench.checkers.columns import CAS, DELETE, NULL, Columns
from bench.checkers.search import Budget, search, smaller, steps
from bench.checkers.zones import check_zones
from bench.run_folder import Check, VerdictValue
from nodes.effects import Value

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
    "siblings": "a read returned several values at once, a register has one",
}


def check_linearizable(
    c: Columns,
    *,
    initial: Value = None,
    history_is_cut: bool = False,
    clock_error_ns: int = 0,
    budget_s: float = 60.0,
    memory_bytes: int = 4 << 30,
) -> Check:
    """The verdict on the operations of ``c``.

    ``initial``: what every key holds at first. ``history_is_cut``: operations may be missing, so a
    read of a value of unknown origin is no contradiction, and *valid* is not to be had.
    ``clock_error_ns``: operations that are no further apart than this count as concurrent.
    ``budget_s`` and ``memory_bytes``: what the search may spend.

    Details: ``kind`` of the contradiction, ``why`` this algorithm, ``keys``, ``keys_searched``,
    ``keys_undecided``, ``values_of_unknown_origin``.
    """
    began = time.perf_counter()
    widened = c.widened(clock_error_ns)
    initial_code = NULL if initial is None else c.code_of(initial)
    finding = check_zones(widened, initial=initial_code, writes_missing=history_is_cut)
    kind: str | None = finding.kind
    rows = finding.witness
    if history_is_cut and kind is not None and _rests_on_null(c, rows):
        kind, rows = None, []
    undecided, spent = len(finding.left_out), ""
    if kind is None and finding.left_out and not history_is_cut:
        kind, rows, undecided, spent = _search_keys(
            widened, finding.left_out, initial_code, Budget(budget_s, memory_bytes)
        )
    if kind is None and c.siblings:
        kind, rows = "siblings", [min(c.siblings, key=lambda row: int(c.completed[row]))]
    witness = words.lines([c.record(row) for row in rows])

    verdict: VerdictValue = "valid"
    summary = f"{len(c)} operations on {len(c.keys)} keys can be put in one order"
    if kind is not None:
        verdict, summary = "invalid", f"{_WHY[kind]}: {words.sentence(witness)}"
    elif len(c) == 0:
        verdict, summary = "unknown", "there are no operations"
    elif history_is_cut:
        verdict = "unknown"
        summary = "the history was cut short, operations are missing from it"
    elif undecided:
        verdict = "unknown"
        summary = f"{undecided} of {len(c.keys)} keys are undecided: the search ran out of {spent}"
    searched = len(finding.left_out)
    return Check(
        name="linearizability",
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
        details={
            "kind": kind,
            "why": _why(c, searched),
            "keys": len(c.keys),
            "keys_searched": searched,
            "keys_undecided": undecided,
            "values_of_unknown_origin": len(finding.unexplained),
        },
    )


def _why(c: Columns, searched: int) -> str:
    if not searched:
        return "every written value is unique, so each read names its write"
    return (
        f"on {searched} of {len(c.keys)} keys a value was written more than once "
        "(a deletion writes null), or a refused CAS hides what it saw"
    )


def _search_keys(
    c: Columns, keys: list[int], initial: int, budget: Budget
) -> tuple[str | None, list[int], int, str]:
    """Search the given keys, those with few operations first. The kind of contradiction and its
    rows; how many keys stay undecided, and what ran out."""
    order = np.argsort(c.key, kind="stable")
    low = np.searchsorted(c.key[order], keys)
    high = np.searchsorted(c.key[order], keys, "right")
    undecided, spent = 0, ""
    for place in np.argsort(high - low, kind="stable").tolist():
        result = search(steps(c, order[low[place] : high[place]]), initial, budget)
        if result.outcome == "invalid":
            return "search", smaller(c, result.rows, initial), 0, ""
        if result.outcome != "valid":
            undecided, spent = undecided + 1, result.outcome
    return None, [], undecided, spent


def _rests_on_null(c: Columns, rows: list[int]) -> bool:
    """Whether a missing deletion might explain the contradiction after all."""
    sees_null = (c.value[rows] == NULL) | ((c.op[rows] == CAS) & (c.expected[rows] == NULL))
    return bool(sees_null.any() and (c.op == DELETE).any())
