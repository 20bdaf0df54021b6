"""Where the simulator's time goes: every sample has a part. No time is judged here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.suites.micro.empty_events import empty_events
from bench.suites.micro.simulator_profile import PARTS, PROTOCOLS, profile
from tests.waiting import patience

ROOT = Path(__file__).parents[2]


def test_a_profile_shares_the_time_among_the_parts() -> None:
    before = signal.getsignal(signal.SIGPROF)
    found = profile("raft", seconds=2.0, cpu_s=1.0)
    assert found.events > 1000
    assert found.samples > 20
    assert list(found.shares) == list(PARTS)
    assert sum(found.shares.values()) == pytest.approx(1.0)
    for part in ("invariants", "protocol", "hosts", "network", "timeline"):
        assert found.shares[part] > 0, f"nothing was ever seen in {part}"
    assert signal.getsignal(signal.SIGPROF) == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_empty_events_are_about_as_many_as_asked_for() -> None:
    assert empty_events(1000, 10) == pytest.approx(1000, abs=11)


def test_the_command_prints_a_column_for_each_protocol() -> None:
    command = [sys.executable, "-m", "bench.suites.micro.simulator_profile", "0"]
    env = {**os.environ, "CAPBENCH_BENCH_SCALE": "0.02"}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=patience(120)
    )
    assert done.returncode == 0, done.stderr
    for name in (*PROTOCOLS, "invariants", "an event that does nothing"):
        assert name in done.stdout
