"""Is the history linearizable, each key a register?

Which algorithm decides:

- ``zones`` (`bench.checkers.zones`): keys whose written values are unique. Exact and fast.
- Keys on which they are not (a deletion writes null, which is the initial value; a value was
  written twice; a refused CAS did not say what it saw) are not decided by it: *unknown*.

A read that returned several siblings is no read of a register: a history that holds one, and no
other contradiction, is *invalid* with that read as its witness.
"""

from __future__ import annotations

import time
from typing import Any

from bench.checkers import witness as words
from bench.checkers.columns import NULL, Columns
from bench.checkers.zones import Finding, check_zones
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
    "siblings": "a read returned several values at once, a register has one",
}


def check_linearizable(
    c: Columns, *, initial: Value = None, history_is_cut: bool = False, clock_error_ns: int = 0
) -> Check:
    """The verdict on the operations of ``c``.

    ``initial``: what every key holds at first. ``history_is_cut``: operations may be missing, so a
    read of a value of unknown origin is no contradiction, and *valid* is not to be had.
    ``clock_error_ns``: operations that are no further apart than this count as concurrent.
    Details: ``kind`` of the contradiction, ``keys``, ``keys_undecided``,
    ``values_of_unknown_origin``.
    """
    began = time.perf_counter()
    widened = c.widened(clock_error_ns)
    initial_code = NULL if initial is None else c.code_of(initial)
    finding = check_zones(widened, initial=initial_code, writes_missing=history_is_cut)
    kind: str | None = finding.kind
    rows = finding.witness
    if kind is None and c.siblings:
        kind, rows = "siblings", [min(c.siblings, key=lambda row: int(c.completed[row]))]
    witness = words.lines([c.record(row) for row in rows])
    verdict, summary = _judge(c, finding, kind, history_is_cut)
    if witness:
        summary = f"{summary}: {words.sentence(witness)}"
    details: dict[str, Any] = {
        "kind": kind,
        "keys": len(c.keys),
        "keys_undecided": len(finding.left_out),
        "values_of_unknown_origin": len(finding.unexplained),
    }
    return Check(
        name="linearizability",
        verdict=verdict,
        model="linearizable",
        algorithm="zones",
        operations=len(c),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=witness,
        details=details,
    )


def _judge(
    c: Columns, finding: Finding, kind: str | None, history_is_cut: bool
) -> tuple[VerdictValue, str]:
    if kind is not None:
        return "invalid", _WHY[kind]
    if len(c) == 0:
        return "unknown", "there are no operations"
    if history_is_cut:
        return "unknown", "the history was cut short, operations are missing from it"
    if finding.left_out:
        return "unknown", (
            f"{len(finding.left_out)} of {len(c.keys)} keys are undecided: "
            "their written values are not unique, or a refused CAS hides what it saw"
        )
    return "valid", f"{len(c)} operations on {len(c.keys)} keys can be put in one order"
