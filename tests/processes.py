"""Looking at processes that may end while they are looked at, and not be reaped at once."""

from __future__ import annotations

import psutil


def command_line(process: psutil.Process) -> list[str]:
    """What it was started with; empty once it has ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie, too
        return []
