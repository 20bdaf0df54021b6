"""How much memory a process has had at most."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_kb(pid: int | str = "self") -> int:
    """Of its memory that was resident at once, in kB; 0 where the system does not say it, or there
    is no process. (Not ``ru_maxrss``: it begins with what the parent had.)"""
    with contextlib.suppress(OSError):
        found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) if found else 0
    return 0
