"""What may come off the wire: how large its numbers are, and what is said of it when it lies.

Messages are decoded by their types, so a bound that is part of a type holds wherever such a message
comes from (`WireStruct`). Numbers that only ever grow (terms, ballots, indices, versions) are a
`Count`: it ends so far below 64 bits that no increment can leave them. Nor may one message use up
what is left: where a replica takes over a higher number than its own, that may be at most
`MAX_LEAP` ahead (`check_leap`).
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

MAX_INTEGER = 2**63 - 1
MAX_COUNT = 2**62
MAX_LEAP = 2**40
"""No node misses so much: it is 10,000 increments a second for three years."""
_MAX_FLOAT = 1.7976931348623157e308

Integer: TypeAlias = Annotated[int, Meta(ge=-MAX_INTEGER - 1, le=MAX_INTEGER)]
"""A signed integer of 64 bits."""
Finite: TypeAlias = Annotated[float, Meta(ge=-_MAX_FLOAT, le=_MAX_FLOAT)]
"""Neither infinite nor NaN."""
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
"""A number that only ever grows."""
Natural: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
"""A number that others choose and nobody here increments."""


class WireStruct(
    msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """Base of messages and records: told apart by their names, and of exactly their fields."""


class BadMessage(ValueError):
    """A peer's message that cannot be true, whatever this replica knows: it is dropped. Raised
    where the replica's state is whole, and nothing was written on behalf of the message."""


def check_leap(what: str, number: int, known: int) -> None:
    """Raises BadMessage where a peer's ``number`` is out of reach from the one that is ``known``:
    whoever took it over could soon not go on."""
    if number - known > MAX_LEAP:
        raise BadMessage(f"{what} {number} is more than {MAX_LEAP} above {known}")
