"""Which errors are a user's to mend, in a line, and the exit code of each."""

from __future__ import annotations

from typing import Any

import typer

from bench.record.printable import printable
from chaos import errors as exit_codes
from nodes.contract.names import did_you_mean


def said(error: Exception) -> tuple[str, int | None]:
    """The message and the exit code; without a code it is a fault of ours, to be seen whole."""
    # Imported here only: nobody waits for all of this before there is an error.
    if isinstance(error, typer.Abort):
        return "interrupted", exit_codes.INTERRUPTED
    if hasattr(error, "format_message"):
        return _usage(error), exit_codes.INPUT
    from bench.load.mqtt_client import BrokerUnreachable
    from bench.measure.live import NoCluster
    from bench.record.cluster_file import BadClusterFile
    from bench.record.history import BadHistory
    from bench.record.quantities import BadQuantity
    from bench.record.run_folder import BadRunFolder
    from chaos.clusters.by_name import NoSuchCluster, WhichCluster
    from chaos.clusters.monitor import BrokerSilent
    from chaos.commands.check import BadOption
    from chaos.errors import StoppedAtOnce, TargetFailed, Unsupported
    from chaos.experiments.experiment import InvalidExperiment
    from chaos.seeds.simulate import WorkersFailed
    from chaos.targets.load import BadLoad
    from nodes.contract.names import BadName
    from nodes.registry import InvalidConfiguration

    if isinstance(
        error,
        InvalidExperiment
        | InvalidConfiguration
        | Unsupported
        | BadOption
        | BadLoad
        | BadQuantity
        | BadRunFolder
        | BadHistory
        | BadClusterFile
        | BadName
        | WhichCluster
        | NoSuchCluster
        | FileExistsError,
    ):
        there = isinstance(error, FileExistsError) and error.filename
        return f"{there}: is there already" if there else str(error), exit_codes.INPUT
    if isinstance(
        error, TargetFailed | NoCluster | BrokerSilent | BrokerUnreachable | WorkersFailed
    ):
        return str(error), exit_codes.INFRASTRUCTURE
    if isinstance(error, StoppedAtOnce):
        return str(error), exit_codes.INTERRUPTED
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", exit_codes.INFRASTRUCTURE
    return str(error), None


def _usage(error: Any) -> str:
    """What the command line says wrong, on one line. ``error``: an exception of click, of which
    typer brings its own, so that no type of it can be named here."""
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
