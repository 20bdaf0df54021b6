"""Which mutants are equivalent: marked by hand in `EQUIVALENT`, by their content and with a reason,
and left out of the score."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from chaos.seeds.mutants.operators import Mutant
from chaos.seeds.mutants.sources import Target
from nodes.errors import InvalidInput

EQUIVALENT = Path(__file__).with_name("equivalent.toml")


class BadMarks(InvalidInput):
    """A file that is no list of equivalent mutants: one line."""


class Equivalent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mark: mutants that behave as the protocol does. The same fields as of `Mutant`; without a
    ``number``, all that are equal in the others."""

    file: str
    function: str
    line: str
    change: str
    reason: str
    number: int | None = None

    def means(self, mutant: Mutant) -> bool:
        """Whether it is about this one."""
        return (
            (self.file, self.function, self.line, self.change)
            == (mutant.file, mutant.function, mutant.line, mutant.change)
        ) and self.number in (None, mutant.number)


class _Marks(msgspec.Struct, forbid_unknown_fields=True):
    equivalent: list[Equivalent] = []


class Marks:
    """Which mutants are equivalent. ``stale``: marks that mean no mutant any more."""

    def __init__(self, target: Target, path: Path = EQUIVALENT) -> None:
        """Raises BadMarks."""
        try:
            marks = msgspec.convert(tomllib.loads(path.read_text()), _Marks).equivalent
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise BadMarks(f"{path.name}: {error}") from None
        of_function: dict[tuple[str, str], list[Equivalent]] = {}
        for mark in marks:
            if not mark.reason.strip():
                raise BadMarks(f"{path.name}: {mark.function}: a mark without a reason")
            of_function.setdefault((mark.file, mark.function), []).append(mark)
        self._marked: dict[str, Equivalent] = {}
        for mutant in target.mutants:
            for mark in of_function.get((mutant.file, mutant.function), ()):
                if mark.means(mutant):
                    self._marked[mutant.key] = mark
        used = {id(mark) for mark in self._marked.values()}
        self.stale = [mark for mark in marks if mark.file in target.files and id(mark) not in used]

    def reason(self, mutant: Mutant) -> str | None:
        """Why it is equivalent, if it is marked."""
        mark = self._marked.get(mutant.key)
        return mark.reason if mark is not None else None
