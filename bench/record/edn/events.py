"""The events of an EDN history as columns.

A file is one map a line, or one vector or list of maps. Most files have one layout: the same
fields in the same order on each line. It is learned from the first event, and a regular expression
then reads a block of lines at a time. A line that it does not fit, such as one of the nemesis, is
read by the general parser; so is all of a file that has no layout.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec
import numpy as np

from bench.record.columns import Int8s, Int32s, Int64s
from bench.record.edn.parser import (
    BadForm,
    CutShort,
    read_form,
    read_only_form,
    skip_space,
)
from bench.record.history import BITS_64, BadHistory, why_unfit

KINDS: Final = {"invoke": 0, "ok": 1, "fail": 2, "info": 3}
INVOKE: Final = 0
MOST_CHARACTERS: Final = 64 << 20
"""Of one event."""
_NO_TIME: Final = np.iinfo(np.int64).min
_TRIES: Final = 8
"""After so many blocks of no layout, no further one is tried."""
_LINES_TO_LEARN: Final = 100
_NOT_PLAIN = re.compile(r"[\"\\#(){}^@`~;\0]|null|\s,|,,|[0-9]{19}")
_NIL = re.compile(r"(?<![\w.*+!?/:-])nil(?![\w.*+!?/:-])")
_USUAL_KEYWORDS: Final = ("append", "r", "w")
"""With which the operations of a transaction begin: a search for any keyword takes longer."""
_KEYWORD = re.compile(r":([\w*+!?/-]+)")

_SCALAR = r'nil|true|false|-?[0-9]+|"[^"\\\n]*"|:[\w.*+!?/-]+'
_INSIDE = r'[^\[\]{}()"#;\\\n]*+'


def _collection(depth: int) -> str:
    """A vector, list, map or set that is nested so deep."""
    inside = r'"[^"\\\n]*+"' + ("|" + _collection(depth - 1) if depth else "")
    return rf"(?:#?\{{|[\[(]){_INSIDE}(?:(?:{inside}){_INSIDE})*+[\]}})]"


_VALUE = f"{_SCALAR}|{_collection(4)}"
_FIELDS = {
    "type": r":(invoke|ok|fail|info)",
    "f": r":([\w.*+!?-]+)",
    "process": r"(-?[0-9]+|:[\w-]+)",
    "time": r"(-?[0-9]+)",
    "index": r"(-?[0-9]+)",
    "key": rf"({_SCALAR})",
    "value": rf"({_VALUE})",
}
"""How a field of an event stands in a layout; one that is not told is read past."""


@dataclass(slots=True)
class Events:
    """The events of clients, in the order of the file; those of processes that are no integers,
    such as the nemesis, are left out.

    ``kind``: one of `KINDS`. ``process``: the number itself. ``f`` is an index into ``names``;
    ``key`` and ``value`` are indices into ``values``, -1 where the field is missing. ``time`` and
    ``index``: None where not every event has one. ``line``: where it stands.
    """

    kind: Int8s
    process: Int64s
    f: Int32s
    key: Int32s
    value: Int32s
    time: Int64s | None
    index: Int64s | None
    line: Int64s
    names: list[str]
    values: list[Any]

    def __len__(self) -> int:
        return len(self.kind)


class _Numbers(dict[str, int]):
    """Numbers texts; a new one gets the next number, and is kept in ``new``."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        self.new.append(text)
        return number


class _Processes(dict[str, int]):
    """The number that the text of a process is, `_NO_TIME` for a nemesis."""

    def __missing__(self, text: str) -> int:
        number = self[text] = _NO_TIME if text[0] == ":" else int(text)
        return number


class _Layout:
    """The fields of most events, and the expression that reads a line of them."""

    def __init__(self, fields: Iterable[str], tag: str) -> None:
        self.fields = [name for name in fields if name in _FIELDS]
        other = rf"(?:[, ]+:(?!(?:{'|'.join(_FIELDS)})[ ,])[\w-]+ +(?:{_VALUE}))*+"
        parts = [rf"[, ]*+:{name} +{_FIELDS[name]}{other}" for name in self.fields]
        self.pattern = re.compile(
            rf"^ *{re.escape(tag)}\{{{other}{''.join(parts)}\}}[, \r]*$|^(.*)$", re.MULTILINE
        )
        self.is_usual = {"type", "f", "process", "value"} <= set(self.fields)


def _learned(text: str) -> _Layout | None:
    """The layout of the first event of a client among the first lines."""
    for line in text.split("\n", _LINES_TO_LEARN)[:_LINES_TO_LEARN]:
        tag, brace, _ = line.partition("{")
        if not brace or not re.fullmatch(r" *(?:#[\w.]+)?", tag):
            continue
        try:
            event, _ = read_form(line, len(tag))
        except BadForm:
            return None
        if type(event.get("process")) is int:
            layout = _Layout(event, tag.strip())
            return layout if layout.is_usual else None
    return None


def _plain_values(texts: list[str]) -> list[Any] | None:
    """The same as the general parser makes of each text, for texts that are JSON but for their
    keywords, commas and nil: a decoder of JSON is faster. None if one is something else."""
    joined = " ".join(texts)
    if _NOT_PLAIN.search(joined):
        return None
    if "nil" in joined:
        joined = _NIL.sub("null", joined)
    for name in _USUAL_KEYWORDS:
        joined = joined.replace(f"[:{name} ", f'["{name}" ')
    if ":" in joined:
        joined = _KEYWORD.sub(r'"\1"', joined)
    joined = joined.replace(", ", " ").replace(" ", ",")
    try:
        values: list[Any] = msgspec.json.decode(f"[{joined}]")
    except msgspec.DecodeError:
        return None
    return values if len(values) == len(texts) else None


_decode_integers = msgspec.json.Decoder(list[int]).decode


def _integers(texts: tuple[str, ...]) -> Int64s:
    """The numbers of a column. A decoder of JSON is faster than `int`, and refuses what EDN does,
    such as 007. Raises ValueError, OverflowError for more than 64 bits."""
    return np.array(_decode_integers(f"[{','.join(texts)}]"), np.int64)


class EventReader:
    """Takes the blocks of a file, gives its events. ``name``: what messages call the file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.decoder = getincrementaldecoder("utf-8")()
        self.names = _Numbers()
        self.texts = _Numbers()
        self.values: list[Any] = []
        self.processes = _Processes()
        self.parts: list[tuple[Any, ...]] = []
        self.rows: list[tuple[int, ...]] = []
        self.pending = ""
        self.line = 1
        """Of the first character of ``pending``."""
        self.opener = ""
        self.has_begun = False
        self.has_ended = False
        self.layout: _Layout | None = None
        self.odd_blocks = 0

    def take(self, block: bytes) -> None:
        """Add a block of whole lines. Raises BadHistory, which names file and line."""
        try:
            text = self.pending + self.decoder.decode(block)
        except UnicodeDecodeError as error:
            line = self.line + self.pending.count("\n") + error.object.count(b"\n", 0, error.start)
            self._refuse_line(line, f"byte 0x{error.object[error.start]:02x} is not UTF-8")
        if not self.has_begun:
            text = self._begin(text)
        if self.layout is not None and not self.pending and self.odd_blocks < _TRIES:
            text = self._take_lines(text, self.layout)
        self._take_forms(text, is_last=False)

    def _begin(self, text: str) -> str:
        """Sees whether the events are in a vector or a list, and what the first one looks like."""
        at = skip_space(text, 0)
        if at == len(text):
            return text
        self.has_begun = True
        if text[at] in "[(":
            self.opener = text[at]
            at = skip_space(text, at + 1)
        self.line += text.count("\n", 0, at)
        text = text[at:]
        self.layout = _learned(text)
        return text

    def _take_lines(self, text: str, layout: _Layout) -> str:
        """Read lines by their layout; what is left is for the general parser."""
        rows = layout.pattern.findall(text)
        if text.endswith("\n"):
            rows.pop()  # the empty line behind the last newline
        odd: dict[int, Any] = {}
        left = ""
        for place in [place for place, row in enumerate(rows) if not row[0]]:
            try:
                odd[place] = read_only_form(rows[place][-1])
            except BadForm:
                lines = text.split("\n")
                rows, left = rows[:place], "\n".join(lines[place:])
                break
        self.odd_blocks += len(odd) >= len(rows) // 2
        lines_of = np.arange(self.line, self.line + len(rows))
        usual = rows
        if odd:
            places = [place for place in range(len(rows)) if place not in odd]
            usual, lines_of = [rows[place] for place in places], lines_of[places]
        if usual and not self._take_rows(usual, lines_of, layout):
            return text
        for place, form in odd.items():
            self._take_event(form, self.line + place)
        self.line += len(rows)
        return left

    def _take_rows(self, rows: list[tuple[str, ...]], line: Int64s, layout: _Layout) -> bool:
        """False, and nothing is taken, if a value is not what it looked like."""
        n = len(rows)
        columns = dict(zip(layout.fields, zip(*rows, strict=True), strict=False))
        kind = np.frombuffer(bytes(map(KINDS.__getitem__, columns["type"])), np.int8)
        f = np.fromiter(map(self.names.__getitem__, columns["f"]), np.int32, n)
        value = np.fromiter(map(self.texts.__getitem__, columns["value"]), np.int32, n)
        key = np.full(n, -1, np.int32)
        if "key" in columns:
            key = np.fromiter(map(self.texts.__getitem__, columns["key"]), np.int32, n)
        try:
            process = np.fromiter(map(self.processes.__getitem__, columns["process"]), np.int64, n)
            time, index = (
                _integers(columns[name]) if name in columns else np.full(n, _NO_TIME)
                for name in ("time", "index")
            )
            self._parse_texts()
        except (ValueError, OverflowError):
            for text in self.texts.new:
                del self.texts[text]
            self.texts.new.clear()
            self.odd_blocks += 1
            return False
        mine = process != _NO_TIME
        columns_of = (kind, process, f, key, value, time, index, line)
        self.parts.append(tuple(each[mine] for each in columns_of))
        return True

    def _parse_texts(self) -> None:
        """The values of the texts that are new."""
        new = self.texts.new
        values = _plain_values(new)
        if values is None:
            values = [read_only_form(text) for text in new]
            if any(map(why_unfit, values)):
                raise OverflowError
        self.values.extend(values)
        new.clear()

    def _take_forms(self, text: str, *, is_last: bool) -> None:
        """Read events one by one; keep what may go on in the next block."""
        at, counted = 0, 0
        while True:
            at = skip_space(text, at)
            if at >= len(text):
                break
            self.line += text.count("\n", counted, at)
            counted = at
            if self.has_ended:
                self._refuse_line(self.line, "there is more behind the end of the vector")
            if text[at] in "])" and self.opener:
                if text[at] != {"[": "]", "(": ")"}[self.opener]:
                    self._refuse_line(self.line, f"{text[at]} closes a {self.opener}")
                self.has_ended = True
                at += 1
                continue
            try:
                form, end = read_form(text, at)
            except CutShort as error:
                if is_last or len(text) - at > MOST_CHARACTERS:
                    self._refuse_line(self.line + text.count("\n", at, error.offset), error.reason)
                break
            except BadForm as error:
                self._refuse_line(self.line + text.count("\n", at, error.offset), error.reason)
            self._take_event(form, self.line)
            at = end
        self.line += text.count("\n", counted, at)
        self.pending = text[at:]

    def _take_event(self, form: Any, line: int) -> None:
        if not isinstance(form, dict):
            self._refuse_line(line, "an event is a map: {:type :invoke, :process 0, :f :read ...}")
        process = form.get("process", self)
        if process is self:
            self._refuse_line(line, "an event has no :process")
        if not isinstance(process, int) or isinstance(process, bool):
            return
        kind, f = form.get("type"), form.get("f")
        if not isinstance(kind, str) or kind not in KINDS:
            self._refuse_line(line, ":type is one of :invoke, :ok, :fail, :info")
        if not isinstance(f, str):
            self._refuse_line(line, ":f is missing, or no keyword")
        numbers = [form.get(name) for name in ("time", "index")]
        for name, number in zip(("time", "index"), (*numbers,), strict=True):
            if number is not None and (type(number) is not int or number not in BITS_64):
                self._refuse_line(line, f":{name} is no integer of 64 bits")
        if process not in BITS_64:
            self._refuse_line(line, ":process has more than 64 bits")
        for name in ("key", "value"):
            unfit = why_unfit(form.get(name))
            if unfit is not None:
                self._refuse_line(line, f"{unfit}, in :{name}")
        codes = [self._new_value(form[name]) if name in form else -1 for name in ("key", "value")]
        time, index = (_NO_TIME if number is None else number for number in numbers)
        self.rows.append((KINDS[kind], process, self.names[f], *codes, time, index, line))

    def _new_value(self, value: Any) -> int:
        number = self.texts[f"\0{len(self.values)}"]  # no text of a file
        self.texts.new.clear()
        self.values.append(value)
        return number

    def _flush_rows(self) -> None:
        if self.rows:
            columns = np.array(self.rows, np.int64).T
            kinds = (np.int8, np.int64, np.int32, np.int32, np.int32, np.int64, np.int64, np.int64)
            self.parts.append(
                tuple(each.astype(kind) for each, kind in zip(columns, kinds, strict=True))
            )
            self.rows.clear()

    def events(self) -> Events:
        """All events. Raises BadHistory for what only the end of the file shows."""
        self._take_forms(self.pending, is_last=True)
        if self.opener and not self.has_ended:
            self._refuse_line(self.line, f"the file ends, and its {self.opener} is not closed")
        self._flush_rows()
        if not self.parts:
            empty = np.zeros((8, 0), np.int64)
            self.parts.append(tuple(empty))
        joined = [np.concatenate(parts) for parts in zip(*self.parts, strict=True)]
        order = np.argsort(joined[-1], kind="stable")
        kind, process, f, key, value, time, index, line = (each[order] for each in joined)
        return Events(
            kind=kind,
            process=process,
            f=f,
            key=key,
            value=value,
            time=None if (time == _NO_TIME).any() else time,
            index=None if (index == _NO_TIME).any() else index,
            line=line,
            names=list(self.names),
            values=self.values,
        )

    def _refuse_line(self, line: int, reason: str) -> NoReturn:
        raise BadHistory(f"{self.name}:{line}: {reason}")


def read_events(blocks: Iterator[bytes], name: str) -> Events:
    """The events in the blocks of a file."""
    reader = EventReader(name)
    for block in blocks:
        reader.take(block)
    return reader.events()
