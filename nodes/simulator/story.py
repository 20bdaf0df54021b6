"""What happened in a traced run, as records: what a message diagram is drawn from."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Fate: TypeAlias = Literal["arrived", "lost", "cut", "under way"]
Happening: TypeAlias = Literal[
    "start", "crash", "pause", "resume", "mark", "fault", "heal", "phase", "alarm"
]


class Arrow(msgspec.Struct, kw_only=True):
    """A message, a request or a reply. ``arrived_s``: when it arrived, or was cut on its way;
    None: it did neither. ``fate`` ``arrived``: at the node, which may be down then."""

    src: str
    dst: str
    label: str
    text: str
    sent_s: float
    arrived_s: float | None = None
    fate: Fate = "under way"


class Moment(msgspec.Struct, frozen=True):
    """Something that happened to ``who`` (a node; empty: to the whole cluster)."""

    at_s: float
    who: str
    what: Happening
    text: str


class Story(msgspec.Struct):
    """A run, in order of time (messages: of being sent)."""

    arrows: list[Arrow] = []
    moments: list[Moment] = []
