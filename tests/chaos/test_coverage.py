"""What a gate's seeds reached: branches are seen exactly, and what is missed is said."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.paths import ROOT
from chaos.seeds.branches import branches_of, modules_of, traced
from chaos.seeds.coverage import Coverage, cover, totals
from chaos.seeds.unreached import UNREACHED
from nodes.contract.bounds import BadMessage
from nodes.registry import INTERNAL, PROTOCOLS, get

CODE = '''
class Part:
    def act(self, number):
        """Act."""
        if number > 3:
            number = 3
        elif (
            number == 1
            or number == 2
        ):
            number = 7
        if number == 7:
            return "seven"
        for each in range(number):
            number += each
        try:
            number / number
        except ZeroDivisionError:
            return "nothing"
        if number < 0:
            raise BadMessage("negative")
        return number

    def choose(self, numbers):
        if any(number > 0 for number in numbers):
            return "positive"


class SomeParameters(Parameters):
    def check(self):
        if self.size < 1:
            raise ValueError


class MoreParameters(Other):
    def check(self):
        if self.size < 2:
            raise ValueError


class OfParts(Invariant):
    def is_needed(self):
        if self.scene:
            return True
        return False


class PartsAreWhole(OfParts):
    def observe(self, node, replica):
        if replica.part:
            raise ValueError
'''


@pytest.fixture
def part(tmp_path: Path) -> tuple[Path, ModuleType]:
    path = tmp_path / "part.py"
    path.write_text(
        f"from {BadMessage.__module__} import BadMessage\n"
        "from nodes.contract.replica import Invariant, Parameters\nOther = object\n" + CODE
    )
    spec = importlib.util.spec_from_file_location("part", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return path, module


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], None),
        ([9], {"number > 3", "not: number == 7", "for range(number)", "not: number < 0"}),
        ([1], {"not: number > 3", "number == 1 or number == 2", "number == 7"}),
        (
            [0],
            {
                "not: number > 3",
                "not: number == 1 or number == 2",
                "not: number == 7",
                "except ZeroDivisionError",
            },
        ),
    ],
)
def test_branches_are_reached_by_what_runs(
    part: tuple[Path, ModuleType], numbers: list[int], expected: set[str] | None
) -> None:
    path, module = part
    before = sys.gettrace()
    _, steps = traced((path,), lambda: [module.Part().act(number) for number in numbers])
    assert sys.gettrace() is before
    reached = {b.name for b in branches_of(path) if b.is_reached(steps.lines[str(path)])}
    where = f"{path.parent.name}/part.py: Part.act"
    assert reached == (set() if expected is None else {where, *(f"{where}: {e}" for e in expected)})


def test_a_condition_is_false_only_where_the_run_goes_on_behind_it(
    part: tuple[Path, ModuleType],
) -> None:
    path, module = part
    _, steps = traced((path,), lambda: [module.Part().choose(each) for each in ([1], [2, 1])])
    with pytest.raises(TypeError):
        module.Part().choose(["one"])

    def fail() -> None:
        with pytest.raises(TypeError):
            module.Part().choose(["one"])

    _, failed = traced((path,), fail)
    for each in (steps, failed):
        reached = {b.name for b in branches_of(path) if b.is_reached(each.lines[str(path)])}
        assert f"{path.parent.name}/part.py: Part.choose" in reached
        assert not any("Part.choose: not: any" in name for name in reached)


def test_what_is_known_is_not_looked_for_and_the_rest_is(part: tuple[Path, ModuleType]) -> None:
    path, module = part
    branches = branches_of(path)
    act = {n for n, b in enumerate(branches) if "Part.act" in b.name}
    rare = next(n for n, b in enumerate(branches) if "except ZeroDivisionError" in b.name)

    def run() -> None:
        module.Part().act(0)
        module.Part().choose([1])

    _, without = traced((path,), run, {path: act})
    _, but_one = traced((path,), run, {path: act - {rare}})
    assert without.calls == but_one.calls != {}
    reached = {n for n, b in enumerate(branches) if b.is_reached(without.lines[str(path)])}
    assert reached
    assert not reached & act
    assert branches[rare].is_reached(but_one.lines[str(path)])


def test_neither_refusals_nor_parameters_nor_invariants_count(
    part: tuple[Path, ModuleType],
) -> None:
    names = [branch.name for branch in branches_of(part[0])]
    assert len(names) == len(set(names)) == 13
    assert not any(name.endswith(": number < 0") and "not" not in name for name in names)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_protocol_stands_on_files_with_branches(name: str) -> None:
    replica: Any = get(name).replica
    paths = modules_of(replica)
    assert any(path.name == "replica.py" for path in paths)
    assert any(path.parent.name == "parts" for path in paths)
    assert all(branches_of(path) for path in paths if path.name == "replica.py")
    # Most branches of what judges a protocol raise an alarm: no right protocol reaches them.
    judges = ("claims.py", "invariants.py", "reference_map.py")
    assert [path.name for path in paths if path.name.endswith(judges)] == []


def test_a_seed_is_covered_and_what_it_misses_is_listed_unless_excused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = cover("heartbeat", [1])
    assert seen.seeds == 1
    assert seen.messages["Heartbeat"] > 10
    both = Coverage()
    both.add(seen)
    both.add(seen)
    assert (both.seeds, both.reached) == (2, seen.reached)
    assert both.messages["Heartbeat"] == 2 * seen.messages["Heartbeat"]
    first = next(total for total in totals([seen]) if total.unreached)
    assert len(first.unreached) < first.branches
    monkeypatch.setitem(UNREACHED, first.unreached[0], "a reason")
    again = next(total for total in totals([seen]) if total.file == first.file)
    assert again.unreached == first.unreached[1:]
    assert {*again.excused} == {*first.excused, first.unreached[0]}


def test_only_branches_that_there_are_are_excused() -> None:
    replicas: list[Any] = [protocol.replica for protocol in (PROTOCOLS | INTERNAL).values()]
    paths = {path for replica in replicas for path in modules_of(replica)}
    names = {branch.name for path in paths for branch in branches_of(path)}
    assert sorted(set(UNREACHED) - names) == []


@pytest.mark.parametrize("why", sorted(set(UNREACHED.values())))
def test_what_no_seed_reaches_has_a_test(why: str) -> None:
    reason, _, file = why.partition(": ")
    assert reason
    assert not file or (ROOT / file).is_file()
