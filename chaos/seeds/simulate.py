"""Sweeps: many seeds of the simulator, each judged, on all cores or on a Dask cluster.

A seed is judged by what the simulator itself finds (invariants at each step, progress of a healed
core, convergence and lost writes of eventual protocols) and by the checkers of `bench.checkers` on
its history. What a seed gives depends on the protocol and the seed alone, not on the process, the
machine or the order in which seeds run.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import msgspec

from bench.checkers.budget import Budget
from bench.checkers.linearizability import check_linearizable
from bench.record.columns import Columns
from bench.record.history import OperationRecord
from chaos.interrupted import ctrl_c_ignored
from nodes import registry
from nodes.errors import InfrastructureFailed
from nodes.registry import InvalidConfiguration, Protocol
from nodes.simulator.bugs import all_bugs
from nodes.simulator.simulate import SimulationResult, promises_once, simulate

CHUNK = 5
"""Seeds per task: enough to pay for its way to a worker, few enough to stop soon."""

SEARCH_CONFIGURATIONS = 100_000
"""What the search may look at in the history of one seed (a second or so), where written values are
not unique. Counted, not timed, so that a seed gives the same on every machine."""
SEARCH_BUDGET_S = 60.0
"""The same as time, which no search of that size should need."""
SEED_CPU_S = 30.0
"""CPU seconds after which the run of a seed is given up, with an alarm: it takes tenths of one, so
a handler goes round in circles, or messages make more messages."""

P = ParamSpec("P")
T = TypeVar("T")


class Alarm(msgspec.Struct, frozen=True):
    """Something that a protocol must not do. ``check``: what found it (see
    `nodes.simulator.simulate.Alarm`), or ``linearizability``, or ``never-written`` (an eventual
    protocol returned a value that nobody wrote), or ``endless`` (`SEED_CPU_S`)."""

    seed: int
    check: str
    message: str


class SeedOutcome(msgspec.Struct, frozen=True):
    """A seed, judged. ``undecided``: why a checker has no verdict, None if all have. ``cpu_s``:
    CPU seconds for the run and all checks."""

    seed: int
    alarms: list[Alarm]
    undecided: str | None
    events: int
    cpu_s: float
    trace_hash: str


class WorkersFailed(InfrastructureFailed):
    """The processes or machines that run the seeds cannot be had, or went away: one line."""


# --- one seed ---


def find_protocol(name: str) -> Protocol:
    """A registered protocol, or one with a planted bug in it. Raises InvalidConfiguration."""
    for bug in all_bugs():
        if bug.name == name:
            return bug.planted()
    return registry.get(name)


def judge(protocol: Protocol, result: SimulationResult) -> tuple[list[Alarm], str | None]:
    """The alarms of a run, those of the checkers last; and why a checker has no verdict."""
    alarms = [Alarm(alarm.seed, alarm.check, alarm.message) for alarm in result.alarms]
    if protocol.claim == "linearizable" and not promises_once(result.setup):
        return alarms, None
    history = msgspec.convert(result.history, list[OperationRecord], from_attributes=True)
    check = check_linearizable(
        Columns.from_records(history),
        budget=Budget(SEARCH_BUDGET_S, configurations=SEARCH_CONFIGURATIONS),
    )
    if protocol.claim == "linearizable":
        if check.verdict == "invalid":
            alarms.append(Alarm(result.seed, "linearizability", check.summary))
        elif check.verdict == "unknown":
            return alarms, check.summary
    elif check.details.kind == "never-written":
        alarms.append(Alarm(result.seed, "never-written", check.summary))
    return alarms, None


def check_of(protocol: Protocol) -> Callable[[SimulationResult], str | None]:
    """For `nodes.simulator.shrink`: the check by which a run of ``protocol`` fails."""

    def first(result: SimulationResult) -> str | None:
        if result.alarms:
            return result.alarms[0].check
        alarms, _ = judge(protocol, result)
        return alarms[0].check if alarms else None

    return first


class Endless(Exception):
    """The run of a seed has used `SEED_CPU_S`."""


@contextlib.contextmanager
def _given_up_after(cpu_s: float) -> Iterator[list[Endless]]:
    """Raises `Endless` in what runs within after so much CPU time of this process, and notes it in
    the list, should somebody catch it. In another thread than the main one nothing is raised."""
    raised: list[Endless] = []
    if threading.current_thread() is not threading.main_thread():
        yield raised
        return

    def give_up(_: int, frame: FrameType | None) -> None:
        assert frame is not None
        code = frame.f_code
        place = f"{Path(code.co_filename).name}:{frame.f_lineno} in {code.co_name}"
        raised.append(Endless(f"the seed has used {cpu_s:g} CPU seconds, now at {place}"))
        raise raised[0]

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield raised
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run_seed(protocol: Protocol, seed: int) -> SeedOutcome:
    """Simulate one seed and judge it."""
    began_s = time.process_time()
    try:
        with _given_up_after(SEED_CPU_S) as raised:
            result = simulate(protocol, seed)
    except Endless as error:
        cpu_s = time.process_time() - began_s
        return SeedOutcome(seed, [Alarm(seed, "endless", str(error))], None, 0, cpu_s, "")
    if raised:
        alarms, undecided = [Alarm(seed, "endless", str(raised[0]))], None
    else:
        alarms, undecided = judge(protocol, result)
    return SeedOutcome(
        seed, alarms, undecided, result.events, time.process_time() - began_s, result.trace_hash
    )


def run_seeds(name: str, seeds: Sequence[int]) -> list[SeedOutcome]:
    """`run_seed` for each; a task of a worker."""
    protocol = find_protocol(name)
    return [run_seed(protocol, seed) for seed in seeds]


# --- workers ---


class Workers(msgspec.Struct, frozen=True):
    """Where tasks run, and how many at a time."""

    executor: Executor
    count: int


class _Here(Executor):
    """Runs each task at once, in this process."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def default_jobs() -> int:
    """As many as there are cores for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def local_workers(jobs: int, *, apart: bool = False) -> Iterator[Workers]:
    """``jobs`` processes on this machine; they leave at the end, whatever they are at, and also if
    this process is killed. One is this process itself, unless it must be ``apart``."""
    if jobs == 1 and not apart:
        yield Workers(_Here(), 1)
        return
    context = multiprocessing.get_context("spawn")
    lifeline, ours = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=live_while, initargs=(lifeline,)
    )
    with ctrl_c_ignored():
        for _ in range(jobs):  # So that they begin now.
            executor.submit(os.getpid)
    try:
        yield Workers(executor, jobs)
    finally:
        ours.close()
        lifeline.close()
        executor.shutdown(cancel_futures=True)


def live_while(lifeline: Connection) -> None:
    """In a worker: leave as soon as the other end of ``lifeline`` is closed. Ctrl-C in a terminal
    reaches the workers too: it is for their parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def dask_workers(address: str) -> Iterator[Workers]:
    """The workers of a Dask cluster, on which capbench is installed too. Raises
    InvalidConfiguration without the library, WorkersFailed if the cluster does not answer."""
    try:
        from distributed import Client
    except ImportError:
        raise InvalidConfiguration(
            "--dask needs the library `distributed`: pip install 'capbench[dask]'"
        ) from None
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise WorkersFailed(f"no Dask scheduler at {address}: {_line(error)}") from None
    with client:
        count = sum(client.nthreads().values())
        if count == 0:
            raise WorkersFailed(f"the Dask cluster at {address} has no workers")
        yield Workers(client.get_executor(pure=False), count)


class Stop(msgspec.Struct):
    """Why a sweep ended before its end. ``failure``: one line."""

    interrupted: bool = False
    failure: str | None = None


def gather(
    workers: Workers,
    tasks: Iterable[tuple[Any, ...]],
    function: Callable[..., T],
    on_result: Callable[[int, T], bool],
) -> Stop:
    """Run ``function(*task)`` for all tasks. ``on_result`` gets the number of a task and its
    result as they come; False: begin no more. Ctrl-C ends it too, and SIGTERM within
    `chaos.interrupted.signals_as_exit`, and a worker that dies."""
    numbered = enumerate(tasks)
    pending: dict[Future[T], int] = {}
    going = True
    stop = Stop()
    try:
        while True:
            while going and len(pending) < 2 * workers.count:
                number, task = next(numbered, (-1, ()))
                if number < 0:
                    going = False
                else:
                    pending[workers.executor.submit(function, *task)] = number
            if not pending:
                return stop
            # In rounds, so that a signal is heard in between.
            finished, _ = wait(pending, 0.5, FIRST_COMPLETED)
            for future in sorted(finished, key=lambda future: pending[future]):
                number = pending.pop(future)
                going = on_result(number, future.result()) and going
    except (KeyboardInterrupt, SystemExit):
        stop.interrupted = True
    except (BrokenExecutor, OSError) as error:
        stop.failure = f"a worker died: {_line(error)}"
    for future, number in pending.items():
        if not future.cancel() and future.done() and future.exception() is None:
            on_result(number, future.result())
    return stop


# --- a sweep ---


class Sweep(msgspec.Struct):
    """What a sweep found so far. ``outcomes``: by seed."""

    protocol: str
    outcomes: list[SeedOutcome]
    interrupted: bool = False
    failure: str | None = None

    @property
    def alarms(self) -> list[Alarm]:
        """By seed."""
        return [alarm for outcome in self.outcomes for alarm in outcome.alarms]

    @property
    def undecided(self) -> list[SeedOutcome]:
        """The seeds without an alarm on which a checker has no verdict: they count as neither."""
        return [o for o in self.outcomes if o.undecided is not None and not o.alarms]

    @property
    def events(self) -> int:
        """Simulated events, of all seeds."""
        return sum(outcome.events for outcome in self.outcomes)

    @property
    def events_per_cpu_s(self) -> float | None:
        """With all checks on; None if nothing ran."""
        cpu_s = sum(outcome.cpu_s for outcome in self.outcomes)
        return round(self.events / cpu_s, 1) if cpu_s else None

    @property
    def trace_hash(self) -> str:
        """BLAKE2b, 16 bytes, over the hashes of the seeds, in the order of the seeds, each as 32
        hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=16)
        for outcome in self.outcomes:
            digest.update(outcome.trace_hash.encode())
        return digest.hexdigest()

    def as_data(self) -> dict[str, Any]:
        """What ``--json`` prints. ``seeds``: how many were run."""
        return {
            "protocol": self.protocol,
            "seeds": len(self.outcomes),
            "alarms": self.alarms,
            "events": self.events,
            "events_per_cpu_s": self.events_per_cpu_s,
            "trace_hash": self.trace_hash,
        }


def sweep(
    protocol: str,
    seeds: range,
    workers: Workers,
    *,
    until_bug: bool = False,
    minutes: float | None = None,
    on_progress: Callable[[int, int], None] = lambda done, alarms: None,
) -> Sweep:
    """Run ``seeds`` in order. ``until_bug``: up to the first seed with an alarm, the same one
    however many workers there are. ``minutes``: begin no more after that time. ``on_progress``:
    called with the numbers of seeds that ran and that raised an alarm. Raises
    InvalidConfiguration."""
    find_protocol(protocol)
    chunks = (
        (protocol, list(seeds[first : first + CHUNK])) for first in range(0, len(seeds), CHUNK)
    )
    done: dict[int, list[SeedOutcome]] = {}
    count = alarms = 0
    end_s = time.monotonic() + minutes * 60 if minutes is not None else None

    def on_result(number: int, outcomes: list[SeedOutcome]) -> bool:
        nonlocal count, alarms
        done[number] = outcomes
        count += len(outcomes)
        alarms += sum(bool(outcome.alarms) for outcome in outcomes)
        on_progress(count, alarms)
        in_time = end_s is None or time.monotonic() < end_s
        return in_time and not (until_bug and alarms)

    stop = gather(workers, chunks, run_seeds, on_result)
    result = Sweep(protocol, [], stop.interrupted, stop.failure)
    for number in sorted(done):
        for outcome in done[number]:
            result.outcomes.append(outcome)
            if until_bug and outcome.alarms:
                return result
    return result


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
