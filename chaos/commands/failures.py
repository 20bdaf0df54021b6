"""What a command that failed says, in a line, and its exit code."""

from __future__ import annotations

from typing import Any

import typer

from bench.record.printable import printable
from chaos import errors as exit_codes
from chaos.interrupted import Interrupted
from nodes.contract.names import did_you_mean
from nodes.errors import CapbenchError


def said(error: Exception) -> tuple[str, int | None]:
    """The message and the exit code; None: a defect of ours, to be shown with its traceback."""
    if isinstance(error, typer.Abort):
        error = Interrupted()
    if hasattr(error, "format_message"):
        return _usage(error), exit_codes.INPUT
    if isinstance(error, CapbenchError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        if isinstance(error, FileExistsError):
            return f"{where}is there already" if where else str(error), exit_codes.INPUT
        return f"{where}{error.strerror or error}", exit_codes.INFRASTRUCTURE
    return str(error), None


def _usage(error: Any) -> str:
    """What is wrong with the command line, on one line. ``error``: an exception of click, which
    typer vendors, so its type cannot be named here."""
    command: Any = error.ctx.command if error.ctx else None
    parts = [] if command is None or hasattr(command, "commands") else [command.name]
    message = str(error.message).rstrip(".")
    option = getattr(error, "option_name", None)
    parameter = getattr(error, "param", None)
    if option is not None and command is not None:
        known = [name for each in command.params for name in each.opts if name.startswith("--")]
        message = f"unknown option {did_you_mean(option, known)}"
    elif message.startswith("No such command"):
        message = f"unknown command {did_you_mean(_quoted_in(message), command.commands)}"
    elif type(error).__name__ == "MissingParameter":
        message = f"{_named(parameter)} is missing; see capbench {command.name} --help"
    elif parameter is not None:
        parts.append(_named(parameter))
    return ": ".join([*parts, printable(message, 1000)])


def _named(parameter: Any) -> str:
    """An option by its long name, an argument by its own."""
    return max(parameter.opts, key=len) if parameter.opts else str(parameter.name)


def _quoted_in(message: str) -> str:
    return message.split("'")[1]
