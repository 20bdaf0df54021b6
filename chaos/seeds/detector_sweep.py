"""The failure detectors, measured: ``capbench run detector-sweep``.

Runs the protocol ``heartbeat`` in the simulator, under many networks, for hundreds of virtual
hours. Each run warms up, then watches healthy nodes (every suspicion is a mistake there), then
crashes one node after another at known times and starts them again. All detectors of a run judge
the same arrivals. What came out goes to ``sweep.json``, and `reports.sweeps.detector_sweep` makes
the page of it. A sweep is a function of its seed.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import msgspec

from bench.record.files import write_whole
from chaos.interrupted import ctrl_c_ignored
from chaos.progress import Bar, Lines
from nodes import registry
from nodes.parts.failure_detector import CountingParameters, PhiParameters
from nodes.protocols.detector import DetectorParameters, labels
from nodes.simulator.cluster import Cluster, Mark
from nodes.simulator.network import Link, Quality
from reports.sweeps.detector_sweep import DetectorRow, Sweep, write_page

NAME = "detector-sweep"
NODES = 5
SEED = 1

LATENCIES_S = (0.001, 0.02, 0.1, 0.5, 2.0)
JITTERS_S = (0.005, 0.05, 0.1, 0.2, 0.5)
LOSSES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
FLAP_PERIOD_S = 12.0
FLAPS = (0.0, 0.25, 0.4, 0.5, 0.65, 0.8)
"""The share of each period in which a link is down."""
CALM = Quality(latency_s=0.02, jitter_s=0.005)

TIMEOUTS_S = (2.5, 3.0, 4.0, 5.0, 6.5, 8.0, 11.0, 15.0)
THRESHOLDS = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 11.0, 15.0)


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the grid: ``value`` of ``factor``. ``down``: the share of the time in which each
    link is down, in every `FLAP_PERIOD_S` once, at a phase of its own."""

    factor: str
    value: float
    quality: Quality = CALM
    down: float = 0.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long each run is. ``crashes``: one node each, ``detect_s`` before it is started again,
    and ``trust_s`` more before the next."""

    runs: int = 2
    warm_up_s: float = 600.0
    observe_s: float = 7200.0
    crashes: int = 6
    detect_s: float = 180.0
    trust_s: float = 300.0


class Job(msgspec.Struct, frozen=True):
    """One run: a network, a seed, and the detectors on it."""

    network: Network
    seed: int
    counting: tuple[CountingParameters, ...]
    phi: tuple[PhiParameters, ...]
    plan: Plan


def grid() -> list[Network]:
    """One factor at a time, the others calm."""
    replace = msgspec.structs.replace
    return [
        *(
            Network(factor="latency", value=v, quality=replace(CALM, latency_s=v))
            for v in LATENCIES_S
        ),
        *(Network(factor="jitter", value=v, quality=replace(CALM, jitter_s=v)) for v in JITTERS_S),
        *(Network(factor="loss", value=v, quality=replace(CALM, loss=v)) for v in LOSSES),
        *(Network(factor="flapping", value=v, down=v) for v in FLAPS),
    ]


def trade_offs() -> list[Network]:
    """The networks on which timeout and threshold are varied."""
    replace = msgspec.structs.replace
    return [
        Network(factor="trade-off: jitter", value=0.5, quality=replace(CALM, jitter_s=0.5)),
        Network(factor="trade-off: loss", value=0.3, quality=replace(CALM, loss=0.3)),
    ]


def jobs_of(seed: int, plan: Plan) -> list[Job]:
    """All runs of a sweep. Equal numbers get equal seeds, whatever the network."""
    counting, phi = CountingParameters(), PhiParameters()
    many_counting = tuple(CountingParameters(timeout_s=t) for t in TIMEOUTS_S)
    many_phi = tuple(PhiParameters(threshold=t) for t in THRESHOLDS)
    jobs = []
    for number in range(plan.runs):
        run_seed = seed * 1000 + number
        jobs += [Job(network, run_seed, (counting,), (phi,), plan) for network in grid()]
        jobs += [Job(network, run_seed, many_counting, many_phi, plan) for network in trade_offs()]
    return jobs


def run_sweep(
    out: Path, seed: int, jobs: int, progress: Lines | Bar, plan: Plan | None = None
) -> Path:
    """Measure, write ``sweep.json`` and ``report.html`` into the empty folder ``out``, return the
    page. ``jobs``: processes. In the main thread only."""
    plan = plan or Plan()
    todo = jobs_of(seed, plan)
    rows: list[list[DetectorRow]] = [[] for _ in todo]
    progress.run(NAME)
    progress.phase(f"{len(todo)} runs")
    # Spawned, not forked: the progress bar has a thread.
    with ProcessPoolExecutor(
        max_workers=jobs, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        # The dear ones first, so that no process is left alone with one in the end.
        order = sorted(range(len(todo)), key=lambda i: -len(todo[i].counting))
        with ctrl_c_ignored():  # The processes begin here.
            futures = {pool.submit(measure, todo[i]): i for i in order}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                rows[futures[future]] = future.result()
                progress.phase(f"{done} of {len(todo)} runs")
                progress.tick(done, len(todo))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    sweep = Sweep(
        seed=seed,
        nodes=NODES,
        heartbeat_every_s=DetectorParameters().heartbeat_every_s,
        check_every_s=DetectorParameters().check_every_s,
        flap_period_s=FLAP_PERIOD_S,
        counting=msgspec.to_builtins(CountingParameters()),
        phi=msgspec.to_builtins(PhiParameters()),
        plan=msgspec.to_builtins(plan),
        rows=[row for rows_of_run in rows for row in rows_of_run],
    )
    data = out / "sweep.json"
    write_whole(data, msgspec.json.format(msgspec.json.encode(sweep), indent=1))
    progress.phase("draw")
    return write_page(data, out / "report.html")


def default_jobs() -> int:
    """One process per core."""
    return os.cpu_count() or 1


# --- one run ---


def measure(job: Job) -> list[DetectorRow]:
    """Run a simulation; a row for each of its detectors."""
    gc.disable()
    try:
        return _Run(job).rows()
    finally:
        gc.enable()


class _Run:
    def __init__(self, job: Job) -> None:
        self.job = job
        names: list[tuple[str, CountingParameters | PhiParameters]] = [
            *zip(labels("counting", len(job.counting)), job.counting, strict=True),
            *zip(labels("phi", len(job.phi)), job.phi, strict=True),
        ]
        self.found = {name: _row(job, parameters) for name, parameters in names}
        self.cluster = Cluster(
            registry.get("heartbeat"),
            nodes=NODES,
            seed=job.seed,
            parameters={
                "counting": [msgspec.to_builtins(one) for one in job.counting],
                "phi": [msgspec.to_builtins(one) for one in job.phi],
            },
            quality=job.network.quality,
        )
        self.rng = self.cluster.rng("sweep")
        self.since: dict[tuple[str, str, str], float] = {}
        """(detector, observer, suspect) -> since when."""
        if job.network.down:
            for (src, dst), link in self.cluster.links.items():
                if src != dst:
                    first_s = self.rng.random() * FLAP_PERIOD_S
                    self.cluster.timeline.at(first_s, self._flap_down, link)

    def rows(self) -> list[DetectorRow]:
        plan = self.job.plan
        self._run(plan.warm_up_s)
        self._observe(plan.observe_s)
        nodes = self.cluster.nodes
        for number in range(plan.crashes):
            self._crash(nodes[number % len(nodes)])
        return list(self.found.values())

    def _flap_down(self, link: Link) -> None:
        link.block(1, in_flight=True)
        self.cluster.timeline.at(
            self.cluster.now + self.job.network.down * FLAP_PERIOD_S, self._flap_up, link
        )

    def _flap_up(self, link: Link) -> None:
        link.heal(1)
        self.cluster.timeline.at(
            self.cluster.now + (1 - self.job.network.down) * FLAP_PERIOD_S, self._flap_down, link
        )

    def _run(self, seconds: float) -> list[tuple[Mark, float | None]]:
        """Let time pass. Returns the marks, those of a new trust with the time when the suspicion
        had begun."""
        marks = self.cluster.marks
        assert not marks
        self.cluster.run(seconds)
        found: list[tuple[Mark, float | None]] = []
        for mark in marks:
            pair = (mark.details["detector"], mark.node, mark.details["node"])
            if mark.name == "suspect":
                assert pair not in self.since, f"{pair} is suspected twice"
                self.since[pair] = mark.at_s
                found.append((mark, None))
            else:
                found.append((mark, self.since.pop(pair)))
        marks.clear()
        return found

    def _observe(self, seconds: float) -> None:
        start_s = self.cluster.now
        for mark, since_s in self._run(seconds):
            row = self.found[mark.details["detector"]]
            if since_s is None:
                row.mistakes += 1
            else:
                row.suspected_s += mark.at_s - max(since_s, start_s)
                if since_s >= start_s:
                    row.mistakes_s.append(mark.at_s - since_s)
        for (detector, _, _), since_s in self.since.items():
            self.found[detector].suspected_s += self.cluster.now - max(since_s, start_s)
        for row in self.found.values():
            row.observed_s += seconds * NODES * (NODES - 1)

    def _crash(self, victim: str) -> None:
        plan = self.job.plan
        self._run(self.rng.random() * 10)
        crashed_s = self.cluster.now
        self.cluster.crash(victim)
        for pair in [pair for pair in self.since if pair[1] == victim]:
            del self.since[pair]
        self._run(plan.detect_s)
        detected = [pair for pair in self.since if pair[2] == victim]
        for detector, row in self.found.items():
            begun_s = [self.since[pair] for pair in detected if pair[0] == detector]
            after_s = [since_s - crashed_s for since_s in begun_s if since_s >= crashed_s]
            row.detections_s += after_s
            row.suspected_before += len(begun_s) - len(after_s)
            row.undetected += NODES - 1 - len(begun_s)
        restarted_s = self.cluster.now
        self.cluster.restart(victim)
        waiting = set(detected)
        for mark, since_s in self._run(plan.trust_s):
            pair = (mark.details["detector"], mark.node, mark.details["node"])
            if since_s is not None and pair in waiting:
                waiting.remove(pair)
                self.found[pair[0]].trusts_s.append(mark.at_s - restarted_s)
        for pair in waiting:
            self.found[pair[0]].untrusted += 1


def _row(job: Job, parameters: CountingParameters | PhiParameters) -> DetectorRow:
    is_counting = isinstance(parameters, CountingParameters)
    return DetectorRow(
        factor=job.network.factor,
        value=job.network.value,
        detector="counting" if is_counting else "phi",
        setting=parameters.timeout_s
        if isinstance(parameters, CountingParameters)
        else parameters.threshold,
        seed=job.seed,
    )
