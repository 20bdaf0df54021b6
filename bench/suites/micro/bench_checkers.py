"""The checkers of registers and sets and the readers of histories, on one core."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bench.checkers import check_history
from bench.checkers.linearizability import check_linearizable
from bench.checkers.models import check_model
from bench.measure.measuring import measure, scaled
from bench.record.columns import Columns
from bench.record.jsonl import Line, read_columns
from bench.record.models.operations import Operations
from bench.record.models.read import read_any
from bench.suites.micro.histories import linearizable_history, write_jsonl

OPERATIONS = scaled(1_000_000, least=1000)
HISTORIES = {
    "read/write/info, 100 keys": {"clients": 50, "keys": 100},
    "read/write/info, 100 keys, 1000 clients": {"clients": 1000, "keys": 100},
    "read/write/info, 1 key": {"clients": 50, "keys": 1},
    "read/CAS/info, 100 keys": {"clients": 50, "keys": 100, "cas": 1.0},
}
PLAIN = next(iter(HISTORIES))


@pytest.fixture(scope="module")
def history_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "history.jsonl"
    write_jsonl(linearizable_history(OPERATIONS, seed=1, **HISTORIES[PLAIN]), path)  # type: ignore[arg-type]
    return path


@pytest.mark.benchmark(group="checkers")
@pytest.mark.parametrize("shape", HISTORIES)
def bench_linearizability(benchmark: Any, shape: str) -> None:
    c = linearizable_history(OPERATIONS, seed=1, **HISTORIES[shape])  # type: ignore[arg-type]

    def run() -> None:
        check = check_linearizable(c)
        assert (check.verdict, check.algorithm) == ("valid", "zones")

    measure(
        benchmark,
        f"linearizability: {shape}",
        run,
        operations=OPERATIONS,
        rounds=5,
        goal=5e6 if "CAS" in shape else 10e6,
        compared_with=None if shape == PLAIN else f"linearizability: {PLAIN}",
    )


@pytest.mark.benchmark(group="checkers")
@pytest.mark.parametrize("shape", [PLAIN, "read/CAS/info, 100 keys"])
def bench_memory(benchmark: Any, shape: str) -> None:
    """The peak memory allocated during a check, beyond the columns."""
    c = linearizable_history(OPERATIONS, seed=1, **HISTORIES[shape])  # type: ignore[arg-type]
    peaks = []

    def run() -> None:
        tracemalloc.start()
        check_linearizable(c)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    measure(
        benchmark,
        f"linearizability, memory: {shape}",
        run,
        operations=OPERATIONS,
        rounds=1,
        unit="bytes/operation",
        goal=150,
    )
    benchmark.extra_info["value"] = max(peaks) / OPERATIONS


@pytest.mark.benchmark(group="JSONL")
def bench_decoding(benchmark: Any, history_file: Path) -> None:
    """The cost of decoding alone, a bound on what a reader can do."""
    content = history_file.read_bytes()
    decode_lines = msgspec.json.Decoder(Line).decode_lines
    lines = content.splitlines(keepends=True)
    blocks = [b"".join(lines[i : i + 2000]) for i in range(0, len(lines), 2000)]
    del content, lines

    def run() -> None:
        for block in blocks:
            decode_lines(block)

    measure(benchmark, "JSONL: msgspec alone", run, operations=OPERATIONS, rounds=3)


@pytest.mark.benchmark(group="JSONL")
def bench_reading(benchmark: Any, history_file: Path) -> None:
    measure(
        benchmark,
        "JSONL: file to columns",
        lambda: read_columns(history_file),
        operations=OPERATIONS,
        rounds=3,
        compared_with="JSONL: msgspec alone",
    )


@pytest.mark.benchmark(group="JSONL")
def bench_file_to_verdict(benchmark: Any, history_file: Path) -> None:
    def run() -> None:
        assert check_history(history_file).verdict == "valid"

    measure(
        benchmark,
        "JSONL: file to verdict",
        run,
        operations=OPERATIONS,
        rounds=3,
        goal=1e6,
        compared_with="JSONL: msgspec alone",
    )


@pytest.mark.benchmark(group="EDN")
def bench_edn(benchmark: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A history of a register as Jepsen writes it, from the file to columns."""
    path = tmp_path_factory.mktemp("bench") / "history.edn"
    count = max(1000, OPERATIONS // 5)
    with path.open("w") as file:
        for index in range(0, 2 * count, 40):
            for kind, first in (("invoke", index), ("ok", index + 20)):
                for process in range(20):
                    written = index + process
                    file.write(
                        f"{{:type :{kind}, :f :write, :value {written}, :process {process}, "
                        f":time {1000 * (first + process)}, :index {first + process}}}\n"
                    )

    def run() -> None:
        assert isinstance(read_any(path).history, Columns)

    measure(benchmark, "EDN: file to columns", run, operations=count, rounds=3, goal=150_000)


@pytest.mark.benchmark(group="checkers")
def bench_set(benchmark: Any) -> None:
    """Elements that are added by twenty clients, and read twice."""
    count = OPERATIONS
    begin = np.arange(count) // 20 * 20
    elements = list(range(count))
    o = Operations(
        name="h",
        process=(np.arange(count + 2) % 20).astype(np.int32),
        id=np.arange(count + 2),
        op=np.repeat([0, 1], [count, 2]).astype(np.int32),
        key=np.full(count + 2, -1, np.int32),
        value=np.arange(count + 2, dtype=np.int32),
        outcome=np.zeros(count + 2, np.int8),
        invoked=np.append(begin + 1, [count + 100, count + 200]),
        completed=np.append(begin + 19, [count + 150, count + 250]),
        gave_up=np.append(begin + 19, [count + 150, count + 250]),
        line=np.arange(count + 2),
        processes=[str(number) for number in range(20)],
        names=["add", "read"],
        keys=[],
        values=[*elements, elements, elements],
    )

    def run() -> None:
        assert check_model(o, "set-full").verdict == "valid"

    measure(benchmark, "set: elements decided", run, operations=count, rounds=3, goal=500_000)
