"""What may come off the wire: how large its numbers are, and what is said of it when it lies.

Messages are decoded by their types, so a bound that is part of a type holds wherever such a message
comes from (`WireStruct`). Numbers that only ever grow (terms, ballots, indices, versions) are a
`Count`. A replica takes over a higher number than its own only if it is within *reach*
(`check_reach`), which is a function of the time of day and of nothing else:

1. *What one honest node has taken over, no other one refuses for good.* The first took it while its
   clock said t, so it is at most ``reach(t)``. The other takes it as soon as its own clock says t:
   after the difference of their clocks, however far it is behind, and whatever it has missed. A
   bound that is relative to what a node knows does not have this: lied to by nearly as much as it
   allows, some nodes move on from there, and refuse or are refused by one that missed it.
2. *No lies, however many, use up the 64 bits.* Together they bring all nodes to the reach, and no
   further. It grows by 2^28 a second, so that nodes go on from there in steps of one; it never is
   above 2^61, half of what a `Count` can be; and it was 2^60 in 1970, so that nobody who tells the
   truth is ever near it, whatever his clock says.

In 2106 the reach stands still. A node at 2^61 then still goes on by itself, but is refused by those
that are not: nobody ends, and each says so (`BadMessage` is counted in `status`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

MAX_INTEGER = 2**63 - 1
MAX_COUNT = 2**62
_ALWAYS_WITHIN_REACH = 2**60
_REACH_PER_S = 2**28
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


def reach(wall_s: float) -> int:
    """The highest number that is taken over from a peer at ``wall_s`` (seconds since 1970)."""
    since_s = max(0.0, min(wall_s, _ALWAYS_WITHIN_REACH / _REACH_PER_S))
    return _ALWAYS_WITHIN_REACH + int(since_s * _REACH_PER_S)


def check_reach(what: str, number: int, known: int, wall: Callable[[], float]) -> None:
    """Raises BadMessage where a peer's ``number`` is above the one that is ``known`` here, and out
    of reach by the clock ``wall``: see the top of this file."""
    if number > _ALWAYS_WITHIN_REACH and number > known and number > reach(wall()):
        raise BadMessage(f"{what} {number}: nobody comes so far")
