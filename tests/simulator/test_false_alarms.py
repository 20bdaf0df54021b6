"""Seeds that raised an alarm on protocols as they are, by a mistake of the check that raised it."""

from __future__ import annotations

import pytest

from nodes.simulator.simulate import simulate


@pytest.mark.parametrize(
    ("protocol", "seed"),
    [
        # A member that is ready crashes before it can say so, and then proposes.
        ("quorum-placed", 282),
        ("gossip-lww-placed", 46),
        # A placement that was voted for comes to be chosen when its new member is down.
        ("quorum-placed", 1866),
        # A source is asked twice, and a key is written there between its two pages.
        ("quorum-placed", 418),
        # A late page brings what a member need not hold when it is ready.
        ("gossip-placed", 2752),
        # Three hundred entries that were missed come one by one.
        ("raft-stale-read", 451),
        # An old refusal comes late (a mistake of the protocol: it sent what was not asked for).
        ("raft-stale-read", 494),
        # A leader shows by a confirmed read what it has not on disk, and crashes (a mistake of the
        # protocol: that read waits for the disk now, and nothing newer goes before it).
        ("raft-stale-read", 1900),
        ("raft-stale-read", 63),
        # A transfer begins again with a new member, and with who is in a later term by then.
        ("raft-stale-read", 694),
        ("raft-stale-read", 467),
        # With a window of one behind a slow node, clients ask for more than ever gets through.
        ("raft", 2651),
        # Who is to lead lacks a snapshot of eighty pieces, and leadership is kept meanwhile.
        ("raft", 1159),
        # Who comes to lead hears of nineteen votes that no majority cast, and repeats them first.
        ("paxos", 1784),
        # Two crashes in a row keep what was to be forgotten, and a request that was forgotten ends
        # fail (both mistakes of the protocol: more was remembered than may be).
        ("quorum", 436),
        ("quorum", 776),
        ("gossip", 682),
    ],
)
def test_a_seed_raises_no_alarm(protocol: str, seed: int) -> None:
    assert simulate(protocol, seed).alarms == []
