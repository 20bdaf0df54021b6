"""What is said of a history of a set, a counter, a queue, a lock ..."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from nodes.contract.replica import Outcome

VerdictValue: TypeAlias = Literal["valid", "invalid", "unknown"]


class Operation(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One operation, as a witness shows it. ``op``: what it was, such as ``enqueue``. ``value``:
    what was asked for or answered; None: null, or nothing. ``completed_ns`` is None where nobody
    knows when, or whether, it took effect."""

    process: str
    id: int
    op: str
    key: str | None = None
    value: Any = None
    outcome: Outcome
    invoked_ns: int
    completed_ns: int | None = None


class ModelStep(msgspec.Struct, kw_only=True, frozen=True):
    """One operation of a witness, and what it did, in words."""

    operation: Operation
    role: str


class Anomaly(msgspec.Struct, kw_only=True, frozen=True):
    """One kind of contradiction: how many there are, and the first in words."""

    count: int
    example: str


class ModelCheck(msgspec.Struct, kw_only=True, frozen=True):
    """``model``: what was asked for; ``strongest``: the strongest of its kind that the history does
    not refute, ``none`` or ``unknown``. ``witness``: the operations that contradict each other.
    ``anomalies``: by name, those included that ``model`` allows. ``details``: figures."""

    verdict: VerdictValue
    model: str
    algorithm: str
    strongest: str
    operations: int
    seconds: float
    summary: str
    witness: list[ModelStep]
    anomalies: dict[str, Anomaly]
    details: dict[str, Any]
