"""Experiments: YAML that is validated before anything starts.

Every error is one line that names file, line and field, and says what would be right. YAML 1.2:
``on``, ``off`` and ``no`` are strings. `load` is the way in; the catalogue is chaos/experiments/.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from bench.load import ycsb
from bench.load.kinds.tasks import DEFAULT_KEYS
from bench.load.workload import Ask, Distribution, MixKind, Workload
from bench.record.files import NotReadable, read_named
from bench.record.models.run import Kind
from bench.record.printable import quoted
from bench.record.quantities import (
    MAX_COUNT,
    format_duration,
    format_rate,
    read_duration,
    read_rate,
)
from chaos.experiments.limits import MAX_NODES, is_path
from chaos.experiments.yaml_reader import MAX_BYTES, BadYaml, read_yaml
from nodes import registry
from nodes.contract.names import BadName, check_name, did_you_mean
from nodes.errors import InvalidInput
from nodes.faults.base import Fault
from nodes.faults.catalogue import FAULTS, AnyFault
from nodes.faults.nemesis import PlannedFault
from reports.data.objectives import BadObjective, Objective, parse_objective

CATALOGUE = Path(__file__).resolve().parent
MIN_EVERY_S = 0.1
_ROUNDING_S = 1e-9
Location: TypeAlias = tuple[str | int, ...]


class InvalidExperiment(InvalidInput):
    """An invalid experiment: one line for each problem."""


# --- values with units -------------------------------------------------------------------------

Duration = Annotated[float, BeforeValidator(read_duration), PlainSerializer(format_duration)]
Rate = Annotated[float, BeforeValidator(read_rate), PlainSerializer(format_rate)]
Count = Annotated[int, Field(strict=True, ge=1, le=MAX_COUNT)]


# --- the language ------------------------------------------------------------------------------


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False)


class Arrival(_Model):
    """When operations are wanted: at a rate, regardless of the answers (open loop)."""

    open_loop: Rate = Field(examples=["300/s"])
    in_flight: Count = 256


class Keys(_Model):
    """Which keys are asked for."""

    count: Count = 50
    distribution: Distribution = "uniform"
    conflict_rate: Annotated[float, Field(ge=0, le=1)] = 0.0


class Load(_Model):
    """What the clients ask for; see `bench.load.workload.Workload`. ``ycsb``: a workload of
    `bench.load.ycsb`, for whatever is not given here. ``kind``: what the operations are of; of
    sets, each of whose keys is an element, and of banks, each of whose keys is an account, there
    are more or fewer keys if the file does not say how many."""

    kind: Kind = "register"
    ycsb: Literal["a", "b", "c", "d", "f"] | None = None
    arrival: Arrival = Field(examples=["{open_loop: 300/s, in_flight: 256}"])
    keys: Keys = Keys()
    mix: dict[MixKind, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default={}, examples=["{read: 50, write: 50}"]
    )
    value_bytes: Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)] = 0
    ask: Ask = "any"
    timeout_s: Duration = Field(default=2.0, alias="timeout")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, load: Any) -> Any:
        """The fields of the YCSB workload that the file does not give, and the keys of a kind."""
        if not isinstance(load, Mapping):
            return load
        kind = load.get("kind")
        if isinstance(kind, str) and (count := DEFAULT_KEYS.get(cast("Kind", kind))) is not None:
            given = load.get("keys", {})
            if isinstance(given, Mapping):
                load = {**load, "keys": {"count": count, **given}}
        if load.get("ycsb") not in ycsb.NAMES:
            return load
        shape = ycsb.fields(load["ycsb"])
        keys = {"count": shape.pop("keys"), "distribution": shape.pop("distribution")}
        given = load.get("keys", {})
        return {
            **shape,
            **load,
            "keys": {**keys, **given} if isinstance(given, Mapping) else given,
        }


class ScheduleEntry(_Model):
    """A fault and its time: ``{at: 10s, for: 5s, fault: partition, groups: halves}``. Without
    ``for`` it lasts until the end of the load. With ``every`` it repeats at that interval as long
    as it also ends before the load does; what is drawn by seed is drawn each time."""

    at_s: Duration = Field(alias="at", examples=["10s"])
    for_s: Duration | None = Field(default=None, alias="for")
    every_s: Duration | None = Field(default=None, alias="every")
    fault: AnyFault = Field(examples=["partition"])

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, entry: Any) -> Any:
        """In YAML, the fault's fields are next to its times."""
        if not isinstance(entry, Mapping):
            return entry
        times = {name: entry[name] for name in ("at", "for", "every") if name in entry}
        fault = {name: value for name, value in entry.items() if name not in times}
        return {**times, "fault": fault}

    def times(self, duration_s: float) -> Iterator[tuple[float, float]]:
        """When it begins and ends in a load of ``duration_s``: seconds after the load's start."""
        if self.for_s is None:
            yield self.at_s, duration_s
            return
        yield self.at_s, self.at_s + self.for_s
        if self.every_s is not None:
            for number in itertools.count(1):
                # Multiplied, not summed, so that errors do not accumulate.
                begin_s = self.at_s + number * self.every_s
                if begin_s + self.for_s > duration_s + _ROUNDING_S:
                    return
                yield begin_s, begin_s + self.for_s

    @model_serializer(mode="wrap")
    def _spread(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        entry: dict[str, Any] = serialize(self)
        fault = entry.pop("fault")
        return {name: value for name, value in {**entry, **fault}.items() if value is not None}


class Experiment(_Model):
    """A validated experiment. ``name``: that of its file."""

    title: str = Field(min_length=1, examples=["The leader is cut off"])
    shows: str = Field(min_length=1, examples=["what a reader learns from it"])
    protocols: tuple[str, ...] = Field(min_length=1, examples=["[raft, gossip]"])
    nodes: Annotated[int, Field(strict=True, ge=1, le=MAX_NODES)] = Field(examples=["5"])
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT // 2)] = 1
    parameters: dict[str, Any] = {}
    """The protocol's parameters, where they differ from its defaults."""
    load: Load = Field(alias="workload", examples=["{arrival: {open_loop: 300/s}, mix: {read: 1}}"])
    duration_s: Duration = Field(alias="duration", examples=["20s"])
    schedule: tuple[ScheduleEntry, ...] = ()
    objectives: dict[Literal["before", "during", "after", "always"], dict[str, str]] = {}

    name: str = Field(default="", exclude=True, init=False)

    def node_ids(self) -> tuple[str, ...]:
        """``n1`` to ``n<nodes>``."""
        return registry.node_ids(self.nodes)

    def workload(self, *, seed: int | None = None, rate_per_s: float | None = None) -> Workload:
        """The operations of a run; ``seed`` and ``rate_per_s`` instead of the experiment's own."""
        return Workload(
            kind=self.load.kind,
            rate_per_s=self.load.arrival.open_loop if rate_per_s is None else rate_per_s,
            in_flight=self.load.arrival.in_flight,
            keys=self.load.keys.count,
            distribution=self.load.keys.distribution,
            conflict_rate=self.load.keys.conflict_rate,
            mix=dict(self.load.mix),
            value_bytes=self.load.value_bytes,
            ask=self.load.ask,
            timeout_s=self.load.timeout_s,
            duration_s=self.duration_s,
            seed=self.seed if seed is None else seed,
        )

    def plan(self) -> tuple[PlannedFault, ...]:
        """The schedule, numbered by time. A fault's choices are drawn when it begins, by seed and
        number."""
        times = [
            (begin_s, end_s, entry.fault)
            for entry in self.schedule
            for begin_s, end_s in entry.times(self.duration_s)
        ]
        times.sort(key=lambda time: time[0])
        return tuple(
            PlannedFault(number=number, at_s=begin_s, heal_at_s=end_s, fault=fault)
            for number, (begin_s, end_s, fault) in enumerate(times)
        )

    def parsed_objectives(self) -> tuple[Objective, ...]:
        """What the experiment expects, in the order of the file."""
        return tuple(
            parse_objective(phase, metric, text)
            for phase, expected in self.objectives.items()
            for metric, text in expected.items()
        )

    def as_data(self) -> dict[str, Any]:
        """The experiment as in JSON and YAML, with defaults filled in: for the manifest; `validate`
        reads it back."""
        return self.model_dump(mode="json", by_alias=True)


# --- the way in --------------------------------------------------------------------------------


def load(name_or_path: str | Path, kind: str | None = None, **overrides: Any) -> Experiment:
    """Read and validate an experiment, by its name in the catalogue or from a file.

    ``kind``: of the workload, instead of the file's. ``overrides``: top-level fields that replace
    those of the file (``nodes=3``, ``seed=8``); None keeps the file's. Raises InvalidExperiment."""
    path = _find(name_or_path)
    shown = path.name if path.parent == CATALOGUE else str(path)
    try:
        ours = path.parent == CATALOGUE
        document = read_yaml(read_named(path, MAX_BYTES).decode(), ours=ours)
    except OSError as error:
        raise InvalidExperiment(f"{shown}: {error.strerror}") from None
    except NotReadable as error:
        raise InvalidExperiment(str(error)) from None
    except UnicodeDecodeError:
        raise InvalidExperiment(f"{shown}: is not UTF-8 text") from None
    except BadYaml as error:
        where = shown if error.line is None else f"{shown}:{error.line}"
        raise InvalidExperiment(f"{where}: {error}") from None
    if kind is not None and isinstance(document, Mapping):
        overrides["workload"] = _of_kind(document.get("workload"), kind)
    return validate(document, source=shown, name=path.stem, overrides=overrides)


def _of_kind(workload: Any, kind: str) -> Any:
    """The workload as one of another kind: of sets, with enough keys to be elements; of banks, with
    few accounts."""
    if not isinstance(workload, Mapping):
        return None
    given = _plain(workload)
    keys = given.get("keys", {})
    usual = DEFAULT_KEYS.get(cast("Kind", kind))
    if usual is not None and isinstance(keys, Mapping):
        count, bound = keys.get("count", usual), max if kind == "set" else min
        keys = {**keys, "count": bound(usual, count) if isinstance(count, int) else count}
    return {**given, "kind": kind, "keys": keys}


def validate(
    document: Any, *, source: str, name: str, overrides: Mapping[str, Any] | None = None
) -> Experiment:
    """An experiment from data. ``name``: its name, and that of its results folder. ``source``
    starts each line of InvalidExperiment."""
    try:
        check_name(name, f"{source}: the experiment's name, that of its file")
    except BadName as error:
        raise InvalidExperiment(str(error)) from None
    changed = {field: value for field, value in (overrides or {}).items() if value is not None}
    if not isinstance(document, Mapping):
        raise InvalidExperiment(f"{source}:1: an experiment is a mapping that begins with `title:`")
    data = {**_plain(document), **changed}

    def fail(problems: Iterable[tuple[Location, str]]) -> None:
        lines = {
            f"{source}:{_line_of(document, at)}: {_dotted(at)}: {message}"
            if not (at and at[0] in changed)
            else f"{source}: {_dotted(at)} (given instead of the file's): {message}"
            for at, message in problems
        }
        if lines:
            raise InvalidExperiment("\n".join(sorted(lines, key=_by_line)))

    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        fail(_said(each) for each in error.errors(include_url=False))
        raise
    fail(_problems(experiment))
    return experiment.model_copy(update={"name": name})


def validate_fault(fields: Mapping[str, Any], nodes: Sequence[str], *, source: str) -> Fault:
    """A fault on a cluster of these nodes, from its fields as in a schedule. ``source`` starts each
    line of InvalidExperiment."""
    fault = parse_fault(fields, source=source)
    _refuse(fault.problems(nodes), source)
    return fault


def parse_fault(fields: Mapping[str, Any], *, source: str) -> Fault:
    """The same, if the nodes are not known yet."""
    times = [name for name in ("at", "for", "every") if name in fields]
    _refuse(((name, "belongs to a schedule, not to a fault") for name in times), source)
    try:
        return ScheduleEntry.model_validate({"at": "0s", **fields}).fault
    except ValidationError as error:
        said = [
            _said({**each, "loc": ("schedule", 0, *each["loc"])})
            for each in error.errors(include_url=False)
        ]
        _refuse(((_dotted(at[2:]), message) for at, message in said), source)
        raise


def _refuse(problems: Iterable[tuple[str, str]], source: str) -> None:
    lines = [f"{source}: {field}: {message}" for field, message in problems]
    if lines:
        raise InvalidExperiment("\n".join(dict.fromkeys(lines)))


def catalogue() -> dict[str, Experiment]:
    """The experiments that come with capbench, by name. Raises InvalidExperiment."""
    return {name: load(name) for name in names()}


def names() -> list[str]:
    """The names of the experiments that come with capbench."""
    return sorted(path.stem for path in CATALOGUE.glob("*.yaml"))


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if isinstance(name_or_path, Path) or is_path(name_or_path):
        return path
    if str(name_or_path) not in names():
        hint = did_you_mean(str(name_or_path), names())
        raise InvalidExperiment(f"unknown experiment {hint}, or the path of a .yaml file")
    return CATALOGUE / f"{name_or_path}.yaml"


# --- what the types do not say -----------------------------------------------------------


def _problems(experiment: Experiment) -> Iterator[tuple[Location, str]]:
    """One after the other, in the file's order."""
    yield from _problems_of_protocols(experiment)
    yield from _problems_of_load(experiment)
    for i in range(len(experiment.schedule)):
        for where, message in _problems_of_entry(experiment, experiment.schedule[i]):
            yield ("schedule", i, where), message
    yield from _problems_of_objectives(experiment)


def _problems_of_protocols(experiment: Experiment) -> Iterator[tuple[Location, str]]:
    nodes = experiment.node_ids()
    for i, name in enumerate(experiment.protocols):
        if name in experiment.protocols[:i]:
            yield ("protocols", i), f"{quoted(name)} is named twice"
        if name not in registry.PROTOCOLS:
            yield (
                ("protocols", i),
                f"unknown protocol {did_you_mean(name, sorted(registry.PROTOCOLS))}",
            )
            continue
        try:
            registry.get(name).configure(nodes[0], nodes, experiment.parameters)
        except registry.InvalidConfiguration as error:
            yield ("parameters",), str(error)


def _problems_of_load(experiment: Experiment) -> Iterator[tuple[Location, str]]:
    if experiment.duration_s <= 0:
        yield ("duration",), "must be longer than 0s"
    if not sum(experiment.load.mix.values()) > 0:
        yield (
            ("workload", "mix"),
            "has no operation with a weight above 0; write `mix: {read: 50, write: 50}`, or"
            " `ycsb: a`",
        )
    else:
        try:
            experiment.workload()
        except ValueError as error:
            yield ("workload",), str(error)


def _problems_of_entry(experiment: Experiment, entry: ScheduleEntry) -> Iterator[tuple[str, str]]:
    ends_s = experiment.duration_s if entry.for_s is None else entry.at_s + entry.for_s
    ends = format_duration(experiment.duration_s)
    if entry.at_s >= experiment.duration_s:
        begins = format_duration(entry.at_s)
        yield "at", f"the fault begins at {begins}, the load ends at {ends}; use an earlier time"
    elif ends_s > experiment.duration_s + _ROUNDING_S:
        healed = format_duration(ends_s)
        yield "for", f"the fault ends at {healed}, the load at {ends}; use a shorter time"
    elif ends_s <= entry.at_s:
        yield "for", "must be longer than 0s"
    if entry.every_s is not None:
        least = format_duration(MIN_EVERY_S)
        if entry.for_s is None:
            yield "every", "needs a for: a fault can repeat only after it has ended"
        elif entry.every_s < max(entry.for_s, MIN_EVERY_S):
            yield "every", f"must be at least as long as for, and at least {least}"
    if entry.for_s is not None and not getattr(entry.fault, "restart", True):
        yield "for", "makes no sense: what is crashed for good does not come back"
    yield from entry.fault.problems(experiment.node_ids())


def _problems_of_objectives(experiment: Experiment) -> Iterator[tuple[Location, str]]:
    for phase, expected in experiment.objectives.items():
        if phase in ("during", "after") and not experiment.schedule:
            yield (
                ("objectives", phase),
                "the schedule has no fault; use before, or always",
            )
        for metric, text in expected.items():
            try:
                parse_objective(phase, metric, text)
            except BadObjective as error:
                yield ("objectives", phase, metric), str(error)


# --- what pydantic found, in words -------------------------------------------------------------


def _said(error: ErrorDetails) -> tuple[Location, str]:
    """Where an error is in the file, and what would be right."""
    at: Location = error["loc"]
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    fault = None
    if len(at) > 2 and at[0] == "schedule" and at[2] == "fault":
        fault = at[3] if len(at) > 3 else None
        at = at[:2] + (at[4:] if len(at) > 3 else ("fault",))
    if at[-1:] == ("[key]",):
        at = at[:-1]
    if kind == "extra_forbidden":
        known = sorted(_fields(at[:-1], fault))
        # The name already precedes the message.
        hint = did_you_mean(str(at[-1]), known).partition("; ")[2]
        return at, f"unknown field; {hint}"
    if kind == "missing":
        example = _fields(at[:-1], fault).get(str(at[-1]))
        if example:
            return at, f"is missing; write `{at[-1]}: {example}`"
        choices = _choices(fault, str(at[-1]))
        return at, "is missing" + (f"; use {', '.join(choices)}" if choices else "")
    if kind == "union_tag_not_found":
        return at, f"is missing; use one of {', '.join(FAULTS)}"
    if kind == "union_tag_invalid":
        tag = str(context.get("tag"))
        return at, f"unknown fault {did_you_mean(tag, sorted(FAULTS))}"
    if kind == "value_error":
        return at, str(context["error"])
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        hint = did_you_mean(str(value), known).partition("; ")[2].partition("known: ")[0]
        return at, f"unknown {quoted(value)}; {hint}use {context['expected']}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return at, f"must be a mapping of fields, not {quoted(value)}"
    if kind in ("tuple_type", "list_type"):
        return at, f"must be a list, not {quoted(value)}"
    if kind in ("too_short", "string_too_short"):
        return at, "must not be empty"
    message = error["msg"].removeprefix("Input should ")
    return at, f"must {message}, not {quoted(value)}"


_MODELS: dict[Location, type[BaseModel]] = {
    (): Experiment,
    ("workload",): Load,
    ("workload", "arrival"): Arrival,
    ("workload", "keys"): Keys,
}


def _fields(at: Location, fault: str | int | None) -> dict[str, str]:
    """The fields allowed there, by their names in YAML, each with an example."""
    if len(at) == 2 and at[0] == "schedule":
        models: list[type[BaseModel]] = [ScheduleEntry]
        if isinstance(fault, str):
            models.append(FAULTS[fault])
    else:
        models = [_MODELS[at]] if at in _MODELS else []
    return {
        field.alias or name: str(field.examples[0]) if field.examples else ""
        for model in models
        for name, field in model.model_fields.items()
        if field.init is not False
    }


def _choices(fault: str | int | None, field: str) -> list[str]:
    """The words that a fault's parameter accepts."""
    if not isinstance(fault, str) or field not in FAULTS[fault].model_fields:
        return []
    found = []
    waiting = [FAULTS[fault].model_fields[field].annotation]
    while waiting:
        annotation = waiting.pop(0)
        if get_origin(annotation) is Literal:
            found += [str(each) for each in get_args(annotation)]
        else:
            waiting += get_args(annotation)
    return found


def _dotted(at: Location) -> str:
    """``schedule[0].groups``"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".") or "experiment"


def _line_of(document: Any, at: Sequence[str | int]) -> int:
    """The line of a field, or of its nearest enclosing field in the file."""
    line = 1
    node = document
    for part in at:
        try:
            if isinstance(node, CommentedMap) and part in node:
                line = node.lc.key(part)[0] + 1
            elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
                line = node.lc.item(part)[0] + 1
            else:
                break
        except (KeyError, AttributeError, TypeError):  # merged by an anchor: it has no line here
            break
        node = node[part]
    return line


def _by_line(line: str) -> tuple[int, str]:
    match = re.search(r":(\d+): ", line)
    return (int(match[1]) if match else 0, line)


def _plain(node: Any) -> Any:
    """YAML's own containers and scalars as Python's."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(item) for item in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            plain = kind(node)
            return str(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain
    return str(node)
