"""The state machine of the protocols that agree on a log: keys, values, clients' answers; sans-I/O.

It is deterministic: what it holds, answers and forgets depends on the applied requests alone. The
answers of each client are kept until it acknowledges them, so that a request is applied at most
once however often it is chosen (RIFL, Lee et al., SOSP 2015, section 3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from nodes.contract.replica import Reply, Request, Value, Version

Data: TypeAlias = dict[str, tuple[Value, int]]
"""Key -> (value, index of the entry that wrote it)."""
Sessions: TypeAlias = tuple[tuple[str, int, int, tuple[Reply, ...]], ...]
"""Client, index of its last request, acked, answers; the client silent for longest comes first."""


class _Session:
    __slots__ = ("acked", "index", "replies")

    def __init__(self, index: int, acked: int, replies: Iterable[Reply] = ()) -> None:
        self.index = index
        self.acked = acked
        self.replies = {reply.sequence: reply for reply in replies}


class ReplicatedMap:
    """``client_entries``: a client's answers are forgotten when so many entries were applied since
    its last request. ``client_replies``: answers remembered for a client that never says which ones
    it has, at most twice as many."""

    def __init__(self, client_entries: int, client_replies: int = 1024) -> None:
        self._client_entries = client_entries
        self._client_replies = client_replies
        self._data: Data = {}
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._next_forget = 0

    def apply(self, request: Request, index: int) -> Reply:
        """The answer to the request of entry ``index``, which takes effect unless it has before."""
        if request.operation.op == "read":
            return self.read(request)
        sessions = self._sessions
        session = sessions.get(request.client)
        if session is None:
            session = sessions[request.client] = _Session(index, request.acked)
        else:
            sessions.move_to_end(request.client)
            session.index = index
        if index >= self._next_forget:
            self._forget_clients(index)
        reply = self.find(request)
        if reply is None:
            reply = session.replies[request.sequence] = self._execute(request, index)
        floor = request.acked
        if len(session.replies) > 2 * self._client_replies:
            floor = max(floor, sorted(session.replies)[self._client_replies])
        if floor > session.acked:
            _forget_below(session, floor)
        return reply

    def _forget_clients(self, index: int) -> None:
        """Forget those that were silent for too long. No other can be until ``_next_forget``."""
        sessions, kept = self._sessions, self._client_entries
        while (oldest := next(iter(sessions.values())).index) + kept <= index:
            sessions.popitem(last=False)
        self._next_forget = oldest + kept

    def find(self, request: Request) -> Reply | None:
        """The answer that was given to a request, if it was ever applied (``info`` if the answer is
        forgotten, because the client has acknowledged it)."""
        session = self._sessions.get(request.client)
        if session is None or request.operation.op == "read":
            return None
        if request.sequence < session.acked:
            return Reply(request.client, request.sequence, "info", error="already acknowledged")
        return session.replies.get(request.sequence)

    def read(self, request: Request) -> Reply:
        """The answer to a read, now."""
        value, version = self._data.get(request.operation.key, (None, None))
        return Reply(request.client, request.sequence, "ok", value, version)

    def _execute(self, request: Request, index: int) -> Reply:
        client, sequence, operation = request.client, request.sequence, request.operation
        if operation.op == "delete":
            self._data.pop(operation.key, None)
            return Reply(client, sequence, "ok", None, index)
        if operation.op == "write":
            self._data[operation.key] = (operation.value, index)
            return Reply(client, sequence, "ok", None, index)
        seen, version = self._data.get(operation.key, (None, None))
        # True equals 1 in Python, but they are two values.
        if seen != operation.expected or isinstance(seen, bool) != isinstance(
            operation.expected, bool
        ):
            return Reply(client, sequence, "ok", None, version, False, seen)
        self._data[operation.key] = (operation.value, index)
        return Reply(client, sequence, "ok", None, index, True, seen)

    def freeze(self) -> tuple[Data, Sessions]:
        """All of it, for a snapshot."""
        return dict(self._data), tuple(
            (client, session.index, session.acked, tuple(session.replies.values()))
            for client, session in self._sessions.items()
        )

    def restore(self, data: Data, sessions: Sessions) -> None:
        """Become what `freeze` has returned."""
        self._data = dict(data)
        self._sessions = OrderedDict(
            (client, _Session(index, acked, replies)) for client, index, acked, replies in sessions
        )
        self._next_forget = 0

    def state(self) -> Mapping[str, tuple[tuple[Value, ...], Version]]:
        """See `Replica.state`."""
        return {key: ((value,), version) for key, (value, version) in self._data.items()}


def _forget_below(session: _Session, floor: int) -> None:
    replies = session.replies
    if floor - session.acked <= len(replies):
        for sequence in range(session.acked, floor):
            replies.pop(sequence, None)
    else:
        session.replies = {s: reply for s, reply in replies.items() if s >= floor}
    session.acked = floor
