"""What Raft's tests need beyond `sans_io`: elections on demand, logs as text, crafted disks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nodes.contract.disk import Append, Put
from nodes.contract.replica import Message, Operation, Reply, Request, Value
from nodes.protocols.raft import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    HardState,
    Raft,
    RaftParameters,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from tests.protocols.sans_io import Cluster


class RaftCluster(Cluster):
    """Nodes ``n1`` ... of Raft. Options are the parameters of the protocol."""

    parameters: RaftParameters

    def __init__(
        self, count: int = 3, *, seed: int = 1, autosync: bool = True, **parameters: Any
    ) -> None:
        self.parameters = RaftParameters(**parameters)
        super().__init__(Raft, self.parameters, count, seed=seed, autosync=autosync)

    # --- elections ---

    def stand(self, id: str) -> None:
        """The node stands for election at once, without asking around before."""
        self.step(id, Message(id, TimeoutNow(self[id].term)))

    def elect(self, id: str, voters: Iterable[str] | None = None) -> None:
        """The node stands for election; only ``voters`` hear of it. Nothing else is delivered, and
        what other candidates and leaders had in flight stays there."""
        self.stand(id)
        if voters is None:
            voters = [n for n in self.ids if n != id and self.nodes[n].up]
        for voter in voters:
            self.deliver(src=id, dst=voter, kind=RequestVote)
            self.deliver(src=voter, dst=id, kind=RequestVoteReply)
        self.drop(src=id, kind=RequestVote)

    def lead(self, id: str) -> None:
        """The node becomes leader, and everybody knows all that it knows."""
        self.elect(id)
        assert self[id].role == "leader"
        self.settle()
        self.beat(id)

    def beat(self, id: str) -> None:
        """A heartbeat of the leader, and whatever comes of it."""
        self.fire(id, "heartbeat")
        self.settle()

    @property
    def leaders(self) -> list[str]:
        """The nodes that lead, newest term first."""
        found = [n for n in self.ids if self.nodes[n].up and self[n].role == "leader"]
        return sorted(found, key=lambda n: -self[n].term)

    # --- what nodes hold ---

    def log(self, id: str) -> str:
        """Such as ``1 1:x=1 2``: for each entry its term, and what it writes."""
        disk = self[id].disk
        return " ".join(as_text(entry) for entry in disk.entries(disk.first_index, 1 << 60))

    def commits(self) -> list[int]:
        """The commit index of each node that runs."""
        return [self[n].commit for n in self.ids if self.nodes[n].up]

    def value(self, id: str, key: str) -> Value:
        """What the node has applied for ``key``."""
        held = self[id].state().get(key)
        return None if held is None else held[0][0]

    def craft(self, id: str, terms: Iterable[int], term: int) -> None:
        """Start the node again on a log of entries of these terms."""
        self.crash(id)
        entries = (Entry(t, write(f"k{i}", f"{t}.{i}", i)) for i, t in enumerate(terms, 1))
        self.nodes[id].synced = [
            Put("hard_state", HardState(term, None)),
            *(Append(entry) for entry in entries),
        ]
        self.restart(id)

    def terms(self, id: str) -> list[int]:
        """The terms of the entries of a node's log."""
        disk = self[id].disk
        return [entry.term for entry in disk.entries(disk.first_index, 1 << 60)]

    # --- clients ---

    def cas(self, id: str, key: str, expected: Value, value: Value, *, sequence: int) -> Request:
        """A compare-and-set arrives; its reply will be in `replies`."""
        request = Request("cas", sequence, Operation("cas", key, value, expected))
        self.step(id, request)
        return request

    def answers(self, request: Request) -> list[Reply]:
        """All answers to the request so far."""
        name = (request.client, request.sequence)
        return [r for _, r in self.replies if (r.client, r.sequence) == name]

    def outcomes(self, request: Request) -> list[str]:
        """The outcomes of all answers to the request so far."""
        return [reply.outcome for reply in self.answers(request)]

    # --- replication by hand ---

    def append_to(self, leader: str, follower: str) -> None:
        """One exchange: what the leader has in flight to the follower, and the answers."""
        self.deliver(src=leader, dst=follower, kind=AppendEntries)
        self.deliver(src=follower, dst=leader, kind=AppendEntriesReply)


def write(key: str, value: Value, sequence: int, client: str = "crafted") -> Request:
    """A write request."""
    return Request(client, sequence, Operation("write", key, value))


def as_text(entry: Entry) -> str:
    """Such as ``2:x=1``; a no-op is its term alone."""
    if entry.members is not None:
        return f"{entry.term}:[{','.join(entry.members)}]"
    if entry.request is None:
        return str(entry.term)
    operation = entry.request.operation
    return f"{entry.term}:{operation.key}={operation.value}"
