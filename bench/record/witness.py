"""Witnesses in words: the few operations that cannot be ordered, and the role of each."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from bench.record.history import OperationRecord
from bench.record.printable import columns, printable
from bench.record.verdict import WitnessLine
from nodes.contract.replica import Outcome, Value


class Timed(Protocol):
    """Of an operation, what a bar needs."""

    @property
    def process(self) -> str: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def invoked_ns(self) -> int: ...
    @property
    def completed_ns(self) -> int | None: ...


class Line(Protocol):
    """One operation of any witness, and its role."""

    @property
    def operation(self) -> Timed: ...
    @property
    def role(self) -> str: ...


MOST = 48
"""The most characters of a value that are shown."""
_PADDING = re.compile(r'"\.{8,}')
"""What a load puts before a value to make it long."""
NAMES = 24
"""The most characters of a process's name beside its bar."""


def duration(nanoseconds: int) -> str:
    """``4.1 s``, ``23 ms``, ``710 us``: a duration for people."""
    if nanoseconds >= 1_000_000_000:
        return f"{nanoseconds / 1e9:.1f} s"
    if nanoseconds >= 1_000_000:
        return f"{nanoseconds / 1e6:.0f} ms"
    if nanoseconds >= 1_000:
        return f"{nanoseconds / 1e3:.0f} us"
    return f"{nanoseconds} ns"


def shown(value: Value | list[Value]) -> str:
    """A value as in the history; a long one without its middle, since values differ at their
    ends."""
    text = msgspec.json.encode(value).decode()
    return printable(_PADDING.sub('"…', text), MOST)


def deed(record: OperationRecord) -> str:
    """What an operation did: ``wrote k17=882 (ok)``, ``read k17=641 from n1``."""
    at = (
        f" {'from' if record.op == 'read' else 'at'} {printable(record.node)}"
        if record.node
        else ""
    )
    key = printable(record.key)
    outcome = {
        "ok": "ok",
        "fail": "failed, certainly not applied",
        "info": "outcome unknown",
    }[record.outcome]
    if record.op == "read":
        if record.outcome != "ok":
            return f"read {key}{at} ({outcome})"
        if isinstance(record.value, list):
            return f"read {len(record.value)} siblings of {key}: {shown(record.value)}{at}"
        return f"read {key}={shown(record.value)}{at}"
    if record.op == "write":
        return f"wrote {key}={shown(record.value)}{at} ({outcome})"
    if record.op == "delete":
        return f"deleted {key}{at} ({outcome})"
    change = f"{key} from {shown(record.expected)} to {shown(record.value)}{at}"
    if record.outcome == "ok" and record.applied is False:
        saw = "" if isinstance(record.seen, msgspec.UnsetType) else f": it was {shown(record.seen)}"
        return f"was refused to change {change}{saw}"
    return f"changed {change} ({outcome})"


def lines(records: Sequence[OperationRecord]) -> list[WitnessLine]:
    """The operations in order of invocation, each with its role: ``4.1 s later read k17=641``.

    ``later`` counts from the end of the last operation that had ended by then; an operation that
    overlaps all earlier ones says ``meanwhile``.
    """
    found: list[WitnessLine] = []
    ended: list[int] = []
    for record in sorted(records, key=lambda record: (record.invoked_ns, record.id)):
        before = [end for end in ended if end < record.invoked_ns]
        if not found:
            role = deed(record)
        elif before:
            role = f"{duration(record.invoked_ns - max(before))} later {deed(record)}"
        else:
            role = f"meanwhile {deed(record)}"
        found.append(WitnessLine(operation=record, role=role))
        if record.completed_ns is not None and record.outcome != "info":
            ended.append(record.completed_ns)
    return found


def sentence(witness: Sequence[WitnessLine]) -> str:
    """``c3 wrote k17=882 (ok), then c9, 4.1 s later, read k17=641``: a witness in one sentence."""
    parts = []
    for line in witness:
        who = printable(line.operation.process)
        when, what = _split(line)
        parts.append(f"{when}{who} {what}")
    return ", then ".join(parts)


def timeline(witness: Sequence[Line], width: int = 44) -> str:
    """The operations as bars, one per line, in order of time but not to scale.

    ``|---|`` from invocation to answer, ``|--->`` without a certain end.
    """
    places = _places(witness, width)
    names = [printable(line.operation.process, NAMES) for line in witness]
    who = max(map(columns, names), default=0)
    rows = []
    for line, name, (start, end) in zip(witness, names, places, strict=True):
        bar = "|" + "-" * max(0, (end if end is not None else width) - start - 1)
        bar += "|" if end is not None else ">"
        named = name + " " * (who - columns(name))
        rows.append(f"{named}  " + f"{' ' * start}{bar}".ljust(width + 3) + line.role)
    return "\n".join(rows)


def svg(witness: Sequence[WitnessLine]) -> str:
    """The same as a self-contained ``<svg>`` element that takes its colours from the page."""
    row_height, left, width, right = 34, 150, 420, 20
    places = _places(witness, 1000)
    height = row_height * len(witness) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + right} {height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="12" fill="currentColor">',
        "<title>The operations of the witness, in order of time, not to scale</title>",
    ]
    for number, (line, (start, end)) in enumerate(zip(witness, places, strict=True)):
        y = row_height * number + 4
        x = left + width * start / 1000
        until = left + width * (1000 if end is None else end) / 1000
        role = html.escape(line.role)
        dash = ' stroke-dasharray="4 3"' if end is None else ""
        parts += [
            f'<text x="{left - 10}" y="{y + 25}" text-anchor="end">'
            f"{html.escape(printable(line.operation.process, NAMES))}</text>",
            f'<rect x="{x:.1f}" y="{y + 16}" width="{max(2.0, until - x):.1f}" height="12" rx="2" '
            f'fill-opacity="0.25" stroke="currentColor"{dash}/>',
            f'<text x="{min(x, left + width * 0.45):.1f}" y="{y + 12}">{role}</text>',
        ]
    return "\n".join([*parts, "</svg>"])


def _places(witness: Sequence[Line], width: int) -> list[tuple[int, int | None]]:
    """Start and end of each bar: the distinct instants, evenly spaced."""
    spans = [
        (
            line.operation.invoked_ns,
            None if line.operation.outcome == "info" else line.operation.completed_ns,
        )
        for line in witness
    ]
    instants = sorted({t for span in spans for t in span if t is not None})
    at = {t: width * i // max(1, len(instants)) for i, t in enumerate(instants)}
    return [
        (at[start], None if end is None else max(at[end], at[start] + 1)) for start, end in spans
    ]


def _split(line: WitnessLine) -> tuple[str, str]:
    what = deed(line.operation)
    when = line.role.removesuffix(what)
    return when, what
