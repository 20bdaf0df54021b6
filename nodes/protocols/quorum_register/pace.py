"""How soon the quorum register promises what, and with how many messages."""

from __future__ import annotations

from nodes.contract.pace import Pace
from nodes.parts.pace import EXCHANGES, pace_of_recovery
from nodes.protocols.quorum_register.parameters import QuorumParameters

_CARRIES_ON_S = 0.4
"""All that can answer have been asked at once: nothing waits for a timer."""


def pace(parameters: QuorumParameters, nodes: tuple[str, ...]) -> Pace:
    """No leader: a majority answers at once, or when it is asked again. Replicas that agree send
    digests, and answer none."""
    every_s = parameters.anti_entropy_interval_s
    recovery = pace_of_recovery(parameters, nodes)
    copies = parameters.replication_factor or len(nodes)
    # Who holds the key is one of those who answer, and asks nobody if it is enough.
    alone = parameters.quorums(copies).read == 1 and not recovery.idle
    asks = 0 if alone else len(nodes) - 1
    return Pace(
        serves_s=1.0 + 3 * parameters.retransmit_interval_s + recovery.serves_s,
        settles_s=parameters.timeout_s + EXCHANGES * every_s + recovery.settles_s,
        converges_s=2.0 + EXCHANGES * every_s + recovery.settles_s,
        # Jitter makes some intervals half as long.
        idle={"Digest": 2 * len(nodes) / every_s, **(recovery.idle or {})},
        least=recovery.least,
        watch_s=recovery.watch_s,
        carries_on_s=None if recovery.idle else _CARRIES_ON_S,
        gives_up_s=None if parameters.weak or recovery.idle else parameters.timeout_s,
        # The answers to `Prepare` tell it; some replica of each read quorum stored it.
        finds_elsewhere=not parameters.weak,
        monotonic=True,
        answers=True,
        once="node asked first" if parameters.weak else "anywhere",
        asked=6 * len(nodes),
        costs={"Prepare": asks, "Prepared": asks},
    )
