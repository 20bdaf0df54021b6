"""One seed: a cluster, random clients, a tape of faults; then a healed core that must make
progress.

The run has three phases.

1. *Faults.* Clients work while the tape plays. After every step the protocol's invariants are
   checked.
2. *Core.* Everything is healed, but only a core of the fewest nodes that must be enough stays up (a
   majority; for an eventual protocol any one node). Each of its nodes must complete an operation.
3. *Whole.* The others come back. Every node must complete a read of every key, and replicas of an
   eventual protocol must come to hold equal states.

The history is not judged here: `bench.checkers` does that, one room above.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from nodes.effects import InvariantBroken, Operation
from nodes.registry import Protocol, get
from nodes.simulator.cluster import Cluster, Mark, RoundTripChanged
from nodes.simulator.faults import Fault, Nemesis, draw_tape
from nodes.simulator.host import Timing
from nodes.simulator.knobs import knobs_of
from nodes.simulator.load import Clients, Habits, Manners, OperationRecord, RandomClients
from nodes.simulator.network import Quality

CORE_BOUND_S = 30.0
"""Virtual seconds in which a healed core must complete an operation on each of its nodes."""
CONVERGENCE_BOUND_S = 30.0
"""Virtual seconds in which eventual replicas must agree after everything is healed."""
ROUND_TRIP_EVERY = 10
"""Each seed that this number divides runs every message and write through the real codec."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a seed but its faults. Drawn from the seed, or given."""

    habits: Habits = Habits()
    manners: Manners = Manners()
    quality: Quality = Quality()
    timing: Timing = Timing()
    parameters: dict[str, Any] = {}
    round_trip: bool = False


class Alarm(msgspec.Struct, frozen=True):
    """Something that must not happen. ``check``: ``invariant <name>``, ``assert``, ``liveness``,
    ``convergence``, ``codec``, or what a caller adds."""

    seed: int
    check: str
    message: str
    at_s: float = 0.0


class SimulationResult(msgspec.Struct, kw_only=True):
    """What one seed gave. ``tape`` and ``setup``, with the seed, replay it."""

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
    counters: dict[str, int]


def simulate(
    protocol: Protocol | str,
    seed: int,
    *,
    nodes: int = 5,
    duration_s: float = 10.0,
    tape: Sequence[Fault] | None = None,
    setup: Setup | None = None,
    parameters: Mapping[str, Any] | None = None,
    trace: bool = False,
) -> SimulationResult:
    """Run one seed. ``tape``, ``setup``: instead of those drawn from the seed; ``parameters``: on
    top of the setup's. Raises nodes.registry.InvalidConfiguration.

    Two runs with equal arguments give equal results, in any process."""
    if isinstance(protocol, str):
        protocol = get(protocol)
    if setup is None:
        setup = draw_setup(protocol, seed)
    if parameters:
        setup = msgspec.structs.replace(setup, parameters={**setup.parameters, **parameters})
    return _Run(protocol, seed, nodes, duration_s, tape, setup, trace).result()


def draw_setup(protocol: Protocol, seed: int) -> Setup:
    """The environment and the protocol's knobs (`nodes.simulator.knobs`) of one seed."""
    draw = random.Random(f"{seed}/setup").random

    def pick(*choices: Any) -> Any:
        return choices[int(draw() * len(choices))]

    habits = Habits(
        clients=pick(1, 3, 5, 8),
        keys=pick(1, 2, 5),
        think_s=pick(0.02, 0.1, 0.4),
        reads=pick(0.2, 0.5, 0.7),
        cas=pick(0.0, 0.2),
        deletes=pick(0.0, 0.0, 0.0, 0.1),
        sticky=pick(False, True),
        context=pick(False, True),
    )
    manners = Manners(
        timeout_s=pick(0.3, 1.0, 3.0),
        retry=pick("never", "same", "other"),
        retry_after_s=pick(0.05, 0.3),
        loss=pick(0.0, 0.0, 0.02),
    )
    quality = Quality(
        latency_s=pick(0.0002, 0.001, 0.02),
        jitter_s=pick(0.0, 0.0005, 0.005),
        loss=pick(0.0, 0.0, 0.01, 0.1),
        duplicate=pick(0.0, 0.0, 0.02, 0.2),
        reorder=pick(0.0, 0.0, 0.1),
        late_s=pick(0.01, 0.3),
        fifo=pick(True, False),
    )
    timing = Timing(step_s=pick(0.00001, 0.0002), fsync_s=pick(0.0001, 0.001, 0.008, 0.03))
    parameters: dict[str, Any] = {}
    for alternatives in knobs_of(protocol.replica):
        parameters.update(pick(*alternatives))
    for name in protocol.parameters:
        parameters.pop(name, None)
    return Setup(
        habits=habits,
        manners=manners,
        quality=quality,
        timing=timing,
        parameters=parameters,
        round_trip=seed % ROUND_TRIP_EVERY == 0,
    )


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
    ) -> None:
        self.protocol = protocol
        self.seed = seed
        self.duration_s = duration_s
        self.setup = setup
        self.alarms: list[Alarm] = []
        self.cluster = Cluster(
            protocol,
            nodes=nodes,
            seed=seed,
            parameters=setup.parameters,
            quality=setup.quality,
            timing=setup.timing,
            trace=trace,
            round_trip=setup.round_trip,
        )
        self.clients = Clients(self.cluster, setup.manners)
        self.load = RandomClients(self.clients, setup.habits, protocol.operations)
        if tape is None:
            tape = draw_tape(
                self.cluster.rng("nemesis"), self.cluster.nodes, protocol.replica, duration_s
            )
        self.tape = list(tape)
        self.nemesis = Nemesis(self.cluster, self.clients, self.tape)

    def result(self) -> SimulationResult:
        cluster = self.cluster
        # Nearly all that a run makes is freed by its reference counts; looking for cycles meanwhile
        # costs a tenth of the time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            self._run()
        except InvariantBroken as error:
            self._alarm("invariant", str(error))
        except RoundTripChanged as error:
            self._alarm("codec", str(error))
        except AssertionError as error:
            self._alarm("assert", _where(error))
        except Exception as error:
            # A replica that raises is a crashed node in real life, and always a bug.
            self._alarm("exception", _where(error))
        finally:
            if collecting:
                gc.enable()
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
            counters={
                **cluster.counters(),
                **{f"fault {kind}": count for kind, count in sorted(self.nemesis.played.items())},
                "operations": len(history),
                "operations_ok": sum(record.outcome == "ok" for record in history),
            },
        )

    def _alarm(self, check: str, message: str) -> None:
        self.alarms.append(Alarm(self.seed, check, message, self.cluster.now))
        self.cluster.timeline.say(f"ALARM {check}: {message}")

    def _run(self) -> None:
        self.load.start()
        self.cluster.run(self.duration_s)
        self.load.stop()
        self._heal()
        core = self._choose_core()
        self._phase("core", core)
        if not self._complete("core", core, self._writes(core)):
            return
        self._phase("whole", list(self.cluster.nodes))
        reads = [
            (node, Operation("read", f"k{key}"))
            for node in self.cluster.nodes
            for key in range(self.setup.habits.keys)
        ]
        if self._complete("whole", list(self.cluster.nodes), reads) and (
            self.protocol.claim == "eventual"
        ):
            self._converge()

    def _heal(self) -> None:
        """A calm network, right clocks and good disks; nobody is started yet."""
        cluster = self.cluster
        for host in cluster.hosts.values():
            host.retired = True
        self.nemesis.heal_all()
        self.clients.calm()
        calm = Quality()
        for (src, dst), link in cluster.links.items():
            link.reset(None if src == dst else calm)

    def _choose_core(self) -> list[str]:
        nodes = self.cluster.nodes
        needed = 1 if self.protocol.claim == "eventual" else len(nodes) // 2 + 1
        draw = self.cluster.rng("core").random
        rest = list(nodes)
        core: list[str] = []
        while len(core) < needed:
            core.append(rest.pop(int(draw() * len(rest))))
        return sorted(core, key=nodes.index)

    def _phase(self, name: str, up: list[str]) -> None:
        self.cluster.timeline.say(f"PHASE {name}: {' '.join(up)}")
        for node, host in self.cluster.hosts.items():
            if node in up:
                host.retired = False
                host.start()
            else:
                host.crash(why="for the core phase")

    def _writes(self, nodes: list[str]) -> list[tuple[str, Operation]]:
        key = "k0"
        return [(node, Operation("write", key, f"core.{node}")) for node in nodes]

    def _complete(self, phase: str, nodes: list[str], wanted: list[tuple[str, Operation]]) -> bool:
        """Each operation must end ok within the bound; it is asked again until then."""
        timeline = self.cluster.timeline
        todo = set(range(len(wanted)))
        attempts = [0] * len(wanted)
        end_s = timeline.now + CORE_BOUND_S

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
                f" within {CORE_BOUND_S:g} s",
            )
        return not todo

    def _converge(self) -> None:
        cluster = self.cluster
        end_s = cluster.now + CONVERGENCE_BOUND_S
        while not cluster.converged():
            if cluster.now >= end_s:
                self._alarm(
                    "convergence",
                    f"{CONVERGENCE_BOUND_S:g} s after the heal the nodes hold {cluster.states()}",
                )
                return
            cluster.run(0.25)


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
