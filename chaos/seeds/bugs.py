"""The planted bugs: which seeds catch them, and how short the story of a catch becomes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import msgspec

from chaos.seeds.simulate import Workers, check_of, gather, run_seed
from nodes.simulator.bugs import Bug, all_bugs
from nodes.simulator.shrink import READABLE, shrink
from nodes.simulator.simulate import simulate

SHRINK_CPU_S = 30.0
"""So long may shrinking take, in CPU seconds, for a person who waits for it."""
SHRUNK_SHARE = 0.9
"""The share of the bugs whose story must be readable within that time."""


class BugOutcome(msgspec.Struct, frozen=True):
    """A planted bug: caught or missed. ``cpu_s_per_catch``: CPU seconds until it was caught, None
    if it was not; ``seeds``: how many were tried (0: none, the sweep was interrupted)."""

    bug: str
    protocol: str
    caught: bool
    check: str | None
    cpu_s_per_catch: float | None
    seeds: int


class Shrunk(msgspec.Struct, frozen=True):
    """What a reader has to read (messages, crashes and operations) of the first seed that caught a
    bug, before and after shrinking, and the CPU seconds that took."""

    told: int
    events: int
    cpu_s: float

    @property
    def readable(self) -> bool:
        """Whether it is short enough, and came soon enough."""
        return self.events <= READABLE and self.cpu_s <= SHRINK_CPU_S


class BugSweep(msgspec.Struct):
    """All planted bugs, in the order of `all_bugs`. ``shrunk``: by bug, where asked for."""

    bugs: list[BugOutcome]
    shrunk: dict[str, Shrunk] = {}
    interrupted: bool = False
    failure: str | None = None

    @property
    def readable(self) -> int:
        """How many stories can be read."""
        return sum(shrunk.readable for shrunk in self.shrunk.values())


def hunt(name: str, seeds: int) -> BugOutcome:
    """Try seeds 1, 2 ... until the planted bug ``name`` is caught."""
    bug = next(bug for bug in all_bugs() if bug.name == name)
    planted = bug.planted()
    cpu_s = 0.0
    for seed in range(1, seeds + 1):
        outcome = run_seed(planted, seed)
        cpu_s += outcome.cpu_s
        if outcome.alarms:
            check = outcome.alarms[0].check
            return BugOutcome(name, bug.protocol, True, check, round(cpu_s, 3), seed)
    return _missed(bug, seeds)


def _missed(bug: Bug, seeds: int) -> BugOutcome:
    return BugOutcome(bug.name, bug.protocol, False, None, None, seeds)


def shrunk(outcome: BugOutcome) -> Shrunk:
    """Shrink the seed that caught a bug."""
    planted = next(bug for bug in all_bugs() if bug.name == outcome.bug).planted()
    began_s = time.process_time()
    result = simulate(planted, outcome.seeds)
    case = shrink(planted, result, check_of(planted))
    cpu_s = round(time.process_time() - began_s, 3)
    return Shrunk(result.told, case.run(planted).told, cpu_s)


def _hunt(name: str, seeds: int, *, to_shrink: bool) -> tuple[BugOutcome, Shrunk | None]:
    outcome = hunt(name, seeds)
    return outcome, shrunk(outcome) if to_shrink and outcome.caught else None


def sweep_bugs(
    seeds: int,
    workers: Workers,
    *,
    to_shrink: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BugSweep:
    """`hunt` every planted bug, at most ``seeds`` seeds each; ``to_shrink``: and shrink what was
    caught."""
    bugs = list(all_bugs())
    result = BugSweep([_missed(bug, 0) for bug in bugs])
    done = 0

    def on_result(number: int, found: tuple[BugOutcome, Shrunk | None]) -> bool:
        nonlocal done
        result.bugs[number], story = found
        if story is not None:
            result.shrunk[bugs[number].name] = story
        done += 1
        on_progress(done, len(bugs))
        return True

    tasks = ((bug.name, seeds) for bug in bugs)
    stop = gather(workers, tasks, partial(_hunt, to_shrink=to_shrink), on_result)
    result.interrupted, result.failure = stop.interrupted, stop.failure
    return result
