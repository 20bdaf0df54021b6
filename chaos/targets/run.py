"""A run: what a target must do, and where the results go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from bench.load.workload import Workload
from bench.record.run_folder import RunFolder
from chaos.experiments.experiment import Experiment
from chaos.systems.system import System
from chaos.targets.subjects import Subject
from nodes.registry import Protocol as ReplicationProtocol

CONVERGENCE_TIMEOUT_S = 15.0
"""How long replicas may take to agree after the load; then the final reads begin regardless."""


class Progress(Protocol):
    """Shows the progress of a run."""

    def phase(self, text: str) -> None:
        """A new part of the run has begun."""

    def tick(self, done: float, total: float) -> None:
        """How much of the load is done (in seconds)."""


@dataclass(frozen=True)
class Run:
    """What a target must do, and the folder for its results. ``subject``: what is looked at, of
    which the target knows the kind. ``endpoints``: of a system that runs elsewhere."""

    experiment: Experiment
    subject: Subject
    workload: Workload
    folder: RunFolder
    seed: int
    parameters: Mapping[str, Any]
    progress: Progress
    endpoints: str = ""

    @property
    def protocol(self) -> ReplicationProtocol:
        """The subject, on a target of protocols."""
        assert isinstance(self.subject, ReplicationProtocol), self.subject.name
        return self.subject

    @property
    def system(self) -> System:
        """The subject, on the target of systems."""
        assert isinstance(self.subject, System), self.subject.name
        return self.subject

    @property
    def left(self) -> list[str]:
        """The nodes that were not crashed for good."""
        gone = self.folder.gone()
        return [node for node in self.experiment.node_ids() if node not in gone]

    def update_manifest(self, **changes: Any) -> None:
        """Replace fields of the manifest."""
        self.folder.write_manifest(msgspec.structs.replace(self.folder.manifest(), **changes))

    def load_started(self, start_ns: int) -> None:
        """The intended times of the workload count from ``start_ns``."""
        end_ns = start_ns + int(self.workload.duration_s * 1e9)
        self.update_manifest(load_started_ns=start_ns, load_ended_ns=end_ns)
