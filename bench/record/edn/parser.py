"""EDN forms in a text, one after the other.

What Python has of its own is used: a vector, a list and a set are lists (a set in its order of
writing), a map is a dictionary, nil is None; a character, a symbol and a keyword are texts, a
keyword without its colon. Tags are dropped, and what they stand before is taken:
``#jepsen.history.Op{...}`` is a map.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, Final, NoReturn

MOST_DEPTH: Final = 64
"""Of forms in forms."""
MOST_DIGITS: Final = 400
"""Of a number."""


class BadForm(ValueError):
    """What is no EDN, and ``offset``, where that shows."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


class CutShort(BadForm):
    """The text ends within a form."""


_SPACE = re.compile(r"(?:[\s,]+|;[^\n]*(?:\n|$))*")
_TOKEN = re.compile(
    r"""
      (?P<open>[\[({]|\#\{)
    | (?P<close>[\])}])
    | "(?P<text>[^"\\]*(?:\\.[^"\\]*)*)"
    | (?P<discard>\#_)
    | \#(?P<tag>[A-Za-z][\w.*+!?$%&=<>/#:'|-]*)
    | \#\#(?P<special>Inf|-Inf|NaN)
    | \\(?P<character>[^\s\w]|\w+)
    | (?P<integer>[+-]?(?:0|[1-9][0-9]*)N?)(?![\w.*+!?$%&=<>/#:'|-])
    | (?P<atom>[\w.*+!?$%&=<>/#:'|-]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_FLOAT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?M?")
_RATIO = re.compile(r"([+-]?[0-9]+)/([0-9]+)")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    '"': '"',
    "\\": "\\",
    "/": "/",
    "'": "'",
}
_CHARACTERS = {
    "newline": "\n",
    "space": " ",
    "tab": "\t",
    "return": "\r",
    "backspace": "\b",
    "formfeed": "\f",
}
_SPECIALS = {"Inf": float("inf"), "-Inf": float("-inf"), "NaN": float("nan")}
_NAMES = {"nil": None, "true": True, "false": False}
_CLOSERS = {"[": "]", "(": ")", "{": "}", "#{": "}"}
_NOTHING = object()


def skip_space(text: str, at: int) -> int:
    """The next place that is neither space nor comment."""
    found = _SPACE.match(text, at)
    assert found is not None, "the pattern matches the empty text, too"
    return found.end()


def read_form(text: str, at: int) -> tuple[Any, int]:
    """The form that begins at ``at`` (where `skip_space` led), and where it ends. Raises BadForm,
    and CutShort where the text ends too early."""
    return _Reader(text).form(at, 0)


def read_only_form(text: str) -> Any:
    """The one form that a text consists of. Raises BadForm."""
    form, at = read_form(text, skip_space(text, 0))
    at = skip_space(text, at)
    if at < len(text):
        raise BadForm(at, "there is more than one form")
    return form


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text

    def form(self, at: int, depth: int) -> tuple[Any, int]:
        while True:
            form, at = self._maybe_form(at, depth)
            if form is not _NOTHING:
                return form, at
            at = skip_space(self.text, at)

    def _maybe_form(self, at: int, depth: int) -> tuple[Any, int]:
        """`_NOTHING` for what is discarded."""
        found = _TOKEN.match(self.text, at)
        if found is None:
            self._refuse(at)
        kind, end = found.lastgroup, found.end()
        if kind == "integer":
            return self._integer(found["integer"], at), end
        if kind == "atom":
            return self._atom(found["atom"], at), end
        if kind == "open":
            return self._collection(found["open"], at, end, depth)
        if kind == "text":
            return self._unescaped(found["text"], at), end
        if kind in ("discard", "tag"):
            if depth > MOST_DEPTH:
                raise BadForm(at, f"forms in forms, more than {MOST_DEPTH} deep")
            form, end = self.form(skip_space(self.text, end), depth + 1)
            return (form if kind == "tag" else _NOTHING), end
        if kind == "special":
            return _SPECIALS[found["special"]], end
        if kind == "character":
            return self._character(found["character"], at), end
        raise BadForm(at, f"{self.text[at]} closes nothing")

    def _refuse(self, at: int) -> NoReturn:
        if at >= len(self.text):
            raise CutShort(at, "the file ends within a form")
        if self.text[at] == '"':
            raise CutShort(at, "a text without its closing quote")
        raise BadForm(at, f"{self.text[at : at + 12]!r} is no EDN")

    def _collection(self, opener: str, begin: int, at: int, depth: int) -> tuple[Any, int]:
        if depth > MOST_DEPTH:
            raise BadForm(begin, f"forms in forms, more than {MOST_DEPTH} deep")
        text, closer = self.text, _CLOSERS[opener]
        forms: list[Any] = []
        while True:
            at = skip_space(text, at)
            if text.startswith(closer, at):
                break
            if at < len(text) and text[at] in "])}":
                raise BadForm(at, f"{text[at]} closes a {opener}")
            if at >= len(text):
                raise CutShort(begin, f"a {opener} that nobody closes")
            form, at = self._maybe_form(at, depth + 1)
            if form is not _NOTHING:
                forms.append(form)
        if opener != "{":
            return forms, at + 1
        if len(forms) % 2:
            raise BadForm(begin, "a map with a key that has no value")
        try:
            found = dict(zip(map(_hashable, forms[::2]), forms[1::2], strict=True))
        except TypeError:
            raise BadForm(begin, "a map with a map as a key") from None
        if len(found) < len(forms) // 2:
            raise BadForm(begin, "a map with a key that is given twice")
        return found, at + 1

    def _atom(self, word: str, at: int) -> Any:
        if word in _NAMES:
            return _NAMES[word]
        if word[0] == ":":
            if len(word) == 1 or word[1] == ":":
                raise BadForm(at, f"{word!r} is no keyword")
            return word[1:]
        if word[0].isdigit() or (word[0] in "+-" and word[1:2].isdigit()):
            return self._number(word, at)
        if word[0] == "#":
            raise BadForm(at, f"{word[:12]!r} is no EDN")
        return word

    def _integer(self, digits: str, at: int) -> int:
        if len(digits) > MOST_DIGITS:
            raise BadForm(at, f"a number of more than {MOST_DIGITS} digits")
        return int(digits.removesuffix("N"))

    def _number(self, word: str, at: int) -> Any:
        if len(word) > MOST_DIGITS:
            raise BadForm(at, f"a number of more than {MOST_DIGITS} digits")
        if _FLOAT.fullmatch(word):
            return float(word.removesuffix("M"))
        ratio = _RATIO.fullmatch(word)
        if ratio is None or not int(ratio[2]):
            raise BadForm(at, f"{word!r} is no number")
        fraction = Fraction(int(ratio[1]), int(ratio[2]))
        return int(fraction) if fraction.denominator == 1 else str(fraction)

    def _unescaped(self, text: str, at: int) -> str:
        if "\\" not in text:
            return text

        def one(found: re.Match[str]) -> str:
            what = found[1]
            if what[0] == "u" and len(what) == 5:
                return chr(int(what[1:], 16))
            if what[0] in "01234567":
                return chr(int(what, 8))
            if what not in _ESCAPES:
                raise BadForm(at, f"\\{what} means nothing in a text")
            return _ESCAPES[what]

        return _ESCAPE.sub(one, text)

    def _character(self, name: str, at: int) -> str:
        if len(name) == 1:
            return name
        if name in _CHARACTERS:
            return _CHARACTERS[name]
        if re.fullmatch(r"u[0-9a-fA-F]{4}", name):
            return chr(int(name[1:], 16))
        raise BadForm(at, f"\\{name[:12]} is no character")


def _hashable(form: Any) -> Any:
    return tuple(map(_hashable, form)) if isinstance(form, list) else form
