"""`python -m bench.suites.micro.simulator_profile`: where the simulator spends its time, by part.

A signal interrupts the simulation at fixed intervals of CPU time, and the current frame counts for
a part. Nothing else slows it down, so the shares are those of an undisturbed run; after some 10,000
samples a share of 1% is uncertain by a tenth. The runs are those of `bench_simulator`.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench.measure.measuring import scaled
from bench.suites.micro.empty_events import empty_events
from nodes.simulator.load import WorkloadMix
from nodes.simulator.simulate import Setup, simulate

PROTOCOLS = ("raft", "paxos", "quorum", "gossip")
SEEDS = range(1, 5)
SECONDS = scaled(60)
CPU_S = 12.0
"""How long each protocol is sampled, at least."""

PARTS = {
    "invariants": "what changed, and the checks of it",
    "protocol": "the replica: handlers, end of step, its log and sessions",
    "hosts": "effects, gate, timers, traps, fsyncs, stable storage",
    "network": "delay, loss, order, arrival",
    "timeline": "the heap, and the loop around it",
    "clients": "thinking, asking, timing out, the history",
    "rest": "drawing the seed, faults, comparing states, the hash",
}
_FILES = {
    "timeline.py": "timeline",
    "network.py": "network",
    "host.py": "hosts",
    "disk.py": "hosts",
    "clock.py": "hosts",
    "load.py": "clients",
}
_WATCHING = frozenset({"observe", "observers_after", "watched", "hear"})


class Profile(NamedTuple):
    """The profile of one protocol. ``shares``: by part, 1 in total."""

    events: int
    cpu_s: float
    samples: int
    shares: dict[str, float]

    @property
    def per_event_us(self) -> float:
        """Microseconds of CPU time per event."""
        return self.cpu_s / self.events * 1e6


def part_of(frame: FrameType | None) -> str:
    """The part that ``frame`` belongs to."""
    innermost = ""
    while frame is not None:
        code = frame.f_code
        if code.co_name in _WATCHING:
            return "invariants"
        innermost = innermost or _part_of_file(code.co_filename)
        frame = frame.f_back
    return innermost or "rest"


@cache
def _part_of_file(path: str) -> str:
    """The part that a file belongs to; empty: its caller decides."""
    *folders, file = ("", *Path(path).parts)
    if "simulator" in folders:
        return _FILES.get(file, "rest")
    return "protocol" if "nodes" in folders else ""


def profile(protocol: str, seconds: float = SECONDS, cpu_s: float = CPU_S) -> Profile:
    """Sample runs of ``seconds`` virtual seconds for at least ``cpu_s`` of CPU time."""
    found: Counter[str] = Counter()

    def sample(_: int, frame: FrameType | None) -> None:
        found[part_of(frame)] += 1

    setup = Setup(mix=WorkloadMix(clients=10))
    before = signal.signal(signal.SIGPROF, sample)
    began_s = time.process_time()
    events = 0
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    try:
        while events == 0 or time.process_time() - began_s < cpu_s:
            for seed in SEEDS:
                run = simulate(protocol, seed, nodes=5, duration_s=seconds, setup=setup)
                events += run.events
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
    spent_s = time.process_time() - began_s
    samples = sum(found.values())
    shares = {part: found[part] / max(1, samples) for part in PARTS}
    return Profile(events, spent_s, samples, shares)


def main(cpu_s: float = CPU_S) -> None:
    """Print the table."""
    profiles = {protocol: profile(protocol, cpu_s=cpu_s) for protocol in PROTOCOLS}
    began_s = time.process_time()
    count = empty_events(400_000)
    empty_us = (time.process_time() - began_s) / count * 1e6
    table = Table("microseconds of CPU time per event", *PROTOCOLS)
    for part, what in PARTS.items():
        cells = [f"{p.shares[part] * p.per_event_us:.2f}" for p in profiles.values()]
        table.add_row(f"{part}: {what}", *cells)
    table.add_section()
    table.add_row("all", *(f"{p.per_event_us:.2f}" for p in profiles.values()))
    table.add_row("events/CPU s", *(f"{p.events / p.cpu_s:,.0f}" for p in profiles.values()))
    table.add_row("samples", *(f"{p.samples:,}" for p in profiles.values()))
    console = Console()
    console.print(table)
    console.print(f"an event that does nothing: {empty_us:.2f} us ({1e6 / empty_us:,.0f} a second)")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
