"""What eventual consistency leaves of each write, from the history alone.

Versions that are vector clocks (a read's names all that its node knew of the key) say which write
had seen which: a write's *dot* is its node and that node's count in its version, and its *past* is
the context that its client gave, or else all that its node knew (Preguiça et al., "Dotted Version
Vectors", 2010). So the writes that must be visible are known: those that no other one has seen.
Versions with a total order say who wins.

A write that nobody answered may have taken effect, and may have superseded what it had seen; where
that is unknown, anything. It excuses a write that is gone, and no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from nodes.contract.replica import Request, Version
from nodes.simulator.load import OperationRecord

Finding = tuple[str, str]
"""A check, and what it found."""
Dot: TypeAlias = tuple[str, int]

READS = 30
"""Reads of a key that are judged, spread over the run, beside the last ones."""


class Written:
    """A write that was acknowledged: its dot, and what it had seen."""

    __slots__ = ("dot", "past", "record")

    def __init__(self, record: OperationRecord, node: str, past: Mapping[str, int]) -> None:
        assert isinstance(record.version, dict)
        self.record = record
        self.dot: Dot = (node, record.version[node])
        self.past = past


class Key:
    """What happened to a key. ``written``: writes that are known in full; ``unknown``: those that
    nobody answered, or that were sent to several nodes, with their contexts."""

    def __init__(self) -> None:
        self.written: list[Written] = []
        self.unknown: list[tuple[OperationRecord, Version]] = []
        self.reads: list[OperationRecord] = []
        self._nodes: list[str] = []
        self._counts: dict[Written, tuple[int, ...]] = {}

    def seen_by(self, known: Sequence[Written]) -> Mapping[str, int]:
        """The merged pasts of ``known``. By columns, since it is asked of hundreds at once."""
        if not self._counts:
            self._nodes = list({node: None for written in self.written for node in written.past})
            for written in self.written:
                count = written.past.get
                self._counts[written] = tuple([count(node, 0) for node in self._nodes])
        rows = [self._counts[written] for written in known]
        return (
            dict(zip(self._nodes, map(max, zip(*rows, strict=True)), strict=True)) if rows else {}
        )


def _is_write(record: OperationRecord) -> bool:
    return record.op in ("write", "delete")


def by_key(
    history: Sequence[OperationRecord], requests: Sequence[Request], elsewhere: Collection[int]
) -> dict[str, Key]:
    """``requests``: what was asked, in the order of the history; ``elsewhere``: numbers of requests
    that were sent to more than one node."""
    keys: dict[str, Key] = defaultdict(Key)
    for record, request in zip(history, requests, strict=True):
        key, version = keys[record.key], record.version
        context = request.operation.context
        if record.op == "read":
            if record.outcome == "ok":
                key.reads.append(record)
        elif record.outcome == "fail":
            continue
        elif record.outcome == "ok" and isinstance(version, dict) and record.id not in elsewhere:
            node = record.node
            assert node is not None
            if isinstance(context, dict):
                past = context
            else:
                past = {**version, node: version.get(node, 0) - 1}
            if node in version:
                key.written.append(Written(record, node, past))
                continue
            key.unknown.append((record, context))
        else:
            key.unknown.append((record, context))
    return keys


def visible(key: Key, read: OperationRecord) -> Iterator[str]:
    """What is wrong with a read that tells its clock: it shows the writes in it that no other write
    in it has seen."""
    clock = read.version
    shown = read.value if isinstance(read.value, list) else [read.value]
    if not isinstance(clock, dict):
        if clock is None and shown != [None]:
            yield f"shows {shown} without a version"
        return
    counted = clock.get
    known = [w for w in key.written if counted(w.dot[0], 0) >= w.dot[1]]
    seen = key.seen_by(known)
    for written in known:
        node, count = written.dot
        record = written.record
        superseded = seen.get(node, 0) >= count
        if record.op == "delete":
            continue
        if record.value in shown:
            if superseded:
                by = next(w for w in known if w.past.get(node, 0) >= count)
                yield f"shows {record.value!r}, which {_told(by.record)} has seen"
        elif not superseded and not _excused(key, written, read):
            yield f"does not show {_told(record)}, which no other write has seen"
    for written in key.written:
        node, count = written.dot
        record = written.record
        if record.op == "write" and record.value in shown and clock.get(node, 0) < count:
            yield f"shows {_told(record)}, which its version does not count in"


def _excused(key: Key, written: Written, read: OperationRecord) -> bool:
    """Whether a write that may have taken effect may have superseded another one before a read."""
    node, count = written.dot
    end_ns = read.completed_ns or 0
    for record, context in key.unknown:
        if record.invoked_ns < end_ns:
            if not isinstance(context, dict):
                return True
            if context.get(node, 0) >= count:
                return True
    return False


def _told(record: OperationRecord) -> str:
    return f"{record.process} {record.op} {record.value!r} with version {record.version}"


def siblings(keys: Mapping[str, Key], last: int) -> Iterator[Finding]:
    """Reads that show other writes than they should. ``last``: so many reads of each key are
    judged at the end, all of them."""
    for name, key in keys.items():
        if not key.written:
            continue
        step = max(1, len(key.reads) // READS)
        for read in [*key.reads[:-last:step], *key.reads[-last:]]:
            for told in visible(key, read):
                yield "causality", f"a read of {name} at {read.node} ({read.process}) {told}"
                return


def newer_than_context(
    history: Sequence[OperationRecord], requests: Sequence[Request], elsewhere: Collection[int]
) -> Iterator[Finding]:
    """A write whose version does not come after the version that its client told."""
    for record, request in zip(history, requests, strict=True):
        context = request.operation.context
        if (
            record.outcome != "ok"
            or not _is_write(record)
            or context is None
            or record.id in elsewhere
        ):
            continue
        if not comes_after(record.version, context):
            yield "causality", f"{_told(record)} had read {context}"
            return


def comes_after(version: Version, before: Version, *, or_equal: bool = False) -> bool:
    """Whether a version counts in another one and more; versions of different kinds never do."""
    if isinstance(version, dict) and isinstance(before, dict):
        return all(version.get(node, 0) >= count for node, count in before.items()) and (
            or_equal or version != before
        )
    if type(version) is not type(before):
        return or_equal and before is None
    if version == before:
        return or_equal
    return bool(version > before)  # type: ignore[operator]


def never_back(history: Sequence[OperationRecord], elsewhere: Collection[int]) -> Iterator[Finding]:
    """At one node, the version of a key goes back: what began after another operation had ended
    there is older than it. What was sent elsewhere too may have been answered there."""
    ended: dict[tuple[str | None, str], list[OperationRecord]] = defaultdict(list)
    begun: dict[tuple[str | None, str], list[OperationRecord]] = defaultdict(list)
    for record in history:
        if (
            record.outcome == "ok"
            and record.id not in elsewhere
            and (record.op == "read" or _is_write(record))
        ):
            begun[record.node, record.key].append(record)
            ended[record.node, record.key].append(record)
    for place, records in begun.items():
        done = sorted(ended[place], key=lambda record: record.completed_ns or 0)
        newest, number = None, 0
        for record in records:
            while (done[number].completed_ns or 0) < record.invoked_ns:
                version = done[number].version
                if newest is None or comes_after(version, newest.version):
                    newest = done[number]
                number += 1
            if newest is not None and not comes_after(
                record.version, newest.version, or_equal=True
            ):
                yield "causality", f"at {place[0]}, after {_told(newest)}: {_told(record)}"
                return


def one_value(history: Sequence[OperationRecord], elsewhere: Collection[int]) -> Iterator[Finding]:
    """Where versions have a total order: one version names two values."""
    known: dict[tuple[str, Any], OperationRecord] = {}
    for record in history:
        version = record.version
        if record.outcome != "ok" or record.id in elsewhere or not isinstance(version, list):
            continue
        value = None if record.op == "delete" else record.value
        first = known.setdefault((record.key, tuple(version)), record)
        other = None if first.op == "delete" else first.value
        if first is not record and (value != other or (_is_write(first) and _is_write(record))):
            yield "causality", f"{_told(first)}, and {_told(record)}"
            return
