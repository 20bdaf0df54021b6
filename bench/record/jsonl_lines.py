"""A fast reader for the lines that capbench writes.

Most lines of a history have one layout: the fields of `bench.record.history.OperationRecord` in
order, no spaces, short names, integers. NumPy goes through such a block field by field, all lines
at once, in words of eight bytes. It checks every byte: the text between the values must be that of
the layout, names must be ASCII without escapes, numbers must be 64-bit JSON integers. If any line
differs, the block goes to the general reader, which knows what else is allowed and what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.record.columns import KIND_CODES, OUTCOME_CODES, Bools, Int8s, Int32s, Int64s

Words: TypeAlias = NDArray[np.uint64]

_FRONT: Final = 8
"""Padding before the block: a text is compared in whole words that end where it ends."""
_BACK: Final = 64
"""Padding after the block: the last words may reach into it."""


def _every(byte: int) -> np.uint64:
    return np.uint64(int.from_bytes(bytes([byte]) * 8, "little"))


_ONE, _SEVEN = np.uint64(1), np.uint64(7)
_ONES, _HIGH, _QUOTES, _ZEROS = _every(1), _every(0x80), _every(ord('"')), _every(ord("0"))
_BEYOND_NINE = _every(0x80 - 10)
_PAIRS, _FOURS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
_MOST = np.uint64((1 << 63) - 1)
_TENS = np.array([10**n for n in range(9)], np.uint64)


def _word(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(text.encode(), "little"))


class _Text:
    """The text between two values, compared as the last bytes of ``len(masks)`` words."""

    def __init__(self, text: str) -> None:
        encoded = text.encode()
        self.length = len(encoded)
        self.letter = encoded[2] if len(encoded) > 2 else 0
        self.before = -len(encoded) % 8
        padded = b"\0" * self.before + encoded
        masks = b"\0" * self.before + b"\xff" * len(encoded)
        self.wanted = np.frombuffer(padded, np.uint64)
        self.masks = np.frombuffer(masks, np.uint64)

    def found(self, words: Words) -> Bools:
        """Which rows begin with the text."""
        found: Bools = (words[:, 0] & self.masks[0]) == self.wanted[0]
        for place in range(1, len(self.wanted)):
            found &= words[:, place] == self.wanted[place]
        return found


_PROCESS = _Text('{"process":"')
_ID = _Text('","id":')
_OP = _Text(',"op":"')
_KEY = _Text('","key":"')
_OUTCOME = _Text('","outcome":"')
_INVOKED = _Text('","invoked_ns":')
_COMPLETED = _Text(',"completed_ns":')
_INTENDED = _Text(',"intended_ns":')
_VALUE = _Text(',"value":')
_EXPECTED = _Text(',"expected":')
_APPLIED = _Text(',"applied":')
_SEEN = _Text(',"seen":')
_NODE = _Text(',"node":"')
_VERSION = _Text(',"version":')
_END = _Text("}\n")
_KIND_WORDS = {_word(name): code for name, code in KIND_CODES.items()}
_OUTCOME_WORDS = {_word(name): code for name, code in OUTCOME_CODES.items()}
_TRUE, _FALSE, _NULL = _word("true"), _word("false"), _word("null")
_FOUR_BYTES, _FIVE_BYTES = np.uint64((1 << 32) - 1), np.uint64((1 << 40) - 1)


class Names:
    """The numbers of names, most of them known already. ``known``: shared with the general reader.

    A hash table without chains: if two names have the same slot, the later one occupies it and the
    other is looked up in ``known``.
    """

    _BITS = 12
    _MIX = np.uint64(0x9E3779B97F4A7C15)

    def __init__(self, known: dict[Any, int]) -> None:
        self.known = known
        size = 1 << self._BITS
        self.low = np.full(size, _every(0xFF))  # not a name: names are ASCII
        self.high = np.zeros(size, np.uint64)
        self.code = np.zeros(size, np.int32)

    def codes(self, low: Words, high: Words) -> Int32s:
        """The numbers of names of up to 16 bytes, given as two words each."""
        place = ((low * self._MIX) ^ high) * self._MIX >> np.uint64(64 - self._BITS)
        place = place.astype(np.int64)
        codes: Int32s = self.code[place]
        missed = np.flatnonzero((self.low[place] != low) | (self.high[place] != high))
        if len(missed):
            pairs = list(zip(low[missed].tolist(), high[missed].tolist(), strict=True))
            found = {pair: self._code(*pair) for pair in dict.fromkeys(pairs)}
            codes[missed] = [found[pair] for pair in pairs]
            self.low[place[missed]], self.high[place[missed]] = low[missed], high[missed]
            self.code[place[missed]] = codes[missed]
        return codes

    def _code(self, low: int, high: int) -> int:
        name = (low | high << 64).to_bytes(16, "little").rstrip(b"\0").decode("ascii")
        return self.known.setdefault(name, len(self.known))


class _OtherLayout(Exception):
    """The block has another layout."""


@dataclass(slots=True)
class Integers:
    """A column of integers; ``there``: the rows that have one."""

    numbers: Int64s
    there: Bools
    has_field: Bools
    """The rows that have the field, even if it is null."""


@dataclass(slots=True)
class Lines:
    """The columns of a block."""

    process: Int32s
    id: Int64s
    op: Int8s
    key: Int32s
    outcome: Int8s
    invoked: Int64s
    completed: Integers
    value: Integers
    expected: Integers
    refused: Bools
    has_applied: Bools
    seen: Integers
    node: Int32s | None


def read_lines(block: bytes, processes: Names, keys: Names, nodes: Names) -> Lines | None:
    """The lines of a block; None if a line has another layout."""
    if not block.endswith(b"\n") or not block.isascii() or b"\\" in block:
        return None
    try:
        return _Block(block).lines(processes, keys, nodes)
    except _OtherLayout:
        return None


class _Block:
    """A block, and how far each line has been read."""

    def __init__(self, block: bytes) -> None:
        back = _BACK - (_FRONT + len(block)) % 8
        self.bytes = b"".join((b" " * (_FRONT - 1), b"\n", block, b" " * back))
        self.codes = np.frombuffer(self.bytes, np.uint8)
        # Any control character ends a line here: what follows does not begin like one.
        ends = _places_of(self.codes < ord(" "))
        self.at = ends[:-1] + 1
        self.count = len(self.at)
        self.letters = self.codes[:0]

    def lines(self, processes: Names, keys: Names, nodes: Names) -> Lines:
        process = processes.codes(*self._name(_PROCESS))
        identity = self._integer(_ID)
        op = self._one_of(_OP, _KIND_WORDS)
        key = keys.codes(*self._name(_KEY))
        outcome = self._one_of(_OUTCOME, _OUTCOME_WORDS)
        invoked = self._integer(_INVOKED)
        completed = self._perhaps_integer(_COMPLETED)
        self._perhaps_integer(_INTENDED)
        value = self._perhaps_integer(_VALUE)
        expected = self._perhaps_integer(_EXPECTED)
        refused, has_applied = self._perhaps_truth(_APPLIED)
        seen = self._perhaps_integer(_SEEN)
        node = self._perhaps_name(_NODE, nodes)
        self._perhaps_integer(_VERSION)
        if not _END.found(self._words(self.at, _END, 0)).all():
            raise _OtherLayout
        return Lines(
            process=process,
            id=identity,
            op=op,
            key=key,
            outcome=outcome,
            invoked=invoked,
            completed=completed,
            value=value,
            expected=expected,
            refused=refused,
            has_applied=has_applied,
            seen=seen,
            node=node,
        )

    def _words(self, at: Int64s, text: _Text, more: int) -> Words:
        """For each row, the words of a text expected at ``at`` and ``more`` words after it."""
        width = 8 * (len(text.wanted) + more)
        every = np.ndarray((len(self.bytes) - width + 1,), f"V{width}", self.bytes, 0, (1,))
        return every[at - text.before].view(np.uint64).reshape(len(at), -1)

    def _required(self, text: _Text, more: int) -> Words:
        """The words after a text that every line must have."""
        words = self._words(self.at, text, more)
        if not text.found(words).all():
            raise _OtherLayout
        self.at = self.at + text.length
        return words[:, len(text.wanted) :]

    def _optional(self, text: _Text, more: int) -> tuple[Int64s | slice, Words]:
        """Which lines have the text, and the words after it."""
        if len(self.letters) == 0:
            self.letters = self.codes[self.at + 2]
        if not (self.letters == text.letter).any():
            return slice(0, 0), np.zeros((0, 1), np.uint64)
        self.letters = self.codes[:0]
        words = self._words(self.at, text, more)
        found = text.found(words)
        if found.all():
            rows: Int64s | slice = slice(None)
        else:
            rows = np.flatnonzero(found)
            words = words[rows]
        self.at[rows] += text.length
        return rows, words[:, len(text.wanted) :]

    def _name(self, text: _Text) -> tuple[Words, Words]:
        low, high, length = _names(self._required(text, 2))
        self.at += length
        return low, high

    def _one_of(self, text: _Text, codes: dict[np.uint64, int]) -> Int8s:
        name, length = _up_to_quote(self._required(text, 1)[:, 0])
        self.at += length
        return _codes(name, codes)

    def _integer(self, text: _Text) -> Int64s:
        numbers, length = _integers(self._required(text, 3))
        if not length.all():
            raise _OtherLayout
        self.at += length
        return numbers

    def _perhaps_integer(self, text: _Text) -> Integers:
        """A field that may be missing or null."""
        numbers, there = np.zeros(self.count, np.int64), np.zeros(self.count, np.bool_)
        has_field = np.zeros(self.count, np.bool_)
        rows, words = self._optional(text, 3)
        if len(words):
            has_field[rows] = True
            numbers[rows], length = _integers(words)
            there[rows] = length > 0
            is_null = length == 0
            if is_null.any():
                if ((words[is_null, 0] & _FOUR_BYTES) != _NULL).any():
                    raise _OtherLayout
                length[is_null] = 4
            self.at[rows] += length
        return Integers(numbers, there, has_field)

    def _perhaps_truth(self, text: _Text) -> tuple[Bools, Bools]:
        """In which lines a field is false, and which have the field."""
        is_there, untrue = np.zeros(self.count, np.bool_), np.zeros(self.count, np.bool_)
        rows, words = self._optional(text, 1)
        if len(words):
            is_true = (words[:, 0] & _FOUR_BYTES) == _TRUE
            is_false = (words[:, 0] & _FIVE_BYTES) == _FALSE
            if not (is_true | is_false).all():
                raise _OtherLayout
            is_there[rows], untrue[rows] = True, is_false
            self.at[rows] += np.where(is_true, 4, 5)
        return untrue, is_there

    def _perhaps_name(self, text: _Text, names: Names) -> Int32s | None:
        rows, words = self._optional(text, 2)
        if len(words) == 0:
            return None
        low, high, length = _names(words)
        self.at[rows] += length + 1  # the quote
        codes = np.zeros(self.count, np.int32)
        codes[rows] = names.codes(low, high)
        return codes


def _places_of(those: Bools) -> Int64s:
    """The indices of the few true values; the length is a multiple of 8. Of two in one word only
    the first is found: a line that short has another layout anyway."""
    words = those.view(np.uint64)
    places = np.flatnonzero(words != 0)
    words = words[places]
    result: Int64s = places * 8 + (np.bitwise_count(words - _ONE) >> 3)
    return result


def _up_to_quote(words: Words) -> tuple[Words, Int64s]:
    """The bytes before the first quote, and their number: 8 if there is no quote."""
    differing = words ^ _QUOTES
    zeros = (differing - _ONES) & ~differing & _HIGH  # only the lowest, the first, is exact
    before = ((zeros & -zeros) >> _SEVEN) - _ONE
    return words & before, np.bitwise_count(before).astype(np.int64) >> 3


def _names(words: Words) -> tuple[Words, Words, Int64s]:
    """Names of up to 15 bytes as two words, and their lengths."""
    low, length = _up_to_quote(words[:, 0])
    long = np.flatnonzero(length == 8)
    high = np.zeros(len(low), np.uint64)
    if len(long):
        high[long], more = _up_to_quote(words[long, 1])
        if (more == 8).any():
            raise _OtherLayout
        length[long] += more
    return low, high, length


def _codes(names: Words, codes: dict[np.uint64, int]) -> Int8s:
    found = np.full(len(names), -1, np.int8)
    for name, code in codes.items():
        found[names == name] = code
    if (found < 0).any():
        raise _OtherLayout
    return found


def _integers(words: Words) -> tuple[Int64s, Int64s]:
    """The integers at the beginning of three words each, and their numbers of digits."""
    numbers, length = _digits(words[:, 0])
    for place in (1, 2):
        is_long = length == 8 * place
        long: Int64s | slice = slice(None) if is_long.all() else np.flatnonzero(is_long)
        if not isinstance(long, slice) and len(long) == 0:
            break
        more, digits = _digits(words[long, place])
        numbers[long] = numbers[long] * _TENS[digits] + more
        length[long] += digits
    leading_zero = (words[:, 0] & np.uint64(0xFF)) == np.uint64(ord("0"))
    if (length > 19).any() or (numbers > _MOST).any() or (leading_zero & (length > 1)).any():
        raise _OtherLayout
    return numbers.view(np.int64), length


def _digits(words: Words) -> tuple[Words, Int64s]:
    """The number at the beginning of each word, and how many digits it has."""
    digits = words ^ _ZEROS
    other = (digits + _BEYOND_NINE) & _HIGH
    before = ((other & -other) >> _SEVEN) - _ONE
    length = np.bitwise_count(before).astype(np.int64)  # in bits
    # Move them to the end of the word behind zeros, then add up neighbours, pairs and fours.
    number = digits << (64 - length).astype(np.uint64)
    number = (number * np.uint64(10 * 256 + 1)) >> np.uint64(8) & _PAIRS
    number = (number * np.uint64(100 * 65536 + 1)) >> np.uint64(16) & _FOURS
    number = (number * np.uint64((10000 << 32) + 1)) >> np.uint64(32)
    return number, length >> 3
