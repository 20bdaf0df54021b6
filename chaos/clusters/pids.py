"""Which process had a pid, since pids are reused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def started(pid: int) -> str | None:
    """What distinguishes a process from others that had its pid; None if there is none, or only a
    zombie. On Linux the kernel counts from its own start, so that no step of the wall clock makes a
    process another."""
    with contextlib.suppress(OSError):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if after_name[0] in "ZX":
            return None
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{after_name[19]}"
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
