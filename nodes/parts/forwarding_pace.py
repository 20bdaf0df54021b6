"""What requests cost where a leader answers them, and when they are handed on again; see
`nodes.contract.pace`."""

from __future__ import annotations

from nodes.contract.pace import Price
from nodes.contract.replica import OperationKind
from nodes.parts.forwarding import ForwardingParameters

FEW_BYTES = 1000
"""A message of a batch so small holds an entry or two."""


def repeats_s(parameters: ForwardingParameters) -> float | None:
    """So long after it came a request that was lost on its way to the leader is handed on again;
    None: it ends before."""
    again_s = 2 * parameters.retry_s
    return again_s if parameters.request_timeout_s > again_s else None


def prices(nodes: int, ask: str, answer: str) -> dict[tuple[OperationKind, bool], Price]:
    """Who leads asks all others, by ``ask``, and goes on when a majority has answered; what is
    written it writes itself meanwhile. What came to another node is handed on, and back."""
    others = nodes - 1
    round_ = {ask: others, answer: others}
    away = {"Forward": 1, "Forwarded": 1, **round_}
    here = {"Forward": 0, "Forwarded": 0, **round_}
    return {
        ("read", True): Price(hops=2, messages=here, full={ask: 0}),
        ("read", False): Price(hops=4, messages=away, full={ask: 0}),
        ("write", True): Price(hops=2, fsyncs=1, messages=here, full={ask: others}),
        ("write", False): Price(hops=4, fsyncs=1, messages=away, full={ask: others}),
    }
