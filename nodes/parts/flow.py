"""How much goes into one message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

Record = TypeVar("Record")


def portions(
    keys: Iterable[str],
    records: Mapping[str, Record],
    characters_of: Callable[[Record], int],
    most_characters: int,
) -> Iterator[dict[str, Record]]:
    """The records of those ``keys`` that have one, in portions that end after the record that
    exceeds ``most_characters``. A record is never divided, and comes once however often its key is
    asked for."""
    portion: dict[str, Record] = {}
    characters = 0
    for key in dict.fromkeys(keys):
        record = records.get(key)
        if record is None:
            continue
        characters += len(key) + characters_of(record)
        portion[key] = record
        if characters > most_characters:
            yield portion
            portion, characters = {}, 0
    if portion:
        yield portion
