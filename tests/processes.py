"""Starting commands as processes of their own, and looking at processes that may end while they are
looked at, and not be reaped at once."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from bench.children import environment, python


def begun(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """``capbench ...``, as if typed in ``cwd``, with ``env`` besides our environment. What it says
    can be read, unless ``options``, those of `subprocess.Popen`, say otherwise."""
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [*python("chaos.commands.main"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, env=environment(**(env or {})), text=True, **kept)


def command_line(process: psutil.Process) -> list[str]:
    """What it was started with; empty once it has ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie, too
        return []
