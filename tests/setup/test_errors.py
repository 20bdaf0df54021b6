"""The hierarchy of our errors is the one that is drawn, and each ends a command with its code."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from chaos import errors
from chaos.commands.failures import said
from nodes.errors import CapbenchError, InfrastructureFailed, InvalidInput

ROOT = Path(__file__).resolve().parents[2]
INSIDE: dict[str, str] = {
    "BadForm": "the reader of EDN makes a BadHistory of it",
    "BadFrame": "the driver counts it and drops the frame",
    "BadMessage": "the driver counts it and drops the message",
    "CorruptLog": "ends a node's process, which has exit codes of its own",
    "DiskFailed": "ends a node's process, which has exit codes of its own",
    "Endless": "an alarm of a seed",
    "NatsError": "the client of NATS takes its code, or the pool makes a reply of it",
    "NoMaster": "a probe of Redis: the node is not ready yet",
    "NotApplied": "the pool of a system's clients makes a reply of it",
    "NotCalibrated": "the sweep's page says it in the model's place",
    "NotOurs": "a FileExistsError like Python's own",
    "OperationFailed": "Locust counts it",
    "OverBudget": "the checker's verdict is unknown",
    "PostgresError": "the pool of a system's clients makes a reply of it",
    "RedisError": "the pool of a system's clients makes a reply of it",
    "Refused": "the pool of a system's clients makes a reply of it",
    "TooManySessions": "the checker's verdict is unknown",
    "Undecided": "the checker's verdict is unknown",
    "Unreadable": "the operation that met it ends info",
    "Unreplicated": "the pool of a system's clients makes a reply of it",
    "ZooKeeperError": "the pool of a system's clients makes a reply of it",
}
"""Exceptions that end no command: who deals with each."""
DRAWN = re.compile(r"^    ([│ ├└─]*)(\w+)(?: +(\d+))? ", re.M)


@cache
def classes() -> list[tuple[str, str, list[str]]]:
    """Module, name and bases of every class of the four rooms."""
    found = {}
    for room in ("nodes", "bench", "reports", "chaos"):
        for path in sorted((ROOT / room).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    found[module, node.name] = [ast.unparse(base) for base in node.bases]
    return [(*place, bases) for place, bases in found.items()]


def known() -> dict[str, tuple[str, str]]:
    """Our errors: name -> first base and module."""
    found = {"CapbenchError": ("", "nodes.errors")}
    while True:
        more = {
            name: (bases[0], module)
            for module, name, bases in classes()
            if bases and bases[0] in found and name not in found
        }
        if not more:
            return found
        found |= more


def drawn() -> dict[str, str]:
    """Of the drawing: name -> base."""
    found: dict[str, str] = {}
    line: list[str] = []
    for branch, name, _ in DRAWN.findall(errors.__doc__ or ""):
        line[len(branch) // 4 :] = [name]
        found[name] = line[-2] if len(line) > 1 else ""
    return found


def test_the_drawing_is_the_hierarchy() -> None:
    assert drawn() == {name: base for name, (base, _) in known().items()}


def test_each_of_our_errors_ends_a_command_with_its_code_and_its_line() -> None:
    bases = {"InvalidInput": 2, "InfrastructureFailed": 3, "NotDone": 1, "Interrupted": 130}
    written = {name: int(code) for _, name, code in DRAWN.findall(errors.__doc__ or "") if code}
    assert written == bases
    for name, (base, module) in known().items():
        if name == "CapbenchError":
            continue
        kind = getattr(importlib.import_module(module), name)
        expected = bases.get(name) or next(
            bases[each.__name__] for each in kind.__mro__ if each.__name__ in bases
        )
        assert kind.exit_code == expected, base
        error = kind.__new__(kind)
        error.args = ("what, where, what to do",)
        assert said(error)[1] == expected


def test_every_exception_is_an_error_of_ours_or_dealt_with_inside() -> None:
    ours = known()
    others = {
        name
        for _, name, bases in classes()
        if name not in ours
        and not name.startswith("_")
        and any(base in ours or re.search(r"(Error|Exception)$", base) for base in bases)
        and "AssertionError" not in bases  # an alarm, or a defect of the protocol
    }
    assert others == set(INSIDE)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidInput("x"), ("x", 2)),
        (InfrastructureFailed("x"), ("x", 3)),
        (FileExistsError(17, "File exists", "a/b"), ("a/b: is there already", 2)),
        (FileExistsError("a/b holds a run already"), ("a/b holds a run already", 2)),
        (PermissionError(13, "Permission denied", "a/b"), ("a/b: Permission denied", 3)),
        (KeyError("x"), ("'x'", None)),
    ],
)
def test_what_is_said_and_with_which_code(
    error: Exception, expected: tuple[str, int | None]
) -> None:
    assert said(error) == expected
    assert isinstance(error, CapbenchError) == (type(error).__module__ == "nodes.errors")
