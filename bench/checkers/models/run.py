"""The verdict on the operations of a run's workload, if it is of another kind than registers."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Final

from bench.checkers.budget import Budget
from bench.checkers.models.check import check_model
from bench.checkers.transactions import check_transactions
from bench.record.history import BadHistory
from bench.record.models.jsonl import read_lines
from bench.record.models.run import by_transactions
from bench.record.models.source import BLOCK_BYTES, Source
from bench.record.models.verdict import VerdictValue
from bench.record.run_folder import Manifest, RunFolder
from bench.record.transactions.jsonl import read_transactions
from bench.record.transactions.verdict import WEAKER, Level
from bench.record.verdict import Workload, WorkloadCheck

CUT: Final = "operations are missing from the history"


def check_workload(folder: RunFolder, *, history_is_cut: bool) -> WorkloadCheck | None:
    """The verdict of the model of the workload's kind; None for registers.

    Where operations are missing nothing can be said: what is taken for never added may have been.
    Raises BadRunFolder and BadHistory."""
    manifest = folder.manifest()
    kind = manifest.kind
    if kind == "register":
        return None
    began = time.perf_counter()
    source = _joined(folder)
    if history_is_cut or source is None:
        why = CUT if history_is_cut else "there are no operations"
        return _check("unknown", kind, "none", 0, began, why, Workload())
    if kind == "list-append":
        level = _level(manifest)
        said = check_transactions(read_transactions(source), kind, level)
        details = Workload(transactions=said)
        return _check(
            said.verdict, kind, said.algorithm, said.transactions, began, said.headline(), details
        )
    told = check_model(read_lines(source), kind, budget=Budget())
    details = Workload(model=told)
    return _check(told.verdict, kind, told.algorithm, told.operations, began, told.summary, details)


def _level(manifest: Manifest) -> Level:
    """That of the claim, if it is one of transactions. A list of one operation is a register."""
    is_level = by_transactions(manifest.kind, manifest.operations)
    return next(
        (level for level in WEAKER if is_level and level == manifest.claim), "strict-serializable"
    )


def _check(
    verdict: VerdictValue,
    kind: str,
    algorithm: str,
    operations: int,
    began: float,
    summary: str,
    details: Workload,
) -> WorkloadCheck:
    return WorkloadCheck(
        verdict=verdict,
        model=kind,
        algorithm=algorithm,
        operations=operations,
        seconds=time.perf_counter() - began,
        summary=summary,
        details=details,
    )


def _joined(folder: RunFolder) -> Source | None:
    """The operations of all clients, as one history; None if there are none."""
    paths = folder.model_histories()
    content = b"".join(_whole_lines(path) for path in paths)
    if not content:
        return None
    name = str(paths[0] if len(paths) == 1 else folder.model_dir)
    file = io.BytesIO(content)
    return Source(folder.model_dir, name, file.read(BLOCK_BYTES), file)


def _whole_lines(path: Path) -> bytes:
    """What a crash cut off at the end is left out."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadHistory(f"{path}: {error.strerror}") from None
    return content[: content.rfind(b"\n") + 1]
