"""Planted bugs are caught. These show within a few dozen seeds; rarer ones take a sweep, and some
are missed by it (`capbench bugs` lists them)."""

from __future__ import annotations

from pkgutil import iter_modules

import msgspec
import pytest

from nodes.contract.replica import Reply
from nodes.registry import INTERNAL, PROTOCOLS
from nodes.simulator import bugs as package
from nodes.simulator.bugs import all_bugs
from nodes.simulator.simulate import Alarm, simulate
from tests.simulator.judge import linearizable

BUGS = {bug.name: bug for bug in all_bugs()}
COMMON = (
    "raft-vote-not-persisted",
    "raft-term-not-persisted",
    "raft-vote-kept",
    "raft-vote-twice",
    "raft-no-up-to-date-check",
    "raft-small-election-quorum",
    "raft-commit-beyond-match",
    "raft-truncates-on-old-message",
    "raft-applies-twice",
    "raft-log-not-durable",
    "raft-one-answer-per-client",
    "raft-followers-never-commit",
    "raft-vote-before-fsync",
    "raft-ack-before-fsync",
    "raft-leader-counts-itself-early",
    "gossip-told-once",
    "gossip-rumours-only",
    "gossip-wall-clock-wins",
    "gossip-clock-changed-in-place",
    "gossip-siblings-dropped",
    "gossip-no-tombstones",
    "gossip-digests-only",
    "gossip-forgets-in-a-crash",
    "gossip-no-clock-is-so-wrong",
    "quorum-version-picked-locally",
    "quorum-local-read",
    "quorum-numbers-start-again",
    "quorum-coordinator-not-counted",
    "quorum-ack-before-fsync",
    "quorum-told-before-fsync",
    "quorum-answer-before-fsync",
    "quorum-of-two",
    "quorum-writes-as-few-as-answer",
    "paxos-ballots-shared",
    "paxos-promise-forgotten",
    "paxos-promise-before-fsync",
    "paxos-promise-per-ballot",
    "paxos-votes-not-found",
    "paxos-proposer-is-no-acceptor",
    "paxos-own-vote-early",
    "detection-heartbeat-wipes-suspicion",
    "detection-wall-clock",
    "detection-no-incarnation",
    "detection-outage-is-learned",
    "detection-window-forgets-nothing",
    "gossip-context-and-more",
    "gossip-digest-keeps-old",
    "raft-leads-without-majority",
    "raft-requests-timer-once",
    "raft-hands-on-once",
    "raft-handover-ends-in-silence",
    "raft-half-is-heard",
    "recovery-not-fenced",
    "recovery-serves-before-copying",
    "recovery-everybody-places",
    "quorum-asks-who-has-answered",
    "quorum-never-forgets",
    "gossip-rumours-end-early",
    "gossip-sure-of-the-silent",
    "detection-beats-slowly",
    "detection-marks-one-detector",
    "recovery-moves-to-who-just-came",
    "quorum-requests-put-off-repeats",
    "paxos-accepts-behind-the-disk",
    "quorum-refusals-end-with-the-process",
    "gossip-results-end-before-the-effect",
)


def hunt(name: str, seeds: int) -> Alarm | None:
    planted = BUGS[name].planted()
    for seed in range(1, seeds + 1):
        result = simulate(planted, seed)
        alarms = result.alarms
        if not alarms and planted.claim == "linearizable":
            alarms = linearizable(result)
        if alarms:
            return alarms[0]
    return None


@pytest.mark.parametrize("name", COMMON)
def test_a_planted_bug_is_caught(name: str) -> None:
    assert hunt(name, 60) is not None


def test_a_lost_acknowledgement_of_an_eventual_protocol_is_caught_in_the_end() -> None:
    """By what becomes of it, if nobody judges the answer as it leaves."""
    planted = BUGS["gossip-reply-before-fsync"].planted()
    judges = planted.replica.INVARIANTS

    class Unjudged(planted.replica):  # type: ignore[misc, name-defined]
        INVARIANTS = tuple(judge for judge in judges if Reply not in judge.hears)

    unjudged = msgspec.structs.replace(planted, replica=Unjudged)
    alarms = (alarm for seed in range(1, 101) for alarm in simulate(unjudged, seed).alarms)
    # That it is answered before it can be durable shows as well.
    found = next(alarm for alarm in alarms if not alarm.message.startswith("exactly"))
    assert found.check in ("acknowledged", "causality")


def test_each_file_of_bugs_is_declared_by_a_protocol() -> None:
    files = {f"{package.__name__}.{file.name}" for file in iter_modules(package.__path__)}
    declared = [m for p in (PROTOCOLS | INTERNAL).values() for m in p.bugs]
    assert sorted(declared) == sorted(files)


def test_bugs_have_names_of_their_own_and_say_what_is_wrong() -> None:
    bugs = list(all_bugs())
    assert len(BUGS) == len(bugs) >= 24
    for bug in bugs:
        assert bug.summary
        assert bug.source
        assert bug.planted().claim in ("linearizable", "eventual")
