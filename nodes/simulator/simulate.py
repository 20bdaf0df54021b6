"""One seed: a cluster, random clients, a tape of faults; then a healed core that must make
progress.

The run has three phases.

1. *Faults.* Clients work while the tape plays. After every step the protocol's invariants are
   checked.
2. *Core.* Everything is healed, but only a core of the fewest nodes that must be enough stays up:
   what the protocol `needs` (nodes/registry.py). Each of its nodes must complete an operation.
   Where keys are placed on few nodes, and some of the core still copy theirs, all nodes are up
   first, until the core is ready.
3. *Whole.* The others come back. Every node must complete a read of every key, and replicas of an
   eventual protocol must come to hold equal states, with nothing lost that was acknowledged.

The history is not judged here: `bench.checkers` does that, one room above.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from nodes.contract.replica import (
    Invariant,
    InvariantBroken,
    Message,
    Operation,
    Replica,
    Version,
)
from nodes.registry import Protocol, Retries, get
from nodes.simulator.answers import Answers, WrongAnswer
from nodes.simulator.cluster import Cluster, Mark, RoundTripChanged
from nodes.simulator.faults import Fault, Nemesis
from nodes.simulator.host import Host, Timing
from nodes.simulator.load import ClientPolicy, Clients, OperationRecord, RandomClients, WorkloadMix
from nodes.simulator.makes import perhaps_of_another_make
from nodes.simulator.network import Quality
from nodes.simulator.oracles import causal
from nodes.simulator.oracles.aftermath import Aftermath
from nodes.simulator.oracles.detection import Detectors, WrongSuspicion
from nodes.simulator.placed import Members, unready_range
from nodes.simulator.story import Story
from nodes.simulator.tape import draw_more, draw_tape
from nodes.simulator.timeline import Timeline

CORE_BOUND_S = 30.0
"""Virtual seconds in which a healed core must complete an operation on each of its nodes."""
DETECTION_STAYS_S = 10
"""Virtual seconds for which they must stay with it."""
STORY_S = 1.0
"""Virtual seconds of a phase that are told if it ends because something did not happen: what comes
after is more of the same."""
ADMINISTER_EVERY_S = 0.5
"""Virtual seconds between two requests to take a node in again, after the heal."""
COMPARE_EVERY_S = 0.5
"""Virtual seconds between comparisons of the states of replicas that applied the same prefix."""
LASTING = 0.5
"""The share of the seeds in which a fault lasts to the end."""
ROUND_TRIP_EVERY = 10
"""Each seed that this number divides runs every message and write through the real codec."""


FORGETFUL = (
    *("client_entries", "remembered_refusals"),
    *("remembered_clients", "remembered_results", "remembered_in_all"),
)
"""Knobs that make nodes forget a client, or what it was told, while it is still there. Nobody
repeats a request then."""
UNEVEN = ("read_quorum", "write_quorum")
"""Knobs by which fewer nodes answer a read than store a write, or the other way round."""
UNEVEN_NODES = 4
"""Of so many, quorums of two and of three meet, and no more than a majority is needed. Where keys
are placed, so many hold each, or fewer (`nodes.protocols.quorum_register.knobs`)."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a seed but its faults. Drawn from the seed, or given."""

    mix: WorkloadMix = WorkloadMix()
    policy: ClientPolicy = ClientPolicy()
    quality: Quality = Quality()
    timing: Timing = Timing()
    parameters: dict[str, Any] = {}
    round_trip: bool = False


def promises_once(setup: Setup) -> bool:
    """Whether each request is applied at most once. Where a log remembers so few entries of a
    client, a request that a node hands on again may be applied again: such seeds show whether all
    nodes forget alike, and no history of theirs is judged as linearizable."""
    return "client_entries" not in setup.parameters


class Alarm(msgspec.Struct, frozen=True):
    """Something that must not happen. ``check``: ``invariant: <name>``, ``assert``, ``liveness``,
    ``convergence``, ``detection``, ``stability``, ``messages``, ``catch-up``, ``re-replication``,
    ``unanswered``, ``causality`` (see `nodes.simulator.oracles`), ``acknowledged`` (an eventual
    protocol lost a write), ``answers`` (`nodes.simulator.answers`), ``codec``, ``exception``, or
    what a caller adds."""

    seed: int
    check: str
    message: str
    at_s: float = 0.0


WAITING = frozenset(
    {
        *("liveness", "convergence", "detection", "stability"),
        *("messages", "catch-up", "unanswered", "re-replication"),
    }
)
"""The checks by which something did not happen within a bound."""


class SimulationResult(msgspec.Struct, kw_only=True):
    """What one seed gave. ``tape`` and ``setup``, with the seed, replay it. ``transcript`` and
    ``story``: of a run with a trace. ``told``: how long its story is to a reader: messages that
    arrived or were lost, crashes, and operations (timers and fsyncs tell nobody anything)."""

    seed: int
    protocol: str
    nodes: int
    duration_s: float
    alarms: list[Alarm]
    events: int
    history: list[OperationRecord]
    marks: list[Mark]
    tape: list[Fault]
    setup: Setup
    trace_hash: str
    transcript: list[str]
    story: Story | None
    counters: dict[str, int]
    told: int


def simulate(
    protocol: Protocol | str,
    seed: int,
    *,
    nodes: int | None = None,
    duration_s: float = 10.0,
    tape: Sequence[Fault] | None = None,
    setup: Setup | None = None,
    parameters: Mapping[str, Any] | None = None,
    trace: bool = False,
    finish: bool = True,
    most_told: int | None = None,
) -> SimulationResult:
    """Run one seed. ``tape``, ``setup``: instead of those drawn from the seed; ``parameters``: on
    top of the setup's; ``finish``: with the last two phases; ``most_told``: give up once the first
    phase makes a longer story than that. Raises nodes.registry.InvalidConfiguration.

    Two runs with equal arguments give equal results, in any process."""
    if isinstance(protocol, str):
        protocol = get(protocol)
    if setup is None:
        setup = draw_setup(protocol, seed)
    if parameters:
        setup = msgspec.structs.replace(setup, parameters={**setup.parameters, **parameters})
    if nodes is None:
        nodes = (3, 3, 4, 5, 5, 5)[int(random.Random(f"{seed}/nodes").random() * 6)]
        # One more than hold a key: else every node would.
        copies = setup.parameters.get("replication_factor", 0)
        nodes = max(nodes, copies + 1)
        if not copies and any(name in setup.parameters for name in UNEVEN):
            nodes = UNEVEN_NODES
    protocol = perhaps_of_another_make(protocol, seed)
    # Nearly all that a run makes is freed by its reference counts; looking for cycles meanwhile
    # costs a tenth of the time. When they are looked for again the run is gone but for its result.
    collecting = gc.isenabled()
    gc.disable()
    try:
        run = _Run(protocol, seed, nodes, duration_s, tape, setup, trace, finish, most_told)
        result = run.result()
        del run
    finally:
        if collecting:
            gc.enable()
    return result


def draw_setup(protocol: Protocol, seed: int) -> Setup:
    """The environment and the protocol's knobs (`Protocol.knobs`) of one seed."""
    draw = random.Random(f"{seed}/setup").random

    def pick(*choices: Any) -> Any:
        return choices[int(draw() * len(choices))]

    mix = WorkloadMix(
        clients=pick(2, 5, 8, 12),
        keys=pick(1, 1, 2, 5),
        think_s=pick(0.02, 0.05, 0.2),
        reads=pick(0.2, 0.5, 0.7),
        cas=pick(0.0, 0.2),
        deletes=pick(0.0, 0.0, 0.0, 0.1),
        sticky=pick(False, True),
        context=pick(False, True),
    )
    if mix.deletes and protocol.claim == "linearizable":
        # A deletion writes null, which is no value of its own, so that the checker must search; few
        # clients, few deletions and no CAS keep that small, and the seed decided.
        few = min(mix.clients, 3)
        mix = msgspec.structs.replace(mix, deletes=0.05, cas=0.0, clients=few)
    policy = ClientPolicy(
        timeout_s=pick(0.1, 0.5, 2.0),
        retry=pick("never", "same", "other"),
        retry_after_s=pick(0.05, 0.3),
        loss=pick(0.0, 0.0, 0.02),
    )
    if (
        policy.retry == "other"
        and protocol.retries == "node asked first"
        and protocol.claim != "eventual"
    ):
        policy = msgspec.structs.replace(policy, retry="same")
    mix, policy = _draw_impolite(protocol, seed, mix, policy)
    quality = Quality(
        latency_s=pick(0.0002, 0.001, 0.003, 0.02),
        jitter_s=pick(0.0, 0.0005, 0.005),
        loss=pick(0.0, 0.0, 0.01, 0.1),
        duplicate=pick(0.0, 0.0, 0.02, 0.2),
        reorder=pick(0.0, 0.0, 0.1),
        late_s=pick(0.01, 0.3),
        fifo=pick(True, False),
    )
    timing = Timing(step_s=pick(0.00001, 0.0002), fsync_s=pick(0.0001, 0.001, 0.008, 0.03))
    parameters: dict[str, Any] = {}
    for alternatives in protocol.knobs:
        parameters.update(pick(*alternatives))
    for name in protocol.parameters:
        parameters.pop(name, None)
    if any(name in parameters for name in FORGETFUL):
        policy = ClientPolicy(timeout_s=policy.timeout_s, loss=policy.loss)
    if "replication_factor" in parameters:
        # More keys than a page holds.
        keys = pick(mix.keys, 6, 20)
        mix = msgspec.structs.replace(mix, keys=keys)
    return Setup(
        mix=mix,
        policy=policy,
        quality=quality,
        timing=timing,
        parameters=parameters,
        round_trip=seed % ROUND_TRIP_EVERY == 0,
    )


def _retries_of(protocol: Protocol) -> Retries:
    """Where a request that is sent again takes effect once. Of an eventual protocol nobody expects
    it at a node that may not have heard of the first copy."""
    if protocol.claim == "eventual" and protocol.retries == "any node":
        return "node asked first"
    return protocol.retries


def _draw_impolite(
    protocol: Protocol, seed: int, mix: WorkloadMix, policy: ClientPolicy
) -> tuple[WorkloadMix, ClientPolicy]:
    """The impolite habits that half of the seeds give their clients."""
    replace = msgspec.structs.replace
    if protocol.retries == "nowhere":
        return mix, replace(policy, retry="never")
    draw = random.Random(f"{seed}/manners").random
    if draw() < 0.5:
        return mix, policy

    def pick(*choices: Any) -> Any:
        return choices[int(draw() * len(choices))]

    mix = replace(
        mix,
        depth=pick(1, 1, 2, 5),
        lasting=pick(False, True),
        silent=pick(0.0, 0.0, 0.05),
    )
    elsewhere = protocol.retries == "any node" and pick(False, True)
    return mix, replace(
        policy,
        copies=pick(0.0, 0.1, 0.5),
        repeats=pick(0.0, 0.1, 0.5),
        insists=pick(0.0, 0.5),
        late_s=pick(0.01, 0.3, 3.0),
        at_once=pick(1, 1, 1, 2, 3) if elsewhere else 1,
        elsewhere=elsewhere,
        lag=pick(0, 0, 1, 20),
    )


class StoryCutoff:
    """How far a story had come when it was told long enough."""

    def __init__(self, timeline: Timeline, events: int) -> None:
        self.events = events
        self._timeline = timeline
        self._at_s = timeline.now
        self._lines = len(timeline.transcript or ())

    def leave_out_the_rest(self, events: int) -> None:
        """Take what came since out of transcript and story."""
        timeline = self._timeline
        more = events - self.events
        if timeline.transcript is not None:
            del timeline.transcript[self._lines :]
            timeline.say(
                f"... and so on from {self._at_s:.6f}: {more} more messages and operations"
            )
        if timeline.story is not None:
            story = timeline.story
            story.arrows = [arrow for arrow in story.arrows if arrow.sent_s <= self._at_s]
            story.moments = [moment for moment in story.moments if moment.at_s <= self._at_s]
            for arrow in story.arrows:
                if arrow.arrived_s is not None and arrow.arrived_s > self._at_s:
                    arrow.arrived_s, arrow.fate = None, "under way"


class _Run:
    def __init__(
        self,
        protocol: Protocol,
        seed: int,
        nodes: int,
        duration_s: float,
        tape: Sequence[Fault] | None,
        setup: Setup,
        trace: bool,
        finish: bool,
        most_told: int | None,
    ) -> None:
        self.finish = finish
        self.most_told = most_told
        self.protocol = protocol
        self.seed = seed
        self.duration_s = duration_s
        self.setup = setup
        self.alarms: list[Alarm] = []
        self.detectors = Detectors()
        self.cluster = Cluster(
            protocol,
            nodes=nodes,
            seed=seed,
            parameters=setup.parameters,
            quality=setup.quality,
            timing=setup.timing,
            trace=trace,
            round_trip=setup.round_trip,
            on_build=self.detectors.attach,
        )
        host = self.cluster.hosts[self.cluster.nodes[0]]
        self.pace = protocol.pace(host.config.parameters, self.cluster.nodes)
        self.answers = Answers(_retries_of(protocol), once=promises_once(setup))
        self.clients = Clients(self.cluster, setup.policy, self.answers)
        self.load = RandomClients(self.clients, setup.mix, protocol.operations)
        if tape is None:
            patience_s = self._parameter("election_timeout_max_s") or 1.0
            stage = (self.cluster.nodes, protocol, duration_s, patience_s)
            tape = [
                *draw_tape(self.cluster.rng("nemesis"), *stage),
                *draw_more(self.cluster.rng("more faults"), *stage),
            ]
        self.tape = list(tape)
        self.members: Members | None = None
        if any(fault.kind == "administer" for fault in self.tape):
            self.members = Members(self.cluster.nodes)
            self.cluster.observers.append(self.members.observe)
        self.nemesis = Nemesis(self.cluster, self.clients, self.tape)
        self._have_log = True
        """Until a replica says nothing of what it applied."""
        self._looked_at: dict[str, tuple[Replica, Any, bool]] = {}
        """By node what was the same (`Replica.watched`) when its state was looked at last."""
        self._phases = 0
        self._waits = self._asked = 0
        self._told: StoryCutoff | None = None

    def result(self) -> SimulationResult:
        cluster = self.cluster
        try:
            self._run()
        except WrongSuspicion as error:
            self._alarm("detection", str(error))
        except InvariantBroken as error:
            self._alarm(f"invariant: {_broken(error)}", str(error))
        except RoundTripChanged as error:
            self._alarm("codec", str(error))
        except WrongAnswer as error:
            self._alarm("answers", str(error))
        except AssertionError as error:
            self._alarm("assert", _where(error))
        except Exception as error:
            # A replica that raises is a crashed node in real life, and always a bug.
            self._alarm("exception", _where(error))
        self.clients.close()
        history = self.clients.history
        return SimulationResult(
            seed=self.seed,
            protocol=self.protocol.name,
            nodes=len(cluster.nodes),
            duration_s=self.duration_s,
            alarms=self.alarms,
            events=cluster.timeline.events,
            history=history,
            marks=cluster.marks,
            tape=self.tape,
            setup=self.setup,
            trace_hash=cluster.timeline.digest(
                msgspec.msgpack.encode(history), msgspec.msgpack.encode(cluster.marks)
            ),
            transcript=cluster.timeline.transcript or [],
            story=cluster.timeline.story,
            counters={
                **cluster.counters(),
                **{f"fault {kind}": count for kind, count in sorted(self.nemesis.played.items())},
                "operations": len(history),
                "operations_ok": sum(record.outcome == "ok" for record in history),
            },
            told=self._told.events if self.alarms and self._told else self._count_told(),
        )

    # --- what is told ---

    def _count_told(self) -> int:
        counters = self.cluster.counters()
        told = ("messages_delivered", "messages_lost", "messages_cut", "crashes")
        return sum(counters[name] for name in told) + len(self.clients.history)

    def _begin_wait(self) -> None:
        """From now on something has to happen; until it does, only the beginning is told."""
        self._waits += 1
        self._told = None
        self.cluster.timeline.at(self.cluster.now + STORY_S, self._tell_no_more, self._waits)

    def _tell_no_more(self, wait: int) -> None:
        if wait == self._waits:
            self._told = StoryCutoff(self.cluster.timeline, self._count_told())

    def _alarm(self, check: str, message: str) -> None:
        if self._told is not None:
            if check in WAITING:
                self._told.leave_out_the_rest(self._count_told())
            else:
                self._told = None
        self.alarms.append(Alarm(self.seed, check, message, self.cluster.now))
        self.cluster.timeline.tell("", "alarm", f"ALARM {check}: {message}")

    def _run(self) -> None:
        if self.protocol.operations:
            self.load.start()
        self.cluster.timeline.at(COMPARE_EVERY_S, self._compare)
        self._play()
        self.load.stop()
        if not self.finish or self._is_too_long():
            return
        self._heal()
        core = self._choose_core()
        if not self._ready_for(core):
            return
        self._phase("core", core)
        if not self._detect(core):
            return
        if not self._complete("core", core, self._core_operations(core)):
            return
        self._phase("whole", list(self.cluster.nodes))
        if not self._detect(list(self.cluster.nodes)):
            return
        reads = [
            (node, Operation("read", f"k{key}"))
            for node in self.cluster.nodes
            for key in range(self.setup.mix.keys)
        ]
        if not self._complete("whole", list(self.cluster.nodes), reads) or not self._are_members():
            return
        if self.protocol.claim == "eventual" and self.protocol.operations:
            self._converge()
        if not self.alarms:
            draw = self.cluster.rng("aftermath").random()
            any_majority = self.protocol.needs in ("majority", "any node")
            self.cluster.run(self.setup.policy.late_s)
            Aftermath(self, self.pace).run(lasting=any_majority and draw < LASTING)

    def _play(self) -> None:
        timeline = self.cluster.timeline
        while timeline.now < self.duration_s and not self._is_too_long():
            timeline.run_until(
                self.duration_s
                if self.most_told is None
                else min(self.duration_s, timeline.now + 0.1)
            )

    def _is_too_long(self) -> bool:
        return self.most_told is not None and self._count_told() > self.most_told

    def _compare(self, _: None) -> None:
        """Replicas hold what was written, and those that say they applied the same prefix of a log
        hold the same."""
        by_applied: dict[int, tuple[str, Any]] = {}
        for host in self.cluster.hosts.values():
            replica = host.replica
            if replica is None:
                continue
            looked = replica, replica.watched(), host.is_durable
            if self._have_log or looked[1] is None or looked != self._looked_at.get(host.id):
                self._looked_at[host.id] = looked
                self._look_at(host, replica, by_applied)
        self.cluster.timeline.at(self.cluster.now + COMPARE_EVERY_S, self._compare)

    def _look_at(
        self, host: Host, replica: Replica, by_applied: dict[int, tuple[str, Any]]
    ) -> None:
        state: Any = replica.state()
        self.answers.on_state(host.id, state, durable=host.is_durable)
        if not self._have_log:
            return
        applied = replica.probe().get("applied")
        if applied is None:
            self._have_log = False
            return
        if self.setup.round_trip or not promises_once(self.setup):
            state = replica.machine()
        other, expected = by_applied.setdefault(applied, (host.id, state))
        if state != expected:
            raise InvariantBroken(
                f"{other} and {host.id} applied {applied} entries, and hold {expected} and {state}"
            )

    def _heal(self) -> None:
        """A calm network, right clocks and good disks; nobody is started yet."""
        cluster = self.cluster
        for host in cluster.hosts.values():
            host.retired = True
            host.fsync_factor = min(1.0, 0.001 / self.setup.timing.fsync_s)
        self.nemesis.heal_all()
        for host in cluster.hosts.values():
            host.mend_disk()
        self.clients.calm()
        calm = Quality()
        for (src, dst), link in cluster.links.items():
            link.reset(None if src == dst else calm)

    def _choose_core(self) -> list[str]:
        nodes = self.cluster.nodes
        rest = list(nodes if self.members is None else self.members.committed)
        needed = self.protocol.core_size(len(rest), self._parameter("replication_factor"))
        draw = self.cluster.rng("core").random
        core: list[str] = []
        if self.protocol.needs == "first node":
            # Alone, or with another one, which must be served as well.
            core.append(rest.pop(0))
            needed = min(len(nodes), 1 + (draw() < 0.5))
        while len(core) < needed:
            core.append(rest.pop(int(draw() * len(rest))))
        return sorted(core, key=nodes.index)

    def _ready_for(self, core: list[str]) -> bool:
        """With all nodes up, the core must come to hold what it is to serve (see
        `unready_range`)."""
        cluster = self.cluster
        if unready_range(cluster, core) is None:
            return True
        self._phase("copying", list(cluster.nodes))
        end_s = cluster.now + CORE_BOUND_S
        while (unready := unready_range(cluster, core)) is not None:
            if cluster.now >= end_s:
                self._alarm("liveness", f"{CORE_BOUND_S:g} s after the heal, {unready}")
                return False
            cluster.run(0.1)
        return True

    def _parameter(self, name: str) -> Any:
        """A knob of the protocol; None if it has none of that name."""
        host = self.cluster.hosts[self.cluster.nodes[0]]
        return getattr(host.config.parameters, name, None)

    def _detect(self, up: list[str]) -> bool:
        """A protocol that only watches must come to suspect exactly the nodes that are down, and
        then stay with it."""
        if self.protocol.operations:
            return True
        cluster = self.cluster
        down = {node for node in cluster.nodes if node not in up}

        def mistaken() -> tuple[list[str], list[str]]:
            """Who suspects nodes that are up, and who does not suspect all that are down."""
            suspicious, trusting = [], []
            for node in up:
                for name, said in cluster.replica(node).probe().items():
                    if name.endswith("suspects"):
                        suspects = set(said.split(",")) - {""}
                        told = f"{node}: {name} {said or 'nobody'}"
                        if suspects - down:
                            suspicious.append(told)
                        if down - suspects:
                            trusting.append(told)
            return suspicious, trusting

        # What was sent before the heal still arrives, and may make it think better of a dead node.
        cluster.timeline.run_until(cluster.under_way_until())
        models = self.detectors.models
        heard_s = max(models[node].trusts_within_s() for node in up)
        silent_s = max(
            [heard_s, *(models[node].suspects_within_s(peer) for node in up for peer in down)]
        )
        begin_s = cluster.now
        right = 0
        while right < DETECTION_STAYS_S:
            for mistakes, bound_s in zip(mistaken(), (heard_s, silent_s), strict=True):
                if mistakes and cluster.now >= begin_s + bound_s:
                    told = f"{','.join(sorted(down)) or 'nobody'} is down; {mistakes[:3]}"
                    self._alarm("detection", f"{told} {bound_s:g} s later or more")
                    return False
            right = 0 if any(mistaken()) else right + 1
            cluster.run(1.0)
        return True

    def _phase(self, name: str, up: list[str]) -> None:
        self.cluster.timeline.tell("", "phase", f"PHASE {name}: {' '.join(up)}")
        self._begin_wait()
        for node, host in self.cluster.hosts.items():
            host.retired = node not in up
            if host.retired:
                host.crash(why=f"for the {name} phase")
            else:
                host.start()
        if self.members is not None:
            self._phases += 1
            self._administer((self._phases, self.cluster.now + CORE_BOUND_S / 2, up))

    def _administer(self, what: tuple[int, float, list[str]]) -> None:
        """Ask for those who are up to be members again. What was asked before the heal may have
        been done after it: acknowledgements under way may commit it, and with more members a core
        may then be too few. If it is stuck for long, others join it."""
        phase, patient_until_s, up = what
        cluster = self.cluster
        assert self.members is not None
        if phase != self._phases:
            return
        if cluster.now >= patient_until_s and (lacking := self.members.lacking(cluster, up)):
            up += lacking
            cluster.timeline.tell("", "phase", f"PHASE core: {' '.join(up)}")
            for node in lacking:
                cluster.hosts[node].retired = False
                cluster.hosts[node].start()
        missing = [node for node in up if node not in self.members.committed]
        for host in cluster.hosts.values() if missing else ():
            add = self.protocol.administration.messages["add"](missing[0])
            host.receive(Message(host.id, add))
        cluster.timeline.at(cluster.now + ADMINISTER_EVERY_S, self._administer, what)

    def _are_members(self) -> bool:
        """All nodes must be members again, as they were asked to be (`_administer`)."""
        cluster = self.cluster
        end_s = cluster.now + CORE_BOUND_S
        while self.members is not None and len(self.members.committed) < len(cluster.nodes):
            if cluster.now >= end_s:
                told = f"only {','.join(self.members.committed)} are members"
                self._alarm("liveness", f"{CORE_BOUND_S:g} s after all nodes were served, {told}")
                return False
            cluster.run(0.1)
        return True

    def _core_operations(self, nodes: list[str]) -> list[tuple[str, Operation]]:
        """Writes, or in some seeds reads only: a new leader must not need a write to be ready."""
        if self.cluster.rng("core operations").random() < 0.3:
            return [(node, Operation("read", "k0")) for node in nodes]
        return [(node, Operation("write", "k0", f"core.{node}")) for node in nodes]

    def _complete(
        self,
        phase: str,
        nodes: list[str],
        wanted: list[tuple[str, Operation]],
        bound_s: float = CORE_BOUND_S,
    ) -> bool:
        """Each operation must end ok within the bound; it is asked again until then."""
        if not self.protocol.operations:
            return True
        timeline = self.cluster.timeline
        todo = set(range(len(wanted)))
        attempts = [0] * len(wanted)
        end_s = timeline.now + bound_s

        def ask(number: int) -> None:
            node, operation = wanted[number]
            attempts[number] += 1
            process = f"{phase}-{number + 1}-{attempts[number]}"
            if operation.value is not None:
                operation = msgspec.structs.replace(
                    operation, value=f"{operation.value}.{attempts[number]}"
                )
            self.clients.invoke(process, node, operation, ended(number))

        def ended(number: int) -> Callable[[OperationRecord], None]:
            def on_end(record: OperationRecord) -> None:
                if record.outcome == "ok":
                    todo.discard(number)
                    if not todo:
                        timeline.stop()
                elif timeline.now < end_s:
                    timeline.at(timeline.now + 0.2, ask, number)

            return on_end

        for number in sorted(todo):
            ask(number)
        timeline.run_until(end_s)
        if todo:
            stuck = [f"{wanted[i][1].op} on {wanted[i][0]}" for i in sorted(todo)]
            self._alarm(
                "liveness",
                f"with {' '.join(nodes)} up and healed, {', '.join(stuck[:5])} did not complete"
                f" within {bound_s:g} s",
            )
        return not todo

    # --- what the aftermath borrows ---

    def begin(self, phase: str) -> None:
        """See `nodes.simulator.oracles.stage.Stage`."""
        self.cluster.timeline.tell("", "phase", f"PHASE {phase}")
        self._phases += 1  # All are members again: nobody asks for it any more.
        self._begin_wait()

    def alarm(self, check: str, message: str) -> None:
        """See `nodes.simulator.oracles.stage.Stage`."""
        self._alarm(check, message)

    def ask(self, phase: str, nodes: list[str], bound_s: float, mark: str) -> bool:
        """See `nodes.simulator.oracles.stage.Stage`."""
        if not self.protocol.operations:
            return True
        self._asked += 1
        key = f"k{self._asked % self.setup.mix.keys}"
        name = f"{mark}-{self._asked}"
        kind = self.protocol.operations[self._asked % 2 % len(self.protocol.operations)]
        wanted = [
            (node, Operation(kind, key, f"{name}.{node}" if kind == "write" else None))
            for node in nodes
        ]
        return self._complete(name, nodes, wanted, bound_s)

    def _converge(self) -> None:
        """Clients that read every key at every node come to be told the same."""
        cluster = self.cluster
        self._begin_wait()
        end_s = cluster.now + self.pace.converges_s
        placed = self._parameter("replication_factor")
        # What replicas say of themselves spares reads that would differ, and decides nothing.
        while True:
            converged = cluster.converged() and self._reads_agree()
            # A write may be at a node that held its key before, and has yet to hand it over.
            lost = self._lost() if converged else None
            if converged and (lost is None or not placed):
                break
            if cluster.now >= end_s:
                break
            cluster.run(0.25)
        if not converged:
            self._alarm(
                "convergence",
                f"{self.pace.converges_s:g} s after the heal the nodes hold {cluster.states()}",
            )
        elif lost is not None:
            self._alarm("acknowledged", lost)
        else:
            self._judge_causality()

    def _reads_agree(self) -> bool:
        """Whether clients are told the same of each key at all nodes, now."""
        history = self.clients.history
        first = len(history)
        nodes, keys = self.cluster.nodes, self.setup.mix.keys
        reads = [(n, Operation("read", f"k{key}")) for key in range(keys) for n in nodes]
        if not self._complete("final", list(nodes), reads):
            return False
        answers = {(record.key, record.node): record for record in history[first:]}
        told: dict[str, Any] = {}
        for (key, _), record in answers.items():
            values = record.value if isinstance(record.value, list) else [record.value]
            answer = sorted(map(repr, values)), record.version
            if told.setdefault(key, answer) != answer:
                return False
        return True

    def _judge_causality(self) -> None:
        """By the history, what each write left behind (`nodes.simulator.oracles.causal`)."""
        history, requests = self.clients.history, self.clients.requests
        elsewhere, nodes = self.clients.elsewhere, self.cluster.nodes
        findings: list[Iterator[tuple[str, str]]] = [causal.one_value(history, elsewhere)]
        if self.pace.context:
            findings.append(causal.newer_than_context(history, requests, elsewhere))
        # Where few nodes hold a key, others pass on what is asked of them.
        if self._placed_on() == len(nodes):
            keys = causal.by_key(history, requests, elsewhere)
            findings.append(causal.siblings(keys, len(nodes)))
            if self.pace.monotonic:
                findings.append(causal.never_back(history, elsewhere))
        for each in findings:
            for check, told in each:
                self._alarm(check, told)
                return

    def _placed_on(self) -> int:
        """On how many nodes a key is."""
        return self._parameter("replication_factor") or len(self.cluster.nodes)

    def _lost(self) -> str | None:
        """A write that was acknowledged, and is newer than what all hold; None if there is none."""
        held: dict[str, Any] = {}
        for state in self.cluster.states().values():
            held.update(state)
        history = self.clients.history
        deleted = {record.key for record in history if record.op == "delete"}
        for record in history:
            if record.outcome != "ok" or record.op == "read" or record.version is None:
                continue
            final = held.get(record.key)
            if final is None and record.key in deleted:
                continue
            if final is None or is_older(final[1], record.version):
                return (
                    f"{record.process} {record.op} {record.key}={record.value!r} ended ok with"
                    f" version {record.version}, but after convergence all hold {final}"
                )
        return None


def is_older(final: Version, acknowledged: Version) -> bool:
    """Whether what ``final`` stands for lacks the write of the version ``acknowledged``."""
    if isinstance(final, dict) and isinstance(acknowledged, dict):
        return any(final.get(node, 0) < counter for node, counter in acknowledged.items())
    return final < acknowledged  # type: ignore[operator]


def _broken(error: InvariantBroken) -> str:
    """The name of the invariant that raised ``error``; another one may have called it."""
    name, trace = "equal prefixes, equal states", error.__traceback__
    while trace is not None:
        raiser = trace.tb_frame.f_locals.get("self")
        if isinstance(raiser, Invariant):
            name = raiser.name
        trace = trace.tb_next
    return name


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        code = trace.tb_frame.f_code
        file = code.co_filename.rsplit("/", 1)[-1]
        place = f" at {file}:{trace.tb_lineno} in {code.co_name}"
    return f"{type(error).__name__}: {error}{place}"
