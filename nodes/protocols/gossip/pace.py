"""How soon gossip promises what, and with how many messages."""

from __future__ import annotations

from nodes.contract.pace import Pace
from nodes.parts.pace import EXCHANGES, pace_of_recovery
from nodes.protocols.gossip.parameters import GossipParameters

_HOPS = 4
"""Nodes through which a rumour comes to the last one."""


def pace(parameters: GossipParameters, nodes: tuple[str, ...]) -> Pace:
    """Every node answers alone, at once. Replicas that agree send digests, and answer each by an
    empty difference."""
    every_s = parameters.anti_entropy_interval_s
    exchanges = 2 * len(nodes) / every_s
    recovery = pace_of_recovery(parameters, nodes)
    # A rumour goes through a few nodes, each of which repeats it.
    rumours_s = _HOPS * (parameters.rounds + 1) * parameters.gossip_interval_s
    told = parameters.fanout * parameters.rounds * len(nodes)
    return Pace(
        serves_s=1.0 + recovery.serves_s + (parameters.forward_timeout_s if recovery.idle else 0),
        settles_s=2.0 + EXCHANGES * every_s + rumours_s + recovery.settles_s,
        converges_s=2.0 + EXCHANGES * every_s + recovery.settles_s,
        idle={"Digest": exchanges, "Difference": exchanges, **(recovery.idle or {})},
        bare={"Difference": "clocks"},
        context=True,
        monotonic=True,
        answers=True,
        asked=4 * len(nodes) + 2 * told,
    )
