"""What is said of a history of a set, a counter, a queue, a lock ..."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from bench.record.models.operations import Operation

VerdictValue: TypeAlias = Literal["valid", "invalid", "unknown"]


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
