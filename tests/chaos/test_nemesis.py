"""The nemesis keeps to its times and its seed, and always heals."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.record.run_folder import FaultRecord, RunFolder
from chaos.targets.nemesis import FaultPlayer, Nemesis
from nodes.faults import capabilities
from nodes.faults.base import Fault
from nodes.faults.capabilities import CanKill, CanPause, CanStopBroker
from nodes.faults.catalogue import Partition
from nodes.faults.link_faults import LinkFaults, LinkState
from nodes.faults.links import Flapping, Latency
from nodes.faults.nemesis import PlannedFault
from nodes.faults.processes import BrokerRestart, Crash, Pause, RollingRestart
from tests.waiting import patience

NODES = ("n1", "n2", "n3", "n4", "n5")
LINKS = tuple((src, dst) for src in NODES for dst in NODES if src != dst)


class Ledger(LinkFaults):
    """The links' bookkeeping, with no network below it, that writes down what it was asked."""

    def __init__(self, done: list[str]) -> None:
        super().__init__(LINKS)
        self._done = done

    def apply(self, links: Sequence[tuple[str, str]]) -> None:
        cut = sum(self.wanted(link).cut for link in self.links)
        self._done.append(f"{cut} cut")


class Cluster(capabilities.Cluster, CanKill, CanPause, CanStopBroker):
    """Five nodes that do nothing but write down, in `done`, what happens to them."""

    links: Ledger

    def __init__(self) -> None:
        self.done: list[str] = []
        self.tried: list[str] = []
        self.broken: set[str] = set()
        self.nodes = NODES
        self.links = Ledger(self.done)

    def leader(self) -> str | None:
        return "n3"

    def crash(self, node: str) -> None:
        self._do(f"crash {node}")

    def restart(self, node: str) -> None:
        self._do(f"restart {node}")

    def pause(self, node: str) -> None:
        self._do(f"pause {node}")

    def resume(self, node: str) -> None:
        self._do(f"resume {node}")

    def crash_broker(self) -> None:
        self._do("crash broker")

    def restart_broker(self) -> None:
        self._do("restart broker")

    def pause_broker(self) -> None:
        self._do("pause broker")

    def resume_broker(self) -> None:
        self._do("resume broker")

    def _do(self, what: str) -> None:
        self.tried.append(what)
        if what in self.broken:
            raise RuntimeError(f"{what}:\n  no such process")
        self.done.append(what)

    def is_healed(self) -> bool:
        return {self.links.wanted(link) for link in LINKS} == {LinkState()}


def schedule(*entries: tuple[float, float, Fault]) -> list[PlannedFault]:
    return [PlannedFault(i, at_s, heal_at_s, f) for i, (at_s, heal_at_s, f) in enumerate(entries)]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def play(cluster: Cluster, folder: RunFolder, plan: list[PlannedFault], seed: int = 1) -> Nemesis:
    with Nemesis(plan, cluster, folder, seed=seed) as nemesis:
        nemesis.start(time.monotonic_ns())
        assert nemesis.join(30)
    return nemesis


def test_a_fault_is_recorded_from_plan_to_heal(folder: RunFolder) -> None:
    cluster = Cluster()
    start_ns = time.monotonic_ns()
    plan = schedule((0.1, 0.2, Partition(groups="leader-alone")))
    with Nemesis(plan, cluster, folder, seed=1) as nemesis:
        nemesis.start(start_ns)
        assert nemesis.join(30)
    [record] = folder.faults()
    assert record.fault == "partition"
    assert record.parameters == {"groups": "leader-alone", "chosen_by": "leader"}
    assert record.groups == [["n3"], ["n1", "n2", "n4", "n5"]]
    assert record.planned_ns == start_ns + 100_000_000
    assert record.planned_heal_ns == start_ns + 200_000_000
    assert None not in (record.started_ns, record.applied_ns)
    times: list[Any] = [record.planned_ns, record.started_ns, record.applied_ns]
    assert times == sorted(times)
    times = [record.applied_ns, record.planned_heal_ns, record.heal_started_ns, record.healed_ns]
    assert times == sorted(times)
    assert record.error is None
    assert len(record.links) == 8
    # Once when it was applied, once when it was healed; then everything once more, to be sure.
    assert len(folder.faults_path.read_text().splitlines()) == 2
    assert cluster.done == ["8 cut", "0 cut", "0 cut"]
    assert not nemesis.failed
    assert nemesis.lateness_ms == [
        (times[0] and (record.started_ns or 0) - record.planned_ns) / 1e6
    ]


def test_a_fault_that_took_long_to_be_applied_is_told(folder: RunFolder) -> None:
    clock = iter(range(0, 100 * 10**9, 5 * 10**9))
    player = FaultPlayer(
        schedule((0, 8, Crash(nodes=("n1",))), (0, 80, Crash(nodes=("n2",)))),
        Cluster(),
        folder,
        seed=1,
        now_ns=lambda: next(clock),
    )
    for number in (0, 1):
        assert player.begin(number, 0)
    assert player.late == [
        "crash (fault 0) took 5.0 s of its 8.0 s to be applied, which count as during it"
    ]
    player.end_all()


def test_faults_overlap_and_end_at_their_own_times(folder: RunFolder) -> None:
    cluster = Cluster()
    one, other = Partition(groups="isolate", node="n1"), Partition(groups="isolate", node="n2")
    play(cluster, folder, schedule((0.0, 0.2, one), (0.05, 0.1, other)))
    assert cluster.done == ["8 cut", "14 cut", "8 cut", "0 cut", "0 cut"]


def test_back_to_back_there_is_no_moment_without_a_fault(folder: RunFolder) -> None:
    cluster = Cluster()
    fault = Partition(groups="isolate", node="n1")
    play(cluster, folder, schedule((0.0, 0.1, fault), (0.1, 0.2, fault)))
    assert cluster.done == ["8 cut", "8 cut", "8 cut", "0 cut", "0 cut"]


def test_a_node_comes_back_when_the_last_crash_of_it_ends(folder: RunFolder) -> None:
    cluster = Cluster()
    plan = schedule((0.0, 0.2, Crash(nodes=("n1", "n2"))), (0.05, 0.1, Crash(nodes=("n1",))))
    play(cluster, folder, plan)
    assert cluster.done == [
        "crash n1",
        "crash n2",
        "crash n1",
        "restart n1",
        "restart n2",
        "0 cut",
    ]


def test_a_node_goes_on_when_the_last_pause_of_it_ends(folder: RunFolder) -> None:
    cluster = Cluster()
    plan = schedule((0.0, 0.2, Pause(nodes=("n1", "n2"))), (0.05, 0.1, Pause(nodes=("n1",))))
    play(cluster, folder, plan)
    assert cluster.done == ["pause n1", "pause n2", "pause n1", "resume n1", "resume n2", "0 cut"]


def test_the_broker_comes_back_first_if_nothing_could_be_healed(folder: RunFolder) -> None:
    cluster = Cluster()
    cluster.broken = {"resume n1", "restart broker"}
    plan = schedule((0.0, 0.05, Pause(nodes=("n1",))), (0.0, 0.05, BrokerRestart()))
    nemesis = play(cluster, folder, plan)
    assert nemesis.errors[2:] == ["not healed at the end: restart broker: no such process"]
    assert cluster.tried[-2:] == ["restart broker", "resume n1"], "one failure keeps no other back"


def test_a_fault_that_changes_while_it_is_on_keeps_its_times(folder: RunFolder) -> None:
    cluster = Cluster()
    fault = Flapping(period_ms=200, duty=0.5, links=("n1->n2",))
    play(cluster, folder, schedule((0.0, 0.45, fault)))
    assert cluster.done == ["1 cut", "0 cut", "1 cut", "0 cut", "1 cut", "0 cut", "0 cut"]
    [record] = folder.faults()
    assert record.links == [("n1", "n2")]
    assert record.parameters["seed"] is not None
    assert record.error is None


def test_a_step_that_fails_fails_the_run(folder: RunFolder) -> None:
    cluster = Cluster()
    cluster.broken = {"restart n1"}
    fault = RollingRestart(nodes=("n1", "n2"), down_ms=50, every_ms=100)
    nemesis = play(cluster, folder, schedule((0.0, 0.3, fault)))
    assert nemesis.failed
    [record] = folder.faults()
    assert record.error is not None
    assert record.error.startswith("step 0 failed: restart n1: no such process")


def test_the_same_seed_makes_the_same_choices(tmp_path: Path) -> None:
    plan = schedule(
        (0.0, 0.01, Partition(groups="halves")),
        (0.02, 0.03, Crash(nodes="random")),
        (0.04, 0.05, Partition(groups="halves")),
        (0.06, 0.07, Partition(groups="halves")),
        (0.08, 0.09, Partition(groups="halves")),
    )

    def choices(seed: int, numbers: tuple[int, ...] = (0, 1, 2, 3, 4)) -> list[tuple[Any, ...]]:
        folder = RunFolder(tmp_path / f"{seed}-{numbers}-{time.monotonic_ns()}")
        folder.path.mkdir()
        play(Cluster(), folder, [plan[n] for n in numbers], seed)
        return [(r.number, r.groups, r.nodes, r.links) for r in folder.faults()]

    first = choices(1)
    assert choices(1) == first
    assert choices(1, (0, 2)) == [first[0], first[2]], "leaving one out changes no other"
    assert len({str(groups) for _, groups, _, _ in first}) > 2, "each has a stream of its own"
    assert len({str(choices(seed)) for seed in range(6)}) > 3


def test_a_fault_that_fails_is_recorded_and_what_it_began_is_undone(folder: RunFolder) -> None:
    cluster = Cluster()
    cluster.broken = {"crash n2"}
    plan = schedule(
        (0.0, 0.1, Crash(nodes=("n1", "n2", "n3"))),
        (0.02, 0.05, Partition(groups="mute", node="n1")),
    )
    nemesis = play(cluster, folder, plan)
    assert nemesis.failed
    failed, fine = folder.faults()
    assert failed.error == "not applied: crash n2: no such process"
    assert failed.applied_ns is None
    assert nemesis.errors == ["crash (fault 0) not applied: crash n2: no such process"]
    assert cluster.done[:3] == ["crash n1", "restart n1", "restart n2"]
    assert "restart n3" not in cluster.done, "it never was killed"
    assert fine.error is None
    assert fine.healed_ns is not None
    assert cluster.is_healed()


def test_a_heal_that_fails_is_recorded_and_tried_again(folder: RunFolder) -> None:
    cluster = Cluster()
    cluster.broken = {"restart n1"}
    plan = schedule((0.0, 0.05, Crash(nodes=("n1", "n2"))))
    nemesis = play(cluster, folder, plan)
    [record] = folder.faults()
    assert record.error == "not healed: restart n1: no such process"
    assert record.healed_ns is None
    assert "restart n2" in cluster.done
    assert nemesis.errors == [
        "crash (fault 0) not healed: restart n1: no such process",
        "not healed at the end: restart n1: no such process",
    ]


def test_a_fault_that_cannot_be_recorded_is_healed_all_the_same(folder: RunFolder) -> None:
    folder.faults_path.mkdir()
    cluster = Cluster()
    nemesis = play(cluster, folder, schedule((0.0, 0.05, Partition(groups="halves"))))
    assert cluster.done == ["12 cut", "0 cut", "0 cut"]
    assert nemesis.failed
    assert "not recorded" in nemesis.errors[0]


def test_stop_heals_at_once_and_begins_nothing_more(folder: RunFolder) -> None:
    cluster = Cluster()
    begun = threading.Event()
    plan = schedule((0.0, 60.0, Latency(latency_ms=5)), (50.0, 60.0, Crash(nodes="all")))
    with Nemesis(plan, cluster, folder, seed=1, on_fault=lambda _: begun.set()) as nemesis:
        nemesis.start(time.monotonic_ns())
        assert begun.wait(20)
        assert not cluster.is_healed()
        nemesis.stop()
        assert cluster.is_healed()
    [record] = folder.faults()
    assert record.healed_ns is not None
    assert record.planned_heal_ns is not None
    assert record.healed_ns < record.planned_heal_ns
    assert not nemesis.failed


@pytest.mark.live
def test_an_exception_heals_the_real_links(network: Any, folder: RunFolder) -> None:
    class Nodes(capabilities.Cluster, CanKill):
        nodes = ("n1", "n2", "n3")
        links = network.links

        def leader(self) -> str | None:
            return None

        def crash(self, node: str) -> None:
            network.processes.kill(node)

        def restart(self, node: str) -> None:
            raise NotImplementedError

    begun = threading.Event()

    def on_fault(record: FaultRecord) -> None:
        begun.set()

    plan = schedule(
        (0.0, 60.0, Partition(groups="leader-alone")), (0.0, 60.0, Latency(latency_ms=80))
    )

    def run() -> None:
        with Nemesis(plan, Nodes(), folder, seed=1, on_fault=on_fault) as nemesis:
            nemesis.start(time.monotonic_ns())
            assert begun.wait(20)
            assert sum(state.cut for state in network.links.state().values()) == 4
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert set(network.links.state().values()) == {LinkState()}


RUNNER = """
import pathlib, sys, time
from bench.record.cluster_file import Address
from bench.record.run_folder import RunFolder
from nodes.faults.catalogue import Partition
from chaos.clusters.links import Links
from chaos.targets.nemesis import FaultPlayer, Nemesis
from nodes.faults.nemesis import PlannedFault
from nodes.faults.capabilities import Cluster
from chaos.interrupted import signals_as_exit
from chaos.clusters.toxiproxy import Toxiproxy

api, broker, folder, *ports = sys.argv[1:]

class Nodes(Cluster):
    nodes = ("n1", "n2", "n3")
    links = Links(
        Toxiproxy(Address("127.0.0.1", int(api))), Address("127.0.0.1", int(broker)),
        nodes, ["g1"], [int(port) for port in ports],
    )
    def leader(self): return "n2"

plan = [PlannedFault(0, 0.0, 60.0, Partition(groups="leader-alone"))]
with signals_as_exit():
    with Nemesis(
        plan, Nodes(), RunFolder(pathlib.Path(folder)), seed=1,
        on_fault=lambda record: print(record.fault, record.healed_ns is not None, flush=True),
    ) as nemesis:
        nemesis.start(time.monotonic_ns())
        nemesis.join()  # SIGTERM comes here
"""


@pytest.mark.live
def test_sigterm_heals_the_real_links(network: Any, folder: RunFolder) -> None:
    ports = [network.api_port, network.broker.port, folder.path, *network.link_ports]
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, *map(str, ports)], stdout=subprocess.PIPE, text=True
    ) as runner:
        assert runner.stdout is not None
        try:
            assert runner.stdout.readline() == "partition False\n"
            cut = {link for link, state in network.links.state().items() if state.cut}
            assert cut == {("n1", "n2"), ("n3", "n2"), ("n2", "n1"), ("n2", "n3")}
            runner.send_signal(signal.SIGTERM)
            assert runner.stdout.readline() == "partition True\n"
            assert runner.wait(20) == 128 + signal.SIGTERM
        finally:
            runner.kill()
    assert set(network.links.state().values()) == {LinkState()}
    assert folder.faults()[0].healed_ns is not None


def test_faults_by_hand_begin_and_end_when_they_are_told_to(folder: RunFolder) -> None:
    cluster = Cluster()
    with Nemesis([], cluster, folder, seed=1, by_hand=True) as nemesis:
        nemesis.start(time.monotonic_ns())
        pause = nemesis.inject(Pause(nodes=("n1",)), 60)
        assert (pause.error, cluster.done) == (None, ["pause n1"])
        short = nemesis.inject(Crash(nodes=("n2",)), 0.05)
        deadline = time.monotonic() + patience(10)
        while [each.number for each in nemesis.on] != [pause.number]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert cluster.done == ["pause n1", "crash n2", "restart n2"]
        assert nemesis.heal(pause.number).healed_ns is not None
        assert nemesis.heal(short.number).number == short.number  # again: nothing happens
        assert cluster.done[3:] == ["resume n1"]
        cluster.broken.add("crash n4")
        assert "not applied" in str(nemesis.inject(Crash(nodes=("n4",)), 60).error)
        nemesis.inject(Pause(nodes=("n5",)), 60)
    # Leaving heals what is on, and what ended by hand is not ended again.
    assert cluster.done.count("resume n5") == 1
    assert cluster.done.count("resume n1") == 1
    assert [record.number for record in folder.faults()] == [0, 1, 2, 3]


def test_a_fault_by_hand_goes_on_doing_its_steps(folder: RunFolder) -> None:
    cluster = Cluster()
    with Nemesis([], cluster, folder, seed=1, by_hand=True) as nemesis:
        nemesis.start(time.monotonic_ns())
        flapping = nemesis.inject(Flapping(period_ms=200), 60)
        deadline = time.monotonic() + patience(10)
        while len(cluster.done) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        nemesis.heal(flapping.number)
        steps = len(cluster.done)
        time.sleep(0.3)
        assert len(cluster.done) == steps
