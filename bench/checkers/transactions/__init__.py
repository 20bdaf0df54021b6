"""Histories of transactions: which isolation levels they do not refute, and which anomalies."""

from bench.checkers.transactions.list_append import check_list_append
from bench.checkers.transactions.rw_register import check_rw_register
from bench.record.transactions.columns import Transactions
from bench.record.transactions.verdict import Level, TransactionsCheck

__all__ = ["check_list_append", "check_rw_register", "check_transactions"]


def check_transactions(
    t: Transactions,
    model: str,
    level: Level = "strict-serializable",
    budget_s: float = 60.0,
    memory_bytes: int = 4 << 30,
    clock_error_ns: int = 0,
) -> TransactionsCheck:
    """The verdict on a history of ``list-append`` or ``rw-register``. Raises BadHistory."""
    check = check_list_append if model == "list-append" else check_rw_register
    return check(t, level, budget_s, memory_bytes, clock_error_ns)
