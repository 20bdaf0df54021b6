"""The checks at work: the example protocol with one mistake each, and the check that sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from nodes.contract.replica import Parameters, Reply, Request
from nodes.registry import PROTOCOLS, Protocol
from nodes.simulator.simulate import simulate
from tests.conformance import checks
from tests.conformance.example import EXAMPLE, PRIMARY

if TYPE_CHECKING:
    from tests.conformance.example_primary import Have, PrimaryBackup
    from tests.conformance.example_protocol import Cell, Newest, NewestParameters, Tell
else:
    # Not imported: an import would register the protocols a second time.
    Newest, PrimaryBackup = EXAMPLE.replica, PRIMARY.replica
    NewestParameters = sys.modules[Newest.__module__].NewestParameters


class ReplyBeforeDurable(Newest):
    """Answers a write before it is on disk."""

    def _write(self, request: Request) -> None:
        super()._write(request)
        self.out.replies[-1] = (0, self.out.replies[-1][1])


class NotOnDisk(Newest):
    """Keeps its cells in memory only."""

    def _hold(self, key: str, cell: Cell) -> None:
        self.cells[key] = cell
        self.changed.append(key)


class AppliesTwice(Newest):
    """Does not know a request that it has carried out."""

    def _write(self, request: Request) -> None:
        self._sessions.find = lambda client, sequence: None  # type: ignore[method-assign] # the mistake
        self._sessions.is_forgotten = lambda client, sequence: False  # type: ignore[method-assign] # the mistake
        super()._write(request)


class TakesBackWhatIsForgotten(Newest):
    """Carries out a late copy of a request that the client has acknowledged."""

    def _write(self, request: Request) -> None:
        self._sessions.is_forgotten = lambda client, sequence: False  # type: ignore[method-assign] # the mistake
        super()._write(request)


class ForgetsRequestsInACrash(Newest):
    """Knows its requests until it restarts."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sessions._sessions.clear()


class FailForApplied(Newest):
    """Now and then calls a write failed that it has carried out."""

    def _write(self, request: Request) -> None:
        super()._write(request)
        if request.sequence % 5 == 4:
            position, _ = self.out.replies.pop()
            reply = Reply(request.client, request.sequence, "fail", error="too busy")
            self.out.replies.append((position, reply))


class OkForUnsupported(Newest):
    """Answers ok to an operation that it does not offer."""

    def on_request(self, request: Request) -> None:
        if request.operation.op == "delete":
            self.out.reply(Reply(request.client, request.sequence, "ok"))
        else:
            super().on_request(request)


class NoRepair(Newest):
    """Tells of a write once, and never again."""

    def on_timer(self, name: str) -> None:
        pass


class NewerByArrival(Newest):
    """Takes whatever comes last."""

    def on_tell(self, src: str, msg: Tell) -> None:
        for key, cell in msg.cells.items():
            self.cells.pop(key, None)
            self._hold(key, cell)


class RepairsAlone(Newest):
    """Looks for somebody to repair also where there is nobody."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.out.set_timer("repair", 0.001)


class UnnamedRecord(Newest):
    """Writes a record to disk that the codec does not know."""

    RECORDS = ()  # type: ignore[assignment] # the mistake


class NoLimits(Parameters, frozen=True, kw_only=True):
    repair_interval_s: float = 0.2


class NoRangeCheck(Newest):
    """Takes any number for an interval."""

    PARAMETERS = NoLimits

    def __init__(self, config: Any, env: Any, disk: Any) -> None:
        super().__init__(msgspec.structs.replace(config, parameters=NewestParameters()), env, disk)


class ProbeWithoutReady(Newest):
    """Does not say whether it serves."""

    def probe(self) -> dict[str, Any]:
        return {"role": "replica", "leader": None, "keys": list(self.cells)}


@pytest.mark.parametrize(
    ("variant", "check"),
    [
        (ReplyBeforeDurable, checks.a_crash_at_any_boundary_breaks_nothing),
        (NotOnDisk, checks.a_crash_at_any_boundary_breaks_nothing),
        (NoRepair, checks.a_crash_at_any_boundary_breaks_nothing),
        (NoRepair, checks.lost_doubled_and_reordered_messages_break_nothing),
        (NewerByArrival, checks.lost_doubled_and_reordered_messages_break_nothing),
        (AppliesTwice, checks.a_request_is_applied_at_most_once),
        (TakesBackWhatIsForgotten, checks.a_request_is_applied_at_most_once),
        (ForgetsRequestsInACrash, checks.a_request_is_applied_at_most_once),
        (FailForApplied, checks.histories_keep_the_claim),
        (OkForUnsupported, checks.other_operations_end_fail_unsupported),
        (RepairsAlone, checks.a_cluster_of_any_size_serves),
        (UnnamedRecord, checks.messages_and_records_survive_the_codec),
        (NoRangeCheck, checks.bad_configuration_is_refused),
        (ProbeWithoutReady, checks.views_are_plain_and_agree),
    ],
    ids=lambda it: it.__name__,
)
def test_a_mistake_is_seen(variant: Any, check: Callable[[Protocol], None]) -> None:
    protocol = msgspec.structs.replace(EXAMPLE, name=variant.__name__, replica=variant)
    with pytest.raises((AssertionError, ValueError)) as caught:
        check(protocol)
    print(f"{variant.__name__}: {caught.value}")


class BackupsAnswerReads(PrimaryBackup):
    """A backup answers reads from its copy."""

    def on_request(self, request: Request) -> None:
        if request.operation.op == "read":
            self.out.reply(self._serve(request))
        else:
            super().on_request(request)


class CountsFromItsStart(PrimaryBackup):
    """Takes versions from a counter in memory."""

    count = 0

    def _append(self, request: Request) -> Reply:
        self.appended.append(self.disk.append(request))
        self.count += 1
        return self._map.apply(request, self.count)


class ServesWithAll(PrimaryBackup):
    """Takes writes only while every backup tells what it has."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.heard: dict[str, float] = {}

    def on_have(self, src: str, msg: Have) -> None:
        super().on_have(src, msg)
        self.heard[src] = self.env.now()

    def on_request(self, request: Request) -> None:
        now = self.env.now()
        silent = [p for p in self.config.peers if now - self.heard.get(p, -1.0) > 1.0]
        if not (self.is_primary and silent):
            super().on_request(request)


@pytest.mark.parametrize(
    ("variant", "check"),
    [
        (BackupsAnswerReads, checks.histories_keep_the_claim),
        (CountsFromItsStart, checks.versions_grow_over_crashes),
    ],
    ids=lambda it: it.__name__,
)
def test_a_mistake_of_a_primary_is_seen(variant: Any, check: Callable[[Protocol], None]) -> None:
    protocol = msgspec.structs.replace(PRIMARY, name=variant.__name__, replica=variant)
    with pytest.raises(AssertionError):
        check(protocol)


def test_versions_that_do_not_grow_are_seen() -> None:
    """Here the nodes agree on them, so that nothing else sees it."""

    class Same(Newest):
        def _write(self, request: Request) -> None:
            super()._write(request)
            position, reply = self.out.replies.pop()
            reply = msgspec.structs.replace(reply, version=[1, "n1"])
            self.out.replies.append((position, reply))

    with pytest.raises(AssertionError, match="then a crash of"):
        checks.versions_grow_over_crashes(msgspec.structs.replace(EXAMPLE, replica=Same))


@pytest.mark.parametrize(
    ("protocol", "needs"),
    [
        (PRIMARY, "majority"),
        (PRIMARY, "any node"),
        (msgspec.structs.replace(PRIMARY, replica=ServesWithAll), "first node"),
        (PROTOCOLS["quorum"], "first node"),
        (PROTOCOLS["quorum"], "any node"),
    ],
    ids=lambda it: getattr(it, "name", it),
)
def test_a_need_that_is_not_declared_is_seen(protocol: Protocol, needs: Any) -> None:
    with pytest.raises(AssertionError, match="liveness: with n"):
        checks.histories_keep_the_claim(msgspec.structs.replace(protocol, needs=needs))


def test_a_protocol_may_need_all_nodes() -> None:
    protocol = msgspec.structs.replace(PRIMARY, replica=ServesWithAll, needs="all nodes")
    checks.a_cluster_of_any_size_serves(protocol)
    for seed in range(1, 21):
        assert simulate(protocol, seed, duration_s=0.7).alarms == []


def test_a_claim_that_is_too_strong_is_seen() -> None:
    boaster = msgspec.structs.replace(EXAMPLE, claim="linearizable")
    with pytest.raises(AssertionError, match="cannot be put in one order"):
        checks.histories_keep_the_claim(boaster)


def test_offered_operations_that_do_not_work_are_seen() -> None:
    boaster = msgspec.structs.replace(EXAMPLE, operations=("read", "write", "cas"))
    with pytest.raises(AssertionError, match="unsupported"):
        checks.offered_operations_do_what_they_say(boaster)
