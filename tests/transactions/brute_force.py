"""Isolation levels by their definitions, tried out: every order, every set of lost transactions.

Slow, plain, and no algorithm of the checkers'. *Serializable* and its stronger kin: transactions
are carried out one after the other. *Snapshot isolation*: starts and commits are put in a row, a
transaction reads what was committed at its start, and commits only if nobody has changed its keys
since. *Read uncommitted, read committed, repeatable read*: Adya's phenomena, for every order of the
versions that agrees with what was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, pairwise, permutations, product
from typing import Any, TypeAlias

State: TypeAlias = tuple[tuple[str, tuple[Any, ...]], ...]


@dataclass(frozen=True)
class Txn:
    """One transaction. ``end`` is None for one that ended info."""

    process: str
    begin: int
    end: int | None
    outcome: str
    ops: tuple[tuple[str, str, Any], ...]

    def row(self) -> tuple[Any, ...]:
        """As the columns are built of."""
        return (self.process, self.begin, self.end, self.outcome, self.ops)


History: TypeAlias = list[Txn]


def seen_values(history: History) -> set[tuple[str, Any]]:
    """What committed transactions read: pairs of a key and a value."""
    seen: set[tuple[str, Any]] = set()
    for txn in history:
        if txn.outcome == "ok":
            for name, key, value in txn.ops:
                if name == "read" and value is not None:
                    seen.update(
                        (key, each) for each in (value if isinstance(value, list) else [value])
                    )
    return seen


def alternatives(history: History, dirty: bool = False) -> Iterator[list[Txn]]:
    """The transactions that may have been committed: those of unknown outcome whose writes were
    read, and any of the others. ``dirty``: what was not committed may have been read, too."""
    seen = set() if dirty else seen_values(history)
    surely, perhaps = [], []
    for txn in history:
        writes = {(key, value) for name, key, value in txn.ops if name != "read"}
        if txn.outcome == "ok" or (txn.outcome == "info" and writes & seen):
            surely.append(txn)
        elif txn.outcome == "info":
            perhaps.append(txn)
    for some in chain.from_iterable(combinations(perhaps, n) for n in range(len(perhaps) + 1)):
        yield surely + list(some)


def carried_out(txn: Txn, state: dict[str, Any]) -> dict[str, Any] | None:
    """The state after a transaction; None if it would have read something else."""
    state = dict(state)
    for name, key, value in txn.ops:
        if name == "append":
            state[key] = [*(state.get(key) or []), value]
        elif name == "write":
            state[key] = value
        elif txn.outcome == "ok" and (state.get(key) or None) != (value or None):
            return None
    return state


def is_before(one: Txn, two: Txn, sessions: bool, realtime: bool) -> bool:
    if one.end is None or one.outcome == "info" or one is two:
        return False
    if sessions and one.process == two.process and one.begin < two.begin:
        return True
    return realtime and one.end < two.begin


def serializable(history: History, sessions: bool = False, realtime: bool = False) -> bool:
    """Whether one order of the transactions explains all that was read."""

    def go(left: tuple[Txn, ...], state: dict[str, Any]) -> bool:
        if not left:
            return True
        for txn in left:
            if any(is_before(other, txn, sessions, realtime) for other in left):
                continue
            after = carried_out(txn, state)
            rest = tuple(other for other in left if other is not txn)
            if after is not None and go(rest, after):
                return True
        return False

    return any(go(tuple(some), {}) for some in alternatives(history))


def snapshot_isolated(history: History) -> bool:
    """Whether starts and commits can be put in a row that explains all that was read."""

    def go(
        idle: frozenset[int],
        open_: dict[int, dict[str, Any]],
        state: dict[str, Any],
        some: list[Txn],
    ) -> bool:
        if not idle and not open_:
            return True
        for number in idle:
            started = {**open_, number: state}
            if carried_out(some[number], state) is not None and go(
                idle - {number}, started, state, some
            ):
                return True
        for number, start in open_.items():
            written = {key for name, key, _ in some[number].ops if name != "read"}
            if any(start.get(key) != state.get(key) for key in written):
                continue
            after = carried_out(some[number], start)
            assert after is not None
            rest = {other: each for other, each in open_.items() if other != number}
            if go(idle, rest, {**state, **{key: after[key] for key in written}}, some):
                return True
        return False

    return any(go(frozenset(range(len(some))), {}, {}, some) for some in alternatives(history))


# -- Adya's phenomena ------------------------------------------------------------------------------

Version: TypeAlias = tuple[str, Any]
Pair: TypeAlias = tuple[int, int]


def has_cycle(count: int, pairs: Iterable[Pair]) -> bool:
    after: dict[int, set[int]] = {vertex: set() for vertex in range(count)}
    for one, two in pairs:
        if one != two:
            after[one].add(two)
    while True:
        ends = [vertex for vertex, following in after.items() if not following & set(after)]
        if not ends:
            return bool(after)
        for vertex in ends:
            del after[vertex]


def _program_orders(some: list[Txn], key: str, kind: str) -> Iterator[tuple[Any, ...]]:
    """Every order of the versions of a key that keeps those of one transaction in order. Of a
    register only the last write of a transaction is a version."""
    by_txn = [[v for name, k, v in txn.ops if name == kind and k == key] for txn in some]
    every = [value for values in by_txn for value in values]
    for order in permutations(every):
        place = {value: number for number, value in enumerate(order)}
        if all(place[a] < place[b] for values in by_txn for a, b in pairwise(values)):
            yield order


@dataclass
class Dependencies:
    """Of one order of the versions: pairs of transactions, and whether G1a and G1b are there."""

    ww: set[Pair]
    wr: set[Pair]
    rw: set[Pair]
    dirty: bool


def list_dependencies(history: History, dirty: bool = False) -> Iterator[tuple[int, Dependencies]]:
    """For each order of the appends that agrees with what was read: the dependencies, and how many
    transactions there are."""
    written = {(k, v) for txn in history for name, k, v in txn.ops if name == "append"}
    if not seen_values(history) <= written:
        return
    for some in alternatives(history, dirty):
        keys = sorted({key for txn in some for _, key, _ in txn.ops})
        for orders in product(*(_program_orders(some, key, "append") for key in keys)):
            found = _of_lists(some, dict(zip(keys, orders, strict=True)))
            if found is not None:
                yield len(some), found


def _of_lists(some: list[Txn], order: dict[str, tuple[Any, ...]]) -> Dependencies | None:
    owner = {
        (key, value): number
        for number, txn in enumerate(some)
        for name, key, value in txn.ops
        if name == "append"
    }
    d = Dependencies(set(), set(), set(), False)
    for key, values in order.items():
        d.ww.update((owner[key, a], owner[key, b]) for a, b in pairwise(values))
    for number, txn in enumerate(some):
        own: dict[str, Any] = {}
        done = []
        for name, key, value in txn.ops:
            if name == "append":
                own[key] = value
                done.append(value)
            elif txn.outcome == "ok":
                told = value or []
                seen = tuple(each for each in told if (key, each) in owner)
                if len(set(told)) < len(told) or seen != order[key][: len(seen)]:
                    return None
                if key in own and (not told or told[-1] != own[key]):
                    return None
                if any(owner[key, each] == number for each in set(seen) - set(done)):
                    return None  # it saw what it appended only later
                d.dirty |= len(seen) < len(told)
                _follow(d, some, order[key], owner, number, key, len(seen))
    return d


def _follow(
    d: Dependencies,
    some: list[Txn],
    order: tuple[Any, ...],
    owner: dict[Version, int],
    reader: int,
    key: str,
    count: int,
) -> None:
    """The dependencies of a read that saw the first ``count`` versions."""
    if count:
        writer = owner[key, order[count - 1]]
        d.wr.add((writer, reader))
        last = [v for name, k, v in some[writer].ops if name != "read" and k == key][-1]
        d.dirty |= writer != reader and last != order[count - 1]
    if count < len(order):
        d.rw.add((reader, owner[key, order[count]]))


def levels_of_lists(history: History) -> dict[str, bool]:
    """Every level of a history of list-append."""
    found = {"read-uncommitted": False, "read-committed": False, "repeatable-read": False}
    for count, d in list_dependencies(history, dirty=True):
        found["read-uncommitted"] |= not has_cycle(count, d.ww)
    for count, d in list_dependencies(history):
        is_committed = not d.dirty and not has_cycle(count, d.ww | d.wr)
        found["read-committed"] |= is_committed
        found["repeatable-read"] |= is_committed and not has_cycle(count, d.ww | d.wr | d.rw)
    found["snapshot-isolation"] = snapshot_isolated(history)
    return {**found, **serial_levels(history)}


# -- registers -------------------------------------------------------------------------------------


def register_sources(some: list[Txn]) -> list[list[tuple[str, int | None]]] | None:
    """What each transaction read from others, as keys and numbers of transactions (None: nothing
    was written yet), in order; None if a read cannot be at any level: of what nobody wrote, of
    something else than it wrote itself, or of an own write to come. A number of -1: G1a or G1b."""
    last = {}
    every = {}
    for number, txn in enumerate(some):
        for name, key, value in txn.ops:
            if name == "write":
                every[key, value] = number
                last[number, key] = value
    found = []
    for number, txn in enumerate(some):
        own: dict[str, Any] = {}
        reads: list[tuple[str, int | None]] = []
        for name, key, value in txn.ops:
            if name == "write":
                own[key] = value
            elif txn.outcome == "ok":
                writer = every.get((key, value))
                if key in own:
                    if value != own[key]:
                        return None
                elif writer == number:
                    return None
                elif value is None:
                    reads.append((key, None))
                else:
                    is_last = writer is not None and last[writer, key] == value
                    reads.append((key, writer if is_last else -1))
        found.append(reads)
    return found


def axiom(level: str, some: list[Txn]) -> bool:
    """Whether an order of the transactions holds session and write-read order, and the axiom of
    Biswas and Enea (2019) for the level."""
    sources = register_sources(some)
    if sources is None or any(source == -1 for reads in sources for _, source in reads):
        return False
    if level != "read-committed":
        for reads in sources:
            if len(dict.fromkeys(reads)) > len({key for key, _ in reads}):
                return False
    count = len(some)
    session = {
        (a, b)
        for a in range(count)
        for b in range(count)
        if is_before(some[a], some[b], True, False)
    }
    wr = {(v, a) for a, reads in enumerate(sources) for _, v in reads if v is not None}
    past = session | wr
    for _ in range(count):
        past |= {(a, c) for a, b in past for b2, c in past if b == b2}
    writers: dict[str, set[int]] = {}
    for number, txn in enumerate(some):
        for name, key, _ in txn.ops:
            if name == "write":
                writers.setdefault(key, set()).add(number)
    pairs = set(session | wr)
    for reader, reads in enumerate(sources):
        for place, (key, source) in enumerate(reads):
            knows = {
                "read-committed": {v for _, v in reads[:place] if v is not None},
                "read-atomic": {a for a, b in session | wr if b == reader},
                "causal": {a for a, b in past if b == reader},
            }[level]
            for other in (knows & writers.get(key, set())) - {source, reader}:
                if source is None:
                    return False
                pairs.add((other, source))
    return any(
        all(order.index(a) < order.index(b) for a, b in pairs)
        for order in permutations(range(count))
    )


def levels_of_registers(history: History) -> dict[str, bool]:
    """Every level of a history of rw-register."""
    written = {(k, v) for txn in history for name, k, v in txn.ops if name == "write"}
    found = dict.fromkeys(("read-uncommitted", "read-committed", "read-atomic", "causal"), False)
    if seen_values(history) <= written:
        found["read-uncommitted"] = register_sources(list(history)) is not None
        for some in alternatives(history):
            for level in ("read-committed", "read-atomic", "causal"):
                found[level] |= axiom(level, some)
    strong = serial_levels(history)
    return {
        **found,
        "repeatable-read": strong["serializable"],
        "snapshot-isolation": snapshot_isolated(history),
        **strong,
    }


def serial_levels(history: History) -> dict[str, bool]:
    """The levels that are an order of the transactions."""
    return {
        "serializable": serializable(history),
        "strong-session-serializable": serializable(history, sessions=True),
        "strict-serializable": serializable(history, sessions=True, realtime=True),
    }


def rows(history: Sequence[Txn]) -> list[tuple[Any, ...]]:
    return [txn.row() for txn in history]
