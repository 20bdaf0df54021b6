"""A command that is ended from outside, by Ctrl-C, SIGTERM or SIGHUP.

It heals, stops what it started, and keeps what it has; then it says so in one line, and its exit
code is that of the signal: 128 and its number.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from nodes.errors import CapbenchError

ENDED_BY = (signal.SIGTERM, signal.SIGHUP)
"""The signals that end a command, beside Ctrl-C, of which Python makes a KeyboardInterrupt."""

_heard = [signal.SIGINT]
"""What ends this command: until another signal has come, only Ctrl-C can."""


class Interrupted(CapbenchError):
    """A command was ended. ``what`` it was at, what is ``kept`` and where, and what to do
    ``then``: a few words each."""

    exit_code = 128 + signal.SIGINT

    def __init__(self, what: str = "", kept: str = "", then: str = "") -> None:
        self.exit_code = 128 + _heard[-1]
        begin = f"{what}: " if what else ""
        super().__init__("; ".join(filter(None, (f"{begin}{by_what()}", kept, then))))


def by_what() -> str:
    """What ended this command, in words."""
    number = _heard[-1]
    return f"interrupted by {'Ctrl-C' if number == signal.SIGINT else number.name}"


@contextlib.contextmanager
def ctrl_c_ignored() -> Iterator[None]:
    """Processes that begin within it inherit that Ctrl-C is no business of theirs, also while they
    import. In other threads than the main one nothing can be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def signals_as_exit() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise SystemExit in the main thread, so that ``finally`` blocks
    and context managers heal and stop what was started. A signal that is ignored stays ignored, as
    `nohup` wants it. For the main thread only."""

    def leave(number: int, frame: FrameType | None) -> None:
        _heard[-1] = signal.Signals(number)
        raise SystemExit(128 + number)

    _heard[-1] = signal.SIGINT
    before = {number: signal.getsignal(number) for number in ENDED_BY}
    heard = [number for number in ENDED_BY if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def was_ended(end: KeyboardInterrupt | SystemExit) -> bool:
    """Whether a signal was the reason."""
    return isinstance(end, KeyboardInterrupt) or end.code in {128 + each for each in ENDED_BY}


@contextlib.contextmanager
def recording(what: str, where: Path, then: str) -> Iterator[None]:
    """Within it, ``what`` records into the folder ``where``; who is ended meanwhile is told so, and
    what to do ``then`` with what there is, if anything. Raises Interrupted."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        if not was_ended(end):
            raise
        if not any(path.is_file() for path in where.rglob("*")):
            raise Interrupted(what, "nothing was recorded yet") from end
        raise Interrupted(what, recorded(where), then) from end


def recorded(where: Path) -> str:
    """What is kept."""
    return f"what was recorded so far is kept in {where}"
