"""A bank: amounts are transferred between accounts, and each read sees all balances.

- *wrong total*: the balances of a read do not add up to what there is: the total that was said, or
  what the first read saw.
- *account missing*: a read has no balance for an account, or null.
- *negative balance*: an account is below zero, though nobody is allowed to overdraw it.

(Jepsen's `bank`.) Each read is judged by itself, so a *valid* says that money is neither made nor
lost, as under snapshot isolation or better; it does not say that transfers are serializable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bench.checkers.models.findings import Findings, ended_ok, keys_of, named
from bench.record.columns import Int64s
from bench.record.models.operations import Operations

MOST_TOTALS: Final = 400
"""In the details: half of them for those that are wrong."""


def check_bank(o: Operations, findings: Findings, total: int | None = None) -> None:
    """What contradicts a bank, key by key. ``total``: what there is, None if it is not known. The
    details have the totals that the reads of one bank saw, with their times, to be drawn."""
    reads = 0
    banks = keys_of(o)
    for key, rows in banks:
        totals = _note_reads(o, rows, f" of {key}" if key else "", total, findings)
        reads += len(totals)
        if len(banks) == 1:
            _tell(o, totals, total, findings)
    findings.details["reads"] = reads
    if reads == 0:
        findings.undecided = "the accounts were never read"


def _tell(
    o: Operations, totals: dict[int, int | None], total: int | None, findings: Findings
) -> None:
    """The totals over time, evenly thinned out if there are many."""
    told = {row: amount for row, amount in totals.items() if amount is not None}
    if not told:
        return
    wanted = next(iter(told.values())) if total is None else total
    ended = {row: int(o.completed[row]) for row in told}
    kept: list[int] = []
    for wrong in (True, False):
        some = sorted(
            (row for row in told if (told[row] != wanted) == wrong), key=ended.__getitem__
        )
        kept += _thinned(some)
    kept.sort(key=ended.__getitem__)
    findings.details["total"] = wanted
    findings.details["totals"] = [[o.times.of_history(ended[row]), told[row]] for row in kept]


def _thinned(rows: Sequence[int]) -> Sequence[int]:
    return rows[:: -(-len(rows) // (MOST_TOTALS // 2)) or 1]


def _note_reads(
    o: Operations, rows: Int64s, of: str, total: int | None, findings: Findings
) -> dict[int, int | None]:
    """The total of each read, None where an account is missing."""
    totals: dict[int, int | None] = {}
    told = ended_ok(o, named(o, rows, "read")).tolist()
    balances = {row: _balances(o, row) for row in told if o.value_of(row) is not None}
    accounts = {account for each in balances.values() for account in each}
    wanted, first = total, -1
    for row, seen in balances.items():
        missing = [a for a in accounts if seen.get(a) is None]
        totals[row] = None
        if missing:
            fuller = next(
                (r for r, each in balances.items() if each.get(missing[0]) is not None), row
            )
            words = f"a read{of} has no balance of {missing[0]!r}"
            findings.add("account missing", list(dict.fromkeys((fuller, row))), words)
            continue
        amount = sum(balance for balance in seen.values() if balance is not None)
        totals[row] = amount
        if wanted is None:
            wanted, first = amount, row
        if amount != wanted:
            words = f"the balances{of} add up to {amount}, and there is {wanted}"
            findings.add("wrong total", [each for each in (first, row) if each >= 0], words)
        below = [
            account for account, balance in seen.items() if balance is not None and balance < 0
        ]
        if below:
            words = f"{below[0]!r}{of} has {seen[below[0]]}"
            findings.add("negative balance", [row], words, len(below))
    return totals


def _balances(o: Operations, row: int) -> dict[Any, int | None]:
    value = o.value_of(row)
    if not isinstance(value, dict):
        raise o.refused(row, "a read of a bank is a map of accounts and balances")
    for balance in value.values():
        if balance is not None and type(balance) is not int:
            raise o.refused(row, "a balance is an integer")
    return value
