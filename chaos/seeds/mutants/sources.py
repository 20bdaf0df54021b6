"""Which files make a protocol, and under which names it runs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from bench.paths import ROOT
from chaos.seeds.mutants.operators import Mutant, mutants_of
from nodes.registry import (
    INTERNAL,
    PROTOCOLS,
    InvalidConfiguration,
    Protocol,
    findable_name,
    get,
)

JUDGES = (
    "__init__.py",
    "claims.py",
    "invariants.py",
    "knobs.py",
    "pace.py",
    "parameters.py",
)
"""How the names of files end, of a protocol's package and of the parts, in which no mistake of the
protocol can be: a mutant there would change what is asked of it."""
PARTS = "nodes.parts."


class Target:
    """What is mutated, and what is run: ``files``, as `Mutant.file` names them, each with the names
    of the protocols that are run on its mutants. A part is run by all that use it, for each uses
    only some of its functions."""

    def __init__(self, names: Sequence[str]) -> None:
        """Raises nodes.registry.InvalidConfiguration."""
        self.files: dict[str, list[str]] = {}
        wanted = [get(name) for name in names]
        every = [*wanted, *PROTOCOLS.values(), *INTERNAL.values()]
        for protocol in {each.replica: each for each in reversed(every)}.values():
            family = family_of(protocol)
            for file in files_of(protocol):
                self.files.setdefault(file, []).extend(family)
        asked = {file for protocol in wanted for file in files_of(protocol)}
        self.files = {file: sorted(names) for file, names in self.files.items() if file in asked}

    @cached_property
    def mutants(self) -> list[Mutant]:
        """Of all files, by place."""
        return [
            mutant for file in self.files for mutant in mutants_of((ROOT / file).read_bytes(), file)
        ]


def chosen(target: Target, only: Sequence[str]) -> list[Mutant]:
    """The mutants of what ``only`` names: ``FILE`` or ``FILE:LINE``, where the end of a path is
    enough; all of them, if it names nothing. Raises InvalidConfiguration where it means none."""
    found: dict[str, Mutant] = {}
    for text in only:
        name, _, line = text.partition(":")
        of_file = [each for each in target.mutants if f"/{each.file}".endswith(f"/{name}")]
        if not of_file:
            files = ", ".join({each.file: None for each in target.mutants})
            raise InvalidConfiguration(f"--only {text}: no mutant of {name}; there are of {files}")
        here = [each for each in of_file if not line or str(each.at) == line]
        if not here:
            lines = ", ".join(dict.fromkeys(str(each.at) for each in of_file))
            raise InvalidConfiguration(f"--only {text}: no mutant begins there, but on {lines}")
        found |= {each.key: each for each in here}
    return list(found.values()) if only else target.mutants


def family_of(protocol: Protocol) -> list[str]:
    """The protocols of the same class, which run the same source, as `get` finds them."""
    known = (*PROTOCOLS.values(), *INTERNAL.values())
    return [findable_name(each) for each in known if each.replica is protocol.replica]


def files_of(protocol: Protocol) -> list[str]:
    """The files of its package, or the one file that it is, and the parts that they use; those of
    the project relative to `ROOT`."""
    own = _file(protocol.replica.__module__)
    is_package = (own.parent / "__init__.py").exists()
    files = [own]
    if is_package:
        files += [
            file
            for file in sorted(own.parent.glob("*.py"))
            if not file.name.endswith(JUDGES) and file != own
        ]
    todo = list(files)
    while todo:
        for file in _parts(todo.pop()):
            if file not in files and not file.name.endswith(JUDGES):
                files.append(file)
                todo.append(file)
    return [
        (file.relative_to(ROOT) if file.is_relative_to(ROOT) else file).as_posix() for file in files
    ]


def _parts(file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PARTS):
            yield _file(node.module)


def _file(module: str) -> Path:
    file = sys.modules[module].__file__
    assert file is not None
    return Path(file).resolve()
