"""The nemesis: plays a schedule of faults against a cluster, records it, and always heals.

It waits for points in monotonic time, not for intervals, so lateness does not accumulate. Where one
fault ends at the moment another begins, the new one begins first: between two partitions back to
back there is no gap."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, cast

from bench.record.run_folder import FaultRecord, RunFolder
from chaos.clusters.capabilities import (
    CanInject,
    CanKill,
    CanPause,
    CanStopBroker,
    CanUnplug,
    Cluster,
    Wanted,
)
from chaos.faults.base import Fault, Resolved
from nodes.runtime.injected import Injected


@dataclass(frozen=True)
class PlannedFault:
    """An entry of a schedule. ``number`` counts from 0 in order of time; times are seconds after
    the start of the load."""

    number: int
    at_s: float
    heal_at_s: float
    fault: Fault


class _Counted(Cluster):
    """The cluster as overlapping faults see it: a node restarts when the last fault that crashed it
    ends, and resumes when the last one that paused it ends; likewise the broker. (Links count for
    themselves.) Everything else, capabilities included, is the cluster's own."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._on: Counter[tuple[str, str]] = Counter()
        self._gone: set[str] = set()
        self._injected: set[tuple[str, int]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def leader(self) -> str | None:
        return self._cluster.leader()

    def can(self, capability: type[Wanted]) -> Wanted:
        self._cluster.can(capability)
        return cast(Wanted, self)

    def crash(self, node: str) -> None:
        self._on["crash", node] += 1
        self._cluster.can(CanKill).crash(node)

    def restart(self, node: str) -> None:
        if node not in self._gone:
            self._end("crash", node, partial(self._cluster.can(CanKill).restart, node))

    def abandon(self, node: str) -> None:
        self._gone.add(node)

    def pause(self, node: str) -> None:
        self._on["pause", node] += 1
        self._cluster.can(CanPause).pause(node)

    def resume(self, node: str) -> None:
        self._end("pause", node, partial(self._cluster.can(CanPause).resume, node))

    def unplug(self, node: str) -> None:
        self._on["unplug", node] += 1
        self._cluster.can(CanUnplug).unplug(node)

    def plug(self, node: str) -> None:
        self._end("unplug", node, partial(self._cluster.can(CanUnplug).plug, node))

    def inject(self, node: str, number: int, injected: Injected) -> None:
        self._injected.add((node, number))
        self._cluster.can(CanInject).inject(node, number, injected)

    def withdraw(self, node: str, number: int) -> None:
        self._cluster.can(CanInject).withdraw(node, number)
        self._injected.discard((node, number))

    def crash_broker(self) -> None:
        self._on["crash", _BROKER] += 1
        self._cluster.can(CanStopBroker).crash_broker()

    def restart_broker(self) -> None:
        self._end("crash", _BROKER, self._cluster.can(CanStopBroker).restart_broker)

    def pause_broker(self) -> None:
        self._on["pause", _BROKER] += 1
        self._cluster.can(CanStopBroker).pause_broker()

    def resume_broker(self) -> None:
        self._end("pause", _BROKER, self._cluster.can(CanStopBroker).resume_broker)

    def end_all(self) -> None:
        """Broker first, since nothing works without it. All are tried; the first failure is
        raised."""
        failures: list[Exception] = []
        for what, whom in sorted(self._on, key=lambda each: each[1] != _BROKER):
            if self._on[what, whom] == 0:
                continue
            self._on[what, whom] = 0
            try:
                self._undo(what, whom)
            except Exception as error:
                failures.append(error)
        for node, number in sorted(self._injected):
            try:
                self.withdraw(node, number)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _undo(self, what: str, whom: str) -> None:
        match what, whom:
            case "crash", "broker":
                self._cluster.can(CanStopBroker).restart_broker()
            case "pause", "broker":
                self._cluster.can(CanStopBroker).resume_broker()
            case "crash", node:
                if node not in self._gone:
                    self._cluster.can(CanKill).restart(node)
            case "pause", node:
                self._cluster.can(CanPause).resume(node)
            case "unplug", node:
                self._cluster.can(CanUnplug).plug(node)

    def _end(self, what: str, whom: str, end: Callable[[], None]) -> None:
        # The count drops only on success: what failed is tried again at the end.
        if self._on[what, whom] == 1:
            end()
        self._on[what, whom] = max(0, self._on[what, whom] - 1)


_BROKER = "broker"


class FaultPlayer:
    """Begins, heals and records the faults of a schedule, when its caller says so.

    ``seed``: every fault has its own random stream, named by seed and number, so that equal seeds
    make equal choices, and leaving out one fault does not change the others. ``on_fault``: called
    with each record (for progress). ``now_ns``: the clock of the records."""

    def __init__(
        self,
        schedule: Sequence[PlannedFault],
        cluster: Cluster,
        folder: RunFolder,
        *,
        seed: int,
        on_fault: Callable[[FaultRecord], None] | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.errors: list[str] = []
        self._schedule = {planned.number: planned for planned in schedule}
        self._cluster = _Counted(cluster)
        self._folder = folder
        self._seed = seed
        self._on_fault = on_fault
        self._now_ns = now_ns
        self._records: dict[int, FaultRecord] = {}
        self._active: dict[int, Resolved] = {}

    @property
    def failed(self) -> bool:
        """Whether a fault could not be applied, healed or recorded: the run is not as planned.
        `errors` says what happened, a line each."""
        return bool(self.errors)

    @property
    def records(self) -> list[FaultRecord]:
        """The faults begun so far."""
        return [self._records[number] for number in sorted(self._records)]

    @property
    def lateness_ms(self) -> list[float]:
        """How long after its planned time each fault began."""
        return [
            (record.started_ns - record.planned_ns) / 1e6
            for record in self.records
            if record.started_ns is not None
        ]

    def begin(self, number: int, start_ns: int) -> bool:
        """Begin a fault, of a schedule that began at ``start_ns``. Returns whether it is on."""
        planned = self._schedule[number]
        record = FaultRecord(
            number=number,
            fault=planned.fault.fault,
            parameters=planned.fault.parameters(),
            planned_ns=_at(start_ns, planned.at_s),
            planned_heal_ns=_at(start_ns, planned.heal_at_s),
            started_ns=self._now_ns(),
        )
        self._records[number] = record
        try:
            rng = random.Random(f"{self._seed}/fault/{number}")
            resolved = planned.fault.resolve(self._cluster, rng)
            if resolved.groups is not None:
                record.groups = [list(group) for group in resolved.groups]
            record.nodes = list(resolved.nodes)
            record.links = list(resolved.links)
            record.parameters["chosen_by"] = resolved.chosen_by
            if resolved.seed is not None:
                record.parameters["seed"] = resolved.seed
            self._active[number] = resolved
            planned.fault.apply(self._cluster, resolved)
        except Exception as error:
            record.error = f"not applied: {_line(error)}"
            self._fault_failed(f"{record.fault} (fault {number}) {record.error}")
            self.end(number)  # what was applied in part
            return False
        record.applied_ns = self._now_ns()
        self._record(record)
        return True

    def beats(self, number: int) -> Sequence[float]:
        """When to call `beat` for an active fault: seconds after its planned start."""
        planned = self._schedule[number]
        for_s = planned.heal_at_s - planned.at_s
        return planned.fault.beats(self._active[number], for_s)

    def beat(self, number: int, beat: int) -> None:
        """The next step of a fault that changes while active. Does nothing once it has ended."""
        resolved = self._active.get(number)
        if resolved is None:
            return
        try:
            fault = self._schedule[number].fault
            self._active[number] = fault.beat(self._cluster, resolved, beat)
        except Exception as error:
            record = self._records[number]
            reason = f"step {beat} failed: {_line(error)}"
            record.error = f"{record.error}; {reason}" if record.error else reason
            self._fault_failed(f"{record.fault} (fault {number}) {reason}")

    def end(self, number: int) -> None:
        """Heal a fault, and record whether that worked."""
        record = self._records[number]
        resolved = self._active.pop(number, None)
        if resolved is not None:
            record.heal_started_ns = self._now_ns()
            try:
                self._schedule[number].fault.undo(self._cluster, resolved)
                record.healed_ns = self._now_ns()
            except Exception as error:
                reason = f"not healed: {_line(error)}"
                record.error = f"{record.error}; {reason}" if record.error else reason
                self._fault_failed(f"{record.fault} (fault {number}) {reason}")
        self._record(record)

    def end_all(self) -> None:
        """Heal whatever is on."""
        for number in list(self._active):
            self.end(number)
        # Once more from scratch, for whatever a failed undo has left behind.
        for last_resort in (self._cluster.links.heal_all, self._cluster.end_all):
            try:
                last_resort()
            except Exception as error:
                self._fault_failed(f"not healed at the end: {_line(error)}")

    def _record(self, record: FaultRecord) -> None:
        try:
            self._folder.append_fault(record)
            if self._on_fault is not None:
                self._on_fault(record)
        except Exception as error:  # a full disk must not keep us from healing
            self._fault_failed(f"{record.fault} (fault {record.number}) not recorded: {error}")

    def _fault_failed(self, message: str) -> None:
        self.errors.append(message)


_BEGIN, _BEAT, _END = 0, 1, 2


class Nemesis(FaultPlayer):
    """Plays a schedule in its own thread, which also calls ``on_fault``. Use it as a context
    manager: leaving it heals, whatever the reason.

    ``by_hand``: does not end with the schedule, but keeps accepting faults (`inject`, `heal`) until
    stopped."""

    def __init__(
        self,
        schedule: Sequence[PlannedFault],
        cluster: Cluster,
        folder: RunFolder,
        *,
        seed: int,
        on_fault: Callable[[FaultRecord], None] | None = None,
        by_hand: bool = False,
    ) -> None:
        super().__init__(schedule, cluster, folder, seed=seed, on_fault=on_fault)
        self._by_hand = by_hand
        self._changed = threading.Condition()
        self._stopping = False
        # (when, _BEGIN / _BEAT / _END, number, beat)
        self._events: list[tuple[int, int, int, int]] = []
        self._start_ns = 0
        # Not `Thread.join`: in CPython 3.11 a signal that interrupts it with an exception marks the
        # thread as stopped, and the next join returns while the thread is still healing.
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, start_ns: int) -> None:
        """Start playing; ``start_ns`` (`time.monotonic_ns()`) is the schedule's time 0."""
        assert self._thread is None, "a nemesis plays once"
        self._start_ns = start_ns
        self._events = [
            (_at(start_ns, p.at_s), _BEGIN, p.number, 0) for p in self._schedule.values()
        ]
        heapq.heapify(self._events)
        self._thread = threading.Thread(target=self._play, name="nemesis")
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the schedule; returns whether it has come."""
        assert self._thread is not None, "start the nemesis first"
        return self._done.wait(timeout_s)

    def stop(self) -> None:
        """Heal every active fault and wait until that is done. May be called at any time,
        repeatedly."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._done.wait()

    def __enter__(self) -> Nemesis:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    # --- by hand

    def inject(self, fault: Fault, for_s: float) -> FaultRecord:
        """Begin a fault now, for at most this many seconds. Returns its record once it is applied,
        or has failed (``error`` says why)."""
        with self._changed:
            assert self._by_hand, "this nemesis plays only its schedule"
            now_s = (time.monotonic_ns() - self._start_ns) / 1e9
            number = len(self._schedule)
            self._schedule[number] = PlannedFault(number, now_s, now_s + for_s, fault)
            self._push((_at(self._start_ns, now_s), _BEGIN, number, 0))
            self._changed.wait_for(lambda: self._done.is_set() or self._is_begun(number))
            return self._records[number]

    def heal(self, number: int) -> FaultRecord:
        """End a fault now, if it is active. Returns its record; ``error`` says what went wrong."""
        with self._changed:
            self._push((time.monotonic_ns(), _END, number, 0))
            self._changed.wait_for(lambda: self._done.is_set() or self._is_over(number))
            return self._records[number]

    @property
    def on(self) -> list[FaultRecord]:
        """The active faults."""
        with self._changed:
            return [self._records[number] for number in sorted(self._active)]

    def _is_begun(self, number: int) -> bool:
        record = self._records.get(number)
        return record is not None and (record.applied_ns or record.error) is not None

    def _is_over(self, number: int) -> bool:
        record = self._records[number]
        is_over = record.healed_ns is not None or record.error is not None
        return number not in self._active and is_over

    def _push(self, event: tuple[int, int, int, int]) -> None:
        heapq.heappush(self._events, event)
        self._changed.notify_all()

    # --- the thread

    def _play(self) -> None:
        try:
            while (event := self._next()) is not None:
                self._happen(*event)
                with self._changed:
                    self._changed.notify_all()
        except Exception as error:  # nothing may keep active faults from being healed
            self._fault_failed(f"nemesis: {_line(error)}")
        finally:
            try:
                self.end_all()
            finally:
                self._done.set()
                with self._changed:
                    self._changed.notify_all()

    def _next(self) -> tuple[int, int, int, int] | None:
        """Wait for the next event; None if there is none left, or it is time to stop."""
        with self._changed:
            while not self._stopping and (self._events or self._by_hand):
                wait_s = None
                if self._events:
                    wait_s = (self._events[0][0] - time.monotonic_ns()) / 1e9
                    if wait_s <= 0:
                        return heapq.heappop(self._events)
                self._changed.wait(wait_s)
            return None

    def _happen(self, when_ns: int, kind: int, number: int, beat: int) -> None:
        if kind == _END:
            if number in self._active:  # not ended by hand
                self.end(number)
        elif kind == _BEAT:
            self.beat(number, beat)
        elif self.begin(number, self._start_ns):
            planned = self._schedule[number]
            beats = [
                (_at(self._start_ns, planned.at_s + offset_s), _BEAT, number, i)
                for i, offset_s in enumerate(self.beats(number))
            ]
            with self._changed:
                for event in (*beats, (_at(self._start_ns, planned.heal_at_s), _END, number, 0)):
                    heapq.heappush(self._events, event)


def _at(start_ns: int, offset_s: float) -> int:
    return start_ns + round(offset_s * 1e9)


def _line(error: Exception) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
