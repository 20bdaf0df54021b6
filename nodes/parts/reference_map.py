"""What the state machine of a log must come to: the oracle for `nodes.parts.replicated_map`.

Written anew, by its description and as plainly as possible, so that a mistake there is not repeated
here. It is fed with the log as it was seen on disks, and judges snapshots and clients' answers.
Clients' sessions are those of RIFL (Lee et al., SOSP 2015, section 3).
"""

from __future__ import annotations

from typing import Any

import msgspec

from nodes.contract.replica import Reply, Request, Value

FEW = 1000
"""Entries between snapshots that are taken often: where they take none in a simulated minute,
states need not be kept for them."""
KEPT = 4096
"""So many states are kept: whoever takes a snapshot lags behind by less."""

Frozen = tuple[dict[str, tuple[Value, int]], tuple[Any, ...]]
"""Data and sessions, as a snapshot has them."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """What a key holds from entry ``index`` on. ``version`` None: nothing."""

    index: int
    value: Value
    version: int | None


class ReferenceMap:
    """``index``: of the last entry that was applied. ``keeps_states``: for `state_at`."""

    def __init__(
        self, client_entries: int, client_replies: int = 1024, *, keeps_states: bool = True
    ) -> None:
        self.index = 0
        self._keeps_states = keeps_states
        self._client_entries = client_entries
        self._client_replies = client_replies
        self._data: dict[str, tuple[Value, int]] = {}
        self._sessions: dict[str, tuple[str, int, int, tuple[Reply, ...]]] = {}
        self._answers: dict[tuple[str, int], list[Reply]] = {}
        self._history: dict[str, list[Held]] = {}
        self._states: dict[int, Frozen] = {0: ({}, ())}

    def apply(self, request: Request | None) -> None:
        """The next entry; None: one without a request."""
        self.index += 1
        if request is not None and request.operation.op != "read":
            self._take(request)
        if self._keeps_states:
            self._keep()

    def _keep(self) -> None:
        self._states[self.index] = dict(self._data), tuple(self._sessions.values())
        self._states.pop(self.index - KEPT, None)

    def _take(self, request: Request) -> None:
        client, sequence, sessions = request.client, request.sequence, self._sessions
        _, _, acked, replies = sessions.pop(client, ("", 0, request.acked, ()))
        while sessions:
            oldest = next(iter(sessions.values()))
            if oldest[1] + self._client_entries > self.index:
                break
            del sessions[oldest[0]]
        known = sequence < acked or any(reply.sequence == sequence for reply in replies)
        if not known:
            reply = self._execute(request)
            replies = (*replies, reply)
            self._answers.setdefault((client, sequence), []).append(reply)
        floor = request.acked
        if len(replies) > 2 * self._client_replies:
            floor = max(floor, sorted(reply.sequence for reply in replies)[self._client_replies])
        if floor > acked:
            acked = floor
            replies = tuple(reply for reply in replies if reply.sequence >= floor)
        sessions[client] = client, self.index, acked, replies

    def _execute(self, request: Request) -> Reply:
        client, sequence, operation = request.client, request.sequence, request.operation
        index, key = self.index, operation.key
        if operation.op == "delete":
            self._data.pop(key, None)
            self._note(key, Held(index, None, None))
            return Reply(client, sequence, "ok", None, index)
        seen, version = self._data.get(key, (None, None))
        applied: bool | None = None
        if operation.op == "cas":
            expected = operation.expected
            # True equals 1 in Python, but they are two values.
            applied = seen == expected and isinstance(seen, bool) == isinstance(expected, bool)
            if not applied:
                return Reply(client, sequence, "ok", None, version, False, seen)
        self._data[key] = operation.value, index
        self._note(key, Held(index, operation.value, index))
        return Reply(client, sequence, "ok", None, index, applied, seen if applied else None)

    def _note(self, key: str, held: Held) -> None:
        self._history.setdefault(key, []).append(held)

    # --- what it knows ---

    def state_at(self, index: int) -> Frozen | None:
        """Data and sessions after entry ``index``; None if that is too long ago, or still to
        come."""
        return self._states.get(index)

    def answers(self, request: Request) -> list[Reply]:
        """How a write was answered when it took effect. Several answers: the client was silent for
        so long that it was forgotten."""
        return self._answers.get((request.client, request.sequence), [])

    def was(self, key: str, value: Value, version: int | None, since: int) -> bool:
        """Whether ``key`` held ``value`` by the name of ``version``, at or after ``since``."""
        for held in reversed(self._history.get(key, _NOTHING)):
            if held.version == version:
                return held.value == value and type(held.value) is type(value)
            if held.index <= since:
                return False
        return version is None and value is None


_NOTHING: list[Held] = []
