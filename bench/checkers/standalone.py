"""The verdict on a history without a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from bench.checkers.budget import DEFAULT_BUDGET_S, DEFAULT_MEMORY_BYTES, Budget, OverBudget
from bench.checkers.causal import check_causal
from bench.checkers.convergence import check_convergence
from bench.checkers.linearizability import check_linearizable
from bench.checkers.sequential import check_sequential
from bench.checkers.sessions.guarantees import check_sessions
from bench.checkers.staleness import check_staleness
from bench.checkers.verdict import strongest
from bench.record.columns import CAS, NULL, Columns
from bench.record.history import BadHistory, OperationRecord
from bench.record.jsonl import file_name
from bench.record.models.choose import REGISTERS
from bench.record.models.read import read_any
from bench.record.models.registers import NilReads
from bench.record.verdict import AnyCheck, Check, LinearizabilityCheck, Model, WeakerCheck
from bench.record.well_formed import columns_of
from nodes.contract.replica import Value


class HistoryCheck(LinearizabilityCheck, kw_only=True, frozen=True, tag="linearizability"):
    """``model``: of the register. ``strongest``: the strongest model that the history does not
    refute: linearizable, sequential, causal, none or unknown. ``weaker``: the checks behind it."""

    strongest: Model
    weaker: list[WeakerCheck]


def check_history(
    path_or_records: Path | str | Iterable[OperationRecord],
    model: str = "auto",
    initial: Value = None,
    budget_s: float = DEFAULT_BUDGET_S,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    clock_error_ns: int = 0,
    nil_reads: NilReads | None = None,
) -> HistoryCheck:
    """Whether a history of registers is linearizable, and if not, the strongest model that it does
    not refute.

    ``path_or_records``: a file (docs/HISTORY_FORMAT.md), ``-`` for standard input, or records,
    which must keep the same rules. ``model``: ``register`` (reads, writes, deletes),
    ``cas-register`` (with CAS), or ``auto``: what the history needs. ``initial``: the initial value
    of every key. ``clock_error_ns``: a bound on the difference between the clocks of the clients'
    hosts; operations no further apart count as concurrent. ``nil_reads``: see `read_any`. The time
    of the budget begins once the history is read; its memory includes the history.

    Raises BadHistory for an unreadable or invalid file, for a CAS if the model is ``register``, and
    for a history of anything but registers.
    """
    budget = Budget(budget_s, memory_bytes)
    if isinstance(path_or_records, str | Path):
        path = Path(path_or_records)
        read = read_any(path, model, nil_reads)
        if not isinstance(read.history, Columns):
            raise BadHistory(f"{file_name(path)}: a history of {read.model}, not of registers")
        name, c = file_name(path) + ":", read.history
    else:
        name, c = "record ", columns_of(list(path_or_records))
    budget.begin()
    return check_registers(
        c,
        model,
        initial,
        budget=budget,
        clock_error_ns=clock_error_ns,
        name=name,
    )


def check_registers(
    c: Columns,
    model: str = "auto",
    initial: Value = None,
    *,
    budget: Budget | None = None,
    clock_error_ns: int = 0,
    name: str = "operation ",
) -> HistoryCheck:
    """The same for columns. ``name``: precedes the number of an operation in errors."""
    cas = np.flatnonzero(c.op == CAS)
    if model == "register" and len(cas):
        raise BadHistory(
            f"{name}{int(cas[0]) + 1}: a register has no cas; use the model cas-register"
        )
    budget = budget or Budget()
    check = _within(
        budget,
        c,
        lambda c: check_linearizable(
            c, initial=initial, budget=budget, clock_error_ns=clock_error_ns
        ),
    )
    weaker: list[WeakerCheck] = []
    if check.verdict == "invalid":
        code = _code(c, initial)
        weaker = [
            _within(budget, c, lambda c: check_sequential(c, code)),
            _within(budget, c, lambda c: check_causal(c, code, budget=budget)),
        ]
    fields = msgspec.structs.asdict(check)
    fields["model"] = model if model in REGISTERS else "cas-register" if len(cas) else "register"
    return HistoryCheck(**fields, strongest=strongest(check, weaker, None), weaker=weaker)


AnyOne = TypeVar("AnyOne", bound=Check)


def _within(budget: Budget, c: Columns, check: Callable[[Columns], AnyOne]) -> AnyOne:
    """A check of ``c``; *unknown* if the budget does not last for it."""
    try:
        with budget.watched():
            return check(c)
    except OverBudget as over:
        of_nothing = check(c.take(np.zeros(0, np.int64)))
        return msgspec.structs.replace(
            of_nothing, verdict="unknown", operations=len(c), summary=str(over)
        )


def further_checks(
    c: Columns, check: HistoryCheck, initial: Value, clock_error_ns: int, budget: Budget
) -> list[AnyCheck]:
    """Also what a run is checked for: weaker models, sessions, staleness, and convergence,
    which is *unknown* without the final reads of a run."""
    code = _code(c, initial)
    widened = c.widened(clock_error_ns)
    return [
        *check.weaker,
        _within(budget, widened, lambda c: check_sessions(c, code)),
        _within(budget, widened, lambda c: check_staleness(c, initial=code)),
        msgspec.structs.replace(check_convergence([], []), operations=len(c)),
    ]


def _code(c: Columns, initial: Value) -> int:
    return NULL if initial is None else c.code_of(initial)
