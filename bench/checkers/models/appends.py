"""Keys that hold texts: written (put), appended to, and read. Is the history linearizable?

Where each text that is appended or written is unique, and none can be taken for another or for
several, a text that was read names all operations that made it: the write that it begins with, and
then the appends in their order. Each of these appends is a `cas` from one text to the next, and an
append that nobody saw a write of a value of its own, which nobody reads: it stands where the next
write, or the end, hides it. So this is a history of registers, and decided exactly as such
(`bench.checkers.zones`). Where texts repeat, the search decides (`bench.checkers.search`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from bench.checkers.budget import Budget
from bench.checkers.models.findings import keys_of
from bench.checkers.search import APPEND, LOOK, SET, Result, Step, Texts, search
from bench.record.columns import (
    CAS,
    FAIL,
    INFO,
    NEVER,
    NOT_TOLD,
    NULL,
    OK,
    READ,
    WRITE,
    Columns,
    Int8s,
    Int32s,
    Int64s,
    Numbering,
)
from bench.record.models.operations import Operations


@dataclass(slots=True)
class Converted:
    """``columns``: row i is row i of the operations. ``others``: by key, the rows of those that are
    not in it (they are *fail* there), since texts do not name their appends."""

    columns: Columns
    others: dict[str, Int64s]


def texts_as_registers(o: Operations, initial: str = "") -> Converted:
    """Reads, writes and appends of texts as reads, writes and ``cas`` of registers."""
    numbering = Numbering()
    n = len(o)
    value, expected = np.zeros(n, np.int32), np.zeros(n, np.int32)
    op, outcome = np.zeros(n, np.int8), o.outcome.copy()
    others = {}
    for key, rows in keys_of(o):
        one = _Key(o, rows, initial)
        if not one.is_readable():
            others[key] = rows
            outcome[rows] = FAIL
            continue
        for row, deed in one.deeds().items():
            op[row], told = deed.kind, deed.is_told
            value[row] = numbering.code(deed.value)
            expected[row] = numbering.code(deed.expected)
            if not told:
                outcome[row] = INFO
    return Converted(_columns(o, op, outcome, value, expected, numbering), others)


def search_texts(o: Operations, rows: Int64s, initial: str, budget: Budget) -> Result:
    """Whether reads, writes and appends of one key are linearizable, whatever the texts are."""
    key, texts = _Key(o, rows, initial), Texts()
    first = texts.number(initial)
    steps = [
        Step(
            row=row,
            kind=kind,
            value=texts.number(text),
            expected=0,
            invoked=int(o.invoked[row]),
            returns=None if o.completed[row] == NEVER else int(o.completed[row]),
        )
        for kind, some in ((LOOK, key.reads), (SET, key.writes), (APPEND, key.appends))
        for row, text in some.items()
    ]
    return search(steps, first, budget, texts)


def mutex_as_register(o: Operations) -> Converted:
    """A lock that anybody may release, as Knossos has it: a register that is null or held."""
    numbering = Numbering()
    held = numbering.code(True)
    is_acquire = np.zeros(len(o), np.bool_)
    is_acquire[o.rows_of("acquire")] = True
    op = np.full(len(o), CAS, np.int8)
    value = np.where(is_acquire, held, NULL).astype(np.int32)
    expected = np.where(is_acquire, NULL, held).astype(np.int32)
    return Converted(_columns(o, op, o.outcome, value, expected, numbering), {})


def _columns(
    o: Operations,
    op: Int8s,
    outcome: Int8s,
    value: Int32s,
    expected: Int32s,
    numbering: Numbering,
) -> Columns:
    n = len(o)
    return Columns(
        process=o.process,
        id=o.id,
        op=op,
        outcome=outcome,
        key=np.where(o.key < 0, len(o.keys), o.key).astype(np.int32),
        value=value,
        expected=expected,
        seen=np.full(n, NOT_TOLD, np.int32),
        applied=np.ones(n, np.bool_),
        node=np.zeros(n, np.int32),
        invoked=o.invoked,
        completed=np.where(outcome == INFO, NEVER, o.completed),
        takes_time=o.gave_up > o.invoked,
        processes=o.processes,
        keys=[*o.keys, ""],
        nodes=[""],
        values=numbering.values,
        times=o.times,
    )


@dataclass(frozen=True, slots=True)
class _Deed:
    kind: int
    value: Any
    expected: Any = None
    is_told: bool = True


@dataclass(slots=True)
class _Key:
    """The operations on one key that did not fail, by row. ``made``: what each text that was read
    is made of, the text before and the row of the append; the row is -1 where nobody can have
    appended it."""

    o: Operations
    rows: Int64s
    initial: str
    reads: dict[int, str] = field(default_factory=dict)
    writes: dict[int, str] = field(default_factory=dict)
    appends: dict[int, str] = field(default_factory=dict)
    made: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        o = self.o
        for row in self.rows.tolist():
            name, text = o.names[o.op[row]], o.value_of(row)
            if o.outcome[row] == FAIL:
                continue
            if name == "read":
                if o.outcome[row] == OK and (text is not None or o.null_is_told):
                    self.reads[row] = self._text(row, self.initial if text is None else text)
            elif name == "append":
                self.appends[row] = self._text(row, text)
            else:
                self.writes[row] = self._text(row, text)

    def _text(self, row: int, text: Any) -> str:
        if not isinstance(text, str):
            raise self.o.refused(row, "the values of append-kv are texts")
        return text

    def is_readable(self) -> bool:
        """Whether each text can only have been made in one way."""
        appended, bases = list(self.appends.values()), [self.initial, *self.writes.values()]
        if "" in appended or len(set(bases)) < len(bases):
            return False
        appended.sort()
        if any(longer.startswith(text) for text, longer in pairwise(appended)):
            return False
        parts = _Parts(appended)
        return not any(
            other != base and base.startswith(other) and parts.may_go_on(base, len(other))
            for base in bases
            for other in bases
        )

    def deeds(self) -> dict[int, _Deed]:
        """Each operation as one of a register. Rows that say nothing are reads of nothing."""
        parts = _Parts(self.appends.values())
        row_of = {text: row for row, text in self.appends.items()}
        bases = sorted([self.initial, *self.writes.values()], key=len, reverse=True)
        before: dict[int, str] = {}
        for text in sorted(set(self.reads.values()), key=len):
            self._make(text, bases, parts, row_of, before)
        deeds = {row: _Deed(READ, None, is_told=False) for row in self.rows.tolist()}
        for row, text in self.reads.items():
            deeds[row] = _Deed(READ, text)
        for row, text in self.writes.items():
            deeds[row] = _Deed(WRITE, text)
        for row, text in self.appends.items():
            if row in before:
                deeds[row] = _Deed(CAS, before[row] + text, before[row])
            else:
                deeds[row] = _Deed(WRITE, f"unseen {row}")
        return {row: _own(deed, self.initial) for row, deed in deeds.items()}

    def _make(
        self,
        text: str,
        bases: list[str],
        parts: _Parts,
        row_of: dict[str, int],
        before: dict[int, str],
    ) -> None:
        """Note what each append of a text was appended to. What nobody can have made is left as it
        is: a value that nobody wrote."""
        for base in bases:
            if text.startswith(base) and (split := parts.split(text, len(base))) is not None:
                state = base
                for part in split:
                    row = row_of[part]
                    if before.setdefault(row, state) != state:
                        return
                    state += part
                return


def _own(deed: _Deed, initial: str) -> _Deed:
    """With null, which all keys hold at first, for the initial text."""

    def own(text: Any) -> Any:
        return None if text == initial else text

    return replace(deed, value=own(deed.value), expected=own(deed.expected))


class _Parts:
    """Texts none of which begins with another, so that a text is made of them in one way at
    most."""

    def __init__(self, texts: Any) -> None:
        self.texts = set(texts)
        self.lengths = sorted({len(text) for text in self.texts})

    def split(self, text: str, at: int) -> list[str] | None:
        """The parts of a text from a place on, None if it is not made of them."""
        found = []
        while at < len(text):
            part = next(
                (text[at : at + n] for n in self.lengths if text[at : at + n] in self.texts), None
            )
            if part is None:
                return None
            found.append(part)
            at += len(part)
        return found

    def may_go_on(self, text: str, at: int) -> bool:
        """Whether a text is made of the parts from a place on, but that the last may be cut."""
        while at < len(text):
            part = next(
                (text[at : at + n] for n in self.lengths if text[at : at + n] in self.texts), None
            )
            if part is None:
                return any(each.startswith(text[at:]) for each in self.texts)
            at += len(part)
        return True
