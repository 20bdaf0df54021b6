"""Witnesses in words: the few operations that cannot be ordered, and the part each plays."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.history import OperationRecord
from bench.run_folder import WitnessLine
from nodes.effects import Value


def duration(nanoseconds: int) -> str:
    """``4.1 s``, ``23 ms``, ``710 us``: a duration for people."""
    if nanoseconds >= 1_000_000_000:
        return f"{nanoseconds / 1e9:.1f} s"
    if nanoseconds >= 1_000_000:
        return f"{nanoseconds / 1e6:.0f} ms"
    if nanoseconds >= 1_000:
        return f"{nanoseconds / 1e3:.0f} us"
    return f"{nanoseconds} ns"


def shown(value: Value | list[Value]) -> str:
    """A value as it stands in the history."""
    return msgspec.json.encode(value).decode()


def deed(record: OperationRecord) -> str:
    """What an operation did: ``wrote k17=882 (ok)``, ``read k17=641 from n1``."""
    at = f" {'from' if record.op == 'read' else 'at'} {record.node}" if record.node else ""
    outcome = {
        "ok": "ok",
        "fail": "failed, certainly not applied",
        "info": "outcome unknown",
    }[record.outcome]
    if record.op == "read":
        if record.outcome != "ok":
            return f"read {record.key}{at} ({outcome})"
        if isinstance(record.value, list):
            return f"read {len(record.value)} siblings of {record.key}: {shown(record.value)}{at}"
        return f"read {record.key}={shown(record.value)}{at}"
    if record.op == "write":
        return f"wrote {record.key}={shown(record.value)}{at} ({outcome})"
    if record.op == "delete":
        return f"deleted {record.key}{at} ({outcome})"
    change = f"{record.key} from {shown(record.expected)} to {shown(record.value)}{at}"
    if record.outcome == "ok" and record.applied is False:
        saw = "" if record.seen is None else f": it was {shown(record.seen)}"
        return f"was refused to change {change}{saw}"
    return f"changed {change} ({outcome})"


def lines(records: Sequence[OperationRecord]) -> list[WitnessLine]:
    """The operations in order of invocation, each with its role: ``4.1 s later read k17=641``.

    ``later`` counts from the end of the last operation that had ended by then; an operation that
    overlaps all before it says ``meanwhile``.
    """
    told: list[WitnessLine] = []
    ended: list[int] = []
    for record in sorted(records, key=lambda record: (record.invoked_ns, record.id)):
        before = [end for end in ended if end < record.invoked_ns]
        if not told:
            role = deed(record)
        elif before:
            role = f"{duration(record.invoked_ns - max(before))} later {deed(record)}"
        else:
            role = f"meanwhile {deed(record)}"
        told.append(WitnessLine(operation=record, role=role))
        if record.completed_ns is not None and record.outcome != "info":
            ended.append(record.completed_ns)
    return told


def sentence(witness: Sequence[WitnessLine]) -> str:
    """``c3 wrote k17=882 (ok), then c9, 4.1 s later, read k17=641``: a witness in one sentence."""
    parts = []
    for line in witness:
        who = line.operation.process
        when, what = _split(line)
        parts.append(f"{when}{who} {what}")
    return ", then ".join(parts)


def _split(line: WitnessLine) -> tuple[str, str]:
    what = deed(line.operation)
    when = line.role.removesuffix(what)
    return when, what
