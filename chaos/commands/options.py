"""The types of `capbench`'s options: quantities within bounds, and known names. Bad values are
refused while the command line is parsed, before anything starts. New options must use these: a
plain ``int`` or ``float`` accepts values that no command can work with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from bench.record.printable import quoted
from bench.record.quantities import (
    ABOVE_ZERO_S,
    MAX_COUNT,
    BadQuantity,
    Bounds,
    format_duration,
    read_bytes,
    read_count,
    read_duration,
    read_number,
)
from chaos.experiments.limits import MAX_NODES, is_path
from nodes.contract.names import BadName, check_name, did_you_mean

DETECTOR_SWEEP = "detector-sweep"


class Quantity:
    """A parser of an option's text; its ``__name__`` is shown in the help."""

    def __init__(self, name: str, read: Callable[[Any], Any]) -> None:
        self.__name__ = name
        self._read = read

    def __call__(self, value: Any) -> Any:
        """The quantity. Raises typer.BadParameter."""
        try:
            return self._read(value)
        except BadQuantity as error:
            raise typer.BadParameter(str(error)) from None


def count(least: int, most: int = MAX_COUNT) -> Quantity:
    """A whole number, ``least`` to ``most``."""
    return Quantity("number", lambda value: read_count(value, Bounds(least, most)))


def number(least: float, most: float, *, excluded: bool = False) -> Quantity:
    """A number; ``excluded``: more than ``least``."""
    bounds = Bounds(least, most, excluded)
    return Quantity("number", lambda value: read_number(value, bounds))


def duration(bounds: Bounds = ABOVE_ZERO_S, *, whole_seconds: bool = False) -> Quantity:
    """``10s``, ``200ms``: seconds. ``whole_seconds``: for a program that takes no fractions."""

    def read(value: Any) -> float:
        # A default is in seconds.
        text = format_duration(value) if isinstance(value, int | float) else value
        seconds = read_duration(text, bounds)
        if whole_seconds and seconds != int(seconds):
            raise BadQuantity(f"{value!r}: use whole seconds")
        return seconds

    return Quantity("duration", read)


def size() -> Quantity:
    """``500M``, ``4G``: bytes."""
    return Quantity("size", lambda value: value if isinstance(value, int) else read_bytes(value))


class Name:
    """A parser for a known name, or for whatever ``also`` accepts (a path)."""

    def __init__(
        self,
        kind: str,
        known: Callable[[], Iterable[str]],
        also: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.__name__ = kind
        self.known = known
        self._also = also

    def __call__(self, value: str) -> str:
        """The name. Raises typer.BadParameter."""
        if not self._also(value):
            known = list(self.known())
            if value not in known:
                raise typer.BadParameter(
                    f"unknown {self.__name__} {did_you_mean(value, known, 'use')}"
                )
        return value

    @property
    def typed(self) -> dict[str, Any]:
        """The arguments of a typer option or argument that takes such a name."""
        return {"parser": self, "autocompletion": self.complete}

    def complete(self, incomplete: str) -> list[str]:
        """The names that start with this, for shell completion."""
        return [name for name in self.known() if name.startswith(incomplete)]


# --- names -------------------------------------------------------------------------------------


def distinct(names: Any) -> Any:
    """The names, none of them repeated. Raises typer.BadParameter."""
    for name in names or ():
        if names.count(name) > 1:
            raise typer.BadParameter(f"{name} is given twice")
    return names


def _protocols() -> list[str]:
    from nodes.registry import PROTOCOLS

    return list(PROTOCOLS)


def _systems_too() -> list[str]:
    from chaos.systems.catalogue import SYSTEMS

    return [*_protocols(), *SYSTEMS]


def _is_system_or_file(value: str) -> bool:
    """A file of one's own, or a version of a system, which the system judges."""
    from chaos.systems.catalogue import is_named

    return _is_file(value) or ("@" in value and is_named(value))


def _internal_too() -> list[str]:
    from nodes.registry import INTERNAL

    return [*_protocols(), *INTERNAL]


def _simulated() -> list[str]:
    from nodes.simulator.bugs import all_bugs

    return [*_internal_too(), *(bug.name for bug in all_bugs())]


def _experiments() -> list[str]:
    from chaos.experiments.experiment import names

    return names()


def _targets() -> tuple[str, ...]:
    from chaos.clusters.capabilities import TargetName

    return get_args(TargetName)


def _faults() -> list[str]:
    from nodes.faults.catalogue import FAULTS

    return sorted(FAULTS)


def _is_file(text: str) -> bool:
    return text.endswith(".py")


def _kinds() -> Iterable[str]:
    from bench.record.models.run import NEEDED

    return NEEDED


PROTOCOL = Name("protocol", _protocols, _is_file)
SUBJECT = Name("protocol", _systems_too, _is_system_or_file)
WITH_SOURCE = Name("protocol", _internal_too, _is_file)
SIMULATED = Name("protocol", _simulated, _is_file)
EXPERIMENT = Name("experiment", _experiments, is_path)
KIND = Name("kind of workload", _kinds)
RUNNABLE = Name("experiment", lambda: [*_experiments(), DETECTOR_SWEEP], is_path)
FAULT = Name("fault", _faults)
TARGET = Name("target", _targets)

Protocol = Annotated[
    str,
    typer.Option(
        "--protocol",
        "-p",
        **PROTOCOL.typed,
        help="The protocol: a name from `capbench list`, or a file my.py.",
    ),
]
Subject = Annotated[
    str,
    typer.Option(
        "--protocol",
        "-p",
        **SUBJECT.typed,
        help="The protocol or system: a name from `capbench list`, or a file my.py.",
    ),
]
Protocols = Annotated[
    list[str] | None,
    typer.Option(
        "--protocol",
        "-p",
        **SUBJECT.typed,
        callback=distinct,
        help="A protocol or system from `capbench list`, or a file my.py. Repeatable.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        **TARGET.typed,
        help="local: processes on this machine; sim: simulated, in virtual time; compose: the "
        "containers of `docker compose up`; attached: a cluster found by addresses only; lab: a "
        "system in namespaces of its own. [default: local, for systems lab]",
        envvar="CAPBENCH_TARGET",
    ),
]
Endpoints = Annotated[
    str,
    typer.Option(
        help="host:port,host:port of a system that runs elsewhere (--target attached), whose nodes "
        "are n1, n2 ... in that order.",
    ),
]


def _new_name(value: str) -> str:
    try:
        return check_name(value)
    except BadName as error:
        raise typer.BadParameter(str(error)) from None


def _clusters(incomplete: str) -> list[str]:
    from chaos.clusters.by_name import known

    return [name for name in known() if name.startswith(incomplete)]


_new_name.__name__ = "name"
NewCluster = Annotated[
    str,
    typer.Option("--name", parser=_new_name, help="Its name, for other commands and in topics."),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--name",
        parser=_new_name,
        autocompletion=_clusters,
        help="Name of the cluster [default: the only one running]",
    ),
]

# --- quantities --------------------------------------------------------------------------------

SEED = count(0, MAX_COUNT // 2)
"""Leaves room for seeds that count up from it."""
SEEDS = count(1, 10**9)
NODES = count(1, MAX_NODES)
PORT = count(1, 65535)


def _metrics_port(value: Any) -> int:
    host, _, port = str(value).rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        raise BadQuantity(f"{quoted(value)}: use 127.0.0.1:PORT, such as 127.0.0.1:9100")
    return read_count(port, Bounds(1, 65535))


Metrics = Annotated[
    int | None,
    typer.Option(
        "--metrics",
        parser=Quantity("127.0.0.1:port", _metrics_port),
        help="Serve OpenMetrics at this address while it is up, under /metrics: roles, terms, "
        "commits, queues, latencies, the faults that are on.",
        show_default=False,
    ),
]
MINUTES = number(0, 525_600, excluded=True)

Seed = Annotated[
    int | None,
    typer.Option(parser=SEED, help="Seed of workload and faults, instead of the experiment's."),
]
Nodes = Annotated[
    int | None, typer.Option(parser=NODES, help="Number of nodes, instead of the experiment's.")
]
KindOf = Annotated[
    str | None,
    typer.Option(
        "--kind",
        **KIND.typed,
        help="Kind of workload, instead of the experiment's: counters, sets or locks, say, and "
        "not registers; judged by that model.",
    ),
]
Repeat = Annotated[
    int,
    typer.Option(
        parser=count(1, 1000), help="Runs of each, with consecutive seeds: gives intervals."
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(parser=MINUTES, help="Start nothing new after this many minutes."),
]
Jobs = Annotated[
    int | None, typer.Option(parser=count(1, 1024), help="Processes. [default: one per core]")
]


def folder(value: str | Path) -> Path:
    """A folder that exists or can be created. Raises typer.BadParameter."""
    if not str(value):
        raise typer.BadParameter("'' is no folder")
    path = Path(value)
    for each in (path, *path.parents):
        if each.exists():
            if not each.is_dir():
                raise typer.BadParameter(f"{quoted(str(each))} is no folder")
            break
    return path


Out = Annotated[
    Path | None, typer.Option("--out", "-o", parser=folder, help="Folder for the results.")
]
