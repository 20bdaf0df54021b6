"""Simulated histories before the real checkers, which nodes/ may not import."""

from __future__ import annotations

import msgspec

from bench.checkers.budget import Budget
from bench.checkers.linearizability import check_linearizable
from bench.record.columns import Columns
from bench.record.history import OperationRecord
from nodes.simulator.simulate import Alarm, SimulationResult, promises_once


def records(result: SimulationResult) -> list[OperationRecord]:
    return [
        msgspec.convert(record, OperationRecord, from_attributes=True) for record in result.history
    ]


def linearizable(result: SimulationResult) -> list[Alarm]:
    """An alarm if the history refutes the claim."""
    if not promises_once(result.setup):
        return []
    check = check_linearizable(Columns.from_records(records(result)), budget=Budget(1.0))
    if check.verdict == "invalid":
        return [Alarm(result.seed, "linearizability", check.summary, result.duration_s)]
    return []
