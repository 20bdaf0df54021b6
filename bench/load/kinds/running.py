"""The tasks on their way: which step of which task is open, and what a task has done."""

from __future__ import annotations

from typing import Any

from bench.load.kinds.procedures import Ledger, Procedure, Step, Unreadable, procedure
from bench.load.kinds.tasks import Task
from bench.load.workload import PlannedOperation
from bench.record.history import OperationRecord
from bench.record.models.run import ModelRecord


class _Running:
    def __init__(self, task: Task, process: str, intended_ns: int | None) -> None:
        self.task, self.process = task, process
        self.ledger = Ledger(task, process, intended_ns)
        self.steps: Procedure = procedure(task, self.ledger)
        self.sent = 0

    def planned(self, step: Step) -> PlannedOperation:
        """A step as the next operation to send."""
        self.sent += 1
        return PlannedOperation(
            self.task.id + self.sent,
            None,
            step.node or self.task.nodes[0],
            step.op,
            step.key,
            step.value,
            expected=step.expected,
        )


class Tasks:
    """The open tasks of one client process. ``label``: the prefix of the names of its logical
    processes, each of which does one task at a time, and is retired after one whose outcome nobody
    knows.

    ``ended``: the ids of tasks that have ended, and what they did: the caller takes them out."""

    def __init__(self, label: str) -> None:
        self.ended: list[tuple[int, list[ModelRecord]]] = []
        self._label = label
        self._born = 0
        self._idle: list[str] = []
        self._open: dict[int, _Running] = {}

    def begin(self, task: Task, intended_ns: int | None) -> PlannedOperation:
        """The first step of a task."""
        if not self._idle:
            self._born += 1
            self._idle.append(f"{self._label}.m{self._born}")
        running = _Running(task, self._idle.pop(), intended_ns)
        return self._send(running, next(running.steps))

    def task_of(self, step: int) -> Task:
        """The task of a step that is on its way."""
        return self._open[step].task

    def ended_step(
        self, step: int, record: OperationRecord, answer: Any
    ) -> PlannedOperation | None:
        """What to send next, now that this step has ended; None: nothing, or it is of no task.
        ``answer``: of a transaction, what it returned."""
        running = self._open.pop(step, None)
        if running is None:
            return None
        running.ledger.step(record, answer)
        if record.completed_ns is None:
            # The load is over.
            running.ledger.end("info")
            self._close(running)
            return None
        return self._go_on(running, record)

    def not_sent(self, step: int) -> None:
        """A step was dropped, and its task ends here."""
        running = self._open.pop(step, None)
        while running is not None:
            after = self._go_on(running, None)
            running = None if after is None else self._open.pop(after.id)

    def _go_on(self, running: _Running, record: OperationRecord | None) -> PlannedOperation | None:
        try:
            return self._send(running, running.steps.send(record))
        except StopIteration:
            pass
        except Unreadable:
            running.ledger.end("info")
        self._close(running)
        return None

    def _send(self, running: _Running, step: Step) -> PlannedOperation:
        planned = running.planned(step)
        self._open[planned.id] = running
        return planned

    def _close(self, running: _Running) -> None:
        running.steps.close()
        records = running.ledger.records
        if all(record.outcome != "info" for record in records):
            self._idle.append(running.process)
        self.ended.append((running.task.id, records))
