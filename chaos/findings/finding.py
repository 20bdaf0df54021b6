"""Published findings about systems: what was claimed, by whom, and what counts as seen here.

Each is a YAML file in chaos/findings/. Systems are not deterministic, so a finding is never there
or not: it is seen in k of n runs.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.record.files import NotReadable, read_named
from chaos.experiments import experiment as experiments
from chaos.experiments.experiment import Experiment
from chaos.experiments.limits import is_path
from chaos.experiments.yaml_reader import MAX_BYTES, BadYaml, read_yaml
from chaos.systems import catalogue
from chaos.targets.subjects import find
from nodes.contract.names import did_you_mean
from nodes.errors import CapbenchError, InvalidInput
from nodes.registry import PROTOCOLS
from reports.data.summary import RunSummary

CATALOGUE = Path(__file__).resolve().parent


class BadFinding(InvalidInput):
    """A finding that cannot be read: names its file and says what would be right."""


def _stale(run: RunSummary) -> float | None:
    return None if run.stale_reads is None else run.stale_reads.fraction


def _unserved(run: RunSummary) -> float | None:
    return None if run.availability.during is None else 1 - run.availability.during


def _diverged(run: RunSummary) -> float | None:
    return None if run.converged is None else float(not run.converged)


FIGURES: dict[str, Callable[[RunSummary], float | None]] = {
    "lost_writes": lambda run: run.lost_writes,
    "stale_reads": _stale,
    "unserved": _unserved,
    "diverged": _diverged,
}
"""What a finding can be seen by: acknowledged writes that are gone; the share of reads that were
stale; the share of operations that were not served while faults were on; 1 if the nodes differ at
the end, else 0. None: the run does not tell."""
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


class Condition(msgspec.Struct, frozen=True):
    """A figure of `FIGURES` and what it is compared with."""

    figure: str
    comparison: str
    value: float

    def __str__(self) -> str:
        return f"{self.figure.replace('_', ' ')} {self.comparison} {self.value:g}"

    def holds(self, run: RunSummary) -> bool | None:
        """None: the run does not tell."""
        measured = FIGURES[self.figure](run)
        return None if measured is None else _COMPARE[self.comparison](measured, self.value)


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file says. ``experiment``: a name from the catalogue, or an experiment."""

    title: str
    published: str
    source: str
    system: str
    experiment: str | dict[str, Any]
    seen: dict[str, str]
    beside: list[str] = []
    affects: str = ""
    here: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """``published``: what was claimed; ``source``: where. ``seen``: what a run must show, all of
    it. ``beside``: systems that go through the same, as a comparison. ``affects``: the versions
    that it was published of; empty: all. ``here``: what its author measured."""

    name: str
    title: str
    published: str
    source: str
    system: str
    experiment: Experiment
    seen: tuple[Condition, ...]
    beside: tuple[str, ...]
    affects: str
    here: str

    @property
    def systems(self) -> tuple[str, ...]:
        """All that are run, the one it was published of first."""
        return self.system, *self.beside

    def shown_by(self, run: RunSummary) -> bool | None:
        """Whether a run shows it; None: it does not tell."""
        told = [condition.holds(run) for condition in self.seen]
        if False in told:
            return False
        return None if None in told else True


def names() -> list[str]:
    """The findings that come with capbench."""
    return sorted(path.stem for path in CATALOGUE.glob("*.yaml"))


def load(name_or_path: str) -> Finding:
    """The finding of that name, or of a file. Raises BadFinding, one line."""
    if not is_path(name_or_path) and name_or_path not in names():
        hint = did_you_mean(name_or_path, names())
        raise BadFinding(f"unknown finding {hint}, or the path of a .yaml file")
    ours = not is_path(name_or_path)
    path = CATALOGUE / f"{name_or_path}.yaml" if ours else Path(name_or_path)
    shown = path.name if ours else str(path)
    try:
        document = read_yaml(read_named(path, MAX_BYTES).decode(), "safe", ours=ours)
    except OSError as error:
        raise BadFinding(f"{shown}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadFinding(f"{shown}: is not UTF-8 text") from None
    except NotReadable as error:
        raise BadFinding(str(error)) from None
    except BadYaml as error:
        where = shown if error.line is None else f"{shown}:{error.line}"
        raise BadFinding(f"{where}: {error}") from None
    try:
        return _finding(document, path.stem)
    except (msgspec.ValidationError, CapbenchError) as error:
        # An experiment has a line for each problem: the first is enough to go on.
        line = str(error).splitlines()[0]
        raise BadFinding(f"{shown}: {line.replace('$.', '').replace(' - at `$`', '')}") from None


def _finding(document: Any, name: str) -> Finding:
    if not isinstance(document, Mapping):
        raise BadFinding("a finding is a mapping that begins with `title:`")
    file = msgspec.convert(document, _File)
    for each in (file.system, *file.beside):
        # Most are systems, of which an error should tell.
        find(each) if each in PROTOCOLS else catalogue.get(each)
    if not file.seen:
        raise BadFinding("seen: must not be empty")
    if isinstance(file.experiment, str):
        experiment = experiments.load(file.experiment)
    else:
        data = {"title": file.title, "shows": file.published, "protocols": ["raft"]}
        experiment = experiments.validate(
            {**data, **file.experiment}, source="experiment", name=name
        )
    return Finding(
        name=name,
        title=file.title,
        published=" ".join(file.published.split()),
        source=file.source,
        system=file.system,
        experiment=experiment,
        seen=tuple(_condition(figure, text) for figure, text in file.seen.items()),
        beside=tuple(file.beside),
        affects=file.affects,
        here=" ".join(file.here.split()),
    )


def _condition(figure: str, text: str) -> Condition:
    if figure not in FIGURES:
        raise BadFinding(f"seen: unknown figure {did_you_mean(figure, sorted(FIGURES))}")
    match = re.fullmatch(r"(>=|<=|>|<)\s*(\d{1,9}(?:\.\d{1,9})?)", text.strip())
    if match is None:
        raise BadFinding(f'seen.{figure}: {text!r} is not a comparison; write it as ">= 1"')
    return Condition(figure, match[1], float(match[2]))
