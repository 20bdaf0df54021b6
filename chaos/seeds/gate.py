"""The gate: the protocols as they are, over many seeds, without one alarm.

It takes hours, so it goes in slices, protocol by protocol in turn, and writes down what it did
after each: when it is started again it goes on, as long as the code is the same.
"""

from __future__ import annotations

import ast
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.paths import ROOT
from bench.record.run_folder import write_json
from chaos.seeds.coverage import ENOUGH_SEEDS, Coverage, sweep_coverage, totals
from chaos.seeds.simulate import Alarm, Sweep, Workers, sweep
from nodes.errors import InvalidInput

SLICE = 100
"""Seeds of a protocol before the next one has its turn: two of them are traced, side by side."""
JUDGES = ("nodes", "bench/checkers", "chaos/seeds/simulate.py")
"""The code on which the outcome of a seed depends, except:"""
NO_JUDGES = ("nodes/runtime", "nodes/container.py", "nodes/__main__.py", "nodes/simulator/bugs")
"""What runs nodes in processes of their own, and planted bugs."""


class Line(msgspec.Struct):
    """What one protocol has behind it: seeds 1 to ``seeds``. ``undecided``: seeds on which a
    checker has no verdict. ``coverage``: what its traced seeds reached."""

    protocol: str
    seeds: int = 0
    alarms: list[Alarm] = []
    undecided: list[int] = []
    events: int = 0
    cpu_s: float = 0.0
    coverage: Coverage = msgspec.field(default_factory=Coverage)

    def add(self, found: Sweep) -> None:
        """A slice more."""
        self.alarms += found.alarms
        self.undecided += [outcome.seed for outcome in found.undecided]
        self.events += found.events
        self.cpu_s += sum(outcome.cpu_s for outcome in found.outcomes)
        # Last: seeds whose alarms an interruption kept out must not count as run.
        self.seeds += len(found.outcomes)


class OfCode(msgspec.Struct):
    """A record that counts as long as the code is the same. ``code``: a hash of it."""

    code: str


R = TypeVar("R", bound=OfCode)


class Gate(OfCode):
    """How far it is."""

    lines: dict[str, Line] = {}

    def of(self, protocols: Sequence[str]) -> list[Line]:
        """Their lines; new ones, if they have none."""
        return [self.lines.setdefault(name, Line(name)) for name in protocols]


def are_enough(lines: Sequence[Line]) -> bool:
    """Whether so many seeds were traced that it means something if none reached a branch."""
    return all(line.coverage.seeds >= ENOUGH_SEEDS for line in lines)


def any_missed(lines: Sequence[Line]) -> bool:
    """Whether there is a branch that no traced seed reached, and no reason for it."""
    return any(total.unreached for total in totals(line.coverage for line in lines))


class BadGate(InvalidInput):
    """A file that is no record of a gate."""


def code_hash(root: Path = ROOT) -> str:
    """BLAKE2b, 16 bytes, of the code that decides what a seed gives; comments and the breaks of
    lines do not."""
    digest = hashlib.blake2b(digest_size=16)
    for place in JUDGES:
        path = root / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = file.relative_to(root)
            if not any(name.is_relative_to(each) for each in NO_JUDGES):
                code = ast.dump(ast.parse(file.read_bytes()))
                digest.update(name.as_posix().encode() + b"\0" + code.encode() + b"\0")
    return digest.hexdigest()


def begin(path: Path) -> tuple[Gate, bool]:
    """The record at ``path``, or a new one; and whether there was one of other code, which counts
    no more. Raises BadGate, OSError."""
    return kept(path, Gate(code_hash()), "a gate", BadGate)


def kept(path: Path, new: R, of: str, bad: type[InvalidInput]) -> tuple[R, bool]:
    """The record at ``path``, if it is of the same code as ``new``, else ``new``; and whether there
    was one of other code, which counts no more. Raises ``bad`` where there is no record of ``of``,
    OSError."""
    if not path.exists():
        return new, False
    try:
        before = msgspec.json.decode(path.read_bytes(), type=type(new))
    except msgspec.MsgspecError as error:
        raise bad(f"no record of {of} ({error}); remove it") from None
    return (before, False) if before.code == new.code else (new, True)


def go_on(
    gate: Gate,
    path: Path,
    protocols: Sequence[str],
    seeds: int,
    workers: Workers,
    *,
    minutes: float | None = None,
    on_progress: Callable[[str, int], None] = lambda protocol, done: None,
) -> Sweep | None:
    """Run slices until each protocol has ``seeds`` behind it, or for ``minutes``. Returns the slice
    in which it was interrupted or failed, if it was. Raises OSError if ``path`` cannot be
    written."""
    lines = gate.of(protocols)
    try:
        return _go_on(gate, path, lines, seeds, workers, minutes, on_progress)
    except (KeyboardInterrupt, SystemExit):
        # Between two slices: within one, `sweep` itself takes it.
        write_json(path, gate)
        return Sweep(lines[0].protocol, [], interrupted=True)


def _go_on(
    gate: Gate,
    path: Path,
    lines: Sequence[Line],
    seeds: int,
    workers: Workers,
    minutes: float | None,
    on_progress: Callable[[str, int], None],
) -> Sweep | None:
    end_s = None if minutes is None else time.monotonic() + 60 * minutes
    while any(line.seeds < seeds for line in lines):
        for line in lines:
            first = line.seeds + 1
            if first > seeds:
                continue
            if end_s is not None and time.monotonic() >= end_s:
                return None
            on_progress(line.protocol, sum(line.seeds for line in lines))
            found = sweep(line.protocol, range(first, min(seeds, line.seeds + SLICE) + 1), workers)
            # What came out of order before an interruption is found again.
            for number, outcome in enumerate(found.outcomes):
                if outcome.seed != first + number:
                    del found.outcomes[number:]
                    break
            wanted = range(first, first + len(found.outcomes))
            line.add(found)
            stop = sweep_coverage(line.protocol, wanted, workers, line.coverage)
            write_json(path, gate)
            if found.interrupted or found.failure:
                return found
            if stop.interrupted or stop.failure:
                return Sweep(line.protocol, [], stop.interrupted, stop.failure)
    return None
