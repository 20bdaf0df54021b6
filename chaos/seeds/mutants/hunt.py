"""Many mutants, in the processes of a sweep, with a record after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.record.run_folder import write_json
from chaos.seeds.mutants.operators import Mutant
from chaos.seeds.mutants.record import Record
from chaos.seeds.mutants.sources import Target
from chaos.seeds.mutants.trial import Trial, try_mutant
from chaos.seeds.simulate import Stop, Workers, gather


def hunt(
    mutants: Sequence[Mutant],
    target: Target,
    record: Record,
    path: Path,
    workers: Workers,
    *,
    budget_s: float,
    minutes: float | None = None,
    on_progress: Callable[[int, int], None] = lambda done, caught: None,
) -> Stop:
    """Try the mutants that ``record`` does not know yet, and write it to ``path`` after each.
    ``minutes``: begin no more after that time. ``on_progress``: called with the numbers of those
    that were tried and that were caught, of this call. The workers must be processes of their own.
    Raises OSError if ``path`` cannot be written."""
    todo = [
        mutant
        for mutant in mutants
        if record.find(target.files[mutant.file], mutant, budget_s) is None
    ]
    end_s = None if minutes is None else time.monotonic() + 60 * minutes
    done = caught = 0
    unwritten: list[OSError] = []

    def on_result(number: int, trial: Trial | None) -> bool:
        nonlocal done, caught
        if trial is None:
            return False
        mutant = todo[number]
        record.add(target.files[mutant.file], mutant, trial)
        try:
            write_json(path, record)
        except OSError as error:
            # Not now: `gather` would take it for a worker's.
            unwritten.append(error)
            return False
        done += 1
        caught += trial.status == "caught"
        on_progress(done, caught)
        return end_s is None or time.monotonic() < end_s

    tasks = ((mutant, target.files[mutant.file], budget_s, end_s) for mutant in todo)
    stop = gather(workers, tasks, _try_in_time, on_result)
    if unwritten:
        raise unwritten[0]
    return stop


def _try_in_time(
    mutant: Mutant, protocols: Sequence[str], budget_s: float, end_s: float | None
) -> Trial | None:
    """None: it is too late to begin. ``end_s``: of the clock that all processes share."""
    if end_s is not None and time.monotonic() >= end_s:
        return None
    return try_mutant(mutant, protocols, budget_s)
