"""The nemesis: plays a schedule of faults against a cluster, records it, and always heals.

It waits for points in monotonic time, not for intervals, so lateness does not accumulate. Where one
fault ends at the moment another begins, the new one begins first: between two partitions back to
back there is no gap."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from bench.record.run_folder import FaultRecord, RunFolder
from nodes.faults.base import Fault
from nodes.faults.capabilities import Cluster
from nodes.faults.nemesis import ActiveFaults, PlannedFault

LATE_S = 1.0
LATE_SHARE = 0.1
"""A fault is late if it took so long to be applied, and so much of its planned time."""


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
        self._folder = folder
        self._seed = seed
        self._on_fault = on_fault
        self._now_ns = now_ns
        self._records: dict[int, FaultRecord] = {}
        self._active = ActiveFaults(cluster)

    @property
    def failed(self) -> bool:
        """Whether a fault could not be applied, healed or recorded: the run is not as planned.
        `errors` says what happened, a line each."""
        return bool(self.errors)

    @property
    def late(self) -> list[str]:
        """Faults that took long to be applied, a line each."""
        found = []
        for record in self.records:
            if record.applied_ns is None or record.started_ns is None:
                continue
            took_s = (record.applied_ns - record.started_ns) / 1e9
            planned_s = ((record.planned_heal_ns or record.planned_ns) - record.planned_ns) / 1e9
            if took_s >= max(LATE_S, LATE_SHARE * planned_s):
                found.append(
                    f"{record.fault} (fault {record.number}) took {took_s:.1f} s of its "
                    f"{planned_s:.1f} s to be applied, which count as during it"
                )
        return found

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
            resolved = self._active.resolve(number, planned.fault, rng)
            if resolved.groups is not None:
                record.groups = [list(group) for group in resolved.groups]
            record.nodes = list(resolved.nodes)
            record.links = list(resolved.links)
            record.parameters["chosen_by"] = resolved.chosen_by
            if resolved.seed is not None:
                record.parameters["seed"] = resolved.seed
            self._active.apply(number)
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
        return self._active.beats(number, planned.heal_at_s - planned.at_s)

    def beat(self, number: int, beat: int) -> None:
        """The next step of a fault that changes while active. Does nothing once it has ended."""
        if number not in self._active:
            return
        try:
            self._active.beat(number, beat)
        except Exception as error:
            record = self._records[number]
            reason = f"step {beat} failed: {_line(error)}"
            record.error = f"{record.error}; {reason}" if record.error else reason
            self._fault_failed(f"{record.fault} (fault {number}) {reason}")

    def end(self, number: int) -> None:
        """Heal a fault, and record whether that worked."""
        record = self._records[number]
        if number in self._active:
            record.heal_started_ns = self._now_ns()
            try:
                self._active.end(number)
                record.healed_ns = self._now_ns()
            except Exception as error:
                reason = f"not healed: {_line(error)}"
                record.error = f"{record.error}; {reason}" if record.error else reason
                self._fault_failed(f"{record.fault} (fault {number}) {reason}")
        self._record(record)

    def end_all(self) -> None:
        """Heal whatever is on."""
        for number in self._active:
            self.end(number)
        for error in self._active.undo_leftovers():
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
            return [self._records[number] for number in self._active]

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
