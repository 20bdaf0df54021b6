"""The cluster of a lab: a system's nodes, each in a network namespace, and a Toxiproxy between
them.

It is made by, and lives as long as, the first process of the namespaces of
`chaos.clusters.lab.sandbox`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.children import environment
from bench.load.workload import Workload
from bench.record.cluster_file import Address, SystemFile, write_cluster_file
from bench.record.run_folder import NodeRecord, append_line
from chaos.clusters.capabilities import OfLab
from chaos.clusters.lab.disks import Disks
from chaos.clusters.lab.links import LabLinks, in_words, leak
from chaos.clusters.lab.listening import Listening
from chaos.clusters.lab.network import Network, host, ways
from chaos.clusters.lab.usage import Usage
from chaos.clusters.lab.warm_up import WarmUp
from chaos.clusters.lab.watch import SystemWatch
from chaos.clusters.live import SpawnedCluster
from chaos.errors import TargetFailed
from chaos.systems.system import Node, Programs, System
from nodes.errors import Unsupported
from nodes.faults.injected import FullDisk, Injected, MessageLoss
from nodes.runtime import own_folder
from nodes.wire.links import GROUP, Link

READY_S = 60.0


class LabCluster(SpawnedCluster, OfLab):
    """The nodes of a system. ``findable``: what `chaos.systems.catalogue.get` finds it by.

    ``directory`` takes the nodes' data and everybody's log. ``record``: as in `RunningCluster`.
    ``recorded``: the run folder, if there is one: data is removed at the end then, unless it may
    tell why a run failed. ``small_disks``: nodes have small disks, which can be filled.
    """

    _api = Address("127.0.0.1", 8474)
    links: LabLinks
    monitor: SystemWatch
    cluster_file: SystemFile

    def __init__(
        self,
        system: System,
        programs: Programs,
        nodes: tuple[str, ...],
        directory: Path,
        *,
        cluster: str,
        findable: str,
        nft: list[str],
        record: Callable[[NodeRecord], None] | None = None,
        recorded: Path | None = None,
        small_disks: bool = False,
    ) -> None:
        super().__init__(nodes, record=record)
        self._system = system
        self._programs = programs
        self._directory = directory.resolve()
        self._recorded = recorded
        self.logs = str(self._directory)
        self._ways = ways(nodes, self.clients, system.peer_ports, system.client_ports)
        self._network = Network(nodes, self._ways, nft)
        self._hosts = {node: host(number) for number, node in enumerate(nodes, 1)}
        self._down: set[str] = set()
        self._disks = Disks(self._directory, small=small_disks)
        self._losses: dict[tuple[str, int], MessageLoss] = {}
        self._exited: set[str] = set()
        self._usage = Usage(nodes, self._pids, self._network.counts)
        self.cluster_file = SystemFile(
            cluster=cluster,
            protocol=system.name,
            nodes=list(nodes),
            operations=system.offers,
            system=findable,
            hosts=self._hosts,
            endpoints=self._endpoints(),
        )
        self.cluster_path = self._directory / "cluster.json"

    def _endpoints(self) -> dict[str, dict[str, Address]]:
        found: dict[str, dict[str, Address]] = {node: {} for node in self.nodes}
        for way in self._ways:
            if way.src == GROUP:
                found[way.dst][str(way.upstream.port)] = way.listen
        return found

    # --- start and stop ---

    def _start_all(self) -> None:
        self._network.make()
        self._start_toxiproxy()
        self.links = LabLinks(self.toxiproxy, self._ways, self._network)
        self.links.create()
        self.links.restart_server = self._restart_toxiproxy
        self._listening = Listening(self._hosts, self._network.open_to)
        self._listening.__enter__()
        for node in self.nodes:
            own_folder.make(self._directory / node)
            self._disks.make(node)
            self._system.prepare(self._node(node), self._programs)
        for node in self.nodes:
            self._start_node(node)
        self.monitor = SystemWatch(self._system, self._hosts, self._record, self._usage)
        self.monitor.__enter__()
        name = self._system.name
        self._wait_until(self._all_answer, f"{name} did not answer", READY_S)
        self._system.form(self._hosts)
        self._wait_until(self.monitor.ready, f"{name} did not serve", READY_S)
        write_cluster_file(self.cluster_path, self.cluster_file)

    def _all_answer(self) -> bool:
        return len(self.monitor.statuses()) == len(self.nodes)

    def _where_to_look(self, silent: Sequence[str]) -> str:
        first = [*silent, *self.nodes][0]
        return f"{first}: {self.monitor.problem(first)}; {self.last_words(first)}"

    def _stop(self, *, discard: bool = False) -> None:
        self._hang_up()
        listening: Listening | None = getattr(self, "_listening", None)
        if listening is not None:
            listening.__exit__()
        for node in self.nodes:
            self._end(node)
        self.processes.close()
        self._disks.remove()
        if discard:
            self._discard()

    def warm_up(self, workload: Workload) -> None:
        """See `chaos.clusters.lab.warm_up`. In a closed loop there is no rate to wait for."""
        if workload.offered_per_s:
            warm_up = WarmUp(self.cluster_file, timeout_s=workload.timeout_s, check=self.check)
            self.notes.append(warm_up.until(workload.offered_per_s))

    # --- nodes ---

    def _node(self, name: str) -> Node:
        return Node(
            name=name,
            number=self.nodes.index(name) + 1,
            host=self._hosts[name],
            data=self._directory / name,
            hosts=self._hosts,
        )

    def _start_node(self, name: str) -> None:
        self._usage.starts(name)
        for process in self._system.processes(self._node(name), self._programs):
            self.processes.spawn(
                _process_name(name, process.name),
                self._network.inside(name, process.argv),
                stdout_path=self.log_path(name),
                env=environment(**self._programs.environment, **process.environment),
                cwd=self._directory / name,
            )

    def _of(self, node: str) -> list[str]:
        """The names of its processes."""
        return [
            _process_name(node, process.name)
            for process in self._system.processes(self._node(node), self._programs)
        ]

    def _pids(self, node: str) -> list[int]:
        """Its processes that run."""
        names = [name for name in self._of(node) if self.processes.running(name)]
        return [self.processes.pid(name) for name in names]

    def _end(self, node: str) -> None:
        for name in self._of(node):
            if self.processes.running(name):
                self.processes.kill_all(name)

    # --- what `RunningCluster` asks for ---

    def check(self) -> None:
        """Raise TargetFailed if a process of a node has ended that nobody stopped, or if something
        could not be recorded. Toxiproxy is replaced if it has ended or answers no more."""
        self._check_toxiproxy()
        for name, code in self.ended().items():
            node = name.partition(".")[0]
            if node in self._disks.bad:
                self._has_ended(node)
            elif node in self.nodes:
                raise TargetFailed(
                    f"{name} ({self._system.name}) ended with code {code}; {self.last_words(node)}"
                )
        if self._listening.failure is not None:
            raise TargetFailed(self._listening.failure)
        self._check_record()

    def _has_ended(self, node: str) -> None:
        if node not in self._exited:
            self._exited.add(node)
            self.monitor.forget(node)
            self._tell(node, "exited")

    def versions(self) -> dict[str, str]:
        """See `RunningCluster`."""
        return {"system": self._programs.version}

    def observed(self) -> list[str]:
        """What passed on links while they were cut; in the run folder, cut by cut."""
        if self._recorded is not None:
            for cut in self.links.cuts:
                append_line(self._recorded / "cuts.jsonl", cut)
        return in_words(self.links.cuts, self._network.strayed())

    def disproved(self) -> str | None:
        """See `RunningCluster`: a cut that let data pass."""
        return leak(self.links.cuts)

    # --- what the nemesis does ---

    def crash(self, node: str) -> None:
        """SIGKILL to all processes of the node."""
        self._down.add(node)
        self._usage.counters(node)  # What it has used until now is not lost with it.
        self._end(node)
        self.monitor.forget(node)
        self._tell(node, "killed")

    def restart(self, node: str) -> None:
        """Start them again on the same data."""
        if node in self._down:
            self._start_again(node)

    def _start_again(self, node: str) -> None:
        self._down.discard(node)
        self._exited.discard(node)
        self._start_node(node)
        self._tell(node, "restarted")

    def inject(self, node: str, number: int, injected: Injected) -> None:
        """A full disk, or losses of packets. Raises Unsupported for anything else."""
        match injected:
            case FullDisk():
                self._disks.fill(node)
            case MessageLoss():
                self._losses[node, number] = injected
                self._set_losses()
            case _:
                raise Unsupported(f"no node of a lab injects {type(injected).__name__}")

    def withdraw(self, node: str, number: int) -> None:
        """A node that a full disk has ended is started again."""
        if self._losses.pop((node, number), None) is not None:
            self._set_losses()
            return
        self._disks.empty(node)
        if node not in self._down and len(self._pids(node)) < len(self._of(node)):
            self._end(node)
            self._start_again(node)

    def _set_losses(self) -> None:
        """Several losses on a link are independent."""
        kept: dict[Link, float] = {}
        for (node, _), loss in self._losses.items():
            for link in ((node, other) for other in loss.dst if other in self.nodes):
                kept[link] = kept.get(link, 1.0) * (1 - loss.share)
        self._network.lose({link: 1 - share for link, share in kept.items()})
        self._usage.look()

    def flip(self, node: str, where: float) -> None:
        """In any file of the node, which is then started."""
        self.notes.append(self._disks.flip(node, where))
        self._start_again(node)

    def unflip(self, node: str) -> None:
        """Nothing happens if no bit is flipped."""
        if self._disks.is_damaged(node):
            self._end(node)
            self._down.add(node)
            self._disks.unflip(node)

    def pause(self, node: str) -> None:
        """SIGSTOP to all processes of the node, and to those that they started."""
        if self._signal(node, signal.SIGSTOP):
            self._tell(node, "paused")

    def resume(self, node: str) -> None:
        """SIGCONT."""
        if self._signal(node, signal.SIGCONT):
            self._tell(node, "resumed")

    def _signal(self, node: str, number: signal.Signals) -> bool:
        """Whether any process of the node was there to get it."""
        reached = [self.processes.signal_all(name, number) for name in self._of(node)]
        return any(reached)


def _process_name(node: str, process: str) -> str:
    return f"{node}.{process}" if process else node
