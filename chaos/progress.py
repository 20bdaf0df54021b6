"""How far a run is: a bar on a terminal, plain lines elsewhere. Always on standard error, so that
standard output is the result alone."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_LINE_EVERY_S = 5.0


class Lines:
    """Plain lines: each phase, and every few seconds how much is done."""

    def __init__(self) -> None:
        self._label = ""
        self._said = 0.0

    def run(self, label: str) -> None:
        """The next run begins."""
        self._label = label

    def phase(self, text: str) -> None:
        """A new part of the run has begun."""
        self._said = time.monotonic()
        print(f"{self._label}: {text}", file=sys.stderr, flush=True)

    def tick(self, done: float, total: float | None, unit: str = "s") -> None:
        """So much is done, of ``total`` (None: nobody knows)."""
        if time.monotonic() - self._said >= _LINE_EVERY_S:
            self.phase(_so_much(done, total, unit))

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Bar:
    """One bar a run."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[label]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task: object | None = None

    def run(self, label: str) -> None:
        """The next run begins."""
        self._finish()
        self._task = self._progress.add_task("", total=1.0, label=label)

    def phase(self, text: str) -> None:
        """A new part of the run has begun."""
        if self._task is not None:
            self._progress.update(self._task, description=text)  # type: ignore[arg-type]

    def tick(self, done: float, total: float | None, unit: str = "s") -> None:
        """So much is done, of ``total`` (None: nobody knows)."""
        if unit != "s":
            self.phase(_so_much(done, total, unit))
        if self._task is not None and total is not None:
            self._progress.update(self._task, completed=done / total)  # type: ignore[arg-type]

    def _finish(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=1.0, description="done")  # type: ignore[arg-type]
            self._progress.stop_task(self._task)  # type: ignore[arg-type]

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        self._progress.stop()


def _so_much(done: float, total: float | None, unit: str) -> str:
    return f"{done:.0f}{'' if total is None else f' of {total:.0f}'} {unit}"


def make_progress() -> Lines | Bar:
    """What fits where standard error goes."""
    return Bar() if sys.stderr.isatty() else Lines()
