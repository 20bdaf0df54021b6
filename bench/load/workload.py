"""Seeded workloads: which operation is wanted, when, at which node, on which key.

A plan is a pure function of the workload and the nodes. Arrival times, kinds and keys each have
their own random stream, so another mix or key distribution does not change the arrival times.

*Arrivals* are Poisson: the gaps are exponential with mean ``1 / rate_per_s``. Many independent
users look like that, and unlike evenly spaced requests they cannot fall into step with a protocol's
timers. With a shape the rate changes over time (`bench.load.shapes`).

*Keys* are ``k0`` to ``k<keys - 1>`` (or have another ``key_prefix``: a history can be checked only
if its keys were empty before), chosen as in YCSB (Cooper et al., SoCC 2010, section 4):
``uniform``; ``zipfian`` (theta 0.99, scrambled: popular keys lie anywhere); ``latest`` (writes
cycle through the keys, all else prefers, zipfian, those written last); ``hotspot`` (80% of the
operations go to 20% of the keys). With any distribution, a share ``conflict_rate`` of the
operations goes to the first key, as EPaxos and Paxi define interference (Moraru et al., SOSP 2013,
section 7; Ailijiang et al., SIGMOD 2019, section 4.1).

*Kinds of operations* are those of the protocols and ``rmw``, YCSB's read-modify-write: a read and,
if it ends ok, a write of the same key at the same node. Both are operations of the history, wanted
at the same time, so the latency of the write is that of the whole.

A workload of another ``kind`` than registers wants tasks (`bench.load.kinds.tasks`) instead: the
mix then says how many are reads.

*Nodes* are asked in turn (operation 1 the first node, operation 2 the second ...). If the workload
is to ``ask`` the leader, that is so only while no reply has said who leads (`bench.load.client`).

*Values* are unique in a plan, so that a read identifies the write it saw: the id of the operation,
as an integer or in a string of ``value_bytes`` characters. The ``expected`` value of a ``cas`` is
not planned: the client takes the value that it last saw of the key, since any other would rarely
apply.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from bench.load.kinds.tasks import SET_SIZE, STEPS, Deed, Elements, Task, set_name, sets_of
from bench.load.kinds.transactions import MOST_AMOUNT, on_lists
from bench.load.shapes import parse_shape
from bench.record.files import NotReadable, read_named
from bench.record.history import ABSENT, RecordedOperation
from bench.record.models.run import Kind, by_transactions
from bench.record.quantities import MAX_COUNT, MAX_DURATION_S, MAX_RATE_PER_S
from nodes.contract.names import did_you_mean
from nodes.contract.replica import OperationKind, Value
from nodes.errors import InvalidInput
from nodes.wire.codec import MAX_VALUE_BYTES

MixKind: TypeAlias = Literal["read", "write", "cas", "delete", "rmw"]
Ask: TypeAlias = Literal["any", "leader"]
Distribution: TypeAlias = Literal["uniform", "zipfian", "latest", "hotspot"]

ZIPFIAN_THETA = 0.99
HOT_KEYS = 0.2
HOT_OPERATIONS = 0.8
MAX_BYTES = 1 << 20
MAX_KEYS = 1_000_000
MAX_ACCOUNTS = 100
MIN_VALUE_BYTES = 12
_NS = 1_000_000_000


class BadWorkload(InvalidInput):
    """An invalid workload. One line that says what is valid."""


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the clients want.

    ``kind``: what the operations are of, by default registers.
    ``rate_per_s``: operations wanted per second, however slow the answers (open loop; a
    read-modify-write counts once); None: closed loop, each user sends the next operation after the
    answer. ``shape``: how the rate changes over time, instead of ``rate_per_s``; in a closed loop,
    the number of users (`bench.load.shapes`). ``in_flight``: the most operations open at once in an
    open loop; an operation due beyond that is dropped and counted. ``conflict_rate``: the share of
    operations on one key. ``mix``: kind -> weight. ``value_bytes``: the length of written strings;
    0: integers. ``ask``: which node: any in turn, or the one that leads, where there is one.
    ``timeout_s``: an operation without an answer for so long ends ``info``.
    ``duration_s``: how long operations are wanted."""

    kind: Kind = "register"
    rate_per_s: float | None = 300.0
    shape: str | None = None
    in_flight: int = 256
    keys: int = 50
    key_prefix: str = "k"
    distribution: Distribution = "uniform"
    conflict_rate: float = 0.0
    mix: dict[MixKind, float]
    value_bytes: int = 0
    ask: Ask = "any"
    timeout_s: float = 2.0
    duration_s: float
    seed: int

    def __post_init__(self) -> None:
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(message)

        rate = self.rate_per_s
        require(
            rate is None or 0 < rate <= MAX_RATE_PER_S,
            f"rate_per_s is {rate}: use more than 0, at most 1,000,000, or null (closed loop)",
        )
        if self.shape is not None:
            parse_shape(self.shape)
        require(1 <= self.in_flight <= 100_000, f"in_flight is {self.in_flight}: use 1 to 100,000")
        require(1 <= self.keys <= MAX_KEYS, f"keys is {self.keys}: use 1 to {MAX_KEYS:,}")
        require(
            re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.key_prefix) is not None,
            f"key_prefix is {self.key_prefix!r}: use 1 to 64 letters, digits, dots, dashes",
        )
        require(
            0 <= self.conflict_rate <= 1,
            f"conflict_rate is {self.conflict_rate}: use a share, 0 to 1",
        )
        require(
            bool(self.mix) and all(0 <= weight <= 1e9 for weight in self.mix.values()),
            "mix needs a weight of 0 or more for at least one operation, as in read=50,write=50",
        )
        require(sum(self.mix.values()) > 0, "mix has only weights of 0: give one operation more")
        require(
            self.value_bytes == 0 or MIN_VALUE_BYTES <= self.value_bytes <= MAX_VALUE_BYTES,
            f"value_bytes is {self.value_bytes}: use 0 (integers) or {MIN_VALUE_BYTES} to"
            f" {MAX_VALUE_BYTES:,}",
        )
        require(
            self.value_bytes == 0 or self.kind == "register",
            f"value_bytes is for registers: what a {self.kind} holds has a length of its own",
        )
        require(
            self.kind != "bank" or 2 <= self.keys <= MAX_ACCOUNTS,
            f"keys is {self.keys}: a bank has 2 to {MAX_ACCOUNTS} accounts, one for each key",
        )
        require(
            0 < self.timeout_s <= 3600,
            f"timeout_s is {self.timeout_s}: use more than 0, at most 3600",
        )
        require(
            0 < self.duration_s <= MAX_DURATION_S,
            f"duration_s is {self.duration_s}: use more than 0, at most {MAX_DURATION_S:,.0f}",
        )
        require(0 <= self.seed <= MAX_COUNT, f"seed is {self.seed}: use 0 to {MAX_COUNT:,}")

    def key_names(self) -> list[str]:
        """Of all keys, in order."""
        return [f"{self.key_prefix}{number}" for number in range(self.keys)]

    @property
    def offered_per_s(self) -> float | None:
        """Operations wanted per second, averaged over the shape; None in a closed loop."""
        if self.rate_per_s is None or self.shape is None:
            return self.rate_per_s
        return parse_shape(self.shape).mean


class PlannedOperation(msgspec.Struct, frozen=True, gc=False):
    """One wanted operation. ``id`` counts from 1. ``intended_ns``: when, after the start of the
    load; None in a closed loop. ``value``: what to write (write and cas). ``then``: the follow-up
    wanted when this one ends ok (the write of a read-modify-write). ``expected``: of a cas; absent:
    what the client last saw of the key. ``task``: what is wanted instead, of another kind."""

    id: int
    intended_ns: int | None
    node: str
    op: RecordedOperation
    key: str
    value: int | str | None
    then: PlannedOperation | None = None
    expected: Value | msgspec.UnsetType = ABSENT
    task: Task | None = None


def plan(
    workload: Workload,
    nodes: Sequence[str],
    *,
    operations: Sequence[str] = (),
    part: int = 0,
    parts: int = 1,
) -> Iterator[PlannedOperation]:
    """The operations of one of ``parts`` equal parts, in order; together they are the whole plan.
    ``operations``: that are offered; what can be done with transactions is, if they are among them.

    An open loop ends after ``duration_s``, a closed loop never. Each part walks the whole plan and
    skips what is not its own. A read-modify-write is one item with two ids. Raises ValueError for
    an invalid part."""
    if not nodes:
        raise ValueError("a plan needs at least one node")
    if not 0 <= part < parts:
        raise ValueError(f"part {part} of {parts} parts: the first part is 0")
    if by_transactions(workload.kind, operations):
        return _plan_transactions(workload, tuple(nodes), part, parts)
    plan = _plan if workload.kind == "register" else _plan_tasks
    return plan(workload, tuple(nodes), part, parts)


def _plan(
    workload: Workload, nodes: tuple[str, ...], part: int, parts: int
) -> Iterator[PlannedOperation]:
    seed = workload.seed
    kind_draw = _stream(seed, "kinds").random
    choose = _KeyChooser(workload).choose
    kinds = sorted(workload.mix)
    bounds = _bounds([workload.mix[kind] for kind in kinds])
    names = workload.key_names()
    size = workload.value_bytes
    id_ = 0

    def value() -> int | str:
        return id_ if size == 0 else str(id_).rjust(size, ".")

    for number, intended_ns in enumerate(_arrivals(workload)):
        kind = kinds[bisect_right(bounds, kind_draw())]
        op: OperationKind = "read" if kind == "rmw" else kind
        key = names[choose(op)]
        id_ += 1
        if number % parts != part:
            id_ += kind == "rmw"
            continue
        node = nodes[number % len(nodes)]
        written = value() if op in ("write", "cas") else None
        first = PlannedOperation(id_, intended_ns, node, op, key, written)
        if kind == "rmw":
            id_ += 1
            write = PlannedOperation(id_, intended_ns, node, "write", key, value())
            first = msgspec.structs.replace(first, then=write)
        yield first


def _plan_tasks(
    workload: Workload, nodes: tuple[str, ...], part: int, parts: int
) -> Iterator[PlannedOperation]:
    reads = workload.mix.get("read", 0) / sum(workload.mix.values())
    draw = _stream(workload.seed, "kinds").random
    choose = _KeyChooser(workload).choose
    names = workload.key_names()
    rate = workload.offered_per_s
    adds = None if rate is None else rate * workload.duration_s * (1 - reads)
    elements, sets = Elements(names, adds), sets_of(names)
    for number, intended_ns in enumerate(_arrivals(workload)):
        deed: Deed = "read" if draw() < reads else "change"
        chosen = choose("read" if deed == "read" else "write")
        target = names[chosen]
        keys: tuple[str, ...] = (target,)
        if workload.kind == "set":
            added = elements.next() if deed == "change" else None
            if added is None:
                deed, place = "read", elements.begun(chosen)
                keys = sets[place]
            else:
                place, keys = added // SET_SIZE, (names[added],)
            target = set_name(place)
        if number % parts != part:
            continue
        asked = number % len(nodes)
        id_, in_turn = 1 + number * (1 + STEPS), (*nodes[asked:], *nodes[:asked])
        task = Task(id_, workload.kind, deed, target, keys, in_turn)
        yield PlannedOperation(id_, intended_ns, nodes[asked], "read", keys[0], None, task=task)


def _plan_transactions(
    workload: Workload, nodes: tuple[str, ...], part: int, parts: int
) -> Iterator[PlannedOperation]:
    kind = workload.kind
    reads = workload.mix.get("read", 0) / sum(workload.mix.values())
    draw = _stream(workload.seed, "kinds").random
    choose = _KeyChooser(workload).choose
    names = workload.key_names()
    for number, intended_ns in enumerate(_arrivals(workload)):
        id_ = 1 + number * (1 + STEPS)
        steps, amount = None, 0
        deed: Deed = "change"
        if kind == "list-append":
            steps = on_lists(id_, draw, reads, lambda op: names[choose(op)])
            keys = tuple(dict.fromkeys(key for _, key, _ in steps))
        elif draw() < reads:
            deed, keys = "read", tuple(names)
        else:
            source = choose("write")
            target = (source + 1 + int(draw() * (len(names) - 1))) % len(names)
            keys, amount = (names[source], names[target]), 1 + int(draw() * MOST_AMOUNT)
        if number % parts != part:
            continue
        asked = number % len(nodes)
        in_turn = (*nodes[asked:], *nodes[:asked])
        task = Task(id_, kind, deed, kind, keys, in_turn, steps, amount)
        yield PlannedOperation(id_, intended_ns, nodes[asked], "read", keys[0], None, task=task)


def _arrivals(workload: Workload) -> Iterator[int | None]:
    """The intended times of the operations; in a closed loop None for ever."""
    rate = workload.rate_per_s
    if rate is None:
        yield from repeat(None)
        return
    shape = None if workload.shape is None else parse_shape(workload.shape)
    gap = _stream(workload.seed, "arrivals").expovariate
    end_ns = int(workload.duration_s * _NS)
    reached = 0.0
    while True:
        reached += gap(rate if shape is None else 1.0)
        at_s = reached if shape is None else shape.when(reached)
        if at_s is None or (intended_ns := int(at_s * _NS)) >= end_ns:
            return
        yield intended_ns


class _KeyChooser:
    """Chooses key numbers, 0 to keys - 1, by one of the distributions."""

    def __init__(self, workload: Workload) -> None:
        self._keys = workload.keys
        rng = _stream(workload.seed, "keys")
        self._random = rng.random
        self._scrambled = list(range(self._keys))
        _stream(workload.seed, "scramble").shuffle(self._scrambled)
        self._newest = 0
        self._bounds: list[float] = []
        if workload.distribution in ("zipfian", "latest"):
            self._bounds = _bounds([1 / (i + 1) ** ZIPFIAN_THETA for i in range(self._keys)])
        self._hot = max(1, int(self._keys * HOT_KEYS))
        self._conflicts = _stream(workload.seed, "conflicts").random
        self._conflict_rate = workload.conflict_rate
        self._choose = {
            "uniform": self._uniform,
            "zipfian": self._zipfian,
            "latest": self._latest,
            "hotspot": self._hotspot,
        }[workload.distribution]

    def choose(self, op: OperationKind) -> int:
        """The key of the next operation."""
        # Always drawn, so that another conflict rate does not change the other keys.
        key = self._choose(op)
        return 0 if self._conflicts() < self._conflict_rate else key

    def _uniform(self, op: OperationKind) -> int:
        return int(self._random() * self._keys)

    def _rank(self) -> int:
        return bisect_right(self._bounds, self._random())

    def _zipfian(self, op: OperationKind) -> int:
        return self._scrambled[self._rank()]

    def _latest(self, op: OperationKind) -> int:
        if op == "write":
            self._newest += 1
            return self._newest % self._keys
        return (self._newest - self._rank()) % self._keys

    def _hotspot(self, op: OperationKind) -> int:
        cold = self._keys - self._hot
        if cold == 0 or self._random() < HOT_OPERATIONS:
            return self._scrambled[int(self._random() * self._hot)]
        return self._scrambled[self._hot + int(self._random() * cold)]


def _bounds(weights: Sequence[float]) -> list[float]:
    """The cumulative shares of all but the last weight: `bisect_right` of a random number below 1
    gives an index with the probability of its weight."""
    total = sum(weights)
    return [bound / total for bound in list(accumulate(weights))[:-1]]


def _stream(seed: int, name: str) -> random.Random:
    return random.Random(f"capbench/{seed}/{name}")


def make_workload(fields: dict[str, Any]) -> Workload:
    """A valid workload from plain fields; numbers may be text. Raises BadWorkload."""
    try:
        return msgspec.convert(fields, Workload, strict=False)
    except msgspec.ValidationError as error:
        raise BadWorkload(f"workload: {error}{_choices(error)}") from None


def read_workload(path: Path) -> Workload:
    """The workload in a JSON file. Raises BadWorkload, which names the file."""
    try:
        return msgspec.json.decode(read_named(path, MAX_BYTES), type=Workload)
    except FileNotFoundError:
        raise BadWorkload(f"{path}: not found") from None
    except NotReadable as error:
        raise BadWorkload(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadWorkload(f"{path}: {error}{_choices(error)}") from None


def _choices(error: Exception) -> str:
    """The valid names, if an error is about an unknown one."""
    found = re.search(r"Invalid enum value '(.*?)'", str(error))
    if found is None:
        return ""
    known = (*get_args(MixKind), *get_args(Distribution), *get_args(Ask), *get_args(Kind))
    hint = did_you_mean(found[1], known).partition("; ")[2].partition("known: ")[0]
    return (
        f"; {hint}operation kinds: {', '.join(get_args(MixKind))};"
        f" distributions: {', '.join(get_args(Distribution))};"
        f" whom to ask: {', '.join(get_args(Ask))};"
        f" kinds of workload: {', '.join(get_args(Kind))}"
    )


def parse_mix(text: str) -> dict[str, float]:
    """``read=50,write=50`` as a mix, its kinds not yet checked. Raises BadWorkload."""
    mix: dict[str, float] = {}
    for item in text.split(","):
        kind, equals, weight = item.partition("=")
        try:
            if not equals or kind.strip() in mix:
                raise ValueError
            mix[kind.strip()] = float(weight)
        except ValueError:
            raise BadWorkload(f"mix {text!r}: write it as in read=50,write=50") from None
    return mix
