"""What a leader makes of the requests that others hand to it, of the protocols that agree on a
log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from nodes.contract.replica import Invariant, InvariantBroken, Request, Scene, Send
from nodes.parts.claims import EVERY, MANY, Chronicle, requests_of
from nodes.parts.forwarding import Forward

Name = tuple[str, int]


class _Proposed:
    """What a leader has in its log in one leadership. ``upto``: so far it was looked at."""

    __slots__ = ("leadership", "names", "replica", "upto")

    def __init__(self, replica: Any, leadership: Any) -> None:
        self.replica, self.leadership = replica, leadership
        self.names: set[Name] = set()
        self.upto = 0

    def catch_up(self) -> None:
        """Look at what was appended since."""
        disk = self.replica.disk
        first = max(self.upto + 1, disk.first_index)
        for entry in disk.entries(first, disk.last_index + 1):
            self.names.update((each.client, each.sequence) for each in requests_of(entry))
        self.upto = disk.last_index


class RequestsAreProposed(Invariant):
    """A leader that is handed a write has it in its log when the step ends, or it has taken effect
    before: it swallows nothing. Else whoever handed it on has to do so again, or in vain. That is
    asked of every third write, unless its client has acknowledged it, or leadership is being handed
    over."""

    name = "a leader proposes what it is handed"
    looks_at = ("disk.position",)
    hears: ClassVar = {Request: "on_request"}
    judges: ClassVar = {Forward: "on_forward"}
    records: ClassVar[type[Chronicle]]

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(self.records)
        self._floors: dict[str, int] = {}
        self._handed: dict[str, tuple[Any, Any, list[tuple[str, Request]]]] = {}
        self._proposed: dict[str, _Proposed] = {}

    def is_needed(self) -> bool:
        """See `Invariant`. Who has forgotten a client refuses what it asks."""
        parameters = self.scene.parameters
        stable: bool = getattr(parameters, "stable_leader", True)
        return stable and parameters.client_entries >= MANY

    def leadership(self, replica: Any) -> Any:
        """By which it leads now: what differs each time that it comes to lead."""
        raise NotImplementedError

    def is_given_up(self, replica: Any) -> bool:
        """Whether leadership is being handed over, so that requests wait for the next leader."""
        return False

    def on_handover(self, replica: Any, src: str, msg: Any, sends: Sequence[Send]) -> None:
        """A handover begins, perhaps: then what came in this step waits, too."""
        self._handed.pop(replica.id, None)

    def on_request(self, node: str, _: str, request: Request) -> None:
        """Note what its client will not ask again."""
        if request.acked > self._floors.get(request.client, 0):
            self._floors[request.client] = request.acked

    def on_forward(self, replica: Any, src: str, msg: Forward, sends: Sequence[Send]) -> None:
        """Note what the end of the step has to make good."""
        if replica.role != "leader" or self.is_given_up(replica):
            return
        wanted = [
            (src, request)
            for request in msg.requests
            if request.sequence % EVERY == 0 and request.operation.op != "read"
        ]
        if not wanted:
            return
        leadership = self.leadership(replica)
        known = self._handed.get(replica.id)
        if known is not None and known[0] is replica and known[1] == leadership:
            known[2].extend(wanted)
        else:
            self._handed[replica.id] = replica, leadership, wanted

    def observe(self, node: str, replica: Any) -> None:
        """Raises InvariantBroken."""
        if node not in self._handed:
            return
        before, leadership, handed = self._handed.pop(node)
        if (
            before is not replica
            or replica.role != "leader"
            or self.leadership(replica) != leadership
        ):
            return
        proposed = self._proposed.get(node)
        if proposed is None or proposed.replica is not replica or proposed.leadership != leadership:
            proposed = self._proposed[node] = _Proposed(replica, leadership)
        proposed.catch_up()
        for src, request in handed:
            client, sequence = request.client, request.sequence
            if (
                (client, sequence) not in proposed.names
                and sequence >= self._floors.get(client, 0)
                and not self._chronicle.reference.answers(request)
            ):
                raise InvariantBroken(
                    f"{node} leads {leadership}, was handed {request} by {src}, and has it neither"
                    f" in its log up to {proposed.upto}, nor has it taken effect"
                )


class SnapshotsAnswer(Invariant):
    """Whoever takes a snapshot in place of entries answers at once what its clients wait for and
    the snapshot has the answer of: nothing else will tell it. ``judges`` has the message that
    brings one, ``mark`` names that one was taken."""

    name = "a snapshot answers who waits"
    mark: ClassVar[str]

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._last: dict[str, Any] = {}

    def on_snapshot(self, replica: Any, src: str, msg: Any, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        snapshot, waiting = replica.disk.snapshot, replica._requests.waiting
        if snapshot is self._last.get(replica.id):
            return  # What came since, also in this step, is asked of the leader.
        self._last[replica.id] = snapshot
        if not waiting or all(name != self.mark for name, _ in replica.out.marks):
            return
        for client, _, _, replies in snapshot.sessions:
            for reply in replies:
                if (client, reply.sequence) in waiting:
                    raise InvariantBroken(
                        f"{replica.id} has a snapshot with {reply}, and its client still waits"
                    )
