"""Errors that are no defect of capbench: one line says what is wrong, where, and what to do.

`chaos.errors` draws the whole hierarchy. Each class carries the exit code of a command that ends
with it, so that no room needs to know who prints it.
"""

from __future__ import annotations


class CapbenchError(Exception):
    """One line for whoever runs capbench. ``exit_code``: of the command."""

    exit_code: int


class InvalidInput(CapbenchError, ValueError):
    """What was asked for, or a file that was given, cannot be."""

    exit_code = 2


class Unsupported(InvalidInput):
    """A fault that the target cannot make real: said before anything starts."""


class InfrastructureFailed(CapbenchError):
    """A part that a run needs could not be started, reached or kept up."""

    exit_code = 3
