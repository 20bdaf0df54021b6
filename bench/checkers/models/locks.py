"""A lock: a process acquires it, and releases it again before anybody else acquires it.

A *hold* is an acquire and the release of the same process that follows it. It certainly lasts from
the answer of the acquire until the release begins; without a release, for ever.

- *held twice*: two holds certainly last at one instant.
- *not held*: a release was answered ok by a process that cannot have held the lock then.

A ``lock`` has none of these: then it is linearizable, since holds that do not overlap can be put in
one order, just as the clusters of a register's values (`bench.checkers.zones`).

A ``fenced-lock`` may be lost while its holder still believes in it (it has a lease). Each acquire
answers a number, and these must grow, so that whoever checks them sees only one holder:

- *token repeated*: two acquires were answered one number.
- *token not growing*: an acquire began after another had ended, and has a smaller number.

An acquire that ended ``info`` counts if its process released the lock afterwards without another.
A release that ended ``info`` may have ended any later hold of its process, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bench.checkers.models.findings import Findings, ended_ok, keys_of, named
from bench.record.columns import INFO, NEVER, OK, Int64s
from bench.record.models.operations import Operations


def check_lock(o: Operations, findings: Findings) -> None:
    """What contradicts a lock, key by key."""
    acquired = 0
    for key, rows in keys_of(o):
        of = f" {key}" if key else ""
        holds = _holds(o, rows, of, findings)
        acquired += len(holds)
        _note_held_twice(o, holds, of, findings)
    findings.details["holds"] = acquired
    if o.told("acquire"):
        findings.details["note"] = (
            "what its acquires were answered was not looked at; growing numbers are of a"
            " fenced-lock (--model)"
        )


@dataclass(slots=True)
class _Hold:
    """``rows``: the acquire and the release, as far as they are there. ``earliest``: by when it
    was surely on, ``latest``: when it was still."""

    rows: list[int]
    earliest: int
    latest: int


class _Process:
    """The holds of one process. ``unsure``: its acquires and releases of unknown outcome that
    nothing has called for yet; each may take effect at any time after it began."""

    def __init__(self, o: Operations) -> None:
        self.o = o
        self.holds: list[_Hold] = []
        self.current: _Hold | None = None
        self.unsure: dict[str, list[int]] = {"acquire": [], "release": []}

    def acquire(self, row: int) -> None:
        """It was answered that it has the lock."""
        self.end()
        self.current = _Hold([row], int(self.o.completed[row]), NEVER)
        self.holds.append(self.current)

    def release(self, row: int) -> bool:
        """It was answered that it has released the lock. False if it cannot have had it."""
        begun = int(self.o.invoked[row])
        if self.current is not None:
            self.current.rows.append(row)
            self.current.latest = begun
            self.current = None
            return True
        if not self.unsure["acquire"]:
            return False
        acquire = self.unsure["acquire"].pop(0)
        self.holds.append(_Hold([acquire, row], int(self.o.completed[row]), begun))
        return True

    def end(self) -> None:
        """A hold that nobody is known to have released: by a release of unknown outcome, if there
        is one."""
        if self.current is not None and self.unsure["release"]:
            row = self.unsure["release"].pop(0)
            begun = self.o.invoked[[row, self.current.rows[0]]]
            self.current.rows.append(row)
            self.current.latest = int(begun.max())
        self.current = None


def _holds(o: Operations, rows: Int64s, of: str, findings: Findings) -> list[_Hold]:
    holds: list[_Hold] = []
    order = rows[np.lexsort((rows, o.gave_up[rows], o.invoked[rows], o.process[rows]))]
    ends = np.flatnonzero(np.diff(o.process[order])) + 1
    for mine in np.split(order, ends):
        process = _Process(o)
        for row in mine.tolist():
            outcome, name = int(o.outcome[row]), o.names[o.op[row]]
            if outcome == INFO:
                process.unsure[name].append(row)
            elif outcome == OK and name == "acquire":
                process.acquire(row)
            elif outcome == OK and not process.release(row):
                words = f"{o.processes[o.process[row]]} released the lock{of}, and did not hold it"
                findings.add("not held", [row], words)
        process.end()
        holds += process.holds
    return holds


def _note_held_twice(o: Operations, holds: list[_Hold], of: str, findings: Findings) -> None:
    """Of holds that certainly last for some time, no two may overlap; one that may last no time at
    all must not lie inside another."""
    lasting = sorted((h for h in holds if h.earliest < h.latest), key=lambda h: h.earliest)
    for earlier, later in pairwise(lasting):
        if later.earliest < earlier.latest:
            _add_held_twice(o, earlier, later, of, findings)
    begins = [hold.earliest for hold in lasting]
    for hold in holds:
        if hold.earliest < hold.latest:
            continue
        place = int(np.searchsorted(begins, hold.latest, "left")) - 1
        if place >= 0:
            around = max(lasting[: place + 1], key=lambda each: each.latest)
            if around.latest > hold.earliest:
                _add_held_twice(o, around, hold, of, findings)


def _add_held_twice(
    o: Operations, first: _Hold, second: _Hold, of: str, findings: Findings
) -> None:
    who = [o.processes[o.process[hold.rows[0]]] for hold in (first, second)]
    words = f"the lock{of} was held by {who[0]}, and by {who[1]} at the same time"
    findings.add("held twice", [*first.rows, *second.rows], words)


def check_fenced_lock(o: Operations, findings: Findings) -> None:
    """What contradicts growing numbers, key by key."""
    told = 0
    for key, rows in keys_of(o):
        acquires = ended_ok(o, named(o, rows, "acquire"))
        tokens = np.array([_token(o, row) for row in acquires.tolist()], np.int64)
        told += len(tokens)
        _note_tokens(o, acquires, tokens, f" of {key}" if key else "", findings)
    findings.details["tokens"] = told
    if told == 0:
        findings.undecided = "nobody acquired the lock"


def _token(o: Operations, row: int) -> int:
    value: Any = o.value_of(row)
    if isinstance(value, dict):
        value = value.get("fence", value.get("token"))
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise o.refused(row, "an acquire of a fenced-lock answers its number, an integer")
    return value


def _note_tokens(
    o: Operations, acquires: Int64s, tokens: Int64s, of: str, findings: Findings
) -> None:
    by_token = np.lexsort((o.invoked[acquires], tokens))
    twice = np.flatnonzero(tokens[by_token][1:] == tokens[by_token][:-1])
    if len(twice):
        rows = acquires[by_token[twice[0] : twice[0] + 2]].tolist()
        words = f"two acquires{of} have the number {tokens[by_token[twice[0]]]}"
        findings.add("token repeated", rows, words, len(twice))
    # Of those with a larger number, the one that ended first.
    falling = np.argsort(-tokens, kind="stable")
    ended = o.completed[acquires[falling]]
    first = np.minimum.accumulate(ended) if len(ended) else ended
    larger = np.searchsorted(-tokens[falling], -tokens[falling], "left")
    late = np.flatnonzero(
        (larger > 0) & (first[np.maximum(larger - 1, 0)] < o.invoked[acquires[falling]])
    )
    if len(late):
        place = int(late[0])
        earlier = int(np.argmin(ended[: larger[place]]))
        rows = [int(acquires[falling[earlier]]), int(acquires[falling[place]])]
        words = (
            f"an acquire{of} has the number {tokens[falling[place]]}, and one that had ended "
            f"before has {tokens[falling[earlier]]}"
        )
        findings.add("token not growing", rows, words, len(late))
