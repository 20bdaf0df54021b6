"""How soon Raft promises what, and with how many messages."""

from __future__ import annotations

from nodes.contract.pace import UNKNOWN_S, Pace, Price
from nodes.parts.pace import FEW_BYTES, prices, repeats_s
from nodes.protocols.raft.parameters import RaftParameters

ELECTIONS = 8
"""Rounds of pre-votes and votes until one wins for certain, as far as anything is: with timeouts
that are close together several are split."""

_ROUND = ("AppendEntries", "AppendEntriesReply")


def pace(parameters: RaftParameters, nodes: tuple[str, ...]) -> Pace:
    """Pre-vote, and a leader that steps down without a majority (dissertation, 6.2 and 9.6): so a
    leader that a majority hears is never deposed, and one that hears none makes room."""
    beats = (len(nodes) - 1) / parameters.heartbeat_s
    election_s = parameters.election_timeout_max_s
    # Else what waits for the end of a handover may end before it.
    waits = parameters.request_timeout_s - parameters.retry_s > election_s
    serves_s = 1.0 + ELECTIONS * election_s + 2 * parameters.retry_s
    # A log that was missed comes one message after another: how long depends on its length.
    is_slow = parameters.batch_entries == 1 or parameters.batch_bytes < FEW_BYTES
    # Else who is a moment late is sent a snapshot, in as many pieces as it may take.
    is_short = parameters.snapshot_tail == 0
    return Pace(
        serves_s=serves_s,
        settles_s=parameters.request_timeout_s + 2 * parameters.retry_s + ELECTIONS * election_s,
        idle={"AppendEntries": beats, "AppendEntriesReply": beats},
        bare={"AppendEntries": "entries"},
        converges_s=UNKNOWN_S if is_slow else serves_s,
        answers=True,
        asked=6 * len(nodes),
        unrest=(
            *("ask_pre_votes", "become_candidate", "become_leader"),
            *("become_follower", "follow", "lost_majority"),
        ),
        catches_up=True,
        in_flight=parameters.window_batches * (1 if is_slow else parameters.batch_entries),
        repeats_s=repeats_s(parameters),
        prices={} if parameters.stale_reads or is_short else prices(len(nodes), *_ROUND),
        beats_s=parameters.heartbeat_s,
        refuses={"AppendEntriesReply": "conflict_index"},
        # Pre-votes; its own vote, which it writes; votes, which the others write.
        elects=None
        if is_short
        else (
            "ask_pre_votes",
            Price(hops=4, fsyncs=2),
            parameters.election_timeout_min_s,
            election_s,
        ),
        hands_over_s=election_s if waits else None,
    )
