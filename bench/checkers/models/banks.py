"""A bank: amounts are transferred between accounts, and each read sees all balances.

- *wrong total*: the balances of a read do not add up to what there is: the total that was said, or
  what the first read saw.
- *account missing*: a read has no balance for an account, or null.
- *negative balance*: an account is below zero, though nobody is allowed to overdraw it.

(Jepsen's `bank`.) Each read is judged by itself, so a *valid* says that money is neither made nor
lost, as under snapshot isolation or better; it does not say that transfers are serializable.
"""

from __future__ import annotations

from typing import Any

from bench.checkers.models.findings import Findings, ended_ok, keys_of, named
from bench.record.columns import Int64s
from bench.record.models.operations import Operations


def check_bank(o: Operations, findings: Findings, total: int | None = None) -> None:
    """What contradicts a bank, key by key. ``total``: what there is, None if it is not known."""
    reads = 0
    for key, rows in keys_of(o):
        reads += _note_reads(o, rows, f" of {key}" if key else "", total, findings)
    findings.details["reads"] = reads
    if reads == 0:
        findings.undecided = "the accounts were never read"


def _note_reads(o: Operations, rows: Int64s, of: str, total: int | None, findings: Findings) -> int:
    told = ended_ok(o, named(o, rows, "read")).tolist()
    balances = {row: _balances(o, row) for row in told if o.value_of(row) is not None}
    accounts = {account for each in balances.values() for account in each}
    wanted, first = total, -1
    for row, seen in balances.items():
        missing = [a for a in accounts if seen.get(a) is None]
        if missing:
            fuller = next(
                (r for r, each in balances.items() if each.get(missing[0]) is not None), row
            )
            words = f"a read{of} has no balance of {missing[0]!r}"
            findings.add("account missing", list(dict.fromkeys((fuller, row))), words)
            continue
        amount = sum(balance for balance in seen.values() if balance is not None)
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
    return len(balances)


def _balances(o: Operations, row: int) -> dict[Any, int | None]:
    value = o.value_of(row)
    if not isinstance(value, dict):
        raise o.refused(row, "a read of a bank is a map of accounts and balances")
    for balance in value.values():
        if balance is not None and type(balance) is not int:
            raise o.refused(row, "a balance is an integer")
    return value
