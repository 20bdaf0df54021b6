"""The operations of a workload's kind, as a run records them beside those of its registers."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

from bench.record.history import Stamp
from nodes.contract.replica import OperationKind, Outcome

Kind: TypeAlias = Literal[
    "register", "counter", "set", "set-full", "lock", "fenced-lock", "list-append"
]
"""What a workload's operations are of; but for registers, the model that judges them."""

NEEDED: Final[dict[Kind, tuple[OperationKind, ...]]] = {
    "register": (),
    "counter": ("read", "cas"),
    "set": ("read", "write"),
    "set-full": ("read", "cas"),
    "lock": ("read", "cas"),
    "fenced-lock": ("read", "cas"),
    "list-append": ("read", "cas"),
}
"""The operations of a register that each kind is done with."""


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
