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
