"""`bench/load/locustfile.py`, plus a record of what the load cost this process: see
`bench.measure.capacity`.

CAPBENCH_PROBE=driven.json locust -f bench/measure/capacity_probe.py --headless -t 3s --rate 0
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bench.load.locustfile import ClosedLoopUser, OpenLoopUser, hooks
from bench.record.run_folder import write_json

__all__ = ["ClosedLoopUser", "OpenLoopUser"]

_started = (0.0, 0.0)


def note_start(user_count: int, **kwargs: Any) -> None:
    """The load begins."""
    global _started
    _started = (time.monotonic(), time.process_time())


def note_end(environment: Any, **kwargs: Any) -> None:
    """The load has ended, and everything is recorded."""
    monotonic, process = _started
    total = environment.stats.total
    driven = {
        "operations": total.num_requests,
        "failures": total.num_failures,
        "seconds": time.monotonic() - monotonic,
        "cpu_s": time.process_time() - process,
    }
    write_json(Path(os.environ["CAPBENCH_PROBE"]), driven)


hooks.spawning_complete.add_listener(note_start)
hooks.test_stop.add_listener(note_end)
