"""The verdict on a history in a file, shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.checkers.budget import Budget, OverBudget
from bench.checkers.models import check_model
from bench.checkers.standalone import check_registers, further_checks
from bench.checkers.transactions import check_transactions
from bench.record.columns import Columns
from bench.record.files import shown
from bench.record.history import STANDARD_INPUT, BadHistory
from bench.record.models.operations import Operations
from bench.record.models.read import read_any
from bench.record.models.registers import NilReads
from bench.record.printable import printable
from bench.record.transactions.columns import Transactions
from bench.record.transactions.verdict import Level, TransactionsCheck
from bench.record.verdict import VerdictValue
from chaos.commands.histories.show import print_checks, print_lines, print_witness
from chaos.console import print_json
from chaos.errors import BadOption
from nodes.contract.replica import Value


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user said of a history."""

    path: Path
    model: str
    initial: Value
    nil_reads: NilReads | None
    level: Level | None
    clock_error_ns: int
    json: bool

    @property
    def name(self) -> str:
        """What the file is called."""
        return "standard input" if self.path == STANDARD_INPUT else printable(str(self.path), 200)


def judge(asked: Asked, budget_s: float, memory_bytes: int) -> VerdictValue:
    """Judge a history as far as it goes without a run around it. Raises BadHistory, BadOption."""
    budget = Budget(budget_s, memory_bytes)
    try:
        with Budget(math.inf, memory_bytes).watched():
            read = read_any(asked.path, asked.model, asked.nil_reads)
    except OverBudget:
        return _too_large(asked)
    budget.begin()
    if isinstance(read.history, Transactions):
        return _judge_transactions(asked, read.model, read.history, budget)
    if asked.level is not None:
        raise BadOption(f"--level is for transactions, and this is a history of {read.model}")
    if isinstance(read.history, Operations):
        return _judge_model(asked, read.model, read.history, budget)
    return _judge_registers(asked, read.model, read.history, budget)


def _too_large(asked: Asked) -> VerdictValue:
    why = "the history alone needs more memory than --memory allows"
    if asked.json:
        print_json({"verdict": "unknown", "model": asked.model, "summary": why})
    else:
        print(f"{asked.name}: unknown: {why}")
    return "unknown"


def _judge_transactions(
    asked: Asked, model: str, history: Transactions, budget: Budget
) -> VerdictValue:
    if asked.initial is not None:
        raise BadOption("--initial is for registers; transactions begin with nothing")
    try:
        check: TransactionsCheck = check_transactions(
            history,
            model,
            asked.level or "strict-serializable",
            budget.left_s(),
            budget.left_bytes(),
            asked.clock_error_ns,
        )
    except BadHistory as error:
        raise BadHistory(f"{asked.name}: {error}") from None
    if asked.json:
        print_json(msgspec.to_builtins(check))
        return check.verdict
    print(f"{asked.name}: {check.verdict}: {check.headline()}")
    print("\n".join(f"  {line}" for line in check.lines()))
    return check.verdict


def _judge_registers(asked: Asked, model: str, history: Columns, budget: Budget) -> VerdictValue:
    check = check_registers(
        history,
        model,
        asked.initial,
        budget=budget,
        clock_error_ns=asked.clock_error_ns,
        name=f"{shown(asked.path)}:",
    )
    further = further_checks(history, check, asked.initial, asked.clock_error_ns, budget)
    if asked.json:
        body = {
            "verdict": check.verdict,
            "model": check.model,
            "algorithm": check.algorithm,
            "strongest": check.strongest,
            "operations": check.operations,
            "seconds": check.seconds + sum(each.seconds for each in further),
            "witness": check.witness,
            "reason": check.summary,
            "checks": further,
        }
        print_json(body)
        return check.verdict
    print(f"{asked.name}: {check.verdict}: {check.summary}")
    print(f"  {check.operations} operations of a {check.model}, by {check.algorithm}")
    print(f"  strongest model not refuted: {check.strongest}")
    print_witness(check)
    print_checks(further)
    return check.verdict


def _judge_model(asked: Asked, model: str, history: Operations, budget: Budget) -> VerdictValue:
    """Of a set, a queue, a lock ..."""
    if asked.clock_error_ns:
        raise BadOption(f"--clock-error is for registers and transactions, not for a {model}")
    check = check_model(history, model, asked.initial, budget=budget)
    if asked.json:
        print_json(check)
        return check.verdict
    print(f"{asked.name}: {check.verdict}: {printable(check.summary, 400)}")
    print(f"  {check.operations} operations of {_with_article(check.model)}, by {check.algorithm}")
    print(f"  strongest model not refuted: {check.strongest}")
    for name, anomaly in check.anomalies.items():
        print(f"  {name}: {anomaly.count}, such as: {printable(anomaly.example, 400)}")
    if check.verdict == "invalid":
        print_lines(check.witness)
    return check.verdict


def _with_article(model: str) -> str:
    return model if model == "unique-ids" else f"{'an' if model[0] in 'aeiou' else 'a'} {model}"
