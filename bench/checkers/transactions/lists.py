"""What the lists that were read say of the order of the appends.

Every list is a version of its key, and holds all versions before it. So the longest one gives the
order of the appends that it holds; each that it does not hold comes behind it. Lists that are no
prefixes of each other cannot be explained by any order, nor can a value that is twice in one list.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.checkers.transactions.findings import Findings
from bench.record.columns import FAIL, INFO, NOT_TOLD, OK, Bools, Int32s, Int64s
from bench.record.history import BadHistory
from bench.record.transactions.columns import (
    APPEND,
    EMPTY,
    READ,
    READ_LIST,
    Lists,
    Transactions,
)


@dataclass(slots=True)
class Versions:
    """``writer``: the append of each list's last value, -1 of the empty list. ``parent`` and
    ``following``: the list before and the one after it, -1 if there is none; ``first``: by key, the
    first list that is not empty. ``of_list``: to which of them each list that was read comes down,
    without what was not committed. ``is_in_order``: it is no prefix of an order that was not taken.
    ``unseen``: committed appends that are in no list. ``last_append``: of each list that was
    read."""

    owner: Int32s
    committed: Bools
    appends: Int64s
    writer: Int32s
    key: Int32s
    parent: Int32s
    following: Int32s
    first: Int32s
    of_list: Int32s
    is_in_order: Bools
    unseen: Int64s
    last_append: Int32s


@dataclass(slots=True)
class _Tree:
    """Lists as `bench.record.transactions.columns.Lists` has them, with their appends."""

    parent: Int32s
    key: Int32s
    writer: Int32s
    of_list: Int32s
    off_order: Bools | None = None


def versions_of(t: Transactions, findings: Findings) -> Versions:
    """The order of the appends, and what is wrong with lists alone. Raises BadHistory for what
    is no history of list-append."""
    owner = t.owner()
    _refuse_registers(t, owner)
    appends = _appends(t, owner)
    writer = _writers(t, appends)
    outcome = np.append(t.outcome[owner], FAIL)  # of an operation; of none at the end
    committed = t.outcome == OK
    told = outcome[writer[1:]]
    seen_info = writer[1:][(told == INFO) & (writer[1:] >= 0)]
    committed[owner[seen_info]] = True
    is_bad = (writer < 0) | (outcome[writer] == FAIL)
    is_bad[EMPTY] = False
    tree = _Tree(t.lists.parent, t.lists.key, writer, np.arange(len(writer), dtype=np.int32))
    if is_bad.any() or _is_branching(t.lists) or _is_twice(writer):
        tree = _Repair(t, owner, writer, is_bad, findings).run()
    following = np.full(len(tree.parent), -1, np.int32)
    first = np.full(len(t.keys), -1, np.int32)
    is_in_order = np.ones(len(tree.parent), np.bool_)
    if tree.off_order is not None:
        is_in_order = ~tree.off_order
    is_in_order[EMPTY] = False
    numbers = np.flatnonzero(is_in_order).astype(np.int32)
    at_first = tree.parent[numbers] == EMPTY
    first[tree.key[numbers[at_first]]] = numbers[at_first]
    following[tree.parent[numbers[~at_first]]] = numbers[~at_first]
    is_seen = np.zeros(len(t.kind) + 1, np.bool_)
    is_seen[tree.writer] = True
    unseen = appends[committed[owner[appends]] & ~is_seen[appends]]
    return Versions(
        owner=owner,
        committed=committed,
        appends=appends,
        writer=tree.writer,
        key=tree.key,
        parent=tree.parent,
        following=following,
        first=first,
        of_list=tree.of_list,
        is_in_order=is_in_order,
        unseen=unseen,
        last_append=writer,
    )


def _refuse_registers(t: Transactions, owner: Int32s) -> None:
    fits = (t.kind == APPEND) | (t.kind == READ_LIST) | ((t.kind == READ) & (t.value <= 0))
    if not fits.all():
        row = int(np.argmin(fits))
        name, key, _ = t.operation(row)
        what = f"a {name}" if name == "write" else "a read of one value, not a list,"
        raise BadHistory(
            f"transaction {int(t.id[owner[row]])}: {what} of {key}, and list-append has "
            "appends and reads of lists; use the model rw-register"
        )


def _appends(t: Transactions, owner: Int32s) -> Int64s:
    """The appends. What failed, and was tried again with the same value, counts once."""
    rows = np.flatnonzero(t.kind == APPEND)
    pair = _pairs(t, t.key[rows], t.value[rows])
    failed = t.outcome[owner[rows]] == FAIL
    order = np.lexsort((failed, pair))
    same = np.flatnonzero(pair[order][1:] == pair[order][:-1]) + 1
    if len(same) == 0:
        return rows
    again = order[same]
    twice = again[~failed[again]]
    if len(twice):
        row = rows[twice.min()]
        raise BadHistory(
            f"transaction {int(t.id[owner[row]])}: {t.values[t.value[row]]!r} is appended to "
            f"{t.keys[t.key[row]]} for the second time; each value may be appended to a key once"
        )
    return np.delete(rows, again)


def _pairs(t: Transactions, key: Int32s, value: Int32s) -> Int64s:
    return key.astype(np.int64) * len(t.values) + value


def _writers(t: Transactions, appends: Int64s) -> Int32s:
    """The append of the last value of each list; -1 if there is none."""
    lists = t.lists
    writer = np.full(len(lists), -1, np.int32)
    if len(appends) == 0 or len(lists) == 1:
        return writer
    pair = _pairs(t, t.key[appends], t.value[appends])
    order = np.argsort(pair, kind="stable")
    wanted = _pairs(t, lists.key[1:], lists.last[1:])
    place = np.minimum(np.searchsorted(pair[order], wanted), len(pair) - 1)
    found = pair[order][place] == wanted
    writer[1:][found] = appends[order[place[found]]]
    return writer


def _is_branching(lists: Lists) -> bool:
    parent, key = lists.parent[1:], lists.key[1:]
    children = np.bincount(parent[parent != EMPTY])
    roots = np.bincount(key[parent == EMPTY])
    return bool((children > 1).any() or (roots > 1).any())


def _is_twice(writer: Int32s) -> bool:
    return bool((np.bincount(writer[writer >= 0]) > 1).any())


@dataclass(slots=True)
class _Repair:
    """Goes through the lists one by one, where something is wrong with them: leaves out values that
    nobody committed, and those that are there for the second time, and takes the longest of what is
    left as the order."""

    t: Transactions
    owner: Int32s
    writer: Int32s
    is_bad: Bools
    findings: Findings
    of_list: list[int] = field(default_factory=lambda: [EMPTY])
    parent: list[int] = field(default_factory=lambda: [EMPTY])
    key: list[int] = field(default_factory=lambda: [-1])
    appended: list[int] = field(default_factory=lambda: [-1])
    depth: list[int] = field(default_factory=lambda: [0])

    def run(self) -> _Tree:
        """The lists that are left."""
        reader = self._readers()
        dirty = self._reduce(reader)
        self._note_dirty(dirty)
        off_order = self._longest(reader)
        return _Tree(
            np.array(self.parent, np.int32),
            np.array(self.key, np.int32),
            np.array(self.appended, np.int32),
            np.array(self.of_list, np.int32),
            off_order,
        )

    def _readers(self) -> Int64s:
        """An operation that read each list, or one that goes on from it."""
        t = self.t
        reader = np.full(len(t.lists), -1, np.int64)
        rows = np.flatnonzero(t.kind == READ_LIST)
        reader[t.value[rows[::-1]]] = rows[::-1]
        found: list[int] = reader.tolist()
        parent = t.lists.parent.tolist()
        for number in range(len(found) - 1, 0, -1):
            if found[parent[number]] < 0:
                found[parent[number]] = found[number]
        return np.array(found, np.int64)

    def _reduce(self, reader: Int64s) -> list[tuple[int, int, int]]:
        """Fills the lists that are left; gives each committed append behind one that was not, with
        that, and who read them."""
        t, bad, writer = self.t, self.is_bad.tolist(), self.writer.tolist()
        parents = t.lists.parent.tolist()
        number_of: dict[tuple[int, int, int], int] = {}
        last_bad = [-1] * len(parents)
        dirty = []
        twice = self._written_twice()
        for number in range(1, len(parents)):
            parent = parents[number]
            reduced = self.of_list[parent]
            key, append = int(t.lists.key[number]), writer[number]
            last_bad[number] = last_bad[parent]
            if append in twice and self._holds(parents, parent, append):
                self.of_list.append(reduced)
                self.findings.note(
                    "duplicate elements",
                    [append, int(reader[number])],
                    f"{t.values[t.lists.last[number]]!r} is twice in a list of {t.keys[key]}",
                )
                continue
            if bad[number]:
                self.of_list.append(reduced)
                if append < 0:
                    value = t.values[t.lists.last[number]]
                    self.findings.note(
                        "unwritten value",
                        [int(reader[number])],
                        f"{value!r} of {t.keys[key]} was read, and nobody appended it",
                    )
                else:
                    last_bad[number] = append
                continue
            if last_bad[number] >= 0:
                dirty.append((append, last_bad[number], int(reader[number])))
            found = number_of.get((key, reduced, append))
            if found is None:
                found = number_of[key, reduced, append] = len(self.parent)
                self.parent.append(reduced)
                self.key.append(key)
                self.appended.append(append)
                self.depth.append(self.depth[reduced] + 1)
            self.of_list.append(found)
        return dirty

    def _written_twice(self) -> set[int]:
        known = self.writer[self.writer >= 0]
        return set(np.flatnonzero(np.bincount(known) > 1).tolist()) if len(known) else set()

    def _holds(self, parents: list[int], number: int, append: int) -> bool:
        """Whether a value is already in a list."""
        while number != EMPTY:
            if self.writer[number] == append:
                return True
            number = parents[number]
        return False

    def _note_dirty(self, dirty: list[tuple[int, int, int]]) -> None:
        t = self.t
        for append, (aborted, row) in {each: rest for each, *rest in dirty}.items():
            self.findings.note(
                "dirty update",
                [aborted, append, row],
                f"{t.values[t.value[append]]!r} of {t.keys[t.key[append]]} was appended behind "
                f"{t.values[t.value[aborted]]!r}, which was never committed",
            )
        rows = np.flatnonzero(t.kind == READ_LIST)
        parent = t.lists.parent.tolist()
        aborted_in = [-1] * len(parent)
        for number in range(1, len(parent)):
            aborted_in[number] = aborted_in[parent[number]]
            if self.is_bad[number] and self.writer[number] >= 0:
                aborted_in[number] = int(self.writer[number])
        there = np.array(aborted_in, np.int64)[t.value[rows]]
        for row, append in zip(rows[there >= 0].tolist(), there[there >= 0].tolist(), strict=True):
            if self.owner[row] != self.owner[append]:
                self.findings.note(
                    "G1a",
                    [append, row],
                    f"{t.values[t.value[append]]!r} of {t.keys[t.key[append]]} was read, and the "
                    "transaction that appended it was never committed",
                )

    def _longest(self, reader: Int64s) -> Bools:
        """Which of the lists that are left are not prefixes of the longest one of their key."""
        deepest: dict[int, int] = {}
        for number in range(1, len(self.parent)):
            best = deepest.get(self.key[number])
            if best is None or self.depth[number] > self.depth[best]:
                deepest[self.key[number]] = number
        off = np.ones(len(self.parent), np.bool_)
        off[EMPTY] = False
        for each in deepest.values():
            number = each
            while number != EMPTY:
                off[number] = False
                number = self.parent[number]
        self._note_incompatible(off, deepest, reader)
        return off

    def _note_incompatible(self, off: Bools, deepest: dict[int, int], reader: Int64s) -> None:
        """Where a list parts from the longest one: two appends, each of which one list has before,
        or without, the other."""
        t = self.t
        some_list = {reduced: number for number, reduced in enumerate(self.of_list)}
        following = {
            (self.key[number], self.parent[number]): number
            for number in np.flatnonzero(~off).tolist()
        }
        parting = []
        for number in np.flatnonzero(off).tolist():
            key, parent = self.key[number], self.parent[number]
            if not off[parent]:
                appends = [self.appended[following[key, parent]], self.appended[number]]
                is_sure = all(t.outcome[self.owner[append]] == OK for append in appends)
                lists = [some_list[deepest[key]], some_list[number]]
                parting.append((not is_sure, [*appends, *reader[lists].tolist()], key))
        for _, rows, key in sorted(parting):
            words = f"two lists of {t.keys[key]} are no prefixes of each other"
            self.findings.note("incompatible order", rows, words)


def number_of_appends(t: Transactions, v: Versions) -> Int32s:
    """The place of each append in the order of its key; the greatest number if it has none."""
    number_of = np.full(len(t.kind), np.iinfo(np.int32).max, np.int32)
    in_order = np.flatnonzero(v.is_in_order)
    number_of[v.writer[in_order]] = in_order
    return number_of


def external_reads(t: Transactions, owner: Int32s) -> Int64s:
    """The reads of lists whose result was told."""
    is_read = (t.kind == READ_LIST) | ((t.kind == READ) & (t.value != NOT_TOLD))
    return np.flatnonzero(is_read & (t.outcome[owner] == OK))
