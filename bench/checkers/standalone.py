"""The verdict on a history alone, without a run around it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from bench.checkers.linearizability import check_linearizable
from bench.checkers.verdict import strongest, weaker_models
from bench.record.columns import CAS, NULL
from bench.record.history import BadHistory, OperationRecord
from bench.record.jsonl import file_name, read_columns
from bench.record.verdict import LinearizabilityCheck, Model
from bench.record.well_formed import columns_of
from nodes.contract.replica import Value

RegisterModel: TypeAlias = Literal["auto", "register", "cas-register"]


class HistoryCheck(LinearizabilityCheck, kw_only=True, frozen=True, tag="linearizability"):
    """``model``: the register's. ``strongest``: the strongest model that the history does not
    refute: linearizable, sequential, causal, none or unknown."""

    strongest: Model


def check_history(
    path_or_records: Path | str | Iterable[OperationRecord],
    model: RegisterModel = "auto",
    initial: Value = None,
    budget_s: float = 60.0,
    memory_bytes: int = 4 << 30,
    clock_error_ns: int = 0,
) -> HistoryCheck:
    """Whether a history is linearizable, and if not, which model it does not refute.

    ``path_or_records``: a JSONL file (docs/HISTORY_FORMAT.md), ``-`` for standard input, or
    records, which are held to the same rules. ``model``: ``register`` (reads, writes, deletes),
    ``cas-register`` (with CAS), or ``auto``: what the history needs.
    ``initial``: what every key holds at first. ``clock_error_ns``: a bound on how far the clocks of
    the clients' hosts are apart; what is no further apart counts as concurrent.

    Raises BadHistory for a file that cannot be read, for what does not fit, and for CAS where the
    model is ``register``.
    """
    if isinstance(path_or_records, str | Path):
        name = file_name(Path(path_or_records)) + ":"
        c = read_columns(Path(path_or_records))
    else:
        name = "record "
        c = columns_of(list(path_or_records))
    cas = np.flatnonzero(c.op == CAS)
    if model == "register" and len(cas):
        raise BadHistory(
            f"{name}{int(cas[0]) + 1}: a cas, and a register has none; use the model cas-register"
        )
    check = check_linearizable(
        c,
        initial=initial,
        budget_s=budget_s,
        memory_bytes=memory_bytes,
        clock_error_ns=clock_error_ns,
    )
    initial_code = NULL if initial is None else c.code_of(initial)
    weaker = weaker_models(c, initial_code) if check.verdict == "invalid" else []
    fields = msgspec.structs.asdict(check)
    fields["model"] = ("cas-register" if len(cas) else "register") if model == "auto" else model
    return HistoryCheck(**fields, strongest=strongest(check, weaker, None))
