"""How Python child processes are started: with our packages, even if files in the working folder
have the same names."""

from __future__ import annotations

import os
import sys

from bench.paths import ROOT


def python(module: str) -> list[str]:
    """The beginning of a command that runs ``module``. ``-P``: the working folder is not
    searched."""
    return [sys.executable, "-P", "-m", module]


def environment(**more: str) -> dict[str, str]:
    """The environment of a child: ours and ``more``. Our packages come first, and the child's own
    children do not search their working folder either."""
    path = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    searched = os.pathsep.join(dict.fromkeys(filter(None, path)))
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": searched, **more}
