"""Transactions, from operations whose values are lists of what they did: Jepsen's ``txn``."""

from __future__ import annotations

from typing import Any, Final

from bench.record.columns import NEVER, OUTCOMES
from bench.record.history import BadHistory
from bench.record.models.operations import Operations
from bench.record.transactions.builder import Builder
from bench.record.transactions.columns import Transactions

OPERATION: Final = "txn"
_NAMES: Final = {
    "r": "read",
    "read": "read",
    "w": "write",
    "write": "write",
    "append": "append",
}


def transactions_of_operations(operations: Operations) -> Transactions:
    """The transactions of a history. Raises BadHistory for any other operation, and for a value
    that is not ``[[:append 1 2] [:r 3 nil] ...]``."""
    builder = Builder()
    o = operations
    for row in range(len(o)):
        if o.names[o.op[row]] != OPERATION:
            raise o.refused(row, f"{o.names[o.op[row]]!r} is no transaction (txn)")
        gave_up = int(o.gave_up[row])
        try:
            builder.add(
                o.processes[o.process[row]],
                int(o.invoked[row]),
                None if gave_up == NEVER else gave_up,
                OUTCOMES[o.outcome[row]],
                _parts(o.value_of(row)),
                int(o.id[row]),
            )
        except BadHistory as error:
            raise o.refused(row, str(error)) from None
    transactions, misfit = builder.columns()
    if misfit is not None:
        raise o.refused(misfit.row, misfit.reason)
    transactions.times = o.times
    return transactions


def part_names(operations: Operations) -> set[str]:
    """``read``, ``write`` and ``append``, as far as transactions have them."""
    found = set()
    for value in operations.values:
        for part in value if isinstance(value, list) else ():
            if isinstance(part, list) and part and isinstance(part[0], str):
                found.add(_NAMES.get(part[0], part[0]))
    return found


def _parts(value: Any) -> list[tuple[str, str | int, Any]]:
    if not isinstance(value, list):
        raise BadHistory("the value of a transaction is a list of operations")
    found: list[tuple[str, str | int, Any]] = []
    for part in value:
        if not isinstance(part, list) or len(part) not in (2, 3) or part[0] not in _NAMES:
            raise BadHistory("an operation of a transaction is [:r, :w or :append, key, value]")
        key = part[1]
        if not isinstance(key, str | int):
            raise BadHistory("a key is a number, a text or a keyword")
        found.append((_NAMES[part[0]], str(key), part[2] if len(part) == 3 else None))
    return found
