"""What the exit code of `capbench` says; 0: all is well."""

from __future__ import annotations

OBJECTIVE = 1
"""An objective was missed."""
INPUT = 2
"""The input is not valid."""
INFRASTRUCTURE = 3
"""The infrastructure or a fault failed."""
VIOLATED = 4
"""A consistency claim was violated."""
UNKNOWN = 5
"""A verdict is unknown."""
INTERRUPTED = 130


class TargetFailed(Exception):
    """The infrastructure of a run could not be started, or did not stay up: one line that says
    what, where its log lies, and what to do."""


class StoppedAtOnce(Exception):
    """Whoever started the run would not wait until it was healed and checked: one line."""


class Unsupported(ValueError):
    """An experiment has a fault that the target cannot make real: said before anything starts."""
