"""Lies in messages that seldom come to matter: what is claimed is not so, and mostly nobody
notices."""

from __future__ import annotations

from typing import Any

import msgspec

from nodes.parts.placement import AcceptPlacement, PreparePlacement
from nodes.protocols.gossip import Gossip
from nodes.protocols.paxos import Paxos
from nodes.protocols.quorum_register import Commit, QuorumRegister, Record
from nodes.protocols.raft import Raft, Snapshot
from nodes.simulator.bugs import Bug


def _wait_from(replica: Any, first: int, position: int) -> None:
    """Let what was sent since wait for that position of the disk, whatever it says; 0: for
    nothing."""
    sends = replica.out.sends
    for i in range(first, len(sends)):
        sends[i] = msgspec.structs.replace(sends[i], position=position)


# --- Raft, Paxos ---


class AcknowledgesBehindTheDisk(Raft):
    """An acknowledgement waits for all that was written, though all that it tells of is on disk."""

    def _acknowledge(self, leader: str, round_: int, match: int) -> None:
        first = len(self.out.sends)
        super()._acknowledge(leader, round_, match)
        _wait_from(self, first, self.disk.position)


class FsyncOfWhatIsGone(Raft):
    """An fsync under way makes durable what has taken the place of what it writes."""

    def _limit_durable(self, index: int) -> None:
        self.durable_index = min(self.durable_index, index)


class AnswersBehindTheDisk(Raft):
    """What a majority holds is not told to a client before this node's disk has all it wrote."""

    def end_step(self) -> None:
        super().end_step()
        position = self.disk.position
        self.out.replies[:] = [(position, reply) for _, reply in self.out.replies]


class AcceptsBehindTheDisk(Paxos):
    """An acceptor's answer waits for all that was written, though what it tells of is on disk."""

    def _acknowledge(self, round_: int, missing: bool) -> None:
        first = len(self.out.sends)
        super()._acknowledge(round_, missing)
        _wait_from(self, first, self.disk.position)


class ReadsJoinARound(Raft):
    """Reads join a round that is under way, if nothing was committed since it began."""

    def _begin_round(self) -> None:
        if self._ready and self._rounds and self._rounds[-1][1] == self.commit:
            self._rounds[-1][2].extend(self._reads)
            self._reads = []
        super()._begin_round()


class SnapshotSortsClients(Raft):
    """A snapshot has its clients by name: which one was silent for longest is lost."""

    def _take_snapshot(self) -> Snapshot:
        snapshot = super()._take_snapshot()
        return msgspec.structs.replace(snapshot, sessions=tuple(sorted(snapshot.sessions)))


class PaxosReadsJoinARound(Paxos):
    """Reads join a round that is under way, if nothing was committed since it began."""

    def _begin_round(self) -> None:
        if self._ready and self._rounds and self._rounds[-1][1] == self.commit:
            self._rounds[-1][2].extend(self._reads)
            self._reads = []
            return
        super()._begin_round()


# --- the register, gossip ---


class OldRequestsNotRemembered(QuorumRegister):
    """A replica that has a newer version acknowledges an older one without a note of its
    request."""

    def on_commit(self, src: str, msg: Commit) -> None:
        self._is_old = msg.record.version < self.version_of(msg.key)
        super().on_commit(src, msg)
        self._is_old = False

    _is_old = False

    def _remember(self, key: str, record: Record, acked: int) -> bool:
        return not self._is_old and super()._remember(key, record, acked)


class PushesBeforeFsync(QuorumRegister):
    """Anti-entropy tells of versions that are not durable."""

    def _push(self, peer: str, keys: Any) -> None:
        first = len(self.out.sends)
        super()._push(peer, keys)
        _wait_from(self, first, 0)


class ClockClaimsTooMuch(Gossip):
    """Now and then anti-entropy claims to have seen one event more than there was."""

    def on_digest(self, src: str, msg: Any) -> None:
        before = len(self.out.sends)
        super().on_digest(src, msg)
        for i, send in enumerate(self.out.sends[before:], before):
            clocks = {
                key: {node: n + (node == src and n % 50 == 7) for node, n in clock.items()}
                for key, clock in send.msg.clocks.items()
            }
            told = msgspec.structs.replace(send.msg, clocks=clocks)
            self.out.sends[i] = msgspec.structs.replace(send, msg=told)


# --- placements ---


class PlacementPromiseBeforeFsync(QuorumRegister):
    """An acceptor of placements tells of its promise before that is durable."""

    def on_prepare_placement(self, src: str, msg: PreparePlacement) -> None:
        first = len(self.out.sends)
        super().on_prepare_placement(src, msg)
        _wait_from(self, first, 0)


class PlacementVoteBeforeFsync(QuorumRegister):
    """An acceptor of placements tells of its vote before that is durable."""

    def on_accept_placement(self, src: str, msg: AcceptPlacement) -> None:
        first = len(self.out.sends)
        super().on_accept_placement(src, msg)
        _wait_from(self, first, 0)


class PageWithoutItsLastKey(QuorumRegister):
    """A page of a transfer leaves out the last of several keys."""

    def range_page(self, key_range: int, after: str) -> tuple[str | None, tuple[bytes, ...]]:
        last, contents = super().range_page(key_range, after)
        return last, contents[:-1] if len(contents) > 1 else contents


_NEWS = "a missing early=True: a slow disk silences nobody who promises nothing new"
_SIMPLE = "Lamport, Paxos made simple, 2.5: stable storage"

BUGS = (
    Bug(
        name="raft-reads-join-a-round",
        protocol="raft",
        replica=ReadsJoinARound,
        source="Ongaro, dissertation, 6.4, step 3",
    ),
    Bug(
        name="raft-snapshot-sorts-clients",
        protocol="raft",
        replica=SnapshotSortsClients,
        source="Ongaro, dissertation, 6.3: sessions expire alike everywhere",
    ),
    Bug(
        name="paxos-reads-join-a-round",
        protocol="paxos",
        replica=PaxosReadsJoinARound,
        source="Ongaro, dissertation, 6.4, step 3",
    ),
    Bug(
        name="quorum-old-requests-not-remembered",
        protocol="quorum",
        replica=OldRequestsNotRemembered,
        source="Lee et al., RIFL, section 3",
    ),
    Bug(
        name="quorum-pushes-before-fsync",
        protocol="quorum",
        replica=PushesBeforeFsync,
        source="a wrong early=True",
    ),
    Bug(
        name="gossip-clock-claims-too-much",
        protocol="gossip",
        replica=ClockClaimsTooMuch,
        source="Demers et al. 1987, 1.3",
    ),
    Bug(
        name="raft-acknowledges-behind-the-disk",
        protocol="raft",
        replica=AcknowledgesBehindTheDisk,
        source=_NEWS,
    ),
    Bug(
        name="raft-fsync-of-what-is-gone",
        protocol="raft",
        replica=FsyncOfWhatIsGone,
        source="etcd/raft: storage writes that are under way when a log is truncated",
    ),
    Bug(
        name="raft-answers-behind-the-disk",
        protocol="raft",
        replica=AnswersBehindTheDisk,
        source="Ongaro, dissertation, 10.2.1: the leader may answer before its own disk has it",
    ),
    Bug(
        name="paxos-accepts-behind-the-disk",
        protocol="paxos",
        replica=AcceptsBehindTheDisk,
        source=_NEWS,
    ),
    Bug(
        name="placement-promise-before-fsync",
        protocol="quorum-placed",
        replica=PlacementPromiseBeforeFsync,
        source=_SIMPLE,
    ),
    Bug(
        name="placement-vote-before-fsync",
        protocol="quorum-placed",
        replica=PlacementVoteBeforeFsync,
        source=_SIMPLE,
    ),
    Bug(
        name="recovery-page-without-its-last-key",
        protocol="quorum-placed",
        replica=PageWithoutItsLastKey,
        source="Lamport, Malkhi, Zhou 2009, section 2: state transfer",
    ),
)
