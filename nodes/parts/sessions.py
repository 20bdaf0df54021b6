"""What a node remembers of its clients, so that a write is applied at most once; sans-I/O.

Results are kept durably by (client, sequence) until the client has acknowledged them (RIFL, Lee et
al., SOSP 2015, section 3), and at most ``remembered_results`` of each of the last
``remembered_clients`` clients, and ``remembered_in_all`` (`nodes.parts.limits.KeyLimits`): a client
that is gone never acknowledges its last results. A client's *floor* is the sequence below which it
has acknowledged everything: what comes from below is a late copy, even when its result is
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from nodes.contract.bounds import Natural, WireStruct
from nodes.contract.disk import Disk
from nodes.contract.replica import Version
from nodes.parts.limits import KeyLimits

_PREFIX = "r/"


class Result(WireStruct, frozen=True, gc=False):
    """What became of a client's write of ``key``. It is on disk under ``r/<client>/<sequence>``.
    ``version`` None: it ended ``fail``, so a late copy must not take effect."""

    client: str
    sequence: Natural
    acked: Natural
    key: str
    version: Version


class _Session:
    __slots__ = ("floor", "results", "sequences")

    def __init__(self) -> None:
        self.floor = 0
        self.results: dict[int, Result] = {}
        self.sequences: list[int] = []
        """A heap of those of `results`, and of some that are forgotten: what the floor has passed
        is found without a look at the others."""


class Sessions:
    """The results of writes, in memory and in ``disk``.

    A write is three calls in this order, since a crash may come between any two disk writes:
    `remember`, then the protocol writes the effect, then `trim`. So the newest result is there
    before the effect (`load` voids it if the effect is not), and before older ones go, whose floor
    it carries.
    """

    def __init__(self, disk: Disk, limits: KeyLimits | None = None) -> None:
        limits = limits or KeyLimits()
        self._max_clients = limits.remembered_clients
        self._max_results = limits.remembered_results
        self._max_in_all = limits.remembered_in_all
        self._count = 0
        self._disk = disk
        self._sessions: dict[str, _Session] = {}

    def load(self, has_effect: Callable[[Result], bool]) -> None:
        """Take up what the disk kept. A result without its effect is void: that write never was."""
        results = [(name, v) for name, v in self._disk.items() if name.startswith(_PREFIX)]
        for name, result in results:
            if has_effect(result):
                self._add(result)
            else:
                self._disk.put(name, None)
        # What a crash has kept that was to go: else each such crash would leave something for good.
        for client in self._sessions:
            self._trim_results(client)
        self._trim_clients()

    def find(self, client: str, sequence: int) -> Result | None:
        """The result of this request, if it is known."""
        session = self._sessions.get(client)
        return session.results.get(sequence) if session is not None else None

    def is_forgotten(self, client: str, sequence: int) -> bool:
        """Whether the client has acknowledged this request: what comes now is a late copy."""
        session = self._sessions.get(client)
        return session is not None and sequence < session.floor

    def of_keys(self, keys: Iterable[str]) -> dict[str, list[Result]]:
        """The results of writes of ``keys``."""
        found: dict[str, list[Result]] = {key: [] for key in keys}
        for session in self._sessions.values():
            for result in session.results.values():
                if result.key in found:
                    found[result.key].append(result)
        return found

    def remember(self, result: Result) -> None:
        """Keep the result of a write, before its effect is written."""
        self._add(result)
        self._disk.put(f"{_PREFIX}{result.client}/{result.sequence}", result)

    def adopt(self, result: Result) -> None:
        """Keep what another node remembers of a write whose effect is here, unless this one does or
        has forgotten it."""
        client, sequence = result.client, result.sequence
        if self.find(client, sequence) is None and not self.is_forgotten(client, sequence):
            self.remember(result)
            self.trim(client)

    def trim(self, client: str) -> None:
        """Forget what ``client`` has acknowledged, and what exceeds the limits."""
        self._trim_results(client)
        self._trim_clients()

    def _trim_results(self, client: str) -> None:
        session = self._sessions[client]
        sequences = session.sequences
        while sequences and sequences[0] < session.floor:
            sequence = heappop(sequences)
            if sequence in session.results:
                self._forget(client, session, sequence)
        if len(session.results) > self._max_results:
            while len(session.results) > self._max_results:
                self._forget(client, session, next(iter(session.results)))
            if len(sequences) > 2 * self._max_results:
                # A client that acknowledges nothing: the floor will not come by.
                session.sequences = list(session.results)
                heapify(session.sequences)

    def _trim_clients(self) -> None:
        sessions = self._sessions
        while len(sessions) > self._max_clients or (
            self._count > self._max_in_all and len(sessions) > 1
        ):
            oldest = next(iter(sessions))
            forgotten = sessions.pop(oldest)
            for sequence in list(forgotten.results):
                self._forget(oldest, forgotten, sequence)

    def _add(self, result: Result) -> None:
        session = self._sessions.pop(result.client, None) or _Session()
        # Dicts keep the order of insertion: the client that wrote last is the last to be forgotten.
        self._sessions[result.client] = session
        if result.acked > session.floor:
            session.floor = result.acked
        self._count += result.sequence not in session.results
        session.results[result.sequence] = result
        heappush(session.sequences, result.sequence)

    def _forget(self, client: str, session: _Session, sequence: int) -> None:
        del session.results[sequence]
        self._count -= 1
        self._disk.put(f"{_PREFIX}{client}/{sequence}", None)
