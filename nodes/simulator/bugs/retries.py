"""What is lost and never said again, or said again for nothing; who is waited for in vain, and who
stands in vain: clients are served all the same, after a while, and so nobody noticed."""

from __future__ import annotations

from typing import Any

from nodes.contract.replica import Request
from nodes.parts.forwarding import Requests
from nodes.protocols.paxos import Accepted, Paxos
from nodes.protocols.quorum_register import QuorumRegister
from nodes.protocols.raft import AppendEntriesReply, Raft, Snapshot
from nodes.simulator.bugs import Bug


class _Once(Requests):
    """Hands on only what was never handed on."""

    __slots__ = ()

    def _offer(self, before: int) -> None:
        super()._offer(-1)


class HandsOnOnce(Raft):
    """A request that was lost on its way to the leader is not handed on again."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._requests = _Once(self.id, self.disk, self.out, self.parameters)


class HandoverEndsInSilence(Raft):
    """What came during a handover that failed waits for its next retry."""

    def _end_transfer(self, reason: str) -> None:
        super()._end_transfer(reason)
        self._requests.offer_again = False


class HalfIsHeard(Raft):
    """A leader stays as long as it hears half of the members."""

    def _on_quorum_timer(self) -> None:
        heard = {self.id, *(node for node, each in self._progress.items() if each.active)}
        if 2 * len(heard) == len(self.members):
            for progress in self._progress.values():
                progress.active = True
        super()._on_quorum_timer()


class WaitsForANewMember(Raft):
    """A leader waits for ever for a new member that does not catch up."""

    def _on_quorum_timer(self) -> None:
        joining = self._joining
        super()._on_quorum_timer()
        if self.role == "leader":
            self._joining = joining


class RemovedStands(Raft):
    """Who is no member any more, and knows it, stands for election all the same."""

    def _may_stand(self) -> bool:
        return True


class SnapshotBringsNoMembers(Raft):
    """Who installs a snapshot takes its data, and keeps the members that it knew."""

    def _install(self, snapshot: Snapshot) -> None:
        known = self._memberships[-1][1]
        super()._install(snapshot)
        self._memberships[0] = self._memberships[0][0], known
        self._set_deciding()


class RaftSendsAllAgain(Raft):
    """With each acknowledgement a leader sends all again that is not acknowledged yet."""

    def on_append_entries_reply(self, src: str, m: AppendEntriesReply) -> None:
        super().on_append_entries_reply(src, m)
        progress = self._progress.get(src)
        if progress is not None and progress.snapshot is None and m.success:
            progress.next = progress.match + 1


class SnapshotStartsAnew(Raft):
    """Where a part of a snapshot is lost, the newest one is sent from its beginning."""

    def _send_missing_chunks(self) -> None:
        for progress in self._progress.values():
            outgoing = progress.snapshot
            newest = self.disk.snapshot_index
            if outgoing is not None and outgoing.missing and outgoing.index < newest:
                self._begin_snapshot(progress)
        super()._send_missing_chunks()


class RequestsPutOffRepeats(QuorumRegister):
    """Each request winds the clock anew by which what has no answer is asked again."""

    def on_request(self, request: Request) -> None:
        super().on_request(request)
        if self._operations:
            self.out.set_timer("retransmit", self.parameters.retransmit_interval_s)


class SendsAllAgain(Paxos):
    """With each acceptance a leader sends all again that is not accepted yet."""

    def on_accepted(self, src: str, m: Accepted) -> None:
        super().on_accepted(src, m)
        progress = self._progress.get(src)
        if progress is not None and not progress.catching_up:
            progress.next = progress.upto + 1


_ONCE = "what is sent and neither lost nor late is sent once (etcd/raft: progress in pipeline mode)"

BUGS = (
    Bug(
        name="raft-hands-on-once",
        protocol="raft",
        replica=HandsOnOnce,
        source="etcd/raft: a proposal may be lost in forwarding, so who forwards it repeats it",
    ),
    Bug(
        name="raft-handover-ends-in-silence",
        protocol="raft",
        replica=HandoverEndsInSilence,
        source="Ongaro, dissertation, 3.10: the leader aborts, and resumes accepting requests",
    ),
    Bug(
        name="raft-half-is-heard",
        protocol="raft",
        replica=HalfIsHeard,
        source="Ongaro, dissertation, 6.2: a leader without a majority steps down",
    ),
    Bug(
        name="raft-waits-for-a-new-member",
        protocol="raft",
        replica=WaitsForANewMember,
        source="Ongaro, dissertation, 4.2.1: a new server that is unavailable is given up",
    ),
    Bug(
        name="raft-removed-stands",
        protocol="raft",
        replica=RemovedStands,
        source="Ongaro, dissertation, 4.2.3: servers that were removed disturb the others",
    ),
    Bug(
        name="raft-snapshot-brings-no-members",
        protocol="raft",
        replica=SnapshotBringsNoMembers,
        source="etcd/raft: the configuration of a snapshot",
    ),
    Bug(
        name="raft-snapshot-starts-anew",
        protocol="raft",
        replica=SnapshotStartsAnew,
        source="a transfer that takes longer than a snapshot lasts must end",
    ),
    Bug(name="raft-sends-all-again", protocol="raft", replica=RaftSendsAllAgain, source=_ONCE),
    Bug(name="paxos-sends-all-again", protocol="paxos", replica=SendsAllAgain, source=_ONCE),
    Bug(
        name="quorum-requests-put-off-repeats",
        protocol="quorum",
        replica=RequestsPutOffRepeats,
        source="what is repeated at intervals is repeated under load",
    ),
)
