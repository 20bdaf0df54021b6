"""Inside a lab: the first process of its namespaces, which does what `chaos.targets.lab` orders."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from bench.record.run_folder import NodeRecord, RunFolder, append_line, write_json
from chaos.clusters.lab.cluster import LabCluster
from chaos.experiments.experiment import validate
from chaos.interrupted import signals_as_exit
from chaos.systems import catalogue
from chaos.targets import on_cluster
from chaos.targets.by_hand import ByHand
from chaos.targets.lab import Order, Outcome, Said, outcome_path, progress_path
from chaos.targets.on_cluster import Record
from chaos.targets.run import Run
from nodes.errors import CapbenchError
from nodes.faults.nodes import NoSpace


class _Told:
    """Progress, told to whoever waits outside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._second = 0

    def phase(self, text: str) -> None:
        """A new part of the run has begun."""
        append_line(self._path, Said(phase=text))

    def tick(self, done: float, total: float) -> None:
        """Once a second of the load."""
        if int(done) != self._second:
            self._second = int(done)
            append_line(self._path, Said(done=done, total=total))


def _cluster(
    order: Order, record: Record | None, recorded: Path | None, *, small_disks: bool = False
) -> LabCluster:
    return LabCluster(
        catalogue.get(order.system),
        order.programs,
        tuple(order.nodes),
        Path(order.directory),
        cluster=order.cluster,
        findable=order.system,
        nft=order.nft,
        record=record,
        recorded=recorded,
        small_disks=small_disks,
    )


def _conduct(order: Order, run_folder: str) -> str | None:
    folder = RunFolder(Path(run_folder))
    manifest = folder.manifest()
    experiment = validate(
        manifest.experiment,
        source=str(folder.manifest_path),
        name=manifest.experiment_name,
        overrides={"seed": manifest.seed},
    )
    run = Run(
        experiment,
        catalogue.get(order.system),
        experiment.workload(seed=manifest.seed),
        folder,
        manifest.seed,
        manifest.parameters,
        _Told(progress_path(Path(order.directory))),
    )

    def make(run: Run, record: Record) -> LabCluster:
        run.progress.phase(f"start {len(order.nodes)} nodes of {order.system}, and warm them up")
        fills = any(isinstance(each.fault, NoSpace) for each in run.experiment.plan())
        return _cluster(order, record, folder.path, small_disks=fills)

    return on_cluster.conduct(run, make)


def _keep(order: Order, socket: str) -> None:
    """Until SIGTERM."""
    folder = RunFolder(Path(order.directory))
    folder.nodes_dir.mkdir(exist_ok=True)

    def record(line: NodeRecord) -> None:
        if line.kind == "event":
            folder.append_node(line)

    with (
        _cluster(order, record, None) as cluster,
        ByHand(
            cluster,
            folder.path,
            Path(socket),
            cluster.monitor.announce,
            cluster.monitor.statuses,
        ),
    ):
        while True:
            time.sleep(0.2)
            if "toxiproxy" in cluster.ended():
                cluster.check()


def main() -> int:
    """Run as ``python -m chaos.targets.in_lab '{"system": ...}'``."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    directory = Path(order.directory)
    with signals_as_exit():
        try:
            if order.run_folder is not None:
                outcome = Outcome(failure=_conduct(order, order.run_folder))
            else:
                assert order.socket is not None
                _keep(order, order.socket)
                outcome = Outcome()
        except CapbenchError as error:
            outcome = Outcome(raised=str(error))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            outcome = Outcome(raised=f"{where}{error.strerror or error}")
    write_json(outcome_path(directory), outcome)
    return 0


if __name__ == "__main__":
    sys.exit(main())
