"""Invariants look only at what changed: nothing may escape them by that."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nodes.registry import Protocol
from nodes.simulator.bugs import all_bugs
from nodes.simulator.cluster import Cluster
from nodes.simulator.simulate import simulate

BUGS = {bug.name: bug for bug in all_bugs()}


def everybody_looks(protocol: Protocol) -> Protocol:
    """The protocol, with invariants that all look after each step."""

    class Unwatched(protocol.replica):  # type: ignore[misc, name-defined]
        def watched(self) -> Any:
            return None

    return msgspec.structs.replace(protocol, replica=Unwatched)


@pytest.mark.parametrize(
    "name",
    [
        *("raft-vote-not-persisted", "raft-ack-before-fsync", "raft-vote-twice"),
        *("raft-leader-counts-itself-early", "raft-truncates-on-old-message"),
        *("raft-vote-before-fsync", "raft-commit-beyond-match", "raft-log-not-durable"),
        *("paxos-promise-forgotten", "paxos-own-vote-early", "paxos-ballots-shared"),
        *("quorum-answer-before-fsync", "quorum-numbers-start-again"),
        *("gossip-siblings-dropped", "gossip-clock-changed-in-place"),
    ],
)
def test_an_alarm_comes_no_later_than_if_all_looked_after_each_step(name: str) -> None:
    planted = BUGS[name].planted()
    broken = 0
    for seed in range(1, 31):
        few = simulate(planted, seed, duration_s=5.0, finish=False)
        everybody = simulate(everybody_looks(planted), seed, duration_s=5.0, finish=False)
        assert few.alarms == everybody.alarms, f"seed {seed}"
        assert few.trace_hash == everybody.trace_hash
        broken += bool(few.alarms) and few.alarms[0].check.startswith("invariant")
        if broken == 3:
            return
    assert broken, "no invariant saw this bug"


def test_an_invariant_that_looks_at_nothing_that_is_there_is_refused() -> None:
    planted = BUGS["raft-vote-twice"].planted()

    class Renamed(planted.replica):  # type: ignore[misc, name-defined]
        WATCHED = tuple(name.replace("term", "age") for name in planted.replica.WATCHED)

    with pytest.raises(AssertionError, match=r"looks at \{'term'\}, WATCHED has"):
        Cluster(msgspec.structs.replace(planted, replica=Renamed))
