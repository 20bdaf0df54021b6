"""Every option of every command, found by introspection: what no command can work with is refused
with one line while the command line is read, before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from chaos.commands import main as cli
from chaos.commands.failures import said
from chaos.commands.options import Name, Quantity

GROUP: Any = typer.main.get_command(cli.app)
WRONG = ("0", "-1", "nan", "inf", "-inf", "1e308", "9" * 400, "", " ", "x", "0s", "-1s", "infs")
MEANT = {
    ("seed", "0"): "a seed like any other",
    ("first_seed", "0"): "a seed like any other",
    ("rate", "0"): "a closed loop",
    ("number", "0"): "the number of the first fault",
}
"""Zero, where it means something."""
TEXT = {
    "since",
    "name",
    "parameters",
    "parameter",
    "change",
    "node",
    "dask",
    "shape",
    "workload",
    "initial",
    "only",
    "endpoints",
}
"""Options that take any text; what is read from it is checked further on."""
SAMPLES = {"protocol": "raft", "path": "x", "fault": "wan", "node": "n1", "change": "add"}


def parameters() -> Iterator[tuple[str, Any]]:
    for name, command in GROUP.commands.items():
        for parameter in command.params:
            if parameter.name != "help":
                yield name, parameter


def parser(parameter: Any) -> Any:
    return parameter.type_descriptor.parameter_info.parser


QUANTITIES = [(c, p) for c, p in parameters() if isinstance(parser(p), Quantity)]
NAMES = [(c, p) for c, p in parameters() if isinstance(parser(p), Name)]


def line(command: str, parameter: Any, value: str) -> str | None:
    """What ``capbench <command>`` says of the value; None if it takes it."""
    known = GROUP.commands[command]
    arguments = [
        word
        for each in known.params
        if each.required and each is not parameter
        for word in (
            [SAMPLES[each.name]]
            if each.param_type_name == "argument"
            else [each.opts[0], SAMPLES[each.name]]
        )
    ]
    if parameter.param_type_name == "argument":
        arguments = ["--", value]
    else:
        arguments.append(f"{max(parameter.opts, key=len)}={value}")
    try:
        known.make_context(command, arguments)
    except Exception as error:
        message, code = said(error)
        assert code == 2, message
        assert message.startswith(f"{command}: ")
        assert message.isprintable()
        assert len(message) < 1100
        return message
    return None


def test_no_option_takes_any_number_or_any_name() -> None:
    for command, parameter in parameters():
        kind = str(parameter.type_descriptor.annotation)
        assert (
            isinstance(parser(parameter), Quantity | Name)
            or kind == "<class 'bool'>"
            or "Path" in kind
            or parameter.name in TEXT | {"form", "experiment"}
        ), f"{command} {parameter.name}: use a parser of chaos.commands.options, not a plain {kind}"
    assert len(QUANTITIES) > 25


@pytest.mark.parametrize(
    ("command", "parameter"), QUANTITIES, ids=[f"{c}-{p.name}" for c, p in QUANTITIES]
)
def test_a_quantity_that_cannot_be_is_refused(command: str, parameter: Any) -> None:
    for value in WRONG:
        refused = line(command, parameter, value)
        if (parameter.name, value) in MEANT:
            assert refused is None, refused
        else:
            assert refused is not None, f"{value!r} was taken"
            assert "use " in refused


@pytest.mark.parametrize(("command", "parameter"), NAMES, ids=[f"{c}-{p.name}" for c, p in NAMES])
def test_a_name_that_is_mistyped_is_answered_with_the_one_that_was_meant(
    command: str, parameter: Any
) -> None:
    known = list(parser(parameter).known())
    for name in known:
        refused = line(command, parameter, name[:-1] + "~")
        assert refused is not None
        assert "did you mean " in refused
        if len(known) <= 40:
            assert f" use {', '.join(known)}" in refused
    nothing = line(command, parameter, "\x1b[31m" + "x" * 5000)
    assert nothing is not None
    assert "did you mean" not in nothing


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("rum",), "unknown command 'rum'; did you mean run? known: "),
        (("run", "--protcol", "raft"), "run: unknown option '--protcol'; did you mean --protocol?"),
        (("run", "healthy", "extra"), "run: Got unexpected extra argument"),
        (("simulate",), "simulate: --protocol is missing; see capbench simulate --help"),
        (("inject",), "inject: fault is missing; see capbench inject --help"),
        (("run", "healthy", "--seed"), "Option '--seed' requires an argument"),
        (("gate", "-p", "raft", "-p", "raft"), "gate: --protocol: raft is given twice"),
        (("sweep", "-d", "nodes", "-d", "nodes"), "sweep: --dimension: nodes is given twice"),
        (("inject", "partition"), "inject: groups: is missing; use leader-alone, halves"),
        (("inject", "crash"), "inject: nodes: is missing; use leader, random, majority, all"),
        (
            ("inject", "partition", "groups=halfs"),
            "inject: groups: unknown group 'halfs'; did you mean halves?",
        ),
        (
            ("inject", "wan", "nodes=n1"),
            "inject: nodes: unknown field",
        ),
        (("inject", "crash", "nodes=n1"), "or a list such as nodes=[n1]"),
        (("inject", "pause", "nodes=n1"), "or a list such as nodes=[n1]"),
        (("inject", "partition", "groups=n1"), "such as groups=[[n1, n2], [n3]]"),
        (("run", "healthy", "--seed", "1.5"), "run: --seed: '1.5' is not a whole number; use 0 to"),
        (("up", "--set", "hartbeat_s=1"), "parameter 'hartbeat_s'; did you mean heartbeat_s?"),
        (("run", "healthy", "--out", __file__), "run: --out: "),
        (("run", "healthy", "--out", f"{__file__}/below"), "is no folder"),
        (("soak", "--out", ""), "soak: --out: '' is no folder"),
        # What goes to Locust, too, and before a cluster is looked for.
        (("load", "--keys", "0"), "workload: keys is 0: use 1 to 1,000,000"),
        (("load", "--timeout", "nan"), "workload: timeout_s is nan: use more than 0"),
        (("load", "--in-flight", "x"), "argument --in-flight: invalid int value: 'x'"),
        (("load", "--mix", "reed=1"), "Invalid enum value 'reed'"),
        (("load", "--mix", "raed=1"), "did you mean read? operation kinds: read, write"),
        (("load", "--distribution", "zipfain"), "did you mean zipfian?"),
        (("load", "--workload", "z"), "no YCSB workload 'z': use a, b, c, d, f"),
        (("load", "--shape", "ramp:0-0/1s"), "its highest level must be more than 0"),
        (("run", "./"), "is a directory; a regular file is expected"),
        (("gate", "--record", "/", "-p", "raft", "--seeds", "1"), "--record /: Is a directory"),
        (("inject", "latency", "latency_ms=\x1b[2J"), "the value is not YAML"),
    ],
)
def test_a_mistake_is_one_line(
    typed: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["capbench", *typed])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert told.out == ""
    assert told.err.startswith("capbench: ")
    assert says in told.err
    assert told.err.count("\n") == 1
    assert told.err.strip().isprintable()
