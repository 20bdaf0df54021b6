"""The oracle of the checkers: every model by its definition, by trying everything. For tiny
histories only.

An operation that ended ``fail``, and a read that ended ``info``, say nothing. A change that ended
``info`` took effect or not; if so, after what its process did before, but nothing of what the
process did next needs to come after it. Times of two processes are compared strictly, and what is
no further apart than the clock error is concurrent; the operations of one process have its order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, permutations, product

from bench.record.columns import value_key
from bench.record.history import ABSENT, OperationRecord
from nodes.contract.replica import Value

Records = Sequence[OperationRecord]
Order = set[tuple[int, int]]
"""Pairs of places of operations: the first comes before the second."""


def same(a: object, b: object) -> bool:
    """Whether two JSON values are equal."""
    return value_key(a) == value_key(b)  # type: ignore[arg-type]


def that_say_something(records: Records) -> list[OperationRecord]:
    """Without what failed, and reads of unknown outcome."""
    return [r for r in records if r.outcome == "ok" or (r.outcome == "info" and r.op != "read")]


def end(record: OperationRecord) -> float:
    """When it was over; infinite where nobody knows."""
    if record.outcome == "info" or record.completed_ns is None:
        return float("inf")
    return record.completed_ns


def is_refused(record: OperationRecord) -> bool:
    return record.op == "cas" and record.outcome == "ok" and record.applied is False


def changes(record: OperationRecord) -> bool:
    """Whether it changes the register, if it takes effect."""
    return record.op != "read" and not is_refused(record)


def written(record: OperationRecord) -> Value:
    """What it leaves in the register."""
    assert not isinstance(record.value, list)
    return None if record.op == "delete" else record.value


def fits(record: OperationRecord, state: Value) -> bool:
    """Whether it can have answered so in this state, having taken effect."""
    if record.op == "read":
        value = record.value
        if isinstance(value, list):
            return len(value) < 2 and same(value[0] if value else None, state)
        return same(value, state)
    if is_refused(record):
        told = record.seen is ABSENT or same(record.seen, state)
        return told and not same(record.expected, state)
    return record.op != "cas" or same(record.expected, state)


# --- one order for all: linearizable, sequential ---


def sent(record: OperationRecord, place: int) -> tuple[int, bool, int]:
    """What orders the operations of a process: of one instant, what takes no time came first."""
    ended = record.completed_ns
    return record.invoked_ns, ended is None or ended > record.invoked_ns, place


def program_order(ops: Records) -> Order:
    """Pairs of one process, in the order in which it sent them. Nothing needs to follow what is of
    unknown outcome."""
    return {
        (i, j)
        for i, a in enumerate(ops)
        for j, b in enumerate(ops)
        if a.process == b.process and a.outcome != "info" and sent(a, i) < sent(b, j)
    }


def real_time(ops: Records, clock_error: int = 0) -> Order:
    """Pairs of which the first was over before the second began."""
    return {
        (i, j)
        for i, a in enumerate(ops)
        for j, b in enumerate(ops)
        if i != j and end(a) + clock_error < b.invoked_ns
    }


def has_an_order(ops: Records, before: Order, initial: Value) -> bool:
    """Whether all operations, those of unknown outcome as far as they took effect, can be put in
    one order that explains every answer."""
    keys = sorted({r.key for r in ops})
    known: set[tuple[frozenset[int], tuple[object, ...]]] = set()

    def search(left: frozenset[int], state: dict[str, Value]) -> bool:
        if all(ops[i].outcome == "info" for i in left):
            return True
        name = (left, tuple(value_key(state[key]) for key in keys))
        if name in known:
            return False
        known.add(name)
        for i in sorted(left):
            record = ops[i]
            if record.outcome == "info" and search(left - {i}, state):
                return True  # it never took effect
            if any((j, i) in before for j in left) or not fits(record, state[record.key]):
                continue
            after = {**state, record.key: written(record)} if changes(record) else state
            if search(left - {i}, after):
                return True
        return False

    return search(frozenset(range(len(ops))), dict.fromkeys(keys, initial))


def is_linearizable(
    records: Records, initial: Value = None, *, processes: bool = False, clock_error: int = 0
) -> bool:
    """Herlihy and Wing: one order that explains every answer and keeps that of real time;
    ``processes``: also that of each process, where operations touch."""
    ops = that_say_something(records)
    before = real_time(ops, clock_error) | (program_order(ops) if processes else set())
    return has_an_order(ops, before, initial)


def is_sequential(records: Records, initial: Value = None) -> bool:
    """Lamport: one order that explains every answer and keeps that of each process."""
    ops = that_say_something(records)
    return has_an_order(ops, program_order(ops), initial)


# --- causal (CC) ---


def is_causal(records: Records, initial: Value = None) -> bool:
    """Bouajjani et al., CC: there is a causal order, which contains program order, such that each
    answer is explained by some order of what is causally before it.

    Of all causal orders it is enough to try the least ones: those in which each operation that saw
    a value knows one write of it, and what follows from that.
    """
    return any(_is_causal(ops, initial) for ops in _that_took_effect(records))


def _that_took_effect(records: Records) -> Iterator[list[OperationRecord]]:
    ops = that_say_something(records)
    unsure = [i for i, r in enumerate(ops) if r.outcome == "info"]
    some = chain.from_iterable(combinations(unsure, n) for n in range(len(unsure) + 1))
    for not_done in some:
        yield [r for i, r in enumerate(ops) if i not in not_done]


def _is_causal(ops: Records, initial: Value) -> bool:
    base = program_order(ops)
    sources: list[list[int | None]] = []
    looking = [i for i, r in enumerate(ops) if r.op in ("read", "cas")]
    for i in looking:
        of_value: list[int | None] = [
            j
            for j, w in enumerate(ops)
            if j != i and changes(w) and w.key == ops[i].key and fits(ops[i], written(w))
        ]
        if fits(ops[i], initial):
            of_value.append(None)
        sources.append(of_value)
    for choice in product(*sources):
        knows = {(j, i) for i, j in zip(looking, choice, strict=True) if j is not None}
        order = closed(base | knows, len(ops))
        if is_strict(order) and all(is_explained(ops, i, order, initial) for i in looking):
            return True
    return False


def closed(order: Order, n: int) -> Order:
    """The transitive closure."""
    order = set(order)
    for k in range(n):
        order |= {(i, j) for i in range(n) for j in range(n) if (i, k) in order and (k, j) in order}
    return order


def is_strict(order: Order) -> bool:
    return all(i != j for i, j in order)


def is_explained(ops: Records, i: int, order: Order, initial: Value) -> bool:
    """Whether some order of the changes that are causally before ``i`` explains its answer."""
    past = [j for j, w in enumerate(ops) if (j, i) in order and changes(w) and w.key == ops[i].key]
    for line in permutations(past):
        if any((b, a) in order for a, b in combinations(line, 2)):
            continue
        if fits(ops[i], written(ops[line[-1]]) if line else initial):
            return True
    return False


def is_causal_in_any_order(records: Records, initial: Value = None) -> bool:
    """The same definition to the letter, over every partial order: four operations at most."""
    for ops in _that_took_effect(records):
        n = len(ops)
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        for bits in product((False, True), repeat=len(pairs)):
            order = {pair for pair, there in zip(pairs, bits, strict=True) if there}
            if (
                program_order(ops) <= order
                and closed(order, n) == order
                and all(
                    is_explained(ops, i, order, initial)
                    for i, r in enumerate(ops)
                    if r.op in ("read", "cas")
                )
            ):
                return True
    return False


def is_impossible(records: Records, initial: Value = None) -> bool:
    """Whether some answer can be explained by no order of no part of the operations."""
    ops = that_say_something(records)
    return any(
        not fits(r, initial)
        and not any(
            j != i and changes(w) and w.key == r.key and fits(r, written(w))
            for j, w in enumerate(ops)
        )
        for i, r in enumerate(ops)
        if r.outcome == "ok"
    )


# --- sessions and staleness, on keys whose values are unique ---


def unique_keys(records: Records, initial: Value) -> set[str]:
    """Keys on which each value that was seen names its write."""
    keys = {r.key for r in records}
    for key in list(keys):
        on_key = [r for r in records if r.key == key]
        values = [value_key(written(r)) for r in on_key if r.outcome != "fail" and changes(r)] + [
            value_key(initial)
        ]
        if len(set(values)) < len(values) or any(
            is_refused(r) and r.seen is ABSENT for r in on_key
        ):
            keys.discard(key)
    return keys


class Seen:
    """Who saw what, where values are unique."""

    def __init__(self, records: Records, initial: Value) -> None:
        keys = unique_keys(records, initial)
        ops = [r for r in that_say_something(records) if r.key in keys]
        self.initial = initial
        self.known: dict[int, OperationRecord | None] = {}
        self.writes = [r for r in ops if changes(r)]
        self.saw = [r for r in ops if r.outcome == "ok" and r.op in ("read", "cas")]
        grown = True
        while grown:  # a CAS of unknown outcome read, if its value was seen
            new = [
                w
                for w in self.writes
                if w.op == "cas"
                and w.outcome == "info"
                and not any(w is r for r in self.saw)
                and any(r.key == w.key and same(self.value(r), written(w)) for r in self.saw)
            ]
            self.saw += new
            grown = bool(new)

    def value(self, record: OperationRecord) -> object:
        """What a reader saw."""
        if record.op == "read":
            return record.value
        return record.seen if is_refused(record) else record.expected

    def write_of(self, reader: OperationRecord) -> OperationRecord | None:
        """The write whose value it saw, None for the initial value."""
        if reader.id not in self.known:
            self.known[reader.id] = self._write_of(reader)
        return self.known[reader.id]

    def _write_of(self, reader: OperationRecord) -> OperationRecord | None:
        return next(
            (
                w
                for w in self.writes
                if w.key == reader.key and same(written(w), self.value(reader))
            ),
            None,
        )

    def is_known(self, reader: OperationRecord) -> bool:
        """Whether it saw a value of the history."""
        return same(self.value(reader), self.initial) or self.write_of(reader) is not None

    def answered(self) -> list[OperationRecord]:
        """Who was told a value of the history."""
        return [r for r in self.saw if r.outcome == "ok" and self.is_known(r)]

    def is_placed(self, write: OperationRecord | None, before: int, clock_error: int) -> bool:
        """Whether a value was certainly in place before a time, at which another write began."""
        if write is None:
            return True
        ends = [end(write), *(end(r) for r in self.answered() if self.write_of(r) is write)]
        return write.invoked_ns < before and min(ends) + clock_error < before


def session_violations(
    records: Records, initial: Value = None, *, clock_error: int = 0
) -> dict[str, int]:
    """How many reads break each of the four guarantees of Terry et al., pair by pair."""
    seen = Seen(records, initial)
    readers = seen.answered()
    place = {id(r): sent(r, i) for i, r in enumerate(records)}

    def precedes(a: OperationRecord, b: OperationRecord) -> bool:
        """In the order of one process."""
        return a.process == b.process and a.outcome == "ok" and place[id(a)] < place[id(b)]

    def before(a: OperationRecord, b: OperationRecord) -> bool:
        if a.process == b.process:
            return precedes(a, b)
        return end(a) + clock_error < b.invoked_ns

    def is_older(v: OperationRecord | None, u: OperationRecord | None, reader: str) -> bool:
        """For a session, whose process is ``reader``."""
        if u is None or u is v:
            return False
        if seen.is_placed(v, u.invoked_ns, clock_error):
            return True
        if u.process != reader or v is None:
            return False
        is_later = (
            place[id(u)] > place[id(v)] if v.process == reader else u.invoked_ns > v.invoked_ns
        )
        return is_later and any(
            precedes(a, u) and (a is v or (a in readers and seen.write_of(a) is v)) for a in records
        )

    def breaks(name: str, r: OperationRecord) -> bool:
        v = seen.write_of(r)
        if name == "read_your_writes":
            return any(
                w.key == r.key and precedes(w, r) and is_older(v, w, r.process) for w in seen.writes
            )
        if name == "monotonic_reads":
            return any(
                o.key == r.key and precedes(o, r) and is_older(v, seen.write_of(o), r.process)
                for o in readers
            )
        shown = {
            id(u): u
            for o in readers
            if o.node == r.node and o.key == r.key and before(o, r) and (u := seen.write_of(o))
        }
        later = [u for u in shown.values() if u is not v]
        if name == "monotonic_writes":
            return v is not None and any(precedes(v, u) for u in later)
        return any(
            p.key == u.key and seen.is_known(p) and seen.write_of(p) is v
            for u in later
            for p in seen.saw
            if p is u or precedes(p, u)
        )

    names = ("read_your_writes", "monotonic_reads", "monotonic_writes", "writes_follow_reads")
    return {name: sum(breaks(name, r) for r in readers) for name in names}


def stale_ages(
    records: Records, initial: Value = None, *, clock_error: int = 0
) -> dict[int, float]:
    """By id of who was answered what it saw: for how long an acknowledged write that is newer had
    been there. Only where the value names its write."""
    ops = that_say_something(records)
    writes = [r for r in ops if changes(r)]
    readers = [
        r
        for r in ops
        if r.outcome == "ok"
        and r.op in ("read", "cas")
        and not (is_refused(r) and r.seen is ABSENT)
    ]

    def saw(reader: OperationRecord) -> object:
        if reader.op == "read":
            return reader.value
        return reader.seen if is_refused(reader) else reader.expected

    ages: dict[int, float] = {}
    for r in readers:
        sources = [w for w in writes if w.key == r.key and same(written(w), saw(r))]
        if len(sources) + same(initial, saw(r)) != 1:
            continue
        newer = []
        for w in writes:
            if w.key != r.key or w.outcome != "ok" or end(w) + clock_error >= r.invoked_ns:
                continue
            if sources:
                ends = [end(o) for o in readers if o.key == r.key and same(saw(o), saw(r))]
                placed = min(end(sources[0]), *ends) + clock_error
                if placed >= w.invoked_ns or sources[0].invoked_ns >= w.invoked_ns:
                    continue
            newer.append(r.invoked_ns - end(w) - clock_error)
        if newer:
            ages[r.id] = max(newer)
    return ages
