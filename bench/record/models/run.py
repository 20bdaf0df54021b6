"""The operations of a workload's kind, as a run records them beside those of its registers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from bench.record.history import RecordedOperation, Stamp
from nodes.contract.replica import Outcome

Kind: TypeAlias = Literal[
    "register", "counter", "set", "set-full", "lock", "fenced-lock", "list-append", "bank"
]
"""What a workload's operations are of; but for registers, the model that judges them."""

NEEDED: Final[dict[Kind, tuple[RecordedOperation, ...]]] = {
    "register": (),
    "counter": ("read", "cas"),
    "set": ("read", "write"),
    "set-full": ("read", "cas"),
    "lock": ("read", "cas"),
    "fenced-lock": ("read", "cas"),
    "list-append": ("read", "cas"),
    "bank": ("transaction",),
}
"""The operations that each kind is done with; see `by_transactions`, too."""


def by_transactions(kind: Kind, operations: Sequence[str]) -> bool:
    """Whether a workload of this kind is done with transactions, where these are the operations
    that are offered."""
    return kind in ("list-append", "bank") and "transaction" in operations


def missing(kind: Kind, operations: Sequence[str]) -> list[str]:
    """What a workload of this kind needs beside these operations."""
    if by_transactions(kind, operations):
        return []
    return [op for op in NEEDED[kind] if op not in operations]


class ModelRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One operation, as docs/HISTORY_FORMAT.md has it. ``op``, ``key`` and ``value``, or
    ``transaction`` alone."""

    process: str
    id: Stamp
    op: str | None = None
    key: str | None = None
    value: Any = msgspec.UNSET
    transaction: list[tuple[str, str, Any]] | msgspec.UnsetType = msgspec.UNSET
    outcome: Outcome
    invoked_ns: Stamp
    completed_ns: Stamp | None = None
    intended_ns: Stamp | None = None
    node: str | None = None
    error: str | None = None
