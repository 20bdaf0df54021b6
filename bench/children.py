"""How children that are Python are started: with our packages, whatever lies in the working folder
or is called by one of their names there."""

from __future__ import annotations

import os
import sys

from bench.paths import ROOT

"""The folder of our packages."""


def python(module: str) -> list[str]:
    """The begin of a command that runs ``module``. The working folder is not searched (``-P``)."""
    return [sys.executable, "-P", "-m", module]


def environment(**more: str) -> dict[str, str]:
    """The environment of a child: ours, and ``more``. Our packages come before all others, and
    whatever the child starts does not search its working folder either."""
    path = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    searched = os.pathsep.join(dict.fromkeys(filter(None, path)))
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": searched, **more}
