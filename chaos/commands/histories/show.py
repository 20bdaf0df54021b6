"""What a person is shown of a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.record.verdict import Check, WorkloadCheck
from bench.record.witness import Line, timeline

_MOST_LINES = 40
"""Of a witness, on a terminal."""


def print_checks(checks: Iterable[Check]) -> None:
    """One line for each check, and the witness of what is violated."""
    for check in checks:
        print(f"  {check.name}: {check.verdict} ({check.operations} operations): {check.summary}")
        print_witness(check)


def print_witness(check: Check) -> None:
    """The operations that contradict each other, if the check found any."""
    if check.verdict != "invalid":
        return
    print_lines(check.witness)
    if isinstance(check, WorkloadCheck):
        if (of_model := check.details.model) is not None:
            print_lines(of_model.witness)
        if (of_transactions := check.details.transactions) is not None:
            print("\n".join(f"    {line}" for line in of_transactions.lines()))


def print_lines(witness: Sequence[Line]) -> None:
    """Operations as bars; of many, the first."""
    if witness:
        print("    " + timeline(witness[:_MOST_LINES]).replace("\n", "\n    "))
    if len(witness) > _MOST_LINES:
        print(f"    and {len(witness) - _MOST_LINES} more (all of them: --json)")
