"""The smallest failing schedule: greedy removal of faults, clients, nodes and time.

Each candidate is a whole run from the same seed with less in it; it is kept if it still fails in
the same way. Separate random streams see to it that what is left does mostly what it did before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import msgspec

from nodes.contract.knobs import Knobs
from nodes.registry import InvalidConfiguration, Protocol, node_ids
from nodes.simulator.faults import Fault
from nodes.simulator.host import Timing
from nodes.simulator.load import ClientPolicy
from nodes.simulator.network import Quality
from nodes.simulator.simulate import Setup, SimulationResult, draw_setup, simulate
from nodes.simulator.tape import draw_more, draw_tape

READABLE = 200
"""So long may the story of a failure be (`SimulationResult.told`). What is longer is worth a look
for another story that fails in the same way."""
LONG = 1000
"""Longer ones are looked for others first: once for a short one, then for one that is not so
long."""
SHORT = 300
"""So long may a short one be: less is taken from it quickly."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that makes a run, but the protocol. ``finish``: with its last two phases."""

    seed: int
    nodes: int
    duration_s: float
    setup: Setup
    tape: list[Fault]
    finish: bool = True

    @classmethod
    def of(cls, result: SimulationResult) -> Case:
        """The case that gave ``result``."""
        return cls(
            seed=result.seed,
            nodes=result.nodes,
            duration_s=result.duration_s,
            setup=result.setup,
            tape=result.tape,
        )

    def run(
        self, protocol: Protocol, *, trace: bool = False, most_told: int | None = None
    ) -> SimulationResult:
        """Run it again; ``most_told``: as long as its story is no longer than that."""
        return simulate(
            protocol,
            self.seed,
            nodes=self.nodes,
            duration_s=self.duration_s,
            setup=self.setup,
            tape=self.tape,
            trace=trace,
            finish=self.finish,
            most_told=most_told,
        )


def shrink(
    protocol: Protocol,
    result: SimulationResult,
    check_of: Callable[[SimulationResult], str | None],
    *,
    budget_events: int = 3_000_000,
) -> Case:
    """The smallest case found that fails by the same check as ``result``; about ``budget_events``
    events are spent on the search (100,000 take a second or less). ``check_of``: the name of the
    check by which a run fails, None if it does not.
    Raises ValueError if ``result`` itself does not fail."""
    wanted = check_of(result)
    if wanted is None:
        raise ValueError(f"seed {result.seed} does not fail, there is nothing to shrink")
    best, events = Case.of(result), result.told
    knobs = protocol.knobs

    def improve(candidates: Iterator[Case], most_told: float, budget: int) -> bool:
        nonlocal best, events, budget_events
        reserve = budget_events - budget
        for candidate in candidates:
            if budget_events <= max(0, reserve):
                return False
            try:
                again = candidate.run(protocol, most_told=int(most_told))
            except InvalidConfiguration:
                continue  # Parameters that need each other.
            budget_events -= again.events + 500
            if check_of(again) == wanted and again.told < most_told:
                best, events = candidate, again.told
                return True
        return False

    whole = budget_events
    if events > LONG and not improve(_others(best, protocol, plain=True), SHORT, whole * 2 // 5):
        # Whatever is tried with so long a story is long too: any short one is a better begin.
        improve(_others(best, protocol), LONG, whole // 5)
    # Less may take a little longer to fail; once nothing can be taken away, other seeds may have
    # the luck to fail sooner, and then perhaps with less.
    while improve(_smaller(best, knobs), 1.02 * events, whole) or (
        events > READABLE // 2
        and (
            improve(_luckier(best, knobs), 0.9 * events, whole)
            or (
                events > READABLE
                and (
                    improve(_others(best, protocol), 0.8 * events, whole // 4)
                    or improve(_others(best, protocol, plain=True), min(SHORT, 0.9 * events), whole)
                )
            )
        )
    ):
        pass
    return best


def _luckier(case: Case, knobs: Knobs) -> Iterator[Case]:
    """The same faults, and then bolder cuts and other knobs, under other seeds."""
    replace = msgspec.structs.replace
    turns = [alternative for alternatives in knobs for alternative in alternatives]
    for luck in range(1, 25):
        lucky = replace(case, seed=case.seed + luck * 1_000_003)
        yield lucky
        for factor in (0.3, 0.6):
            yield _faster(lucky, factor)
            yield _cut(lucky, factor)
        if turns:
            parameters = {**case.setup.parameters, **turns[luck % len(turns)]}
            yield replace(lucky, setup=replace(case.setup, parameters=parameters))


def _others(case: Case, protocol: Protocol, *, plain: bool = False) -> Iterator[Case]:
    """Short runs of other seeds, with faults and knobs of their own. ``plain``: half of them with
    three nodes, half of them with few clients on a plain network."""
    replace = msgspec.structs.replace
    for luck in range(1, 3000 if plain else 400):
        seed = case.seed + luck * 1_000_033
        draw = random.Random(f"{seed}/shrink")
        duration_s = (0.5, 1.0, 2.0, 4.0)[int(draw.random() * 4)]
        setup = draw_setup(protocol, seed)
        clients = min(3, setup.mix.clients)
        nodes = case.nodes
        if plain:
            if luck % 2:
                nodes = min(3, nodes)
            if luck % 4 < 2:
                clients = 1 + luck % 3
                setup = replace(setup, quality=Quality(), policy=ClientPolicy(), timing=Timing())
        mix = replace(setup.mix, clients=clients, keys=1)
        patience_s = setup.parameters.get("election_timeout_max_s", 1.0)
        stage = (node_ids(nodes), protocol, duration_s, patience_s)
        tape = [*draw_tape(draw, *stage), *draw_more(draw, *stage)]
        yield replace(
            case,
            seed=seed,
            nodes=nodes,
            duration_s=duration_s,
            setup=replace(setup, mix=mix, round_trip=False),
            tape=tape,
        )


def _cut(case: Case, factor: float) -> Case:
    """The first part of it."""
    duration_s = round(case.duration_s * factor, 3)
    tape = [fault for fault in case.tape if fault.at_s < duration_s]
    return msgspec.structs.replace(case, duration_s=duration_s, tape=tape)


def _faster(case: Case, factor: float) -> Case:
    """The same story in less time."""
    replace = msgspec.structs.replace
    return replace(
        case,
        duration_s=round(case.duration_s * factor, 3),
        tape=[
            replace(fault, at_s=round(fault.at_s * factor, 4), for_s=round(fault.for_s * factor, 4))
            for fault in case.tape
        ],
    )


def _sooner(case: Case) -> Iterator[Case]:
    """Without the time before the first fault, or what comes before the second half."""
    replace = msgspec.structs.replace
    starts = sorted(fault.at_s for fault in case.tape)
    for start_s in (starts[len(starts) // 2 :][:1] + starts[:1]) if starts else []:
        skipped_s = round(start_s - 0.3, 4)
        if skipped_s > 0.1 and case.duration_s > skipped_s:
            tape = [
                replace(fault, at_s=round(fault.at_s - skipped_s, 4))
                for fault in case.tape
                if fault.at_s >= skipped_s
            ]
            yield replace(case, tape=tape, duration_s=round(case.duration_s - skipped_s, 3))


def _smaller(case: Case, knobs: Knobs) -> Iterator[Case]:
    """Candidates with less in them, the boldest first."""
    replace = msgspec.structs.replace
    if case.finish:
        yield replace(case, finish=False)
    yield from _plainer(case, [[dict.fromkeys(case.setup.parameters, 0)]])
    for factor in (0.25, 0.5, 0.8, 0.95):
        yield _cut(case, factor)
    for factor in (0.5, 0.8):
        yield _faster(case, factor)
    yield from _sooner(case)
    for tape in _shorter(case.tape):
        yield replace(case, tape=tape)
    mix = case.setup.mix
    for clients in (1, mix.clients // 2, mix.clients - 1):
        if 1 <= clients < mix.clients:
            yield _with_mix(case, clients=clients)
    if mix.keys > 1:
        yield _with_mix(case, keys=1)
    if case.nodes > 3:
        used = _nodes_named(case.tape)
        if f"n{case.nodes}" not in used:
            yield replace(case, nodes=case.nodes - 1)
        yield replace(case, nodes=case.nodes - 1, tape=_without(case.tape, f"n{case.nodes}"))
    for node in node_ids(case.nodes):
        # Who is not needed, and cannot go, is at least silent.
        silence = Fault(at_s=0.0, kind="crash", for_s=case.duration_s, args={"nodes": [node]})
        if silence.args not in [fault.args for fault in case.tape[:2]]:
            yield replace(case, tape=[silence, *_without(case.tape, node)])
    if mix.think_s < 1.0:
        yield _with_mix(case, think_s=mix.think_s * 3)
    setup = case.setup
    for name, plain in (("quality", Quality()), ("policy", ClientPolicy()), ("timing", Timing())):
        if getattr(setup, name) != plain:
            yield replace(case, setup=replace(setup, **{name: plain}))
    yield from _plainer(case, knobs)


def _plainer(case: Case, knobs: Knobs) -> Iterator[Case]:
    """Without what one of ``knobs`` sets."""
    replace = msgspec.structs.replace
    setup = case.setup
    for alternatives in knobs:
        turned = {name for alternative in alternatives for name in alternative}
        fewer = {name: value for name, value in setup.parameters.items() if name not in turned}
        if len(fewer) < len(setup.parameters):
            yield replace(case, setup=replace(setup, parameters=fewer))


def _with_mix(case: Case, **changes: float) -> Case:
    replace = msgspec.structs.replace
    mix = replace(case.setup.mix, **changes)
    return replace(case, setup=replace(case.setup, mix=mix))


def _shorter(tape: Sequence[Fault]) -> Iterator[list[Fault]]:
    """Without a half, a quarter ... down to one fault."""
    size = max(1, len(tape) // 2)
    while tape:
        for start in range(0, len(tape), size):
            yield [*tape[:start], *tape[start + size :]]
        if size == 1:
            return
        size //= 2


def _nodes_named(tape: Sequence[Fault]) -> str:
    return " ".join(str(fault.args) for fault in tape)


def _without(tape: Sequence[Fault], node: str) -> list[Fault]:
    """The faults that do not name ``node``; where one names it among others, the others stay."""
    kept: list[Fault] = []
    for fault in tape:
        args = dict(fault.args)
        if node in (args.get("node"), args.get("at"), args.get("lost")):
            continue
        if "nodes" in args:
            args["nodes"] = [name for name in args["nodes"] if name != node]
        if isinstance(args.get("links"), list):
            args["links"] = [link for link in args["links"] if node not in link.split("->")]
        if [] in (args.get("nodes"), args.get("links")):
            continue
        if isinstance(args.get("groups"), list):
            args["groups"] = [[n for n in group if n != node] for group in args["groups"]]
        kept.append(msgspec.structs.replace(fault, args=args))
    return kept
