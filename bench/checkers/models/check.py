"""The verdict on a history that is none of registers or transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.checkers.budget import Budget, OverBudget
from bench.checkers.linearizability import check_linearizable, in_program_order, touches
from bench.checkers.models.appends import (
    Converted,
    mutex_as_register,
    search_texts,
    texts_as_registers,
)
from bench.checkers.models.banks import check_bank
from bench.checkers.models.counters import check_counter
from bench.checkers.models.findings import Findings
from bench.checkers.models.ids import check_unique_ids
from bench.checkers.models.locks import check_fenced_lock, check_lock
from bench.checkers.models.queues import check_queue
from bench.checkers.models.sets import check_set
from bench.record.columns import OK, Columns
from bench.record.history import BadHistory
from bench.record.models.operations import Operations
from bench.record.models.verdict import Anomaly, ModelCheck, ModelStep
from bench.record.quantities import plural
from bench.record.verdict import VerdictValue
from bench.record.witness import duration
from nodes.contract.replica import Value

_TOUCH: Final = "operations of one process touch in time: give finer times"
MOST_STEPS: Final = 1000
"""Of a witness."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Models that one check decides, the strongest first, each with the anomalies that it allows.
    ``operations``: what a history may have."""

    operations: tuple[str, ...]
    allows: dict[str, tuple[str, ...]]
    algorithm: str
    check: Callable[[Operations, Findings, Value, Budget], None]

    def findings(self, o: Operations, initial: Value, budget: Budget) -> Findings:
        """What contradicts it; of what was not looked at in the budget, that it is undecided."""
        found = Findings()
        try:
            with budget.watched():
                self.check(o, found, initial, budget)
        except OverBudget as over:
            found.undecided = str(over)
        return found


def _number(initial: Value, what: str) -> int:
    if type(initial) is not int:
        raise BadHistory(f"--initial: {what} is an integer")
    return initial


FAMILIES: Final = (
    _Family(
        ("add", "read"),
        {"set-full": (), "set": ("stale", "resurrected", "incomparable", "skipped")},
        "the order of reads by inclusion",
        lambda o, found, _, __: check_set(o, found),
    ),
    _Family(
        ("add", "read"),
        {"counter": ()},
        "bounds of each read",
        lambda o, found, initial, budget: check_counter(
            o, found, 0 if initial is None else _number(initial, "the value of a counter"), budget
        ),
    ),
    _Family(
        ("enqueue", "dequeue", "drain"),
        {"queue": (), "total-queue": ("reordered",)},
        "pairs of elements",
        lambda o, found, _, __: check_queue(o, found),
    ),
    _Family(
        ("acquire", "release"),
        {"lock": ()},
        "intervals",
        lambda o, found, _, __: check_lock(o, found),
    ),
    _Family(
        ("acquire", "release"),
        {"fenced-lock": ()},
        "numbers in order of time",
        lambda o, found, _, __: check_fenced_lock(o, found),
    ),
    _Family(
        ("transfer", "read"),
        {"bank": ()},
        "the total of each read",
        lambda o, found, initial, _: check_bank(
            o, found, None if initial is None else _number(initial, "the total of a bank")
        ),
    ),
    _Family(
        ("generate",),
        {"unique-ids": ()},
        "comparison",
        lambda o, found, _, __: check_unique_ids(o, found),
    ),
)


def check_model(
    o: Operations,
    model: str,
    initial: Value = None,
    *,
    budget: Budget | None = None,
) -> ModelCheck:
    """The verdict on the operations of ``o``. ``initial``: what a counter begins at, a text holds
    at first, or a bank has in total. Raises BadHistory for an operation that the model does not
    have."""
    began = time.perf_counter()
    if model in ("append-kv", "mutex"):
        budget = budget or Budget()
        try:
            with budget.watched():
                return _check_as_registers(o, model, initial, began, budget)
        except OverBudget as over:
            return _undecided(o, model, str(over), began)
    family = next(family for family in FAMILIES if model in family.allows)
    refuse_others(o, model, family.operations)
    budget = budget or Budget()
    findings = family.findings(o, initial, budget)
    refuted = _refuted(family, findings)
    strongest = next((name for name, found in refuted.items() if not found), "none")
    if touches(c := o.as_columns()):
        parted = family.findings(_in_program_order(o, c), initial, budget)
        doubtful = _refuted(family, parted)
        findings.undecided = findings.undecided or parted.undecided
        if any(doubtful[name] and not found for name, found in refuted.items()):
            findings.undecided = _TOUCH
    if findings.undecided and strongest != "none":
        strongest = "unknown"
    verdict: VerdictValue = "valid"
    if refuted[model]:
        found = findings.by_name[refuted[model][0]]
        verdict, summary, rows = "invalid", found.words, found.rows
    elif not (o.outcome == OK).any():
        verdict, summary, rows, strongest = "unknown", "no operation was answered ok", [], "unknown"
    elif findings.undecided:
        verdict, summary, rows = "unknown", findings.undecided, []
    else:
        summary, rows = f"nothing contradicts a {model}", []
        if note := findings.details.pop("note", ""):
            summary += f"; {note}"
    return ModelCheck(
        verdict=verdict,
        model=model,
        algorithm=family.algorithm,
        strongest=strongest,
        operations=len(o),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=steps(o, rows[:MOST_STEPS]),
        anomalies={
            name: Anomaly(count=found.count, example=found.words)
            for name, found in findings.by_name.items()
        },
        details=findings.details,
    )


def _in_program_order(o: Operations, c: Columns) -> Operations:
    """Operations whose times part those of one process that touch; ``c``: as columns."""
    parted = in_program_order(c)
    return replace(o, invoked=parted.invoked, completed=parted.completed)


def _refuted(family: _Family, findings: Findings) -> dict[str, list[str]]:
    """By model, the anomalies that it does not allow."""
    return {
        name: [each for each in findings.by_name if each not in allowed]
        for name, allowed in family.allows.items()
    }


def refuse_others(o: Operations, model: str, operations: Sequence[str]) -> None:
    """Raises BadHistory for an operation that the model does not have."""
    others = sorted(o.ops() - set(operations))
    if others:
        row = int(o.rows_of(*others)[0])
        name = o.names[o.op[row]]
        raise o.refused(row, f"{name!r}: a {model} has {', '.join(operations)}")


def steps(o: Operations, rows: Sequence[int]) -> list[ModelStep]:
    """Operations in order of invocation, each in words."""
    found: list[ModelStep] = []
    ended: list[int] = []
    for row in sorted(dict.fromkeys(rows), key=lambda row: (int(o.invoked[row]), row)):
        operation = o.operation(row)
        before = [end for end in ended if end < operation.invoked_ns]
        role = _deed(o, row)
        if found:
            when = (
                duration(operation.invoked_ns - max(before)) + " later" if before else "meanwhile"
            )
            role = f"{when} {role}"
        found.append(ModelStep(operation=operation, role=role))
        if operation.completed_ns is not None:
            ended.append(operation.completed_ns)
    return found


def _deed(o: Operations, row: int) -> str:
    operation = o.operation(row)
    value: Any = operation.value
    shown = "" if value is None else f" {value!r}"
    if len(shown) > 60:
        shown = f"{shown[:40]}...{shown[-15:]}"
    outcome = {"ok": "ok", "fail": "failed", "info": "outcome unknown"}[operation.outcome]
    key = "" if operation.key is None else f" of {operation.key}"
    return f"{operation.op}{shown}{key} ({outcome})"


def _undecided(o: Operations, model: str, why: str, began: float) -> ModelCheck:
    return ModelCheck(
        verdict="unknown",
        model=model,
        algorithm="zones and search",
        strongest="unknown",
        operations=len(o),
        seconds=time.perf_counter() - began,
        summary=why,
        witness=[],
        anomalies={},
        details={},
    )


def _as_registers(o: Operations, model: str, initial: Value) -> Converted:
    if model == "mutex":
        refuse_others(o, model, ("acquire", "release"))
        return mutex_as_register(o)
    refuse_others(o, model, ("read", "write", "append"))
    if initial is not None and not isinstance(initial, str):
        raise BadHistory("--initial: what a key of append-kv holds is a text")
    return texts_as_registers(o, initial or "")


def _check_as_registers(
    o: Operations, model: str, initial: Value, began: float, budget: Budget
) -> ModelCheck:
    """What is a history of registers by other names."""
    converted = _as_registers(o, model, initial)
    check = check_linearizable(converted.columns, budget=budget)
    keys = len(o.keys) or 1
    row_of = {int(o.id[row]): row for row in range(len(o))}
    rows = [row_of[line.operation.id] for line in check.witness]
    if model == "append-kv" and rows:
        rows += _reads_that_order(o, rows)
    verdict, summary = check.verdict, check.summary
    if verdict != "invalid" and converted.others:
        verdict, summary, rows = _search_others(o, converted, str(initial or ""), budget)
    if verdict == "invalid":
        summary = "the operations cannot be put in one order"
    elif not (o.outcome == OK).any():
        verdict, summary = "unknown", "no operation was answered ok"
    elif verdict == "valid":
        summary = f"{plural(len(o), 'operation')} on {plural(keys, 'key')} can be put in one order"
    return ModelCheck(
        verdict=verdict,
        model=model,
        algorithm="zones and search" if converted.others else check.algorithm,
        strongest={"valid": "linearizable", "invalid": "none"}.get(verdict, "unknown"),
        operations=len(o),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=steps(o, rows[-MOST_STEPS:]),
        anomalies={},
        details={"keys": keys, "keys_searched": len(converted.others)},
    )


def _reads_that_order(o: Operations, rows: Sequence[int]) -> list[int]:
    """Of each append of a witness the shortest read that has it: there its place is seen."""
    reads = [
        (len(str(o.value_of(row))), row)
        for row in o.rows_of("read").tolist()
        if o.outcome[row] == OK and o.key[row] == o.key[rows[0]]
    ]
    reads.sort()
    found = []
    for append in rows:
        if o.names[o.op[append]] == "append":
            text = str(o.value_of(append))
            having = (row for _, row in reads if text in str(o.value_of(row)))
            found += [row for row in (next(having, -1),) if row >= 0]
    return found


def _search_others(
    o: Operations, converted: Converted, initial: str, budget: Budget
) -> tuple[VerdictValue, str, list[int]]:
    """The keys whose texts repeat, those with few operations first."""
    undecided, spent = 0, ""
    for rows in sorted(converted.others.values(), key=len):
        result = search_texts(o, rows, initial, budget)
        if result.outcome == "invalid":
            return "invalid", "", result.rows
        if result.outcome != "valid":
            undecided, spent = undecided + 1, result.outcome
    if undecided:
        return "unknown", f"{undecided} keys are undecided: the search ran out of {spent}", []
    if touches(c := o.as_columns()):
        ordered = _in_program_order(o, c)
        if any(
            search_texts(ordered, rows, initial, budget).outcome != "valid"
            for rows in converted.others.values()
        ):
            return "unknown", _TOUCH, []
    return "valid", "", []
