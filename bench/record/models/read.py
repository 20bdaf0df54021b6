"""Any history: what format it has, which model it is of, and its operations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from bench.record.columns import Columns
from bench.record.edn.history import read_operations
from bench.record.history import BadHistory
from bench.record.jsonl import read_columns
from bench.record.models.choose import REGISTERS, TRANSACTIONS, choose
from bench.record.models.jsonl import read_lines
from bench.record.models.operations import Operations
from bench.record.models.registers import NilReads, register_columns
from bench.record.models.source import Source, opened
from bench.record.models.transactions import transactions_of_operations
from bench.record.transactions.columns import APPEND, Transactions
from bench.record.transactions.jsonl import read_transactions

History: TypeAlias = Columns | Transactions | Operations

_OF_REGISTERS: Final = {b"read", b"write", b"cas", b"delete"}
_OP: Final = re.compile(rb'"op"\s*:\s*"([^"]*)"')
_TRANSACTION: Final = re.compile(rb'"transaction"\s*:')
_A_MAP: Final = re.compile(rb'"value"\s*:\s*\{')


@dataclass(frozen=True, slots=True)
class Read:
    """``model``: the one that was asked for, or that the operations show (``is_chosen``)."""

    model: str
    is_chosen: bool
    history: History


def read_any(path: Path, model: str = "auto", nil_reads: NilReads | None = None) -> Read:
    """A history in any format: JSON lines, or EDN as Jepsen writes it; ``-`` is standard input.

    ``model``: one of `MODELS`, or ``auto``. ``nil_reads``: what a read of a register that was
    answered nil saw; None: *unknown* in EDN, where Jepsen's own models say so too, null in JSON.
    Raises BadHistory, which names the file, the line where there is one, and the reason.
    """
    with opened(path) as source:
        if source.format == "edn":
            return _read_edn(source, model, nil_reads or "unknown")
        if nil_reads is not None:
            raise BadHistory(
                f"{source.name}: what a nil read saw can be said of EDN only; in JSON lines null "
                "is a value, and what is unknown is left out"
            )
        return _read_lines(source, model)


def _read_edn(source: Source, model: str, nil_reads: NilReads) -> Read:
    operations = read_operations(source, null_is_told=nil_reads == "null")
    chosen = choose(operations) if model == "auto" else model
    history: History = operations
    if chosen in REGISTERS:
        history = register_columns(operations, nil_reads)
    elif chosen in TRANSACTIONS:
        history = transactions_of_operations(operations)
    return Read(chosen, model == "auto", history)


def _read_lines(source: Source, model: str) -> Read:
    if model in TRANSACTIONS or (model == "auto" and _TRANSACTION.search(source.beginning)):
        transactions = read_transactions(source)
        appends = bool((transactions.kind == APPEND).any())
        chosen = "list-append" if appends else "rw-register"
        return Read(chosen if model == "auto" else model, model == "auto", transactions)
    ops = set(_OP.findall(source.beginning))
    only_reads_of_maps = ops <= {b"read"} and bool(_A_MAP.search(source.beginning))
    is_register = ops <= _OF_REGISTERS and not only_reads_of_maps
    if model in REGISTERS or (model == "auto" and is_register):
        # Which register it is, its check says.
        return Read(model, model == "auto", read_columns(source))
    operations = read_lines(source)
    chosen = choose(operations) if model == "auto" else model
    if chosen in REGISTERS:
        maps = [code for code, value in enumerate(operations.values) if isinstance(value, dict)]
        row = int(np.flatnonzero(np.isin(operations.value, maps))[0])
        raise operations.refused(row, "a register holds no object")
    return Read(chosen, model == "auto", operations)
