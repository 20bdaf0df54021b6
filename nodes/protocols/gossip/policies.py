"""What becomes of concurrent versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from nodes.contract.replica import Version
from nodes.parts.vector_clock import Clock, covers, dominates, merge
from nodes.protocols.gossip.messages import Sibling

_LOGICAL_BITS = 16
_FEW = 20


class KeepSiblings:
    """Concurrent versions are kept together until a write supersedes them."""

    @staticmethod
    def supersedes(t: Sibling, s: Sibling) -> bool:
        """Whether ``t`` was written by someone who had seen ``s``."""
        return covers(t.past, s.node, s.counter)

    @classmethod
    def merge(cls, ours: Sequence[Sibling], theirs: Sequence[Sibling]) -> tuple[Sibling, ...]:
        """The versions of both that no other supersedes. Order and repetition do not matter.
        ``ours`` is what an earlier merge returned; it is returned itself if there is no news."""
        if ours == theirs:
            return tuple(ours)
        if not ours and len(theirs) == 1:
            return tuple(theirs)
        # Most of what is told is known. Few siblings are compared faster one by one than by a
        # clock of them all.
        news: list[Sibling] = []
        if len(ours) > _FEW:
            dots = {(t.node, t.counter) for t in ours}
            news = [s for s in theirs if (s.node, s.counter) not in dots]
            if news:
                pasts = _pasts(ours)
                news = [s for s in news if not _is_seen(s, pasts)]
        else:
            for s in theirs:
                node, counter = s.node, s.counter
                for t in ours:
                    if (t.counter == counter and t.node == node) or t.past.get(node, 0) >= counter:
                        break
                else:
                    news.append(s)
        pasts = _pasts(theirs)
        if len(pasts) == 1:
            seen = pasts[0].past.get
            kept = [s for s in ours if seen(s.node, 0) < s.counter]
        else:
            kept = [s for s in ours if not _is_seen(s, pasts)]
        if not news and len(kept) == len(ours):
            return tuple(ours)
        if not kept and len(news) == len(theirs) == 1:
            return tuple(theirs)
        by_dot = {(s.node, s.counter): s for s in news if not _is_seen(s, pasts)}
        for s in kept:
            by_dot[s.node, s.counter] = s
        return tuple([by_dot[dot] for dot in sorted(by_dot)])

    @staticmethod
    def problem(siblings: Sequence[Sibling]) -> str | None:
        """Why no replica can hold these, if so."""
        for number, s in enumerate(siblings):
            if s.past.get(s.node, 0) >= s.counter:
                return f"{s} is in its own past"
            if number:
                before = siblings[number - 1]
                if (before.node, before.counter) >= (s.node, s.counter):
                    return "the siblings are not in the order of their dots"
        pasts = _pasts(siblings)
        if len(siblings) > 1 and any(_is_seen(s, pasts) for s in siblings):
            return "a sibling supersedes another one"
        return None

    @staticmethod
    def missing(present: Sequence[Sibling], wanted: Sequence[Sibling]) -> Sibling | None:
        """The first of ``wanted`` that is neither ``present`` nor superseded by what is."""
        if len(present) > _FEW:
            objects = set(map(id, present))
            wanted = [s for s in wanted if id(s) not in objects]
            if not wanted:
                return None
            known: dict[tuple[str, int], list[Sibling]] = {}
            for t in present:
                known.setdefault((t.node, t.counter), []).append(t)
            wanted = [s for s in wanted if s not in known.get((s.node, s.counter), ())]
            present = _pasts(present) if wanted else ()
            for s in wanted:
                if not _is_seen(s, present):
                    return s
            return None
        for s in wanted:
            if s not in present and not _is_seen(s, present):
                return s
        return None

    @staticmethod
    def clock(siblings: Sequence[Sibling]) -> dict[str, int]:
        """All that is known of the key: present, or superseded by what is present."""
        clock = dict(siblings[0].past) if len(siblings) == 1 else merge(*[s.past for s in siblings])
        for s in siblings:
            clock[s.node] = max(s.counter, clock.get(s.node, 0))
        return clock

    @staticmethod
    def lacks(ours: Clock, theirs: Clock) -> bool:
        """Whether ``theirs`` knows something that ``ours`` does not."""
        return not dominates(ours, theirs)

    @staticmethod
    def version(clock: Clock) -> Version:
        """The clock as clients see it."""
        return dict(clock)


class LastWriteWins:
    """One version stays: that of the greatest (hybrid logical clock, node)."""

    @staticmethod
    def supersedes(t: Sibling, s: Sibling) -> bool:
        """Whether ``t`` wins."""
        return (t.counter, t.node) > (s.counter, s.node)

    @classmethod
    def merge(cls, ours: Sequence[Sibling], theirs: Sequence[Sibling]) -> tuple[Sibling, ...]:
        """The winner."""
        winner = max((*ours, *theirs), key=lambda s: (s.counter, s.node))
        if ours and winner is ours[0]:
            return tuple(ours)
        return tuple(theirs) if len(theirs) == 1 else (winner,)

    @staticmethod
    def problem(siblings: Sequence[Sibling]) -> str | None:
        """Why no replica can hold these, if so."""
        return None if len(siblings) == 1 and not siblings[0].past else "more than one version"

    @classmethod
    def missing(cls, present: Sequence[Sibling], wanted: Sequence[Sibling]) -> Sibling | None:
        """The first of ``wanted`` that is neither ``present`` nor superseded by what is."""
        for s in wanted:
            if s not in present and not any(cls.supersedes(t, s) for t in present):
                return s
        return None

    @staticmethod
    def clock(siblings: Sequence[Sibling]) -> dict[str, int]:
        """The winner's stamp."""
        return {s.node: s.counter for s in siblings}

    @staticmethod
    def lacks(ours: Clock, theirs: Clock) -> bool:
        """Whether ``theirs`` is the later stamp."""
        return _stamp(ours) < _stamp(theirs)

    @staticmethod
    def version(clock: Clock) -> Version:
        """``[milliseconds since the epoch, counter, node]``."""
        stamp, node = _stamp(clock)
        return [stamp >> _LOGICAL_BITS, stamp & (1 << _LOGICAL_BITS) - 1, node]


Policy: TypeAlias = type[KeepSiblings] | type[LastWriteWins]


def _pasts(siblings: Sequence[Sibling]) -> Sequence[Sibling]:
    """What has seen as much as ``siblings`` have: they themselves, or one in the place of many. To
    compare many with many one by one takes the square of their number."""
    if len(siblings) <= _FEW:
        return siblings
    return (Sibling("", 0, merge(*(s.past for s in siblings)), None, False, "", 0),)


def _is_seen(s: Sibling, others: Sequence[Sibling]) -> bool:
    """Whether ``s`` is in the past of one of ``others``."""
    node, counter = s.node, s.counter
    for t in others:  # noqa: SIM110 - a generator would cost more than the loop
        if t.past.get(node, 0) >= counter:
            return True
    return False


def _stamp(clock: Clock) -> tuple[int, str]:
    return max(((counter, node) for node, counter in clock.items()), default=(0, ""))
