"""The quorum register with one mistake."""

from __future__ import annotations

from typing import Any

import msgspec

from nodes.protocols.quorum_register import Commit, Prepare, Prepared, QuorumRegister, Record, Tag
from nodes.protocols.quorum_register.replica import _Operation
from nodes.simulator.bugs import Bug


def _last_send_early(replica: QuorumRegister) -> None:
    sends = replica.out.sends
    sends[-1] = msgspec.structs.replace(sends[-1], position=0)


class VersionPickedLocally(QuorumRegister):
    """A writer goes on from the version that it holds itself, and asks nobody."""

    def _prepare(self, number: int, operation: _Operation) -> None:
        if operation.is_read:
            super()._prepare(number, operation)
        else:
            version = (self.version_of(operation.key)[0] + 1, self.id, number)
            self._commit(number, operation, self._written(operation.request, version))


class NoWriteBack(QuorumRegister):
    """A read returns what it found, though perhaps only one replica holds it."""

    def _commit(self, number: int, operation: _Operation, record: Record) -> None:
        if operation.is_read:
            operation.holders = dict.fromkeys(operation.replicas)
        super()._commit(number, operation, record)


class LocalRead(QuorumRegister):
    """A read is answered by the replica that was asked, alone."""

    def _end_prepare(self, number: int, operation: _Operation) -> None:
        record = self.records.get(operation.key)
        if not operation.is_read:
            super()._end_prepare(number, operation)
        elif record is None:
            self._end(number, operation, "ok")
        else:
            version = list(record.version)
            self._end(number, operation, "ok", value=record.value, version=version)

    def _prepare(self, number: int, operation: _Operation) -> None:
        if operation.is_read:
            self._end_prepare(number, operation)
        else:
            super()._prepare(number, operation)


class VersionReused(QuorumRegister):
    """A coordinator gives one version to several writes that it has open at once."""

    def _written(self, request: Any, version: Tag) -> Record:
        if version[1] == self.id:
            version = (*version[:2], 0)
        return super()._written(request, version)


class NumbersStartAgain(QuorumRegister):
    """A coordinator counts its operations from 1 after each restart."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._number = 0


class CoordinatorNotCounted(QuorumRegister):
    """A coordinator needs a quorum of other replicas: it does not count itself."""

    def _end_prepare(self, number: int, operation: _Operation) -> None:
        operation.answers.pop(self.id, None)
        super()._end_prepare(number, operation)

    def _end_commit(self, number: int, operation: _Operation) -> bool:
        operation.holders.pop(self.id, None)
        return super()._end_commit(number, operation)


class AcknowledgedBeforeFsync(QuorumRegister):
    """A replica acknowledges a version that is not durable."""

    def on_commit(self, src: str, msg: Commit) -> None:
        super().on_commit(src, msg)
        _last_send_early(self)


class ToldBeforeFsync(QuorumRegister):
    """A replica tells a reader of a version that is not durable."""

    def on_prepare(self, src: str, msg: Prepare) -> None:
        super().on_prepare(src, msg)
        _last_send_early(self)


class AnsweredBeforeFsync(QuorumRegister):
    """A coordinator counts its own copy before it is durable, and answers at once."""

    def _reply(self, request: Any, outcome: Any, **fields: Any) -> None:
        super()._reply(request, outcome, **fields)
        self.out.replies[-1] = (0, self.out.replies[-1][1])


class QuorumOfTwo(QuorumRegister):
    """A quorum is two replicas, whatever the cluster."""


class SmallWriteQuorum(QuorumRegister):
    """A write is over on one replica too few."""

    def _end_commit(self, number: int, operation: _Operation) -> bool:
        holders = operation.holders
        missing = next((node for node in operation.replicas if node not in holders), None)
        if missing is None or operation.is_read:
            return super()._end_commit(number, operation)
        operation.holders = {**holders, missing: None}
        done = super()._end_commit(number, operation)
        operation.holders = holders
        return done


class SmallReadQuorum(QuorumRegister):
    """The first phase asks one replica too few."""

    def _end_prepare(self, number: int, operation: _Operation) -> None:
        if len(operation.answers) == operation.quorums.read - 1:
            silent = next(node for node in operation.replicas if node not in operation.answers)
            operation.answers[silent] = next(iter(operation.answers.values()))
        super()._end_prepare(number, operation)


class LastMessageWins(QuorumRegister):
    """A replica keeps whatever it was told last, be it older."""

    def _hold(self, key: str, record: Record, acked: int = 0) -> None:
        if key in self.records and self.records[key].version != record.version:
            del self.records[key]
        super()._hold(key, record, acked)


class AppliesTwice(QuorumRegister):
    """A request that comes again is written again, with a new version."""

    def _prepared(self, msg: Prepare) -> Prepared:
        return msgspec.structs.replace(super()._prepared(msg), known=None)

    def on_request(self, request: Any) -> None:
        again = msgspec.structs.replace(request, acked=0)
        self._sessions._sessions.pop(request.client, None)
        super().on_request(again)


class TellsNoRequests(QuorumRegister):
    """A replica does not tell another node which version a request has."""

    def on_prepare(self, src: str, msg: Prepare) -> None:
        super().on_prepare(src, msgspec.structs.replace(msg, sequence=-1))


class FailsAfterCommit(QuorumRegister):
    """A write that was sent to replicas, but not acknowledged in time, is called failed."""

    def _end(self, number: int, operation: _Operation, outcome: Any, **fields: Any) -> None:
        super()._end(number, operation, "fail" if outcome == "info" else outcome, **fields)


_SKETCH = "protocols.md, quorum, wrong there"
_PAPER = "Attiya, Bar-Noy and Dolev 1995"

BUGS = (
    Bug(
        name="quorum-version-picked-locally",
        protocol="quorum",
        replica=VersionPickedLocally,
        source=_SKETCH + ": no read phase",
    ),
    Bug(
        name="quorum-no-write-back",
        protocol="quorum",
        replica=NoWriteBack,
        source=_SKETCH + ": a read returns a value that only one replica may hold",
    ),
    Bug(
        name="quorum-local-read",
        protocol="quorum",
        replica=LocalRead,
        source="reads that ask no quorum",
    ),
    Bug(
        name="quorum-version-reused",
        protocol="quorum",
        replica=VersionReused,
        source=_SKETCH + ": nothing resolves concurrent writers",
    ),
    Bug(
        name="quorum-numbers-start-again",
        protocol="quorum",
        replica=NumbersStartAgain,
        source="a coordinator that forgets its incarnation",
    ),
    Bug(
        name="quorum-coordinator-not-counted",
        protocol="quorum",
        replica=CoordinatorNotCounted,
        source=_SKETCH + ": the coordinator does not count or write itself",
    ),
    Bug(
        name="quorum-ack-before-fsync",
        protocol="quorum",
        replica=AcknowledgedBeforeFsync,
        source="a wrong early=True",
    ),
    Bug(
        name="quorum-told-before-fsync",
        protocol="quorum",
        replica=ToldBeforeFsync,
        source="a wrong early=True",
    ),
    Bug(
        name="quorum-answer-before-fsync",
        protocol="quorum",
        replica=AnsweredBeforeFsync,
        source="a wrong early=True",
    ),
    Bug(
        name="quorum-of-two",
        protocol="quorum",
        replica=QuorumOfTwo,
        source=_SKETCH + ": quorum_size is fixed at 2 whatever the cluster",
        parameters={"read_quorum": 2, "write_quorum": 2, "weak": True},
    ),
    Bug(
        name="quorum-small-write-quorum",
        protocol="quorum",
        replica=SmallWriteQuorum,
        source="quorum off by one",
    ),
    Bug(
        name="quorum-small-read-quorum",
        protocol="quorum",
        replica=SmallReadQuorum,
        source="quorum off by one",
    ),
    Bug(
        name="quorum-last-message-wins",
        protocol="quorum",
        replica=LastMessageWins,
        source=_PAPER + ": a replica keeps the highest version",
    ),
    Bug(
        name="quorum-tells-no-requests",
        protocol="quorum",
        replica=TellsNoRequests,
        source="RIFL (2015), 3: a retry elsewhere finds the result of the first attempt",
    ),
    Bug(
        name="quorum-applies-twice",
        protocol="quorum",
        replica=AppliesTwice,
        source="at most once, however often it is delivered",
    ),
    Bug(
        name="quorum-fail-for-info",
        protocol="quorum",
        replica=FailsAfterCommit,
        source="fail means certainly not applied",
    ),
)
