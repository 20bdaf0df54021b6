"""The branches of a protocol's code, and which of them a run has reached.

A branch is what follows one outcome of an `if`, a loop that is entered, a handler of an exception,
or a whole function. Looked at are the modules with a protocol's state machine and those parts that
it imports; not what judges them (invariants, claims, the reference of a state machine), where most
branches only raise an alarm; not messages and parameters, and not what refuses a message that no
node sends (`BadMessage`): nobody lies in the simulator, `tests/protocols/fuzz.py` does.
"""

from __future__ import annotations

import ast
import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, MappingProxyType
from typing import Any, TypeVar

import msgspec

from bench.paths import ROOT

T = TypeVar("T")
_LEFT_OUT = frozenset(
    {
        *("__init__", "knobs", "limits", "messages", "parameters", "administration"),
        *("invariants", "reference_map"),
    }
)
_CLAIMS = "claims"
_CLASSES_LEFT_OUT = ("Invariant", "Parameters", "WireStruct", "Struct")
_ROOMS = ("nodes.protocols.", "nodes.parts.")
_RETURN = -1


class Branch(msgspec.Struct, frozen=True):
    """``name``: where it is, and its condition, the same as long as that is not rewritten.
    ``begin``, ``end``: reached by a line from there on to there. ``test``: the lines of the
    condition, where the branch is whatever else follows them; else empty."""

    name: str
    begin: int
    end: int
    test: tuple[int, int] | None = None

    def is_reached(self, steps: set[tuple[int, int]]) -> bool:
        """``steps``: pairs of lines that ran one after the other in a function."""
        if self.test is None:
            return any(self.begin <= line <= self.end for _, line in steps)
        first, last = self.test
        return any(
            first <= before <= last
            and not first <= line <= last
            and not self.begin <= line <= self.end
            for before, line in steps
        )


@cache
def modules_of(replica: Any) -> tuple[Path, ...]:
    """The files of a replica's state machine and of the parts that it stands on."""
    found: dict[Path, None] = {}
    todo = [kind.__module__ for kind in replica.__mro__ if kind.__module__.startswith(_ROOMS)]
    while todo:
        module = sys.modules[todo.pop()]
        path = Path(module.__file__ or "")
        if path in found or path.stem in _LEFT_OUT or path.stem.endswith(_CLAIMS):
            continue
        found[path] = None
        for node in ast.walk(ast.parse(path.read_text())):
            module_name = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module_name.startswith(_ROOMS):
                todo.append(module_name)
    return tuple(sorted(found))


@cache
def branches_of(path: Path) -> tuple[Branch, ...]:
    """All branches of a module, in the order of its lines; equal conditions in one function have
    their number behind them."""
    where = f"{path.parent.name}/{path.name}"
    seen: dict[str, int] = {}
    branches: list[Branch] = []
    for branch in _in_body(ast.parse(path.read_text()).body, where + ":"):
        count = seen[branch.name] = seen.get(branch.name, 0) + 1
        name = branch.name if count == 1 else f"{branch.name} ({count})"
        branches.append(msgspec.structs.replace(branch, name=name))
    return tuple(branches)


def _in_body(body: list[ast.stmt], where: str) -> Iterator[Branch]:
    left_out: tuple[str, ...] = _CLASSES_LEFT_OUT
    for node in body:
        if isinstance(node, ast.ClassDef):
            names = [node.name, *(ast.unparse(base).split(".")[-1] for base in node.bases)]
            if any(name.endswith(left_out) for name in names):
                left_out = (*left_out, node.name)  # And what derives from it.
            else:
                yield from _in_body(node.body, f"{where} {node.name}.")
        elif isinstance(node, ast.FunctionDef):
            name = f"{where}{'' if where.endswith('.') else ' '}{node.name}"
            statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if statements and not isinstance(statements[0], ast.Raise) and not _is_stub(statements):
                yield _branch(name, statements[0])
                for statement in statements:
                    yield from _in_statement(statement, name)


def _in_statement(node: ast.stmt, where: str) -> Iterator[Branch]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return
    if isinstance(node, ast.If):
        condition = ast.unparse(node.test)
        if not _is_refusal(node.body):
            yield _branch(f"{where}: {condition}", node.body[0])
        if node.orelse:
            if not _is_refusal(node.orelse):
                yield _branch(f"{where}: not: {condition}", node.orelse[0])
        else:
            first = _branch("", node.body[0])
            test = (node.lineno, node.test.end_lineno or node.lineno)
            yield Branch(f"{where}: not: {condition}", first.begin, first.end, test)
    elif isinstance(node, ast.For):
        yield _branch(f"{where}: for {ast.unparse(node.iter)}", node.body[0])
    elif isinstance(node, ast.While):
        yield _branch(f"{where}: while {ast.unparse(node.test)}", node.body[0])
    elif isinstance(node, ast.Try):
        for handler in node.handlers:
            if not _is_refusal(handler.body):
                kind = ast.unparse(handler.type) if handler.type is not None else ""
                yield _branch(f"{where}: except {kind}", handler.body[0])
    elif isinstance(node, ast.Match):
        for case in node.cases:
            yield _branch(f"{where}: case {ast.unparse(case.pattern)}", case.body[0])
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield from _in_statement(child, where)
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            for statement in child.body:
                yield from _in_statement(statement, where)


def _is_stub(body: list[ast.stmt]) -> bool:
    return isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


def _is_refusal(body: list[ast.stmt]) -> bool:
    """Whether it only says that a message cannot be true."""
    return isinstance(body[0], ast.Raise) and "BadMessage" in ast.unparse(body[0])


def _branch(name: str, first: ast.stmt) -> Branch:
    """The branch that begins with a statement: its lines, or its head's if it has a body."""
    end = first.end_lineno or first.lineno
    body = getattr(first, "body", None)
    if isinstance(body, list) and body:
        end = max(first.lineno, body[0].lineno - 1)
    return Branch(name, first.lineno, end)


class Steps(msgspec.Struct):
    """What ran of some files. ``lines``: by file, pairs of lines one after the other. ``calls``:
    how often a function of them was entered."""

    lines: dict[str, set[tuple[int, int]]]
    calls: dict[CodeType, int]


def traced(
    paths: Iterable[Path],
    run: Callable[[], T],
    known: Mapping[Path, Collection[int]] = MappingProxyType({}),
) -> tuple[T, Steps]:
    """Run something, and see what it runs of ``paths``. It takes some ten times as long, and hardly
    longer where nearly all is ``known``: by file, the numbers of branches that are not looked
    for."""
    steps = Steps({str(path): set() for path in paths}, {})
    lines, calls = steps.lines, steps.calls
    wanted = {str(path): _lines_of(path, known.get(path, ())) for path in paths}
    looks: dict[CodeType, bool] = {}

    def on_call(frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        pairs = lines.get(code.co_filename)
        if pairs is None:
            return None
        calls[code] = calls.get(code, 0) + 1
        look = looks.get(code)
        if look is None:
            look = looks[code] = _has_any(code, wanted[code.co_filename])
        if not look:
            return None
        add, before = pairs.add, 0

        def on_line(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal before
            if event == "line":
                line = frame.f_lineno
                add((before, line))
                before = line
            elif event == "exception":
                before = 0  # A condition that could not be told is not false.
            elif event == "return":
                add((before, _RETURN))
            return on_line

        return on_line

    others = sys.gettrace()
    sys.settrace(on_call)
    try:
        result = run()
    finally:
        sys.settrace(others)
    return result, steps


def _lines_of(path: Path, known: Collection[int]) -> list[int]:
    """Where the branches begin that are not known."""
    return sorted(b.begin for number, b in enumerate(branches_of(path)) if number not in known)


def _has_any(code: CodeType, lines: Sequence[int]) -> bool:
    """Whether any of the sorted lines is one of a function's. Lambdas and comprehensions have
    none: they end on a line that may be a condition's, which says nothing about it."""
    if code.co_name.startswith("<"):
        return False
    last = max(line for _, _, line in code.co_lines() if line is not None)
    after = bisect_left(lines, code.co_firstlineno)
    return after < len(lines) and lines[after] <= last


def name_of(path: Path) -> str:
    """A file as people call it."""
    return path.relative_to(ROOT).as_posix()
