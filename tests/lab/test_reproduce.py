"""A published finding, run on the real system: what is seen, and what is not without its fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.systems.system import Programs
from tests.live.conftest import run_json

pytestmark = pytest.mark.live
LOST = """\
title: Redis loses acknowledged writes
published: the master that was cut off goes on acknowledging
source: https://aphyr.com/posts/283-call-me-maybe-redis
system: redis-sentinel
experiment:
  nodes: 3
  workload:
    arrival: {open_loop: 60/s, in_flight: 1024}
    keys: {count: 2000, distribution: uniform}
    mix: {write: 1}
    timeout: 2s
  duration: 10s
  schedule:
    - {at: 1s, for: 6s, fault: partition, groups: leader-alone}
seen: {lost_writes: ">= 1"}
"""


def test_lost_writes_of_redis_are_seen(place: Path, to_be_had: Callable[[str], Programs]) -> None:
    to_be_had("redis-sentinel")
    (place / "lost.yaml").write_text(LOST)
    code, told = run_json("reproduce", "./lost.yaml", cwd=place)
    (row,) = told["rows"]
    assert (code, row["seen"], row["runs"]) == (0, 1, 1), told
    assert row["measured"]["lost_writes"][0] >= 1
    assert row["version"]
    assert (place / told["report"]).is_file()
