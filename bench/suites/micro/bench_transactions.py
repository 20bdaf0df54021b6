"""The checkers of transactions, each on one core, from columns in memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from bench.checkers.transactions import check_list_append, check_rw_register
from bench.measure.measuring import measure, scaled
from bench.record.transactions.verdict import Level
from bench.suites.micro.transactions import list_append_history, register_history

MILLION = scaled(1_000_000, least=1000)
OPERATIONS = 4
SMALL = "list-append, strict serializability: 1 million transactions"
MEMORY = 16 << 30
PATIENCE_S = 3600.0


@pytest.mark.benchmark(group="transactions")
@pytest.mark.parametrize("millions", [1, 4])
def bench_list_append(benchmark: Any, millions: int) -> None:
    """4 operations a transaction, 100 keys at a time, 20 clients, 1% of unknown outcome."""
    t = list_append_history(millions * MILLION, operations=OPERATIONS)

    def run() -> None:
        assert check_list_append(t, memory_bytes=MEMORY, budget_s=PATIENCE_S).verdict == "valid"

    measure(
        benchmark,
        SMALL if millions == 1 else SMALL.replace("1 million", f"{millions} million"),
        run,
        operations=millions * MILLION,
        rounds=3 if millions == 1 else 1,
        unit="transactions/CPU s",
        goal=50_000,
        compared_with=None if millions == 1 else SMALL,
    )


@pytest.mark.benchmark(group="transactions")
def bench_list_append_memory(benchmark: Any) -> None:
    """The peak of what is allocated during a check, beyond the columns."""
    t = list_append_history(MILLION, operations=OPERATIONS)
    peaks = []

    def run() -> None:
        tracemalloc.start()
        check_list_append(t, memory_bytes=MEMORY, budget_s=PATIENCE_S)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    measure(
        benchmark,
        "list-append, memory",
        run,
        operations=OPERATIONS * MILLION,
        rounds=1,
        unit="bytes/operation",
        goal=500,
    )
    benchmark.extra_info["value"] = max(peaks) / (OPERATIONS * MILLION)


@pytest.mark.benchmark(group="transactions")
@pytest.mark.parametrize("level", ["read-committed", "read-atomic", "causal"])
def bench_rw_register(benchmark: Any, level: Level) -> None:
    """1 million operations, 4 a transaction, 100 keys, 20 clients."""
    t = register_history(MILLION // OPERATIONS, operations=OPERATIONS)

    def run() -> None:
        found = check_rw_register(
            t, level=level, levels=[level], memory_bytes=MEMORY, budget_s=PATIENCE_S
        )
        assert found.verdict == "valid"

    measure(
        benchmark,
        f"rw-register, {level}: 1 million operations",
        run,
        operations=MILLION,
        rounds=3,
        goal=100_000,
    )
