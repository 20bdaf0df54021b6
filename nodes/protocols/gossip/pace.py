"""How soon gossip promises what, and with how many messages."""

from __future__ import annotations

from collections.abc import Mapping

from nodes.contract.pace import Pace, Price
from nodes.contract.replica import OperationKind
from nodes.parts.pace import EXCHANGES, pace_of_recovery
from nodes.protocols.gossip.parameters import GossipParameters

_SILENT = 5
"""Intervals of anti-entropy, for each peer, in which a node that is there is heard for certain, and
one more."""
_HOPS = 4
"""Nodes through which a rumour comes to the last one."""

_PRICES: Mapping[tuple[OperationKind, bool], Price] = {
    ("read", False): Price(),
    ("write", False): Price(fsyncs=1),
}


def pace(parameters: GossipParameters, nodes: tuple[str, ...]) -> Pace:
    """Every node answers alone, at once. Replicas that agree send digests, and answer each by an
    empty difference."""
    every_s = parameters.anti_entropy_interval_s
    exchanges = 2 * len(nodes) / every_s
    recovery = pace_of_recovery(parameters, nodes)
    # A rumour goes through a few nodes, each of which repeats it.
    rumours_s = _HOPS * (parameters.rounds + 1) * parameters.gossip_interval_s
    told = parameters.fanout * parameters.rounds * len(nodes)
    others = (parameters.replication_factor if recovery.idle else len(nodes)) - 1
    return Pace(
        serves_s=1.0 + recovery.serves_s + (parameters.forward_timeout_s if recovery.idle else 0),
        settles_s=2.0 + EXCHANGES * every_s + rumours_s + recovery.settles_s,
        converges_s=2.0 + EXCHANGES * every_s + recovery.settles_s,
        idle={"Digest": exchanges, "Difference": exchanges, **(recovery.idle or {})},
        bare={"Difference": "clocks"},
        least=recovery.least,
        watch_s=recovery.watch_s,
        replaces_s=recovery.replaces_s,
        tells={"Rumour": parameters.rounds * min(parameters.fanout, others)},
        told_s=len(nodes) * parameters.rounds * parameters.gossip_interval_s,
        tells_every_s=parameters.gossip_interval_s,
        # Of two copies the other one may be this node, which has yet to copy.
        handed_on={"Forward": "request"} if recovery.idle and others > 1 else {},
        unsure_s=None if recovery.idle else _SILENT * others * every_s,
        # Every node answers alone.
        prices={} if recovery.idle else _PRICES,
        context=True,
        monotonic=True,
        answers=True,
        # Where few nodes hold a key, who is asked hands it on, and not always to the same one.
        once="nowhere" if recovery.idle else "node asked first",
        asked=4 * len(nodes) + 2 * told,
    )
