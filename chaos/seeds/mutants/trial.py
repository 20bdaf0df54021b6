"""One mutant, in a process of its own: seeds until it is caught, or until it is out of budget.

A worker has imported all that a seed needs. For each mutant it forks a child, which forgets the
project's modules and imports them anew, one of them from the mutated source. So ``from x import y``
binds what it would, and nothing of a mutant is left behind. The child has limits of CPU time and
memory, so that a mutant that never ends or eats memory ends alone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.machinery
import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Sequence
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from bench.paths import ROOT
from chaos.seeds.mutants.operators import Mutant
from chaos.seeds.simulate import SEED_CPU_S, find_protocol, live_while, run_seed

ROOMS = ("nodes", "bench", "chaos", "capbench_protocol")
MEMORY_BYTES = 1 << 30
"""What a mutant may take besides what its process has when it begins."""
SILENT_FACTOR = 30
"""A child that says nothing for so many times its CPU budget waits for something."""

Status: TypeAlias = Literal["caught", "survived", "broken", "died"]
"""``broken``: it cannot be imported or begun, so that anything would catch it. ``died``: its
process ended without a word (its limit of CPU time, or a crash); nobody knows what it would have
shown."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a mutant. ``check``, ``protocol``, ``seed``: of the first alarm. ``seeds``:
    how many were run, over all its protocols. ``cpu_s``: how long that took; ``budget_s``: what
    there was."""

    status: Status
    budget_s: float
    cpu_s: float = 0.0
    seeds: int = 0
    check: str | None = None
    protocol: str | None = None
    seed: int | None = None
    message: str | None = None


def try_mutant(mutant: Mutant, protocols: Sequence[str], budget_s: float) -> Trial:
    """Run a mutant on seed 1 of each of ``protocols``, then seed 2, until one raises an alarm that
    the protocol as it is does not raise there, or ``budget_s`` CPU seconds are used up."""
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    lifeline, our_life = context.Pipe(duplex=False)
    job = (mutant, list(protocols), budget_s)
    child = context.Process(
        target=_child, args=(its, lifeline, (ours, our_life), *job), daemon=True
    )
    with warnings.catch_warnings():
        # A worker's only other thread waits for its parent to end.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    its.close()
    lifeline.close()
    try:
        while ours.poll(SILENT_FACTOR * (budget_s + SEED_CPU_S)):
            said = ours.recv()
            if isinstance(said, dict):
                return msgspec.convert(said, Trial)
            ours.send(is_quiet(*said))
    except EOFError:
        pass
    finally:
        ours.close()
        our_life.close()
        child.kill()
        child.join()
    return Trial(status="died", budget_s=budget_s)


@cache
def is_quiet(protocol: str, seed: int) -> bool:
    """Whether the protocol as it is raises no alarm on that seed."""
    return not run_seed(find_protocol(protocol), seed).alarms


# --- in the child ---


def _child(
    answers: Connection,
    lifeline: Connection,
    others: tuple[Connection, ...],
    mutant: Mutant,
    protocols: list[str],
    budget_s: float,
) -> None:
    for other in others:
        other.close()
    live_while(lifeline)
    # Nothing that a mutant prints or leaves undone is anybody's business.
    sys.stdout = sys.stderr = open("/dev/null", "w")  # noqa: SIM115
    _limit(budget_s)
    gc.freeze()
    try:
        _plant(mutant)
        simulate = importlib.import_module("chaos.seeds.simulate")
        tried = [(name, simulate.find_protocol(name)) for name in protocols]
    except Exception as error:
        trial = _broken(error, budget_s)
    else:
        trial = _run(simulate, tried, answers, budget_s)
    # Plain data: the classes of this module are not those of the modules that are imported now.
    answers.send(msgspec.to_builtins(trial))


def _run(
    simulate: Any, tried: list[tuple[str, Any]], answers: Connection, budget_s: float
) -> Trial:
    began_s = time.process_time()
    seeds = 0
    seed = 0
    while True:
        seed += 1
        for name, protocol in tried:
            try:
                alarms = simulate.run_seed(protocol, seed).alarms
            except Exception as error:
                # Before or after the run itself, where nothing of the simulator takes it.
                if not seeds:
                    return _broken(error, budget_s)
                alarms = [simulate.Alarm(seed, "exception", _line(error))]
            seeds += 1
            cpu_s = time.process_time() - began_s
            if alarms:
                answers.send((name, seed))
                if answers.recv():
                    return Trial(
                        status="caught",
                        budget_s=budget_s,
                        cpu_s=round(cpu_s, 3),
                        seeds=seeds,
                        check=alarms[0].check,
                        protocol=name,
                        seed=seed,
                        message=alarms[0].message[:300],
                    )
            if cpu_s >= budget_s:
                return Trial(
                    status="survived", budget_s=budget_s, cpu_s=round(cpu_s, 3), seeds=seeds
                )


def _broken(error: Exception, budget_s: float) -> Trial:
    return Trial(status="broken", budget_s=budget_s, message=_line(error))


def _limit(budget_s: float) -> None:
    most_s = int(budget_s + 2 * SEED_CPU_S) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s))
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _plant(mutant: Mutant) -> None:
    """From now on the mutant's file is imported with the change in it, and nothing of the project
    is imported yet."""
    path = (ROOT / mutant.file).resolve()
    code = compile(mutant.apply(path.read_bytes()), str(path), "exec", dont_inherit=True)
    loader: Any = importlib.machinery.SourceFileLoader
    as_it_is = loader.get_code

    def get_code(self: Any, name: str) -> Any:
        return code if Path(self.path).resolve() == path else as_it_is(self, name)

    loader.get_code = get_code
    for name in list(sys.modules):
        if name.split(".")[0].startswith(ROOMS):
            del sys.modules[name]


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
