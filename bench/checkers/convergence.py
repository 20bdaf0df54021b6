"""Did the replicas agree at the end, and is every acknowledged write accounted for?

After the load, the runner reads each key at every node (`history/final.jsonl`; process names start
with ``final``). *Converged*: all nodes give the same answer for every key. The order of siblings
does not matter.

*Lost writes.* The surviving values of a key must account for every acknowledged write to it: the
write itself survived, or a survivor superseded it. A survivor cannot have superseded a write

- that began after the survivor had ended (by more than the clock error);
- that its version excludes, if the replicas returned versions for both: a vector clock that does
  not include the write, or a smaller version if versions are totally ordered.

Everything else counts as superseded: this errs towards *not lost*. Any of several concurrent writes
may have won, and a write that ended ``info`` may win over everything.

A write that no survivor can have superseded is *missing*. Another missing write may have superseded
it, so the number of lost writes is a lower bound: per key, the missing writes that no other missing
write includes (vector clocks), else one.

The order of acknowledgements alone decides nothing: overlapping writes have no order.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bench.checkers.availability import FINAL_PROCESS_PREFIX
from bench.record import witness as words
from bench.record.columns import value_key
from bench.record.history import OperationRecord
from bench.record.quantities import plural
from bench.record.verdict import Convergence, ConvergenceCheck, VerdictValue
from nodes.contract.replica import Value, Version


def check_convergence(
    records: Sequence[OperationRecord],
    nodes: Sequence[str],
    *,
    healed_ns: int | None = None,
    last_stale_ns: int | None = None,
    history_is_cut: bool = False,
    final_reads_are_cut: bool = False,
    initial: Value = None,
    clock_error_ns: int = 0,
) -> ConvergenceCheck:
    """The verdict on *eventual*: converged, no lost write, no value that nobody wrote.

    ``healed_ns``: when the last fault was healed; ``last_stale_ns``: when the last stale read
    began. ``history_is_cut``: operations may be missing, so a value of unknown origin is no
    contradiction, and null may come from a missing deletion. ``final_reads_are_cut``: final reads,
    and with them a node's last answer, may be missing, so nothing is a contradiction.
    """
    began = time.perf_counter()
    answers = _final_answers(records)
    by_key: dict[str, dict[str, OperationRecord]] = defaultdict(dict)
    for (node, key), record in answers.items():
        by_key[key][node] = record
    asked = {r.key for r in records if _is_final(r)}
    unanswered = sum(n not in by_key.get(key, ()) for key in asked for n in nodes)
    diverged = [key for key, answer in sorted(by_key.items()) if _differing(answer)]
    writes = _writes_by_key(records)
    losses = _losses(by_key, writes, initial, clock_error_ns, history_is_cut)
    last_stale_s = None
    if healed_ns is not None and last_stale_ns is not None and last_stale_ns >= healed_ns:
        last_stale_s = (last_stale_ns - healed_ns) / 1e9
    converged = False if diverged else True if by_key and not unanswered else None
    details = Convergence(
        converged=converged,
        keys=len(by_key),
        diverged_keys=len(diverged),
        unanswered=unanswered,
        unread_keys=len(writes.keys() - by_key.keys()),
        lost_writes=losses.lost,
        missing_writes=losses.missing,
        phantoms=len(losses.phantoms),
        converged_within_s=_converged_within_s(records, answers, healed_ns, converged),
        last_stale_after_heal_s=last_stale_s,
    )
    phantoms = [] if history_is_cut else losses.phantoms
    verdict, summary = _decide(details, phantoms, has_final_reads=bool(asked))
    if verdict == "invalid" and final_reads_are_cut:
        verdict, summary, witness = "unknown", "final reads are missing", []
    else:
        witness = (
            losses.witness or (_differing(by_key[diverged[0]]) if diverged else []) or phantoms[:1]
        )
    if verdict == "valid" and history_is_cut:
        verdict, summary = "unknown", f"{summary}; the history was cut short"
    lines = words.lines(witness)
    if lines:
        summary += f": {words.sentence(lines)}"
    elif verdict == "valid":
        summary += ", every acknowledged write is accounted for"
    return ConvergenceCheck(
        verdict=verdict,
        model="eventual",
        algorithm="final reads",
        operations=len(records),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=lines,
        details=details,
    )


def _decide(
    found: Convergence, phantoms: Sequence[OperationRecord], *, has_final_reads: bool
) -> tuple[VerdictValue, str]:
    """The verdict and its sentence, if nothing is missing from the history."""
    verdict: VerdictValue = "unknown"
    if found.diverged_keys:
        verdict = "invalid"
        summary = f"{found.diverged_keys} of {found.keys} keys did not converge"
    elif not has_final_reads:
        summary = "there are no final reads"
    elif found.unanswered:
        summary = f"{plural(found.unanswered, 'final read')} got no answer"
    elif found.unread_keys:
        summary = f"no final read of {plural(found.unread_keys, 'written key')}"
    else:
        verdict, summary = "valid", f"all nodes agree on {plural(found.keys, 'key')}"
    if found.lost_writes:
        verdict = "invalid"
        lost = plural(found.lost_writes, "acknowledged write")
        summary = f"at least {lost} {'was' if found.lost_writes == 1 else 'were'} lost; {summary}"
    if phantoms:
        verdict = "invalid"
        summary += f"; never written: {plural(len(phantoms), 'final value')}"
    return verdict, summary


def _differing(answers: Mapping[str, OperationRecord]) -> list[OperationRecord]:
    """Two different answers; none if all are equal."""
    first = answers[min(answers)]
    for other in answers.values():
        if _comparable(other.value) != _comparable(first.value):
            return [first, other]
    return []


def _is_final(record: OperationRecord) -> bool:
    return record.process.startswith(FINAL_PROCESS_PREFIX) and record.op == "read"


def _final_answers(records: Sequence[OperationRecord]) -> dict[tuple[str, str], OperationRecord]:
    """The last answer of each node for each key."""
    answers: dict[tuple[str, str], OperationRecord] = {}
    for record in records:
        if _is_final(record) and record.outcome == "ok" and record.node is not None:
            known = answers.get((record.node, record.key))
            if known is None or known.invoked_ns <= record.invoked_ns:
                answers[record.node, record.key] = record
    return answers


def _values(value: Value | list[Value]) -> list[Value]:
    return (value or [None]) if isinstance(value, list) else [value]


def _comparable(value: Value | list[Value]) -> tuple[str, ...]:
    """Equal for equal answers in any order of siblings."""
    return tuple(sorted(msgspec.json.encode(v).decode() for v in _values(value)))


def _writes_by_key(records: Sequence[OperationRecord]) -> dict[str, list[OperationRecord]]:
    """All operations that wrote, or may have written."""
    writes: dict[str, list[OperationRecord]] = defaultdict(list)
    for record in records:
        if (
            record.op != "read"
            and record.outcome != "fail"
            and not (record.op == "cas" and record.outcome == "ok" and record.applied is False)
        ):
            writes[record.key].append(record)
    return writes


def _written(record: OperationRecord) -> Value:
    assert not isinstance(record.value, list)
    return None if record.op == "delete" else record.value


class _Sources(msgspec.Struct):
    """The origin of the final values of a key. ``writes``: the writes of the survivors.
    ``anything``: a survivor is of unknown origin and may have superseded anything."""

    survivors: set[Any]
    writes: list[OperationRecord]
    phantoms: list[OperationRecord]
    anything: bool
    clock_error_ns: int


def _sources(
    writes: Sequence[OperationRecord],
    finals: Iterable[OperationRecord],
    initial: Value,
    clock_error_ns: int,
    history_is_cut: bool,
) -> _Sources:
    by_value: dict[Any, list[OperationRecord]] = defaultdict(list)
    for write in writes:
        by_value[value_key(_written(write))].append(write)
    source = _Sources(set(), [], [], False, clock_error_ns)
    for final in finals:
        for value in _values(final.value):
            name = value_key(value)
            if name in source.survivors:
                continue
            source.survivors.add(name)
            if history_is_cut and name in (None, value_key(initial)):
                source.anything = True
            if name in by_value:
                source.writes.extend(by_value[name])
            elif name != value_key(initial):
                source.phantoms.append(final)
                source.anything = True
    return source


class _Losses(msgspec.Struct):
    """``lost`` (a lower bound) and ``missing``: acknowledged writes. ``phantoms``: final values
    that nobody wrote. ``witness``: a lost write, and a final read that shows the loss."""

    lost: int = 0
    missing: int = 0
    phantoms: list[OperationRecord] = []
    witness: list[OperationRecord] = []


def _losses(
    answers: Mapping[str, Mapping[str, OperationRecord]],
    writes: Mapping[str, Sequence[OperationRecord]],
    initial: Value,
    clock_error_ns: int,
    history_is_cut: bool,
) -> _Losses:
    """What the final answers do not account for."""
    losses = _Losses()
    for key, by_node in sorted(answers.items()):
        on_key = writes.get(key, [])
        source = _sources(on_key, by_node.values(), initial, clock_error_ns, history_is_cut)
        losses.phantoms.extend(source.phantoms)
        gone = _missing(on_key, source)
        losses.missing += len(gone)
        maximal = _maximal(gone)
        losses.lost += len(maximal)
        if maximal and not losses.witness:
            losses.witness = [maximal[0], min(by_node.values(), key=lambda r: r.invoked_ns)]
    return losses


def _missing(writes: Sequence[OperationRecord], source: _Sources) -> list[OperationRecord]:
    """The acknowledged writes that no survivor can have superseded."""
    if source.anything:
        return []
    return [
        write
        for write in writes
        if write.outcome == "ok"
        and value_key(_written(write)) not in source.survivors
        and not any(_may_supersede(s, write, source.clock_error_ns) for s in source.writes)
    ]


def _may_supersede(survivor: OperationRecord, write: OperationRecord, clock_error_ns: int) -> bool:
    if survivor.outcome != "ok":
        return True
    ended = survivor.completed_ns
    if ended is not None and ended + clock_error_ns < write.invoked_ns:
        return False
    return covers(survivor, write) is not False


def covers(later: OperationRecord, write: OperationRecord) -> bool | None:
    """Whether the version of ``later`` may come after that of ``write``; None if they do not say.

    A node increments its own entry of the clock at each write. So (node, entry) identifies the
    write, and a clock includes it if its entry is at least that. The other entries say what the
    node knew, not what the write depends on.
    """
    a, b = later.version, write.version
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if write.node not in b:
            return None
        return a.get(write.node, 0) >= b[write.node]
    return newer(a, b)


def newer(a: Version, b: Version) -> bool | None:
    """Whether version ``a`` is greater; None if the versions are not totally ordered."""
    if type(a) is int and type(b) is int:
        return a > b
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = list(zip(a, b, strict=True))
        if all(type(x) is type(y) for x, y in pairs):
            return a > b
    return None


def _maximal(missing: Sequence[OperationRecord]) -> list[OperationRecord]:
    """Missing writes of one key that are certainly lost: no other missing write superseded them."""
    if not missing:
        return []
    kept: list[OperationRecord] = []
    if all(isinstance(write.version, Mapping) for write in missing):
        for write in sorted(missing, key=_weight, reverse=True):
            if not any(covers(other, write) is not False for other in kept):
                kept.append(write)
        return kept
    return [max(missing, key=lambda write: (write.invoked_ns, write.id))]


def _weight(write: OperationRecord) -> int:
    """The sum of a vector clock: a clock that dominates another has a greater sum."""
    assert isinstance(write.version, Mapping)
    return sum(write.version.values())


def _converged_within_s(
    records: Sequence[OperationRecord],
    answers: Mapping[tuple[str, str], OperationRecord],
    healed_ns: int | None,
    converged: bool | None,
) -> float | None:
    """The time from the heal until every node had given its last answer for the first time."""
    if healed_ns is None or not converged:
        return None
    settled: dict[tuple[str, str], int] = {}
    for record in sorted(
        (r for r in records if _is_final(r) and r.outcome == "ok" and r.node is not None),
        key=lambda r: r.invoked_ns,
    ):
        assert record.node is not None
        where = (record.node, record.key)
        if _comparable(record.value) != _comparable(answers[where].value):
            settled.pop(where, None)
        elif where not in settled:
            settled[where] = record.completed_ns or record.invoked_ns
    return max(0, max(settled.values()) - healed_ns) / 1e9
