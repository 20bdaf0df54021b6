"""What becomes of the data when a node is lost, and when it comes back; sans-I/O.

Theory of operation
-------------------
Keys are placed on fewer nodes than there are (`nodes.parts.placement`). `Recovery` is the part of a
replica that keeps it so:

1. *Suspicion.* A failure detector (`nodes.parts.failure_detector`) suspects a silent node. A
   suspicion that lasts for ``recover_after_s`` is taken for a loss. It may still be wrong.
2. *Strategy.* What is to move is decided by a strategy, registered by the type of failure
   (`register_recovery_strategy`). ``re-replicate`` puts the least loaded live node in the place of
   the lost one in each of its ranges; ``rebalance`` gives ranges to a node that has few, as one
   that rejoins.
3. *Agreement.* A member of the range proposes the next placement. The first live member does so at
   once, each further one after another ``recover_after_s``, so that a proposer that crashes has a
   successor. Only members propose: of two that suspect each other one is put out, and then has no
   say in the range any more.
4. *Transfer.* The new member copies the range, page by page, from a majority of the members before
   (`Recovery.copy_quorum`). Each request names the new placement, which a source makes durable
   before it answers: so the old placement is *fenced* before the new member serves, and a falsely
   suspected node can never form a quorum with old members. Then the new member is ready, answers
   requests, and says so (`RangeReady`).

A node that comes back still knows old placements only. Whoever it asks tells it the newer ones;
where it is no member any more it has no vote, and where it becomes one again it copies first. A
node that was replaced nowhere has kept, durably, all that it ever acknowledged, and so may vote at
once: what it missed, a quorum of the others has.

No further placement of a range is proposed before its newest member is ready, unless that one is
lost itself. So at most one member at a time is not.

What nodes hold of ranges that they have lost is not served and not erased: it costs disk, and saves
nothing when they get the range back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import msgspec

from nodes.contract.bounds import BadMessage, Count, WireStruct
from nodes.contract.disk import Disk
from nodes.contract.replica import Config, Env, Out, Replica, Value, Version
from nodes.parts.failure_detector import Heartbeat, HeartbeatParameters, Heartbeats
from nodes.parts.limits import KeyLimits
from nodes.parts.placement import MESSAGES as PLACEMENT_MESSAGES
from nodes.parts.placement import RECORDS as PLACEMENT_RECORDS
from nodes.parts.placement import (
    AcceptedPlacement,
    AcceptPlacement,
    Placed,
    Placement,
    PlacementNumbers,
    Placements,
    PreparePlacement,
    PromisePlacement,
    RefusePlacement,
)

TICK = "recovery"
_TICK_S = 0.25
_ASK_AGAIN_S = 0.5
_TELL_NUMBERS_S = 1.0


class PlacementParameters(KeyLimits, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``replication_factor``: how many nodes hold a key, 0 for all. Below the number of nodes:
    ``ranges`` into which keys hash, ``heartbeat`` for the detector, and ``recover_after_s``, how
    long a suspicion lasts until the node is replaced. The limits are those of `KeyLimits`."""

    replication_factor: int = 0
    ranges: int = 16
    recover_after_s: float = 2.0
    heartbeat: HeartbeatParameters = HeartbeatParameters()

    def check_placement(self, nodes: Sequence[str], buckets: int) -> None:
        """Raises ValueError where a value does not fit a cluster of ``nodes``."""
        self.check_limits()
        if not 0 <= self.replication_factor <= len(nodes):
            raise ValueError(
                f"replication_factor is 0 (all nodes) to {len(nodes)} with {len(nodes)} nodes,"
                f" not {self.replication_factor}"
            )
        if not 1 <= self.ranges <= 1024:
            raise ValueError(f"ranges is between 1 and 1024, not {self.ranges}")
        if self.is_partial(nodes) and buckets % self.ranges:
            raise ValueError(f"buckets ({buckets}) is a multiple of ranges ({self.ranges})")
        if not (math.isfinite(self.recover_after_s) and self.recover_after_s > 0):
            raise ValueError(
                f"recover_after_s is a positive number of seconds, not {self.recover_after_s}"
            )

    def is_partial(self, nodes: Sequence[str]) -> bool:
        """Whether a key is not on all ``nodes``."""
        return 0 < self.replication_factor < len(nodes)


# --- strategies ---


class Move(NamedTuple):
    """Put ``to`` in the place of ``lost``."""

    range: int
    lost: str
    to: str


class Situation(NamedTuple):
    """What a strategy goes by: one node's view. ``live``: neither suspected nor unheard of.
    ``lost``: suspected for long enough."""

    nodes: tuple[str, ...]
    placements: tuple[Placement, ...]
    live: tuple[str, ...]
    lost: tuple[str, ...]

    def load(self) -> dict[str, int]:
        """The number of ranges of each node."""
        load = dict.fromkeys(self.nodes, 0)
        for placement in self.placements:
            for node in placement.nodes:
                load[node] += 1
        return load


Strategy: TypeAlias = Callable[[Situation], list[Move]]


def re_replicate(situation: Situation) -> list[Move]:
    """For each range with a lost member: the live node with the fewest ranges (of equals the first)
    in its place, at most one for each range. What moves counts for the moves after it."""
    load = situation.load()
    moves = []
    for placement in situation.placements:
        lost = next((node for node in placement.nodes if node in situation.lost), None)
        free = [node for node in situation.live if not placement.joined(node)]
        if lost is None or not free:
            continue
        to = min(free, key=load.__getitem__)
        load[to] += 1
        load[lost] -= 1
        moves.append(Move(placement.range, lost, to))
    return moves


def rebalance(situation: Situation) -> list[Move]:
    """While two live nodes differ by more than one range: one from the node with the most to the
    one with the fewest."""
    load = situation.load()
    moves: list[Move] = []
    moved: set[int] = set()
    while situation.live:
        few = min(situation.live, key=load.__getitem__)
        by_load = sorted(situation.live, key=load.__getitem__, reverse=True)
        move = next(
            (
                Move(placement.range, many, few)
                for many in by_load
                if load[many] > load[few] + 1
                for placement in situation.placements
                if placement.range not in moved
                and placement.joined(many)
                and not placement.joined(few)
            ),
            None,
        )
        if move is None:
            break
        moves.append(move)
        moved.add(move.range)
        load[move.lost] -= 1
        load[few] += 1
    return moves


NODE_LOST = "node-lost"
NODE_REJOINED = "node-rejoined"
_STRATEGIES: dict[str, Strategy] = {NODE_LOST: re_replicate, NODE_REJOINED: rebalance}


def register_recovery_strategy(failure_type: str, strategy: Strategy) -> Strategy:
    """Use ``strategy`` from now on when there is a failure of that type: ``node-lost`` (a suspicion
    has lasted) or ``node-rejoined`` (nothing is lost, and nodes may differ in load). Every node of
    a cluster has to use the same. Returns the one used before. Raises ValueError."""
    if failure_type not in _STRATEGIES:
        raise ValueError(
            f"unknown failure type {failure_type!r}; known: {', '.join(sorted(_STRATEGIES))}"
        )
    before = _STRATEGIES[failure_type]
    _STRATEGIES[failure_type] = strategy
    return before


# --- messages ---


class CopyRange(WireStruct, frozen=True):
    """Send me the keys behind ``after`` of the range of ``placement``, by which I join."""

    placement: Placement
    after: str


class RangePage(WireStruct, frozen=True):
    """The keys after ``after``, each as `PlacedReplica.export_keys` packed it. ``last``: the last
    one of them; None: there are no more."""

    range: Count
    number: Count
    after: str
    last: str | None
    contents: tuple[bytes, ...]


class RangeReady(WireStruct, frozen=True):
    """The member that joined ``range`` by placement number ``joined`` serves now."""

    range: Count
    joined: Count


MESSAGES: tuple[type[msgspec.Struct], ...] = (
    Heartbeat,
    *PLACEMENT_MESSAGES,
    CopyRange,
    RangePage,
    RangeReady,
)
RECORDS = PLACEMENT_RECORDS


# --- the machine ---


class _Copy:
    """A transfer to this node. ``after``: how far each source is; ``done``: those that are
    through."""

    def __init__(self, placement: Placement, now: float) -> None:
        self.placement = placement
        self.began_s = now
        self.after: dict[str, str] = {}
        self.asked_s: dict[str, float] = {}
        self.done: dict[str, None] = {}
        self.bytes = 0
        self.keys = 0


class Recovery:
    """Suspects, proposes, copies, fences. See the top of this file.

    ``copy_quorum``: so many members of the placement before have to be copied from. It must meet
    every write quorum, and leave no read or write quorum without a fenced member.

    Marks: ``under_replicated`` (range, lost, to, number) when a member has been lost for long
    enough, at the node that proposes; ``unbalanced`` (range, from, to, number) where that one has
    more ranges than others; ``placed`` (range, number, members); ``copying`` (range,
    from, to); ``re_replicated`` (range, from, to, number, bytes, keys, seconds) when the new member
    is ready, at that member. ``from`` is the node whose place it takes. Units: seconds.
    """

    TIMERS = Heartbeats.TIMERS | {TICK}

    def __init__(
        self,
        host: PlacedReplica,
        config: Config,
        env: Env,
        out: Out,
        disk: Disk,
        parameters: PlacementParameters,
        copy_quorum: int,
    ) -> None:
        self.id = config.node
        self._host = host
        self._nodes = config.nodes
        self._peers = config.peers
        self._env = env
        self._out = out
        self._parameters = parameters
        self.copy_quorum = copy_quorum
        self.heartbeats = Heartbeats(config, env, out, parameters.heartbeat)
        self._heard: dict[str, None] = {}
        self._suspected_s: dict[str, float] = {}
        self._trusted_s = dict.fromkeys(self._peers, env.now())
        self.placements = Placements(
            config,
            env,
            out,
            disk,
            ranges=parameters.ranges,
            factor=parameters.replication_factor,
            on_change=self._on_change,
        )
        self._copies: dict[int, _Copy] = {}
        self._told_s = env.now()
        self.bytes_moved = 0
        """Bytes of pages that this node has copied."""
        self.answered: list[tuple[int, int]] = []
        """(range, placement number) of what the last step answered: for invariants."""
        self.answers = 0
        self._set_timer()

    def _set_timer(self) -> None:
        # Jitter, so that the nodes do not all propose in the same instant.
        self._out.set_timer(TICK, _TICK_S * self._env.rng.uniform(0.6, 1.4))

    def on_timer(self, name: str) -> None:
        """One of `TIMERS` fired."""
        now = self._env.now()
        if name != TICK:
            for change in self.heartbeats.on_timer(name):
                if change.kind == "suspect":
                    self._suspected_s[change.node] = now
                else:
                    self._suspected_s.pop(change.node, None)
                    self._trusted_s[change.node] = now
            return
        self._set_timer()
        self.placements.tick()
        self._copy()
        self._recover()
        if now >= self._told_s + _TELL_NUMBERS_S:
            self._told_s = now
            (peer,) = self._env.rng.sample(self._peers, 1)
            self._out.send(peer, self.placements.numbers())

    def on_heartbeat(self, src: str, msg: Heartbeat) -> None:
        """A node is alive."""
        if self.heartbeats.on_heartbeat(src, msg):
            self._heard[src] = None

    # --- what requests ask ---

    def admits(self, src: str, key: str, number: int) -> bool:
        """Whether this replica answers a coordinator; see `Placements.admits`."""
        if not self.placements.admits(src, key, number):
            return False
        self.note_answer(key, number)
        return True

    def note_answer(self, key: str, number: int) -> None:
        """This replica counts in a quorum of placement ``number``."""
        self.answered.append((self.placements.of(key).range, number))
        self.answers += 1

    def serves(self, key: str) -> bool:
        """Whether this replica holds the key, and may answer for it."""
        return self.placements.serves(self.placements.of(key).range)

    def is_durable(self, key: str) -> bool:
        """Whether a crash would not make this node forget the placement that it answers under: an
        answer that overtakes the disk would not be fenced by it."""
        at = self.placements.known_at[self.placements.of(key).range]
        return at <= self._host.durable_position

    # --- proposing ---

    def _recover(self) -> None:
        now = self._env.now()
        hold_s = self._parameters.recover_after_s
        live = tuple(
            node
            for node in self._nodes
            if node == self.id or (node in self._heard and node not in self._suspected_s)
        )
        lost = tuple(n for n, since_s in self._suspected_s.items() if now - since_s >= hold_s)
        placements = self.placements
        situation = Situation(self._nodes, tuple(placements.current), live, lost)
        if any(node in lost for placement in situation.placements for node in placement.nodes):
            for move in _STRATEGIES[NODE_LOST](situation):
                placement = situation.placements[move.range]
                # Behind the members before it, each of which has its turn.
                wait_s = hold_s * (1 + self._rank(placement))
                if (
                    now - self._suspected_s[move.lost] >= wait_s
                    and self._may_propose(placement)
                    and (placements.is_complete(move.range) or placement.newest[0] == move.lost)
                ):
                    self._out.mark(
                        "under_replicated",
                        range=move.range,
                        lost=move.lost,
                        to=move.to,
                        number=placement.number,
                    )
                    placements.propose(placement.replace(move.lost, move.to))
        elif all(map(placements.is_complete, range(placements.ranges))) and all(
            node == self.id or now - self._trusted_s[node] >= hold_s for node in live
        ):
            # One at a time: while a range moves it has one replica less that answers.
            for move in _STRATEGIES[NODE_REJOINED](situation)[:1]:
                placement = situation.placements[move.range]
                if self._rank(placement) == 0 and self._may_propose(placement):
                    self._out.mark(
                        "unbalanced",
                        range=move.range,
                        number=placement.number,
                        **{"from": move.lost, "to": move.to},
                    )
                    placements.propose(placement.replace(move.lost, move.to))

    def _rank(self, placement: Placement) -> int:
        """How many members come before this node, those that it suspects not counted."""
        alive = [node for node in placement.nodes if node not in self._suspected_s]
        return alive.index(self.id) if self.id in alive else len(alive)

    def _may_propose(self, placement: Placement) -> bool:
        number = placement.range
        return self.placements.serves(number) and not self.placements.proposes(number)

    # --- copying ---

    def _on_change(self, number: int) -> None:
        """A range has a new placement: what was being copied for an older one begins again."""
        self._copies.pop(number, None)
        self._host.on_placement(number)

    def _copy(self) -> None:
        """Begin the copies that are missing, and ask again where nothing came."""
        now = self._env.now()
        for placement in self.placements.current:
            number = placement.range
            joined = placement.joined(self.id)
            if not joined or self.placements.serves(number):
                continue
            copy = self._copies.get(number)
            if copy is None:
                copy = self._copies[number] = _Copy(placement, now)
                lost, to = _change(placement, self.id)
                self._out.mark("copying", range=number, **{"from": lost, "to": to})
            sources = [node for node, _ in placement.previous if node != self.id]
            likely = [node for node in sources if not self.heartbeats.suspected(node)]
            for source in likely if len(likely) >= self.copy_quorum else sources:
                if source not in copy.done and now >= copy.asked_s.get(source, 0.0) + _ASK_AGAIN_S:
                    self._ask(copy, source)

    def _ask(self, copy: _Copy, source: str) -> None:
        copy.asked_s[source] = self._env.now()
        self._out.send(source, CopyRange(copy.placement, copy.after.get(source, "")))

    def on_copy_range(self, src: str, msg: CopyRange) -> None:
        """Send a page, and from now on answer nobody who goes by an older placement. Only who was
        ready under the placement before has all there is to copy."""
        self.placements.check(msg.placement)
        self.placements.learn(msg.placement)
        number = msg.placement.range
        current = self.placements.current[number]
        if current.number > msg.placement.number:
            self._out.send(src, Placed(current))
            return
        if self.placements.ready[number] != dict(current.previous).get(self.id):
            return
        last, contents = self._host.range_page(number, msg.after)
        self._out.send(src, RangePage(number, current.number, msg.after, last, contents))

    def on_range_page(self, src: str, msg: RangePage) -> None:
        """Take it in; ask for the next page, or be ready."""
        copy = self._copies.get(msg.range)
        if (
            copy is None
            or copy.placement.number != msg.number
            or src in copy.done
            or copy.after.get(src, "") != msg.after
        ):
            return
        if msg.last is not None and msg.last <= msg.after:
            raise BadMessage(f"a page from {msg.after!r} that ends with {msg.last!r}")
        self._host.import_keys(msg.contents)
        copy.bytes += sum(map(len, msg.contents))
        copy.keys += len(msg.contents)
        if msg.last is not None:
            copy.after[src] = msg.last
            self._ask(copy, src)
            return
        copy.done[src] = None
        if len(copy.done) >= self.copy_quorum:
            self._become_ready(copy)

    def _become_ready(self, copy: _Copy) -> None:
        placement = copy.placement
        number = placement.range
        del self._copies[number]
        self.placements.become_ready(number)
        self.bytes_moved += copy.bytes
        lost, to = _change(placement, self.id)
        self._out.mark(
            "re_replicated",
            range=number,
            number=placement.number,
            bytes=copy.bytes,
            keys=copy.keys,
            seconds=round(self._env.now() - copy.began_s, 6),
            **{"from": lost, "to": to},
        )
        ready = RangeReady(number, self.placements.ready[number])
        for peer in self._peers:
            self._out.send(peer, ready)

    def on_range_ready(self, src: str, msg: RangeReady) -> None:
        """Its next placement may be proposed."""
        self.placements.check_number(msg.range, msg.joined)
        self.placements.note_complete(msg.range, msg.joined)

    # --- views ---

    def probe(self) -> dict[str, Any]:
        """``ranges``: those that this node serves, ``0-2,5``. ``placement``: how many each node
        has, ``n1:9 n2:10``. ``placement_numbers``: their sum grows with every change. ``copying``:
        ranges on their way here. ``replication_ratio``: members that are ready, as far as known,
        and not suspected here, of those that should be."""
        placements = self.placements
        load = Situation(self._nodes, tuple(placements.current), (), ()).load()
        wanted = there = 0
        for placement in placements.current:
            unready = not placements.is_complete(placement.range)
            for node, joined in placement.members:
                wanted += 1
                is_newest = unready and joined == placement.newest[1]
                there += not (is_newest or node in self._suspected_s)
        return {
            "ranges": _runs(list(filter(placements.serves, range(placements.ranges)))),
            "placement": " ".join(f"{node}:{count}" for node, count in load.items()),
            "placement_numbers": sum(placement.number for placement in placements.current),
            "copying": len(self._copies),
            "bytes_moved": self.bytes_moved,
            "replication_ratio": round(there / wanted, 4),
            **self.heartbeats.probe(),
        }


def _runs(numbers: Sequence[int]) -> str:
    """Numbers in order, those in a row together: ``0-2,5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _change(placement: Placement, joiner: str) -> tuple[str, str]:
    """Whose place the newest member took, and the newest member (or ``joiner``, of an older
    change)."""
    gone = [member[0] for member in placement.previous if member not in placement.members]
    return (gone[0] if gone else ""), joiner


class PlacedReplica(Replica):
    """Base of the protocols that place keys on fewer nodes than there are.

    A subclass calls `start_recovery` in its constructor, passes on timers of `Recovery.TIMERS`, and
    defines `keys_in`, `export_keys`, `import_keys` and `on_placement`. `recovery` is None while all
    nodes hold all keys. ``changed``: the keys of which a step changed what this replica holds; the
    subclass adds them.
    """

    MESSAGES: ClassVar[tuple[type[msgspec.Struct], ...]] = MESSAGES
    HEAVY: ClassVar[tuple[type[msgspec.Struct], ...]] = (CopyRange, PlacementNumbers)
    EARLY: ClassVar[tuple[type[msgspec.Struct], ...]] = (Heartbeat,)

    changed: dict[str, None]
    durable_position: int
    recovery: Recovery | None = None
    limits = KeyLimits()

    def start_recovery(self, parameters: PlacementParameters, copy_quorum: int) -> None:
        """Begin to watch the other nodes, if the replication factor is below their number."""
        self.limits = parameters
        self.only_of_step(self.changed)
        if parameters.is_partial(self.config.nodes):
            self.recovery = Recovery(
                self, self.config, self.env, self.out, self.disk, parameters, copy_quorum
            )
            self.only_of_step(self.recovery.answered)

    # --- what a subclass defines ---

    def keys_in(self, key_range: int) -> Iterable[str]:
        """The keys of a range that are held here."""
        raise NotImplementedError

    def export_keys(self, keys: Sequence[str]) -> Iterator[bytes]:
        """All that there is to know of each of ``keys``."""
        raise NotImplementedError

    def import_keys(self, contents: Sequence[bytes]) -> None:
        """Take in what another replica exported; what is newer here stays."""
        raise NotImplementedError

    def on_placement(self, key_range: int) -> None:
        """A range has a new placement."""

    # --- the rest ---

    def parts(self) -> Mapping[str, Mapping[str, tuple[tuple[Value, ...], Version]]]:
        """By range, where not all nodes hold all of them."""
        if self.recovery is None:
            return super().parts()
        placements = self.recovery.placements
        parts: dict[str, dict[str, tuple[tuple[Value, ...], Version]]] = {
            f"range {number}": {}
            for number in range(placements.ranges)
            if placements.serves(number)
        }
        for key, held in self.state().items():
            parts[f"range {placements.of(key).range}"][key] = held
        return parts

    def range_page(self, key_range: int, after: str) -> tuple[str | None, tuple[bytes, ...]]:
        """The keys of a range behind ``after``, in order: the last one of the page (None: there are
        no more), and what there is to know of them."""
        keys = sorted(key for key in self.keys_in(key_range) if key > after)
        page = keys[: self.limits.page_keys]
        contents: list[bytes] = []
        size = 0
        for content in self.export_keys(page):
            contents.append(content)
            size += len(content)
            if size > self.limits.page_bytes:
                break
        last = keys[len(contents) - 1] if len(contents) < len(keys) else None
        return last, tuple(contents)

    def _placed(self) -> Recovery:
        """Raises BadMessage where all nodes hold all keys: nobody talks of placements there."""
        if self.recovery is None:
            raise BadMessage("all nodes hold all keys")
        return self.recovery

    def on_heartbeat(self, src: str, msg: Heartbeat) -> None:
        """See `Recovery`."""
        self._placed().on_heartbeat(src, msg)

    def on_prepare_placement(self, src: str, msg: PreparePlacement) -> None:
        """See `Placements`."""
        self._placed().placements.on_prepare_placement(src, msg)

    def on_promise_placement(self, src: str, msg: PromisePlacement) -> None:
        """See `Placements`."""
        self._placed().placements.on_promise_placement(src, msg)

    def on_refuse_placement(self, src: str, msg: RefusePlacement) -> None:
        """See `Placements`."""
        self._placed().placements.on_refuse_placement(src, msg)

    def on_accept_placement(self, src: str, msg: AcceptPlacement) -> None:
        """See `Placements`."""
        self._placed().placements.on_accept_placement(src, msg)

    def on_accepted_placement(self, src: str, msg: AcceptedPlacement) -> None:
        """See `Placements`."""
        self._placed().placements.on_accepted_placement(src, msg)

    def on_placed(self, src: str, msg: Placed) -> None:
        """See `Placements`."""
        self._placed().placements.on_placed(src, msg)

    def on_placement_numbers(self, src: str, msg: PlacementNumbers) -> None:
        """See `Placements`."""
        self._placed().placements.on_placement_numbers(src, msg)

    def on_copy_range(self, src: str, msg: CopyRange) -> None:
        """See `Recovery`."""
        self._placed().on_copy_range(src, msg)

    def on_range_page(self, src: str, msg: RangePage) -> None:
        """See `Recovery`."""
        self._placed().on_range_page(src, msg)

    def on_range_ready(self, src: str, msg: RangeReady) -> None:
        """See `Recovery`."""
        self._placed().on_range_ready(src, msg)


def probe_of(recovery: Recovery | None) -> Mapping[str, Any]:
    """What `Recovery` adds to a replica's probe."""
    return recovery.probe() if recovery is not None else {}
