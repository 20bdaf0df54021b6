"""How soon the quorum register promises what, and with how many messages."""

from __future__ import annotations

from nodes.contract.pace import Pace, Price
from nodes.contract.replica import OperationKind
from nodes.parts.pace import EXCHANGES, pace_of_recovery
from nodes.protocols.quorum_register.parameters import QuorumParameters

_CARRIES_ON_S = 0.4
"""All that can answer have been asked at once: nothing waits for a timer."""


def _prices(parameters: QuorumParameters, nodes: int) -> dict[tuple[OperationKind, bool], Price]:
    """A write asks a read quorum, writes here, and then there. Who reads asks only, for all hold
    the same. A node is one of its quorums, and waits for nobody where it is one alone: then it asks
    nobody, but tells all others what it has written."""
    quorums, others = parameters.quorums(nodes), nodes - 1
    asks, stores = quorums.read > 1, quorums.write > 1
    ask = {"Prepare": asks * others, "Prepared": asks * others}
    found: dict[tuple[OperationKind, bool], Price] = {
        ("write", False): Price(
            hops=2 * (asks + stores),
            fsyncs=1 + stores,
            messages={**ask, "Commit": others, "Committed": others},
        )
    }
    if quorums.read >= quorums.write:
        # Else a read has to write back, and who has forgotten the writer remembers it again.
        found["read", False] = Price(hops=2 * asks, messages={**ask, "Commit": 0})
    return found


def pace(parameters: QuorumParameters, nodes: tuple[str, ...]) -> Pace:
    """No leader: a majority answers at once, or when it is asked again. Replicas that agree send
    digests, and answer none."""
    every_s = parameters.anti_entropy_interval_s
    recovery = pace_of_recovery(parameters, nodes)
    copies = parameters.replication_factor or len(nodes)
    # Who holds the key is one of those who answer, and asks nobody if it is enough.
    alone = parameters.quorums(copies).read == 1 and not recovery.idle
    asks = 0 if alone else len(nodes) - 1
    # The clock runs already where other operations are open.
    repeats_s = 2 * parameters.retransmit_interval_s
    return Pace(
        serves_s=1.0 + 3 * parameters.retransmit_interval_s + recovery.serves_s,
        settles_s=parameters.timeout_s + EXCHANGES * every_s + recovery.settles_s,
        converges_s=2.0 + EXCHANGES * every_s + recovery.settles_s,
        # Jitter makes some intervals half as long.
        idle={"Digest": 2 * len(nodes) / every_s, **(recovery.idle or {})},
        least=recovery.least,
        watch_s=recovery.watch_s,
        replaces_s=recovery.replaces_s,
        carries_on_s=None if recovery.idle else _CARRIES_ON_S,
        gives_up_s=None if parameters.weak or recovery.idle else parameters.timeout_s,
        repeats_s=repeats_s if parameters.timeout_s > repeats_s and not recovery.idle else None,
        # The answers to `Prepare` tell it; some replica of each read quorum stored it.
        finds_elsewhere=not parameters.weak,
        prices={} if recovery.idle else _prices(parameters, len(nodes)),
        monotonic=True,
        answers=True,
        once="node asked first" if parameters.weak else "anywhere",
        asked=6 * len(nodes),
        costs={"Prepare": asks, "Prepared": asks},
    )
