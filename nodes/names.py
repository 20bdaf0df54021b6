"""Names that people mistype."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 60


def did_you_mean(given: str, known: Iterable[str], word: str = "known:") -> str:
    """The given name, quoted, the one of the ``known`` that is like it, if any, and after ``word``
    all of them."""
    names = list(known)
    quoted = repr(given[:_SHOWN]) + ("..." if len(given) > _SHOWN else "")
    close = difflib.get_close_matches(given[:_SHOWN].lower(), names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{quoted}; {hint}{word} {', '.join(names) or 'none'}"
