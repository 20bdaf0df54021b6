"""The house stays tidy: what a reader would stumble over fails here. Exceptions stand here, with a
reason each."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("nodes", "bench", "reports", "chaos")
MOST_MODULES = 16
MOST_LINES = 70

LONG_FUNCTIONS: dict[str, str] = {}
"""``module:function`` -> why it is one function."""
UNUSED: dict[str, str] = {
    "bench.load.locust_users:add_worker": "Locust's dispatcher",
    "bench.load.locust_users:remove_worker": "Locust's dispatcher",
}
"""``module:name`` -> who uses it, where this test cannot see."""
TWICE: dict[str, str] = {
    "MAX_BYTES = 1 << 20": "two files, which need not be of one size",
    "ROUNDS = 5": "three measurements, which need not take as many",
    "SEED = 1": "a benchmark's, and a sweep's",
    "START_TIMEOUT_S = 30.0": "of a cluster, of etcd, and in virtual time",
    "START_TIMEOUT_S = 60.0": "of whoever starts, and of whoever waits for that",
}
"""Constant -> why two modules have it."""


def modules() -> dict[str, ast.Module]:
    """Every module of the rooms."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imports(tree: ast.Module) -> Iterator[str]:
    """What a module imports of the rooms, wherever it says so: also inside functions, and for the
    types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches all others (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(arrows[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[-len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(arrows):
        if module not in index:
            visit(module)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    arrows = {
        name: {other for other in imports(tree) if other in MODULES and other != name}
        for name, tree in MODULES.items()
    }
    assert circles(arrows) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_a_folder_has_no_more_modules_than_a_reader_takes_in() -> None:
    sizes = Counter(
        path.parent.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py"
    )
    assert {folder: count for folder, count in sizes.items() if count > MOST_MODULES} == {}


def functions() -> Iterator[tuple[str, int]]:
    """``module:function`` and how many lines it has."""
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{name}:{node.name}", node.end_lineno - node.lineno + 1


def test_a_function_fits_on_a_screen() -> None:
    long = {name for name, lines in functions() if lines > MOST_LINES}
    assert long == set(LONG_FUNCTIONS)


def texts() -> str:
    """All that may name a definition: code, tests, documents, set-up."""
    suffixes = {".py", ".md", ".toml", ".html", ".yml", ".yaml", ".json", ".txt"}
    folders = (*ROOMS, "tests", "docs", "setup", "examples", "deploy")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    files.remove(Path(__file__).resolve())
    return "\n".join(
        path.read_text(errors="ignore")
        for path in files
        if path.suffix in suffixes or path.name == "Makefile"
    )


def definitions(tree: ast.Module) -> Iterator[str]:
    """The functions, classes, constants and methods of a module, but for those that Python or a
    decorator calls."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for each in targets if isinstance(each, ast.Name))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not getattr(node, "decorator_list", None) or isinstance(node, ast.ClassDef):
                yield node.name
            if isinstance(node, ast.ClassDef):
                yield from (
                    method.name
                    for method in node.body
                    if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not method.name.startswith("__")
                    and not method.decorator_list
                )


def test_every_definition_is_used() -> None:
    words = Counter(re.findall(r"\w+", texts()))
    defined: defaultdict[str, list[str]] = defaultdict(list)
    for module, tree in MODULES.items():
        if "suites" in module.split("."):
            continue  # pytest-benchmark finds what is in there by name
        for name in definitions(tree):
            defined[name].append(module)
    unused = {
        f"{module}:{name}"
        for name, places in defined.items()
        for module in places
        # A handler is called by the name of what it handles.
        if words[name] <= len(places) and not name.startswith(("__", "on_", "do_", "visit_"))
    }
    assert unused == set(UNUSED)


def test_a_constant_is_written_once() -> None:
    places: defaultdict[str, set[str]] = defaultdict(set)
    for module, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name, value = node.targets[0].id, ast.unparse(node.value)
                if re.fullmatch(r"[A-Z][A-Z0-9_]*", name) and isinstance(
                    node.value, ast.Constant | ast.BinOp | ast.UnaryOp
                ):
                    places[f"{name} = {value}"].add(module)
    twice = {constant for constant, where in places.items() if len(where) > 1}
    assert twice == set(TWICE)


@pytest.mark.parametrize("exceptions", [LONG_FUNCTIONS, UNUSED, TWICE])
def test_each_exception_has_a_reason(exceptions: dict[str, str]) -> None:
    assert all(reason.strip() for reason in exceptions.values())
