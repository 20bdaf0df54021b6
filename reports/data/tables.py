"""The pandas tables of one or many runs, for notebooks: `reports.load(folder)`.

    import reports

    tables = reports.load("results/compare/2026-11-26T10-00-00-7")
    ok = tables.operations.query("outcome == 'ok'")
    ok.groupby(["experiment", "protocol", "phase"], observed=True)["latency_ms"].quantile(0.99)

Seconds (``_s``) count from the start of the run's load and are negative before it. Latencies
(``_ms``) count from the *intended* send time, so that a stall counts for every operation that it
delayed. pandas is imported only when a folder is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record.run_folder import BadRunFolder
from reports.data import compare
from reports.data.folders import find_runs, load_run, run_name
from reports.data.metrics import RunTables

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("run", "experiment", "protocol", "seed", "simulated")
"""The first columns of every table."""


@dataclass(frozen=True)
class Tables:
    """Tidy tables: each row is one observation of one run.

    Every table begins with: run (its folder's name below the loaded folder), experiment, protocol,
    seed, simulated (whether times are virtual: never compare such rates with others).

    ``operations``, one row per operation of the load (final reads are left out):

    - process, id: the logical client that invoked it, and its id; op (read / write / cas / delete),
      key, node (that was asked)
    - outcome: ok, fail (certainly not applied), info (unknown); error: why not ok
    - value: read or written, as text, cut if long
    - intended_s, invoked_s, completed_s (NaN: never answered): when it was wanted, sent, answered
    - latency_ms: from intended_s to completed_s
    - phase: before, during or after the faults, by when it was wanted
    - side: majority or minority of the active partition, by the node that was asked; none: no
      partition was active
    - served: whether it ended ok within the service time (the time-out), counted from intended_s

    ``faults``, one row per injected fault: number, fault, label (in words), nodes, planned_s,
    applied_s, heal_started_s, healed_s (NaN: never), wanted, served, availability (while it was
    active), back_in_s (from its beginning to the end of the first outage that began during it, or
    was on already, of no fault; 0: none; inf: not within the load), outages (how many began during
    it), longest_silence_s, error.

    ``windows``, one row per phase and side: phase (before / during / after / all), side (all, and
    majority / minority / none if there was a partition), seconds (its length), wanted, served,
    dropped (wanted but not sent), availability (served / wanted, 0..1), within_1s (the same within
    one second), served_per_s, latency_ms_p50, latency_ms_p99 (of all wanted operations; inf: longer
    than the service time).

    ``verdicts``, one row per checker, and one with check = ``claim`` for the protocol's claim:
    check, model, verdict (valid / invalid / unknown), algorithm, operations (checked), seconds (of
    the check), summary.

    ``nodes``, one row per record of a node: t_s, node, kind (status / event), name (of the event),
    role, term, leader, details (JSON text).

    ``runs``, one row per run with the figures of `RunSummary`, nested ones flattened as
    ``throughput_before`` (served operations/s), ``availability_during`` (0..1), ``latency_ms_p99``
    (if NaN, it exceeds ``latency_ms_bound_ms``), ``recovery_s`` and so on; ``plan``, equal for runs
    that are repeats of each other; and ``objectives_missed``, in words.

    ``missing``: what the folders lack or what could not be read, in sentences that name the run.
    """

    operations: pd.DataFrame
    faults: pd.DataFrame
    windows: pd.DataFrame
    verdicts: pd.DataFrame
    nodes: pd.DataFrame
    runs: pd.DataFrame
    missing: list[str]


def load(folder: Path | str) -> Tables:
    """The tables of a run folder, or of all runs below a folder (a comparison).

    Raises BadRunFolder if no run can be read. Anything else that is missing or broken is listed in
    `Tables.missing`.
    """
    root = Path(folder)
    runs: list[tuple[str, RunTables]] = []
    missing: list[str] = []
    for path in find_runs(root):
        try:
            runs.append((run_name(path, root), load_run(path)))
        except BadRunFolder as error:
            missing.append(f"{run_name(path, root)}: not loaded: {error}")
    if not runs:
        raise BadRunFolder("; ".join(missing))
    return combine(runs, missing)


def combine(runs: Sequence[tuple[str, RunTables]], missing: Sequence[str] = ()) -> Tables:
    """The tables of loaded runs, given with their names."""

    def together(of: Callable[[RunTables], pd.DataFrame]) -> pd.DataFrame:
        return _together([(name, run, of(run)) for name, run in runs])

    figures = compare.table([run.summary for _, run in runs])
    figures.insert(0, "run", [name for name, _ in runs])
    first = [*KEYS, *(column for column in figures.columns if column not in KEYS)]
    gaps = [f"{name}: {gap}" for name, run in runs for gap in run.missing]
    return Tables(
        operations=together(lambda run: run.operations),
        faults=together(lambda run: run.faults),
        windows=together(lambda run: run.windows),
        verdicts=together(_verdicts),
        nodes=together(lambda run: run.nodes),
        runs=figures[first],
        missing=[*missing, *gaps],
    )


def _verdicts(run: RunTables) -> pd.DataFrame:
    """The verdict on the claim, then those of the checkers."""
    import pandas as pd

    claim = {
        "check": "claim",
        "model": run.summary.claim,
        "verdict": run.summary.verdict,
        "algorithm": None,
        "operations": sum(
            (run.summary.operations.ok, run.summary.operations.fail, run.summary.operations.info)
        ),
        "seconds": None,
        "summary": run.summary.reason,
    }
    rows = [claim, *run.verdicts.to_dict("records")]
    return pd.DataFrame(rows, columns=run.verdicts.columns)


def _same(word: str, frame: pd.DataFrame) -> pd.Series[Any]:
    """A constant column for ``frame``."""
    import pandas as pd

    return pd.Series([word] * len(frame), index=frame.index, dtype="category")


def _together(parts: Sequence[tuple[str, RunTables, pd.DataFrame]]) -> pd.DataFrame:
    """Concatenate tables, with the run of each row. Columns of few different words stay categories,
    which take a fifth of the memory."""
    import pandas as pd

    frames = []
    for name, run, frame in parts:
        marked = frame.copy(deep=False)
        marked.insert(0, "run", _same(name, frame))
        marked.insert(1, "experiment", _same(run.summary.experiment, frame))
        marked.insert(2, "protocol", _same(run.summary.protocol, frame))
        marked.insert(3, "seed", run.summary.seed)
        marked.insert(4, "simulated", run.summary.simulated)
        frames.append(marked)
    filled = [frame for frame in frames if len(frame)]
    if len(filled) < 2:
        return filled[0] if filled else frames[0]
    for column in frames[0].columns:
        pieces = [frame[column] for frame in filled]
        if all(isinstance(piece.dtype, pd.CategoricalDtype) for piece in pieces):
            words = list(dict.fromkeys(word for piece in pieces for word in piece.cat.categories))
            for frame in filled:
                frame[column] = frame[column].cat.set_categories(words)
    return pd.concat(filled, ignore_index=True)
