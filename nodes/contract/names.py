"""What may be a name, and names that people mistype.

A name becomes part of a path, of a topic or of a container's name, so that none may lead elsewhere:
up a folder, to every topic, into an option.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from nodes.errors import InvalidInput

MAX_CHARACTERS = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_CHARACTERS - 1}}}")
_SHOWN = 60
_LISTED = 40


class BadName(InvalidInput):
    """One line: which name it is, and what a name may be."""


def check_name(name: str, what: str = "") -> str:
    """The name itself. ``what`` it is the name of begins the line of BadName."""
    if _NAME.fullmatch(name):
        return name
    shown = ascii(name[:_SHOWN]) + ("..." if len(name) > _SHOWN else "")
    raise BadName(
        f"{what}{': ' if what else ''}{shown} is no name; a name has letters (a to z), digits, "
        f"dots, dashes and underscores, 1 to {MAX_CHARACTERS} characters, and begins with a letter "
        "or a digit"
    )


def did_you_mean(given: str, known: Iterable[str], word: str = "known:") -> str:
    """The given name, quoted, the one of the ``known`` that is like it, if any, and after ``word``
    all of them, unless there are too many to read."""
    names = list(known)
    quoted = repr(given[:_SHOWN]) + ("..." if len(given) > _SHOWN else "")
    close = difflib.get_close_matches(given[:_SHOWN].lower(), names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    if close and len(names) > _LISTED:
        return f"{quoted}; {hint.strip()}"
    return f"{quoted}; {hint}{word} {', '.join(names) or 'none'}"
