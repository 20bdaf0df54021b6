"""Where exported figures come from: a run folder while it is written, or a running cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.record.run_folder import BadRunFolder, FaultRecord, NodeRecord, RunFolder
from chaos.exporter.text import Histogram, Observed

T = TypeVar("T")
_MOST_BYTES = 16 << 20
"""Of new lines that are read at once, of each file."""


class _Operation(msgspec.Struct):
    op: str
    outcome: str
    invoked_ns: int
    completed_ns: int | None = None
    intended_ns: int | None = None


class Tail:
    """The lines that were appended to the files of a folder since the last look."""

    def __init__(self, folder: Path, but: str = "") -> None:
        self._folder, self._but = folder, but
        self._read: dict[Path, int] = {}

    def more(self) -> list[bytes]:
        """The new whole lines, by file."""
        lines: list[bytes] = []
        for path in sorted(self._folder.glob("*.jsonl")):
            if path.name == self._but:
                continue
            begin = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(begin)
                data = file.read(_MOST_BYTES)
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] = begin + len(whole)
            lines += whole.splitlines()
        return lines


class OfFolder:
    """A run while it goes on: what its folder has so far. ``statuses``: where they come from
    instead, for a load on a cluster that stays; which faults are on there, its own metrics say."""

    def __init__(
        self,
        path: Path,
        statuses: Callable[[], Mapping[str, NodeRecord]] | None = None,
    ) -> None:
        self._folder = RunFolder(path)
        self._own = statuses
        self._histories = Tail(self._folder.history_dir, but="final.jsonl")
        self._nodes = Tail(self._folder.nodes_dir)
        self._statuses: dict[str, NodeRecord] = {}
        self._latencies: dict[tuple[str, str], Histogram] = {}
        self._lock = threading.Lock()

    def __call__(self) -> Observed:
        """What is known now."""
        with self._lock:
            self._follow()
            return Observed(
                about=self._about(),
                statuses=self._own() if self._own else dict(self._statuses),
                faults=None if self._own else self._faults(),
                latencies=dict(self._latencies),
            )

    def _follow(self) -> None:
        for line in self._histories.more():
            one = _decoded(line, _Operation)
            if one is not None and one.completed_ns is not None:
                since_ns = one.invoked_ns if one.intended_ns is None else one.intended_ns
                found = self._latencies.setdefault((one.op, one.outcome), Histogram())
                found.add((one.completed_ns - since_ns) / 1e9)
        for line in self._nodes.more():
            record = _decoded(line, NodeRecord)
            if record is not None and record.kind == "status":
                self._statuses[record.node] = record
            elif record is not None and record.name in ("killed", "exited"):
                self._statuses.pop(record.node, None)

    def _faults(self) -> list[FaultRecord]:
        try:
            faults = self._folder.faults()
        except BadRunFolder:  # Its last line is being written.
            return []
        return [each for each in faults if each.applied_ns is not None and each.healed_ns is None]

    def _about(self) -> dict[str, str]:
        try:
            manifest = self._folder.manifest()
        except BadRunFolder:
            return {}
        return {
            "experiment": manifest.experiment_name,
            "protocol": manifest.protocol,
            "target": manifest.target,
            "seed": str(manifest.seed),
        }


def _decoded(line: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class OfCluster:
    """A cluster that stays. ``statuses``: the last of each node."""

    def __init__(
        self, name: str, protocol: str, statuses: Callable[[], Mapping[str, NodeRecord]]
    ) -> None:
        self._about = {"cluster": name, "protocol": protocol}
        self._statuses = statuses
        self.on: Sequence[FaultRecord] = ()

    def __call__(self) -> Observed:
        """What is known now."""
        return Observed(self._about, self._statuses(), list(self.on), {})
