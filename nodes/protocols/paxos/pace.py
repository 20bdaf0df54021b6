"""How soon Paxos promises what, and with how many messages."""

from __future__ import annotations

from nodes.contract.pace import Pace, Price
from nodes.parts.pace import FEW_BYTES, prices, repeats_s
from nodes.protocols.paxos.parameters import PaxosParameters

BALLOTS = 8
"""Ballots until one wins for certain, as far as anything is."""


def pace(parameters: PaxosParameters, nodes: tuple[str, ...]) -> Pace:
    """With a stable leader as Raft: who hears none surveys first, and a leader without a majority
    gives up. Without one nobody leads and nothing is sent unasked, so a node that missed something
    learns of it with the next ballot only."""
    if not parameters.stable_leader:
        wait_s = max(parameters.backoff_max_s, parameters.heartbeat_s)
        return Pace(
            serves_s=1.0 + BALLOTS * wait_s + 2 * parameters.retry_s,
            settles_s=parameters.request_timeout_s + 2 * parameters.retry_s,
            idle={},
            answers=True,
            asked=12 * len(nodes),
            # A proposer repeats each phase with its heartbeats.
            repeats_s=2 * parameters.heartbeat_s,
        )
    beats = (len(nodes) - 1) / parameters.heartbeat_s
    election_s = parameters.election_timeout_max_s
    # Else who is a moment late is sent a snapshot.
    is_short = parameters.snapshot_tail == 0
    # Votes of a ballot that came to nothing may be left, and go first, one after the other.
    is_slow = parameters.batch_entries == 1 or parameters.batch_bytes < FEW_BYTES
    return Pace(
        serves_s=1.0 + BALLOTS * election_s + 2 * parameters.retry_s,
        settles_s=parameters.request_timeout_s + 2 * parameters.retry_s + BALLOTS * election_s,
        idle={"Accept": beats, "Accepted": beats},
        bare={"Accept": "values"},
        answers=True,
        asked=6 * len(nodes),
        unrest=("become_proposer", "become_leader", "become_follower", "follow", "lost_majority"),
        catches_up=True,
        in_flight=parameters.window_batches * (1 if is_slow else parameters.batch_entries),
        prices={} if is_short else prices(len(nodes), "Accept", "Accepted"),
        beats_s=parameters.heartbeat_s,
        refuses={"Accepted": "missing"},
        # After a survey, which has no mark: its own promise, and those of others.
        elects=None
        if is_short or is_slow
        else (
            "become_proposer",
            Price(hops=2, fsyncs=2),
            parameters.election_timeout_min_s,
            election_s,
        ),
        repeats_s=repeats_s(parameters),
    )
