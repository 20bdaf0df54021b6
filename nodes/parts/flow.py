"""How much goes into one message, and how much may be on its way without an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

WINDOW_BATCHES = 16
"""Batches that may be on their way to a node without an acknowledgement."""

CHARACTERS_PER_MESSAGE = 250_000
"""Keys and values of one message, about: so it fits a frame, however many bytes a character has."""

Record = TypeVar("Record")


def portions(
    keys: Iterable[str], records: Mapping[str, Record], characters_of: Callable[[Record], int]
) -> Iterator[dict[str, Record]]:
    """The records of those ``keys`` that have one, in portions that fit a frame. A record is never
    divided. However often a key is asked for, its record comes once."""
    portion: dict[str, Record] = {}
    characters = 0
    for key in dict.fromkeys(keys):
        record = records.get(key)
        if record is None:
            continue
        characters += len(key) + characters_of(record)
        portion[key] = record
        if characters > CHARACTERS_PER_MESSAGE:
            yield portion
            portion, characters = {}, 0
    if portion:
        yield portion
