"""The simulated target: the same experiments under virtual time, in this process.

The replicas, the workload, the clients' rules (`bench.load.client`), the faults and their choices,
the run folder and all that reads it are those of the local target. The broker, the proxies, the
disks and the clocks are simulated (`nodes.simulator`), so a run takes less time than it simulates,
a seed gives the same history byte for byte, and rates say nothing about real hardware. All stamps
are virtual nanoseconds since the start of the cluster.
"""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import msgspec

from bench.load.client import Client
from bench.load.workload import PlannedOperation, plan
from bench.record.history import HistoryWriter, OperationRecord
from bench.record.run_folder import LoadSummary, NodeRecord, write_json
from chaos.clusters.capabilities import OfSim
from chaos.errors import TargetFailed
from chaos.targets import final_reads
from chaos.targets.nemesis import FaultPlayer
from chaos.targets.run import CONVERGENCE_TIMEOUT_S, Run
from nodes.contract.replica import Reply, Request
from nodes.faults.nemesis import PlannedFault
from nodes.simulator.cluster import Cluster
from nodes.simulator.faults import FaultyCluster
from nodes.simulator.host import Timing
from nodes.simulator.network import Quality
from nodes.simulator.story import Story
from nodes.wire.links import GROUP, Link

CLIENT = "load-1"
QUALITY = Quality(latency_s=0.0005, jitter_s=0.0001)
"""Latency of a message between nodes; about that of a broker and a proxy on loopback."""
TIMING = Timing(step_s=0.00005, fsync_s=0.001)
CLIENT_LATENCY_S = 0.0005
"""From a client to a node or back, on average."""
START_TIMEOUT_S = 30.0
FINAL_TIMEOUT_S = 3.0


class SimulatedCluster(FaultyCluster, OfSim):
    """A cluster under virtual time: what faults do to it, the way from clients to nodes and back,
    and what the nodes tell."""

    def __init__(self, run: Run, *, trace: bool = False) -> None:
        cluster = Cluster(
            run.protocol,
            nodes=run.experiment.nodes,
            seed=run.seed,
            parameters=run.parameters,
            quality=QUALITY,
            timing=TIMING,
            trace=trace,
            right_clocks=True,
        )
        super().__init__(cluster)
        self.stops_at_ns = sys.maxsize
        self._run = run
        self._folder = run.folder
        self._clients: dict[str, Callable[[Reply], None]] = {}
        self._random = self.cluster.rng("client network").random
        self.cluster.reply_to = self._on_reply
        for node in self.nodes:
            self._tell(node, "started", {"protocol": run.protocol.name})
        self._tell_status(None)

    # --- time ---

    def now_ns(self) -> int:
        """Virtual nanoseconds since the start."""
        return round(self.cluster.now * 1e9)

    def at(self, time_ns: int, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call ``action(argument)`` then."""
        self.cluster.timeline.at(time_ns / 1e9, action, argument)

    def run_until(self, end_ns: int, done: Callable[[], bool], slice_s: float = 0.05) -> bool:
        """Let virtual time pass until ``done``, checked every ``slice_s``, or until ``end_ns``.
        Returns whether it is done. Raises TargetFailed if a replica raises anything."""
        end_ns = min(end_ns, self.stops_at_ns)
        try:
            while not done():
                left_ns = end_ns - self.now_ns()
                if left_ns <= 0:
                    return False
                self.cluster.run(min(slice_s, left_ns / 1e9))
        except Exception as error:
            line = " ".join(str(error).split())
            raise TargetFailed(
                f"a simulated node failed after {self.cluster.now:.3f} virtual seconds: "
                f"{type(error).__name__}: {line}"
            ) from error
        finally:
            self._tell_marks()
        return True

    def ready(self) -> bool:
        """Whether every node expects to serve and names the same leader (or none)."""
        probes = [self.cluster.replica(node).probe() for node in self.nodes]
        leaders = {probe.get("leader") for probe in probes}
        return all(probe.get("ready") for probe in probes) and len(leaders) == 1

    def converged(self) -> bool:
        """Whether all nodes that are not gone for good are up, and hold the same."""
        return len(self.cluster.states()) == len(self._run.left) and self.cluster.converged()

    # --- what the nemesis does ---

    def crash(self, node: str) -> None:
        """Kill the process: whatever was not durable is lost."""
        self._tell_marks()
        super().crash(node)
        self._tell(node, "killed")

    def restart(self, node: str) -> None:
        """Start it again on what its disk kept."""
        self._tell_marks()
        super().restart(node)
        self._tell(node, "restarted")

    def pause(self, node: str) -> None:
        """Its timers come late, and what is sent to it waits."""
        super().pause(node)
        self._tell(node, "paused")

    def resume(self, node: str) -> None:
        """Let it go on."""
        super().resume(node)
        self._tell(node, "resumed")

    # --- between clients and nodes ---

    def connect(self, client: str, on_reply: Callable[[Reply], None]) -> None:
        """The replies to ``client`` go to ``on_reply``."""
        self._clients[client] = on_reply

    def send(self, node: str, request: Request) -> None:
        """Send a request to a node, subject to faults."""
        self._travel((GROUP, node), self.cluster.hosts[node].receive, request)

    def _on_reply(self, node: str, reply: Reply) -> None:
        leader = self.cluster.replica(node).leader
        told = msgspec.structs.replace(reply, leader=leader)
        self._travel((node, GROUP), self._clients[reply.client], told)

    def _travel(self, link: Link, arrive: Callable[[Any], None], what: Any) -> None:
        latency_s = self.links.wanted(link).latency_ms / 1000
        delay_s = CLIENT_LATENCY_S * (0.5 + self._random()) + latency_s
        lost = self.links.lost(link)
        if lost and (lost == 1 or self._random() < lost):
            return

        def arrived(_: None) -> None:
            if not self.links.wanted(link).cut:
                arrive(what)

        self.cluster.timeline.at(self.cluster.now + delay_s, arrived)

    # --- what the nodes tell ---

    def _tell(self, node: str, name: str, details: dict[str, Any] | None = None) -> None:
        self._folder.append_node(
            NodeRecord(
                t_ns=self.now_ns(), node=node, kind="event", name=name, details=details or {}
            )
        )

    def _tell_marks(self) -> None:
        marks, self.cluster.marks[:] = list(self.cluster.marks), []
        for mark in marks:
            self._folder.append_node(
                NodeRecord(
                    t_ns=round(mark.at_s * 1e9),
                    node=mark.node,
                    kind="event",
                    name=mark.name,
                    details=mark.details,
                )
            )

    def _tell_status(self, _: None) -> None:
        self._tell_marks()
        for node, host in self.cluster.hosts.items():
            if host.replica is None or host.paused:
                continue
            links = host.links.values()
            counters = {
                "steps": host.steps,
                "log_commits": host.fsyncs,
                "messages_sent": sum(link.sent for link in links),
                "messages_cut": sum(link.cut for link in links),
                "messages_lost": sum(link.lost for link in links),
                "messages_slowed": sum(link.slowed for link in links),
                "slowed_us": round(sum(link.slowed_s for link in links) * 1e6),
            }
            self._folder.append_node(
                NodeRecord(
                    t_ns=self.now_ns(),
                    node=node,
                    kind="status",
                    probe=host.replica.probe(),
                    counters=counters,
                )
            )
        self.cluster.timeline.at(self.cluster.now + 1.0, self._tell_status)


class _SimulatedClient:
    """A `Client` under virtual time, and the history that it writes."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        name: str,
        history: HistoryWriter,
        model: HistoryWriter | None = None,
        *,
        timeout_s: float,
        in_flight: int | None = None,
        may_lead: Sequence[str] = (),
    ) -> None:
        self.client = Client(name, timeout_s=timeout_s, in_flight=in_flight, may_lead=may_lead)
        self._timeout_ns = int(timeout_s * 1e9)
        self._cluster = cluster
        self._history = history
        self._model = model
        self.follow_ups = 0
        """Steps of tasks, which the plan does not count."""
        self.model_operations = 0
        self.dropped_ns: list[int] = []
        """The intended times of operations that were not sent."""
        self.dropped_nodes: list[str] = []
        """At which node each was wanted."""
        cluster.connect(name, self._on_reply)

    def invoke(self, planned: PlannedOperation, intended_ns: int | None = None) -> None:
        """Send an operation now. If too many are open it is dropped, with what comes behind it."""
        request = self.client.invoke(planned, self._cluster.now_ns(), intended_ns)
        if request is None:
            self._drop(planned, intended_ns)
            return
        self._cluster.send(self.client.node_of(request), request)
        self._cluster.at(self._cluster.now_ns() + self._timeout_ns, self._expire)

    def close(self) -> None:
        """Nobody waits any more."""
        self._record(self.client.abandon())

    def summary(
        self, started_ns: int, ended_ns: int, intended: int, offered_per_s: float | None
    ) -> LoadSummary:
        """What it did, of so many operations that were wanted."""
        return LoadSummary(
            client=CLIENT,
            started_ns=started_ns,
            ended_ns=ended_ns,
            offered_per_s=offered_per_s,
            intended=intended,
            invoked=intended - len(self.dropped_ns),
            dropped=len(self.dropped_ns),
            dropped_intended_ns=self.dropped_ns,
            dropped_nodes=self.dropped_nodes,
            lateness_ms_p50=0.0,
            lateness_ms_p99=0.0,
            model_operations=self.model_operations,
            asked_leader=self.client.asked_leader,
        )

    def _drop(self, planned: PlannedOperation, intended_ns: int | None) -> None:
        assert intended_ns is not None, "final reads have no limit, and nothing behind them"
        self.client.tasks.not_sent(planned.id)
        for dropped in (planned, *filter(None, [planned.then])):
            self.dropped_ns.append(intended_ns)
            self.dropped_nodes.append(dropped.node)

    def _on_reply(self, reply: Reply) -> None:
        record = self.client.on_reply(reply, self._cluster.now_ns())
        if record is not None:
            self._record([record])

    def _expire(self, _: None) -> None:
        self._record(self.client.expire(self._cluster.now_ns()))

    def _record(self, records: list[OperationRecord]) -> None:
        for record in records:
            self._history.append(record)
        while self.client.given_up:
            self._drop(*self.client.given_up.pop())
        while self.client.due:
            planned, due_ns = self.client.due.pop()
            self.follow_ups += self._model is not None
            self.invoke(planned, due_ns)
        while self.client.tasks.ended:
            for done in self.client.tasks.ended.pop()[1]:
                assert self._model is not None, "only other kinds have tasks"
                self._model.append_model(done)
                self.model_operations += 1


def conduct(run: Run) -> str | None:
    """See `chaos.targets`."""
    run.progress.phase(f"simulate {run.experiment.nodes} nodes")
    cluster = SimulatedCluster(run)
    run.update_manifest(versions=_versions(), hardware=_model())
    if not cluster.run_until(int(START_TIMEOUT_S * 1e9), cluster.ready):
        raise TargetFailed(f"the simulated cluster was not ready in {START_TIMEOUT_S:.0f} s")
    failure = _load_and_faults(run, cluster)
    run.progress.phase("read every key at every node")
    deadline_ns = cluster.now_ns() + int(CONVERGENCE_TIMEOUT_S * 1e9)
    cluster.run_until(deadline_ns, cluster.converged, 0.1)
    _final_reads(run, cluster)
    return failure


def trace(run: Run, until_ns: int) -> Story:
    """Play a run again, up to that virtual time, and return what happened. ``run.folder``: a folder
    to throw away. Raises TargetFailed."""
    cluster = SimulatedCluster(run, trace=True)
    cluster.stops_at_ns = until_ns
    if cluster.run_until(int(START_TIMEOUT_S * 1e9), cluster.ready):
        _load_and_faults(run, cluster)
    story = cluster.cluster.timeline.story
    assert story is not None, "it was asked for"
    return story


def _schedule_faults(
    run: Run, cluster: SimulatedCluster, player: FaultPlayer, start_ns: int
) -> None:
    def begin(planned: PlannedFault) -> None:
        number = planned.number
        if player.begin(number, start_ns):
            for i, offset_s in enumerate(player.beats(number)):
                beat_ns = start_ns + round((planned.at_s + offset_s) * 1e9)
                cluster.at(beat_ns, lambda beat: player.beat(*beat), (number, i))
            cluster.at(start_ns + round(planned.heal_at_s * 1e9), player.end, number)

    # Before any end is set: where one fault ends and another begins, the new one begins first.
    for planned in run.experiment.plan():
        cluster.at(start_ns + round(planned.at_s * 1e9), begin, planned)


def _load_and_faults(run: Run, cluster: SimulatedCluster) -> str | None:
    """Load and faults side by side. Returns what went wrong, None if nothing did."""
    folder, workload = run.folder, run.workload
    write_json(folder.path / "workload.json", workload)
    start_ns = cluster.now_ns()
    end_ns = start_ns + int(workload.duration_s * 1e9)
    run.load_started(start_ns)
    run.progress.phase(f"load for {workload.duration_s:.0f} virtual s")
    player = FaultPlayer(
        run.experiment.plan(), cluster, folder, seed=run.seed, now_ns=cluster.now_ns
    )
    _schedule_faults(run, cluster, player, start_ns)
    operations = plan(workload, cluster.nodes)
    intended = 0

    def send(planned: PlannedOperation) -> None:
        nonlocal intended
        intended += 1 + (planned.then is not None)
        assert planned.intended_ns is not None, "experiments have open loops only"
        client.invoke(planned, start_ns + planned.intended_ns)
        send_next()

    def send_next() -> None:
        planned = next(operations, None)
        if planned is not None:
            assert planned.intended_ns is not None
            cluster.at(start_ns + planned.intended_ns, send, planned)

    def at_the_end() -> bool:
        done_s = (cluster.now_ns() - start_ns) / 1e9
        run.progress.tick(min(done_s, workload.duration_s), workload.duration_s)
        return False

    def all_ended() -> bool:
        return client.client.open_count == 0

    with contextlib.ExitStack() as open_files:
        client = _SimulatedClient(
            cluster,
            CLIENT,
            open_files.enter_context(HistoryWriter(folder.history_dir / f"{CLIENT}.jsonl")),
            open_files.enter_context(HistoryWriter(folder.model_dir / f"{CLIENT}.jsonl"))
            if workload.kind != "register"
            else None,
            timeout_s=workload.timeout_s,
            in_flight=workload.in_flight,
            may_lead=cluster.nodes if workload.ask == "leader" else (),
        )
        send_next()
        cluster.run_until(end_ns, at_the_end, 0.5)
        cluster.run_until(end_ns + int(workload.timeout_s * 1e9), all_ended)
        client.close()
        player.end_all()
    summary = client.summary(start_ns, end_ns, intended + client.follow_ups, workload.rate_per_s)
    write_json(folder.load_dir / f"{CLIENT}.json", summary)
    return f"a fault failed: {'; '.join(player.errors)}" if player.failed else None


def _final_reads(run: Run, cluster: SimulatedCluster) -> None:
    """As `chaos.targets.final_reads`, under virtual time."""
    start_ns = cluster.now_ns()
    keys = run.workload.key_names()
    reads = final_reads.planned_reads(run.left, keys)
    path = run.folder.history_dir / f"{final_reads.NAME}.jsonl"
    with HistoryWriter(path) as history:
        client = _SimulatedClient(cluster, final_reads.NAME, history, timeout_s=FINAL_TIMEOUT_S)
        for planned in reads:
            client.invoke(planned)
        end_ns = start_ns + int(FINAL_TIMEOUT_S * 1e9)
        cluster.run_until(end_ns, lambda: client.client.open_count == 0)
        client.close()
    done = final_reads.of_kind(run.folder, run.workload.kind, keys)
    final_reads.summarise(run.folder, done, len(reads), start_ns, cluster.now_ns())


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    return versions | {package: metadata.version(package) for package in ("msgspec", "pandas")}


def _model() -> dict[str, Any]:
    """The simulator's parameters, in place of hardware."""
    return {
        "machine": "simulated",
        "links": msgspec.to_builtins(QUALITY),
        "node": msgspec.to_builtins(TIMING),
        "client_latency_s": CLIENT_LATENCY_S,
    }
