"""Foreign text on a terminal, in a table, in Markdown or XML: names, keys, values, errors.

The text of a history, a file name or a node's status comes from somebody else. It must not move the
cursor, reverse the writing direction, break a line or push the rest out of sight.
"""

from __future__ import annotations

from typing import Any
from unicodedata import east_asian_width

NAME_CHARACTERS = 60
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str, limit: int = NAME_CHARACTERS) -> str:
    """``text`` on one line, `escaped`. Beyond ``limit`` characters the middle is left out: texts
    differ at their ends."""
    if len(text) > limit:
        # Cut before escaping, too: megabytes would take long.
        text = f"{text[:limit]}…{text[-limit:]}"
    text = escaped(text)
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-(limit // 2) :]}"


def escaped(text: str) -> str:
    """``text`` on one line: invisible characters (controls, direction marks, lone surrogates) are
    escaped as in Python, ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def escaped_lines(text: str) -> str:
    """The same for a text with line breaks of our own."""
    return "\n".join(map(escaped, text.split("\n")))


def columns(text: str) -> int:
    """The width of the text in terminal columns: ideographs take two."""
    return sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def quoted(value: Any) -> str:
    """A value as quoted in an error: its ``repr``, cut."""
    return printable(repr(value))


def _escaped(character: str) -> str:
    code = ord(character)
    if character in _ESCAPES:
        return _ESCAPES[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
