"""Histories of transactions as JSON lines (docs/HISTORY_FORMAT.md), as strict as
`bench.record.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from bench.record.history import MAX_LINE_BYTES, BadHistory, why_bad
from bench.record.jsonl import Integer64, blocks, given_twice, refuse
from bench.record.models.source import Source
from bench.record.transactions.builder import Builder
from bench.record.transactions.columns import Transactions
from bench.record.transactions.verdict import OperationName
from nodes.contract.replica import Outcome, Value

Step: TypeAlias = tuple[OperationName, str | Integer64, Value | list[Value]]

MOST_OPERATIONS: Final = 1 << 16
"""Of one transaction."""


class TransactionLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One line. ``transaction``: its operations, in the order in which they were sent."""

    process: str | Integer64
    id: Integer64 | None = None
    outcome: Outcome
    invoked_ns: Integer64
    completed_ns: Integer64 | None = None
    intended_ns: Integer64 | None = None
    transaction: list[Step]
    node: str | None = None
    error: str | None = None


_OPTIONAL: Final = ("id", "completed_ns", "intended_ns", "node", "error")
_decode = msgspec.json.Decoder(TransactionLine).decode


def read_transactions(given: Path | Source) -> Transactions:
    """The transactions of one file, row i is line i + 1; ``-`` is standard input.

    Raises BadHistory, which names the file, the line and the reason.
    """
    path = given if isinstance(given, Path) else given.path
    builder = Builder()
    for block in blocks(given):
        for line in block.removesuffix(b"\n").split(b"\n"):
            _take(builder, path, line)
    transactions, misfit = builder.columns()
    if misfit is not None:
        refuse(path, misfit.row + 1, misfit.reason)
    return transactions


def _take(builder: Builder, path: Path, line: bytes) -> None:
    number = len(builder) + 1
    if len(line) > MAX_LINE_BYTES:
        refuse(path, number, f"line of more than {MAX_LINE_BYTES} bytes")
    if not line.strip():
        refuse(path, number, "empty line")
    try:
        read = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refuse(path, number, why_bad(line, error))
    fields = 4 + sum(getattr(read, name) is not None for name in _OPTIONAL)
    if line.count(b":") != fields and (twice := given_twice(line)) is not None:
        refuse(path, number, f"field `{twice}` is given twice")
    if len(read.transaction) > MOST_OPERATIONS:
        refuse(path, number, f"field `transaction` has more than {MOST_OPERATIONS} operations")
    try:
        builder.add(
            read.process,
            read.invoked_ns,
            read.completed_ns,
            read.outcome,
            read.transaction,
            read.id,
        )
    except BadHistory as error:
        refuse(path, number, f"field `transaction`: {error}")
