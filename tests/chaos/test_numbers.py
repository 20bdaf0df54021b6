"""Every number of an experiment, of a protocol's parameters and of the Chaos Toolkit actions, found
by introspection: what cannot be is refused with its field, before anything starts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
import pytest
from pydantic import BaseModel

from bench.load.shapes import BadShape, parse_shape
from bench.load.workload import BadWorkload, make_workload
from chaos import chaos_toolkit
from chaos.experiments.experiment import Experiment, InvalidExperiment, validate
from chaos.experiments.yaml_reader import read_yaml
from nodes import registry
from nodes.faults.catalogue import FAULTS

NUMBERS = ("0", "-1", ".nan", ".inf", "-.inf", "1e308", "9" * 400, '""')
DURATIONS = ("0s", "-1s", ".nans", "infs", "1e308s", "9" * 400 + "s", "0", "1", ".nan", '""')
BASE: dict[str, Any] = {
    "title": "t",
    "shows": "s",
    "protocols": ["raft"],
    "nodes": 3,
    "seed": 1,
    "workload": {
        "arrival": {"open_loop": "100/s", "in_flight": 5},
        "keys": {"count": 5, "conflict_rate": 0.5},
        "mix": {"read": 1, "write": 1},
        "value_bytes": 12,
        "timeout": "1s",
    },
    "duration": "10s",
    "schedule": [{"at": "1s", "for": "2s", "every": "3s", "fault": "wan"}],
    "objectives": {"before": {"p99": "<= 1s"}},
}
FIELDS = {
    "groups": "halves",
    "nodes": "all",
    "share": 0.5,
    "point": "before-fsync",
    "latency_ms": 5,
    "jitter_ms": 5,
    "delay_ms": 5,
    "period_ms": 500,
    "rate_kb_per_s": 5,
}
"""What the faults need."""
MEANT = {
    ("seed", "0"): "a seed like any other",
    ("workload.keys.conflict_rate", "0"): "no conflicts",
    ("workload.mix.read", "0"): "no reads; the writes are left",
    ("workload.value_bytes", "0"): "integers",
    ("schedule[0].at", "0s"): "from the beginning",
    ("schedule[0].offset_ms", "0"): "the clock drifts all the same",
    ("schedule[0].offset_ms", "-1"): "a clock may be slow",
    ("schedule[0].drift", "0"): "the clock is off all the same",
    ("schedule[0].jump_ms", "0"): "the clock drifts all the same",
    ("schedule[0].torn", "0"): "nothing survives that was not synced",
}
"""What cannot be elsewhere and means something here."""


def is_number(annotation: Any) -> bool:
    if annotation in (int, float):
        return True
    return get_origin(annotation) is not None and any(map(is_number, get_args(annotation)))


def numbers_of(model: type[BaseModel], at: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        annotation, path = field.annotation, f"{at}{field.alias or name}"
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from numbers_of(annotation, f"{path}.")
        elif name == "mix":
            yield f"{path}.read"
        elif is_number(annotation):
            yield path


def entry(fault: str) -> dict[str, Any]:
    kind = FAULTS[fault]
    needed = {n: FIELDS[n] for n, f in kind.model_fields.items() if f.is_required()}
    needed = {"at": "1s", "for": "2s", **needed, "fault": fault}
    return {**needed, "drift": 0.5, "jump_ms": 5} if fault == "clock" else needed


EXPERIMENT = sorted(numbers_of(Experiment, ""))
TIMES = ["schedule[0].at", "schedule[0].for", "schedule[0].every"]
OF_FAULTS = [
    (fault, name)
    for fault, kind in FAULTS.items()
    for name, field in kind.model_fields.items()
    if is_number(field.annotation)
]


def changed(path: str, value: Any, **base: Any) -> dict[str, Any]:
    """The base experiment with another value at a path."""
    data: Any = msgspec.json.decode(msgspec.json.encode({**BASE, **base}))
    parts = path.replace("[0]", ".0").split(".")
    inner = data
    for part in parts[:-1]:
        inner = inner[int(part) if part.isdigit() else part]
    inner[parts[-1]] = value
    return dict(data)


def read(text: str) -> Any:
    """As the reader of experiments has it."""
    try:
        return read_yaml(f"value: {text}")["value"]
    except ValueError:
        return text


def refused(path: str, text: str, **base: Any) -> str | None:
    """What is said of the value; None if it is taken."""
    try:
        validate(changed(path, read(text), **base), source="f", name="f")
    except InvalidExperiment as error:
        return str(error)
    return None


def test_the_walk_finds_what_is_known() -> None:
    validate(BASE, source="f", name="f")
    assert {"nodes", "duration", "workload.timeout", "workload.arrival.open_loop"} < set(EXPERIMENT)
    assert ("latency", "latency_ms") in OF_FAULTS
    assert len(OF_FAULTS) > 12


@pytest.mark.parametrize("path", [*EXPERIMENT, *TIMES])
def test_a_number_of_an_experiment(path: str) -> None:
    lengths = path in TIMES or path in ("duration", "workload.timeout")
    rate = path.endswith("open_loop")
    texts = DURATIONS if lengths else NUMBERS
    for text in [f"{each}/s" for each in ("0", "-1", *NUMBERS)] if rate else texts:
        said = refused(path, text)
        if (path, text) in MEANT:
            assert said is None, said
            continue
        assert said is not None, f"{path}: {text} was taken"
        # What only the workload knows is said of it as a whole, with the field's name there.
        assert f"{path}: " in said or said.split(": ")[1] == "workload", said


@pytest.mark.parametrize(("fault", "name"), OF_FAULTS)
def test_a_number_of_a_fault(fault: str, name: str) -> None:
    for text in NUMBERS:
        path = f"schedule[0].{name}"
        said = refused(path, text, schedule=[entry(fault)], objectives={})
        if (path, text) in MEANT:
            assert said is None, said
        else:
            assert said is not None, f"{path}: {text} was taken"
            assert f"{path}: must be " in said, said


@pytest.mark.parametrize("text", ["<= -1s", "<= nans", "<= infs", "<= 1e308s", f"<= {'9' * 400}s"])
def test_a_number_of_an_objective(text: str) -> None:
    said = refused("objectives.before.p99", f'"{text}"')
    assert said is not None
    assert "objectives.before.p99: " in said


PARAMETERS = sorted(
    {
        (protocol.name, field.name)
        for protocol in registry.PROTOCOLS.values()
        for field in msgspec.structs.fields(protocol.replica.PARAMETERS)
        if is_number(field.type)
    }
)


@pytest.mark.parametrize(("protocol", "name"), PARAMETERS)
def test_a_number_of_a_protocol(protocol: str, name: str) -> None:
    for value in (float("nan"), float("inf"), float("-inf"), 1e308, -1, 10**400, -(10**400), ""):
        with pytest.raises(registry.InvalidConfiguration) as error:
            registry.get(protocol).configure("n1", ("n1", "n2", "n3"), {name: value})
        assert name in str(error.value)
        assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("action", "argument"),
    [
        (name, argument)
        for name in chaos_toolkit.__all__
        for argument, each in inspect.signature(getattr(chaos_toolkit, name)).parameters.items()
        if each.annotation.removesuffix(" | None") in ("int", "float")
    ],
)
def test_a_number_of_a_chaos_toolkit_action(action: str, argument: str) -> None:
    needed = {"inject_fault": {"fault": "wan"}, "operation_outcome": {"node": "n1"}}.get(action, {})
    zero_means = {("heal_faults", "number"), ("leader", "timeout_s")}
    for value in (0, -1, float("nan"), float("inf"), 1e308, 10**400, "", "x", True):
        if value == 0 and value is not False and (action, argument) in zero_means:
            continue
        with pytest.raises(ValueError, match=f"^{argument}: ") as error:
            getattr(chaos_toolkit, action)(**needed, **{argument: value})
        assert str(error.value).isprintable()


def test_a_number_of_a_workload() -> None:
    good: dict[str, Any] = {"mix": {"read": 1}, "duration_s": 1, "seed": 1}
    fields = ["rate_per_s", "in_flight", "keys", "conflict_rate", "value_bytes", "timeout_s"]
    zero_means = {"conflict_rate", "value_bytes", "seed"}
    for field in [*fields, "duration_s", "seed"]:
        for value in (0, -1, float("nan"), float("inf"), 1e308, 10**400, "", "nan", "inf"):
            if value == 0 and field in zero_means:
                continue
            with pytest.raises(BadWorkload) as error:
                make_workload({**good, field: value})
            assert field in str(error.value)


@pytest.mark.parametrize(
    "shape",
    [
        *("ramp:0-0/30s", "ramp:0-nan/30s", "ramp:0-inf/30s", "ramp:0-1e308/30s", "ramp:-1-5/3s"),
        *("steps:1,2/0s", "steps:1,2/-1s", "steps:/1s", f"steps:{'9' * 400}/1s", "steps:1/1e9s"),
        *(f"ramp:0-5/{'9' * 400}s", "spike:1,2/1s,nans,1s", "", "x" * 5000, "ramp:\x1b[2J"),
    ],
)
def test_a_number_of_a_shape(shape: str) -> None:
    with pytest.raises(BadShape) as error:
        parse_shape(shape)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
