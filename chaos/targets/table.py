"""Every target: the class of its clusters, and how to conduct a run there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.record.models.run import NEEDED, Kind, missing
from chaos.clusters.attached import AttachedCluster
from chaos.clusters.capabilities import TargetName, works_on
from chaos.clusters.containers.compose import ComposeCluster
from chaos.clusters.lab.cluster import LabCluster
from chaos.clusters.local import LocalCluster
from chaos.experiments.experiment import Experiment
from chaos.systems.system import System
from chaos.targets import lab, on_cluster
from chaos.targets.run import Run
from chaos.targets.simulator import SimulatedCluster
from chaos.targets.simulator import conduct as conduct_simulated
from chaos.targets.subjects import Subject
from nodes.errors import Unsupported
from nodes.faults.capabilities import Cluster
from nodes.faults.links import OnClientLinks


@dataclass(frozen=True)
class Target:
    """``cluster``: what faults are applied to; its bases are its capabilities. ``conduct``: see
    `chaos.targets`."""

    cluster: type[Cluster]
    conduct: Callable[[Run], str | None]


TARGETS: dict[TargetName, Target] = {
    "local": Target(LocalCluster, partial(on_cluster.conduct, make=on_cluster.local)),
    "sim": Target(SimulatedCluster, conduct_simulated),
    "compose": Target(ComposeCluster, partial(on_cluster.conduct, make=on_cluster.compose)),
    "attached": Target(AttachedCluster, partial(on_cluster.conduct, make=on_cluster.attached)),
    "lab": Target(LabCluster, lab.conduct),
}


def refuse_kind(kind: Kind, name: str, operations: Sequence[str]) -> None:
    """Raises Unsupported for a kind of workload that ``name`` has not all the operations for."""
    if lacking := missing(kind, operations):
        able = [each for each in NEEDED if not missing(each, operations)]
        raise Unsupported(
            f"{name}: a workload of the kind {kind!r} needs {' and '.join(lacking)}, which {name} "
            f"does not offer; it can do: {', '.join(able)}"
        )


def refuse_unsupported(experiment: Experiment, target: TargetName, subject: Subject) -> None:
    """Raises Unsupported for the first fault of ``experiment`` that ``target`` does not support."""
    elsewhere = isinstance(subject, System) and target == "attached"
    for planned in experiment.plan():
        if elsewhere and not isinstance(planned.fault, OnClientLinks):
            raise Unsupported(
                f"{experiment.name}: {subject.name} runs elsewhere, where only clients' links can "
                f"have faults (requests-lost, replies-lost), no {planned.fault.fault!r}"
            )
        if target not in (works := works_on(planned.fault.needs)):
            so = "" if planned.fault.needs == planned.fault.NEEDS else " with these parameters"
            raise Unsupported(
                f"{experiment.name}: the target {target} has no fault {planned.fault.fault!r}{so};"
                f" it works on: {', '.join(works)}"
            )
