"""How much memory a process has, and has had at most."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_SHARE = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


def share_kb(pid: int) -> int:
    """Its memory that is resident now, in kB; of what it shares with other processes its part only,
    so that the sum over processes counts nothing twice. 0 as for `peak_kb`."""
    with contextlib.suppress(OSError):
        found = _SHARE.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
        return int(found[1]) if found else 0
    return 0


def peak_kb(pid: int | str = "self") -> int:
    """Of its memory that was resident at once, in kB; 0 where the system does not say it, or there
    is no process. (Not ``ru_maxrss``: it begins with what the parent had.)"""
    with contextlib.suppress(OSError):
        found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) if found else 0
    return 0
