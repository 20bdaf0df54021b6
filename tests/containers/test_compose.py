"""Chaos on containers: a run takes them, breaks them in every way, and gives them back whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
import requests
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.record.run_folder import RunFolder
from chaos.clusters.containers.engine import Engine, EngineFailed
from tests.containers.attacks import REACH, RIGHTS, STEAL, beside, within
from tests.containers.conftest import NODES, PROJECT, ROOT, Installation

pytestmark = [
    pytest.mark.long,
    pytest.mark.live,
    # The first one installs an engine, where there is none, and builds the image.
    pytest.mark.timeout(900),
]

EVERY_KIND = """\
title: Every kind of fault
shows: that each of them happens to containers, and ends
protocols: [gossip]
nodes: 5
workload:
  arrival: {open_loop: 100/s}
  keys: {count: 10}
  mix: {read: 50, write: 50}
  timeout: 1s
duration: 22s
schedule:
  - {at: 1s, for: 2s, fault: partition, groups: [[n1], [n2, n3, n4, n5]]}
  - {at: 1s, for: 2s, fault: latency, latency_ms: 20}
  - {at: 1s, for: 2s, fault: slow-fsync, nodes: [n5], delay_ms: 20}
  - {at: 1s, for: 2s, fault: clock, nodes: [n4], offset_ms: 100}
  - {at: 4s, for: 7s, fault: crash, nodes: [n2]}
  - {at: 4s, for: 7s, fault: pause, nodes: [n3]}
  - {at: 4s, for: 3s, fault: message-loss, share: 0.2}
  - {at: 4s, for: 7s, fault: network-disconnect, nodes: [n4]}
  - {at: 4s, for: 7s, fault: torn-write, nodes: [n5]}
  - {at: 12s, for: 2s, fault: broker-pause}
  - {at: 15s, for: 2s, fault: broker-restart}
  - {at: 18s, for: 2s, fault: replies-lost, node: n1}
"""

BROKEN = """\
title: Everything is broken at once, for long
shows: what a run that is ended then gives back
protocols: [gossip]
nodes: 4
workload: {arrival: {open_loop: 50/s}, mix: {read: 50, write: 50}, timeout: 1s}
duration: 60s
schedule:
  - {at: 100ms, for: 50s, fault: partition, groups: [[n1], [n2, n3, n4]]}
  - {at: 100ms, for: 50s, fault: slow-fsync, nodes: [n1], delay_ms: 20}
  - {at: 200ms, for: 50s, fault: crash, nodes: [n2]}
  - {at: 200ms, for: 50s, fault: pause, nodes: [n3]}
  - {at: 200ms, for: 50s, fault: network-disconnect, nodes: [n4]}
  - {at: 300ms, for: 50s, fault: broker-pause}
"""

SHORT = """\
title: A short cut
shows: what a test needs
protocols: [raft]
nodes: 5
workload: {arrival: {open_loop: 100/s}, mix: {read: 50, write: 50}, timeout: 1s}
duration: 6s
schedule:
  - {at: 2s, for: 2s, fault: partition, groups: [[n1], [n2, n3, n4, n5]]}
"""

TINY = """\
title: As short as can be
shows: what a run that is killed leaves
protocols: [gossip]
nodes: 3
workload: {arrival: {open_loop: 20/s}, keys: {count: 3}, mix: {write: 1}, timeout: 1s}
duration: 1s
"""


def capbench(
    installation: Installation, *arguments: str | Path, cwd: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chaos.commands.main", *map(str, arguments)],
        cwd=cwd,
        env=installation.environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def assert_whole(installation: Installation) -> None:
    """Everything runs, on its network, as a node of the cluster that was there before."""
    installation.wait_healthy()
    for name, container in installation.containers().items():
        if name in (*NODES, "broker", "toxiproxy"):
            assert container.status == "running", name
            networks = container.attrs["NetworkSettings"]["Networks"]
            assert f"{PROJECT}_nodes" in networks, name
    # Where no run has taken anything yet, nobody has written it.
    assert installation.find("n1", "/data/run.json") in (None, b"null")
    assert installation.find("setup", "/volumes/runner/taken.json") in (None, b"null")


def test_the_leader_is_cut_off_on_containers_too(
    installation: Installation, tmp_path: Path
) -> None:
    done = capbench(
        installation,
        *("run", "leader-partition", "--target", "compose", "--protocol", "raft", "--json"),
        cwd=tmp_path,
    )
    # A machine on which other tests run may miss an objective; never a claim.
    assert done.returncode in (0, 1), done.stderr
    (summary,) = msgspec.json.decode(done.stdout)["runs"]
    assert (summary["verdict"], summary["measured_model"]) == ("valid", "linearizable")
    # What was wanted in the last 2 s of 8 could wait for the heal, and still be served in time.
    assert summary["availability"]["minority"] < 0.3
    assert summary["window_latency_ms"]["minority"]["p50"] is None
    assert summary["availability"]["majority"] > 0.5
    folder = RunFolder(tmp_path / summary["folder"])
    manifest = folder.manifest()
    assert (manifest.target, manifest.complete) == ("compose", True)
    assert manifest.versions["broker"].startswith("eclipse-mosquitto:2 (")
    assert not any(folder.path.glob("**/cluster.json")), "it had a password in it"
    assert_whole(installation)


def test_every_kind_of_fault_happens_and_ends(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "every.yaml").write_text(EVERY_KIND)
    done = capbench(
        installation, "run", "every.yaml", "--target", "compose", "--json", cwd=tmp_path
    )
    # What becomes of the claim is not asked here: 4 refuted, 5 a busy machine leaves it unknown.
    assert done.returncode in (0, 4, 5), done.stderr
    (summary,) = msgspec.json.decode(done.stdout)["runs"]
    folder = RunFolder(tmp_path / summary["folder"])
    faults = {fault.fault: fault for fault in folder.faults()}
    assert len(faults) == EVERY_KIND.count("fault:")
    for fault in faults.values():
        assert fault.error is None, fault
        assert fault.healed_ns is not None, fault
    by_node = {node: outcomes(folder, node, faults) for node in NODES}
    for name, node in (("crash", "n2"), ("pause", "n3"), ("network-disconnect", "n4")):
        assert "ok" not in by_node[node][name], f"{node} answered during {name}"
        assert "ok" in by_node["n1"][name], f"others answered during {name}"
    for name in ("broker-pause", "broker-restart"):
        assert not any("ok" in by_node[node][name] for node in NODES)
    assert "ok" not in by_node["n1"]["replies-lost"]
    events = {(record.node, record.name) for record in folder.node_records()}
    assert {("n2", "killed"), ("n3", "paused"), ("n4", "unplugged"), ("n5", "killed")} <= events
    # None: nobody can say yet, if a busy machine is still delivering when the keys are read.
    assert summary["converged"] is not False
    assert_whole(installation)


def outcomes(folder: RunFolder, node: str, faults: dict[str, Any]) -> dict[str, set[str]]:
    """What became of the operations that a node was asked for in the middle of each fault."""
    found: dict[str, set[str]] = {name: set() for name in faults}
    for record in folder.operations():
        for name, fault in faults.items():
            if record.node == node and record.intended_ns is not None:
                begin, end = fault.applied_ns + 5e8, fault.heal_started_ns - 1e9
                if begin < record.intended_ns < end:
                    found[name].add(record.outcome)
    return found


def start(installation: Installation, cwd: Path, text: str) -> subprocess.Popen[str]:
    """A run of the experiment ``text``."""
    (cwd / "it.yaml").write_text(text)
    return subprocess.Popen(
        [sys.executable, "-m", "chaos.commands.main", "run", "it.yaml", "--target", "compose"],
        cwd=cwd,
        env=installation.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_faults(runner: subprocess.Popen[str], results: Path, count: int) -> RunFolder:
    """The folder of a run, as soon as so many faults are on."""
    deadline = time.monotonic() + 90
    while True:
        for path in results.glob("*/*"):
            if len(RunFolder(path).faults()) == count:
                return RunFolder(path)
        assert runner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kill(runner: subprocess.Popen[str]) -> None:
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    assert runner.stderr is not None
    runner.stderr.close()


def test_what_a_killed_run_took_is_given_back_by_the_next_command(
    installation: Installation, tmp_path: Path
) -> None:
    runner = start(installation, tmp_path, BROKEN)
    try:
        folder = wait_for_faults(runner, tmp_path / "results", 6)
    finally:
        kill(runner)
    states = {name: each.status for name, each in installation.containers().items()}
    broken = [states[name] for name in ("n2", "n3", "broker", "n5")]
    assert broken == ["exited", "paused", "paused", "exited"]
    assert (folder.path / "cluster" / "cluster.json").exists()
    done = capbench(installation, "list", cwd=tmp_path)
    (line,) = [each for each in done.stderr.splitlines() if "was killed" in each]
    assert "restored the containers of capbench-test" in line
    assert_whole(installation)
    assert not (folder.path / "cluster").exists(), "it had a password in it"
    assert capbench(installation, "list", cwd=tmp_path).stderr == "", "and once only"


@pytest.mark.parametrize(
    ("phase", "still"),
    [
        pytest.param("take 3 containers", None, id="boot"),
        pytest.param("take 3 containers", "n5", id="start"),
        pytest.param("read every key at every node", None, id="reads"),
        # From here on the containers are given back already.
        pytest.param("check", None, id="check"),
        pytest.param("draw", None, id="report"),
    ],
)
def test_a_runner_that_is_killed_at_any_time_leaves_nothing(
    installation: Installation, tmp_path: Path, phase: str, still: str | None
) -> None:
    """During faults: above. ``still``: a container that is down by then."""
    runner = start(installation, tmp_path, TINY)
    assert runner.stderr is not None
    try:
        assert any(line.strip().endswith(f": {phase}") for line in runner.stderr)
        while still and installation.containers()[still].status != "exited":
            assert runner.poll() is None
    finally:
        kill(runner)
    done = capbench(installation, "list", cwd=tmp_path)
    assert done.returncode == 0
    assert "not" not in done.stderr
    assert_whole(installation)
    assert not list(tmp_path.glob("results/**/cluster.json"))


def test_a_killed_runner_in_a_container_leaves_nothing_either(installation: Installation) -> None:
    """Its files are gone with it; the installation itself remembers who had it."""
    (installation.results / "broken.yaml").write_text(BROKEN)
    command = ("run", "results/broken.yaml", "-o", "results/broken")
    one_off = installation.compose("run", "-d", "capbench", *command).stdout.split()[-1]
    runner = installation.engine.containers.get(one_off)
    try:
        deadline = time.monotonic() + 90
        while not any(len(RunFolder(p).faults()) == 6 for p in runs(installation, "broken")):
            assert time.monotonic() < deadline, runner.logs()
            time.sleep(0.1)
        # While it goes on, nobody else takes the installation or cleans up: not even from outside.
        (installation.results / "it.yaml").write_text(TINY)
        refused = capbench(
            installation, "run", "it.yaml", "--target", "compose", cwd=installation.results
        )
        assert refused.returncode == 3
        assert f"a run in the container {runner.short_id}" in refused.stderr
        assert installation.containers()["n3"].status == "paused"
        runner.kill()
        done = installation.compose("run", "--rm", "capbench", "list")
        assert f"restored the containers of {PROJECT}" in done.stderr
    finally:
        runner.remove(force=True)
    assert_whole(installation)
    assert not list(installation.results.glob("**/cluster.json"))


def runs(installation: Installation, name: str) -> list[Path]:
    return [path.parent for path in installation.results.glob(f"{name}/**/manifest.json")]


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_gives_them_back(installation: Installation, tmp_path: Path, times: int) -> None:
    runner = start(installation, tmp_path, BROKEN)
    with runner:
        path = wait_for_faults(runner, tmp_path / "results", 6).path
        for _ in range(times):
            runner.send_signal(signal.SIGINT)
            time.sleep(0.1)
        _, errors = runner.communicate(timeout=90)
    assert runner.returncode == 130
    if times == 1:
        assert "interrupted by Ctrl-C; what was recorded so far is kept in " in errors
        assert all(fault.healed_ns for fault in RunFolder(path).faults())
    else:
        assert "stopped at once: interrupted by Ctrl-C; what was recorded so far is kept" in errors
    assert_whole(installation)
    assert capbench(installation, "list", cwd=tmp_path).stderr == "", "nothing is left to clean up"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("healthy", "--nodes", "7", "--target", "compose"), 3, "wants 7 nodes, the installation"),
        (("every.yaml", "--target", "local"), 2, "local has no fault 'network-disconnect'"),
        (("every.yaml", "--target", "sim"), 2, "sim has no fault"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_touched(
    installation: Installation, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    def started() -> dict[str, str]:
        found = installation.containers()
        return {name: each.attrs["State"]["StartedAt"] for name, each in found.items()}

    before = started()
    (tmp_path / "every.yaml").write_text(EVERY_KIND)
    done = capbench(installation, "run", *arguments, "-p", "gossip", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert started() == before


def test_another_project_is_never_touched(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is ours is a matter of the folder it was started in, or said; not of being alone."""
    other = installation.engine.containers.create(
        installation.image,
        labels={
            "io.capbench.part": "toxiproxy",
            "com.docker.compose.project": f"{PROJECT}-other",
            "com.docker.compose.project.working_dir": str(tmp_path / "other"),
            "com.docker.compose.service": "toxiproxy",
        },
    )
    monkeypatch.setattr("chaos.clusters.containers.engine.ROOT", tmp_path / "capbench")
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(EngineFailed, match="no installation of this checkout is up") as refused:
            Engine()
        assert f"{PROJECT}-other of {tmp_path}/other" in str(refused.value)
        assert f"{PROJECT} of {ROOT}" in str(refused.value)
        (tmp_path / "other" / "below").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "other" / "below")
        engine = Engine()
        assert engine.project == f"{PROJECT}-other"
        engine.close()
        other.reload()
        assert other.status == "created"
    finally:
        other.remove(force=True)


# --- who may do what ---


@pytest.fixture(scope="module")
def load(installation: Installation) -> Iterator[Installation]:
    """With Locust's page and its worker."""
    installation.compose("--profile", "load", "up", "-d")
    deadline = time.monotonic() + 60
    while True:
        try:
            page = f"http://127.0.0.1:{installation.locust_port}/stats/requests"
            if requests.get(page, timeout=5).json()["workers"]:
                break
        except (requests.RequestException, KeyError):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.3)
    yield installation
    installation.compose("--profile", "load", "rm", "-s", "-f", "locust", "locust-worker")


class Visitor:
    """An MQTT client from outside, at the published port."""

    def __init__(self, port: int, username: str | None, password: str | None) -> None:
        self.reason: str | None = None
        self.received: list[tuple[str, bytes]] = []
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        if username is not None:
            self._client.username_pw_set(username, password)
        self._client.on_connect = lambda c, d, f, reason, p: self._said(str(reason))
        self._client.on_message = lambda c, d, m: self.received.append((m.topic, bytes(m.payload)))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        deadline = time.monotonic() + 10
        while self.reason is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _said(self, reason: str) -> None:
        self.reason = reason

    @classmethod
    def of(cls, installation: Installation, volume: str) -> Visitor:
        """Somebody with the login that lies in a volume."""
        login = installation.login(volume)
        return cls(installation.broker_port, login["username"], login["password"])

    def topics(self, below: str) -> set[str]:
        """Of all that it received, those that begin so, without that."""
        return {topic[len(below) :] for topic, _ in self.received if topic.startswith(below)}

    def subscribe(self, topic: str) -> None:
        done: list[object] = []
        self._client.on_subscribe = lambda *a: done.append(a)
        self._client.subscribe(topic, qos=1)
        while not done:
            time.sleep(0.01)

    def ask(self, node: str, reply: str) -> None:
        """Ask a node of the cluster ``demo`` for a key; it is to answer at ``reply``."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = reply
        topic = f"capbench/demo/req/{node}"
        self._client.publish(topic, b'{"op":"read","key":"k"}', qos=1, properties=properties)

    def publish(self, topic: str) -> str:
        """What the broker said to it."""
        said: list[str] = []
        self._client.on_publish = lambda c, d, mid, reason, p: said.append(str(reason))
        self._client.publish(topic, b"x", qos=1)
        while not said:
            time.sleep(0.01)
        return said[0]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_nobody_gets_in_without_a_password(installation: Installation) -> None:
    good = installation.login("clients")
    for username, password, reason in (
        (None, None, "Not authorized"),
        ("load", "wrong", "Not authorized"),
        ("nobody", good["password"], "Not authorized"),
        ("load", good["password"], "Success"),
    ):
        visitor = Visitor(installation.broker_port, username, password)
        visitor.close()
        assert visitor.reason == reason, username
    assert len({installation.login(v)["password"] for v in (*NODES, "clients", "runner")}) == 7


def test_everybody_speaks_for_themselves_only(installation: Installation) -> None:
    n1, n3, client, runner = (
        Visitor.of(installation, v) for v in ("n1", "n3", "clients", "runner")
    )
    try:
        n3.subscribe("capbench/visit/net/+/n3")
        n3.subscribe("capbench/visit/net/+/n1")
        client.subscribe("capbench/visit/rep/load/c")
        client.subscribe("capbench/visit/faults")
        allowed = {
            "n1 to n3": n1.publish("capbench/visit/net/n1/n3"),
            "n1's reply": n1.publish("capbench/visit/rep/load/c"),
            "a request": client.publish("capbench/visit/req/n1"),
            "a command": runner.publish("capbench/visit/ctl/n1"),
            "which faults are on": runner.publish("capbench/visit/faults"),
        }
        refused = {
            "n1 as n2": n1.publish("capbench/visit/net/n2/n3"),
            "n1 commands": n1.publish("capbench/visit/ctl/n2"),
            "n1 asks": n1.publish("capbench/visit/req/n2"),
            "n1 replies to another group": n1.publish("capbench/visit/rep/other/c"),
            "n1 below its link": n1.publish("capbench/visit/net/n1/n3/more"),
            "n1 below its status": n1.publish("capbench/visit/status/n1/more"),
            "n1 in no cluster": n1.publish("capbench/net/n1/n3"),
            "n1 tells of n2": n1.publish("capbench/visit/status/n2"),
            "a client as a node": client.publish("capbench/visit/net/n1/n3"),
            "a client commands": client.publish("capbench/visit/ctl/n1"),
            "a client tells of faults": client.publish("capbench/visit/faults"),
            "n1 tells of faults": n1.publish("capbench/visit/faults"),
            "a client replies": client.publish("capbench/visit/rep/load/c"),
            "the runner as a node": runner.publish("capbench/visit/net/n1/n3"),
            "elsewhere": client.publish("elsewhere"),
        }
        assert not any("Not authorized" in said for said in allowed.values()), allowed
        assert set(refused.values()) == {"Not authorized"}, refused
        time.sleep(0.2)
        assert [topic for topic, _ in n3.received] == ["capbench/visit/net/n1/n3"]
        assert sorted(topic for topic, _ in client.received) == [
            "capbench/visit/faults",
            "capbench/visit/rep/load/c",
        ]
    finally:
        for each in (n1, n3, client, runner):
            each.close()


def test_nobody_reads_what_is_not_for_them(installation: Installation) -> None:
    """Who subscribes to everything is given what the access list lets through."""
    roles = {v: Visitor.of(installation, v) for v in ("n1", "n3", "clients", "runner")}
    health = msgspec.json.decode(installation.setup_file("broker/health.json"))
    roles["health"] = Visitor(installation.broker_port, health["username"], health["password"])
    heard = {
        "n3": {"net/n1/n3", "req/n3", "req/n3/load/c", "ctl/n3"},
        "clients": {"rep/load/c", "status/n1", "faults"},
        "runner": {"status/n1"},
        "health": set(),
    }
    sent = {
        # What is not for them first, so that it would have come before what is.
        "n1": ("net/n1/n2", "rep/other/c", "net/n1/n3", "status/n1", "rep/load/c"),
        "clients": ("req/n2", "req/n3", "req/n3/load/c"),
        "runner": ("ctl/n2", "ctl/n3", "faults"),
    }
    try:
        for role in heard:
            roles[role].subscribe("capbench/#")
        for role, topics in sent.items():
            for topic in topics:
                roles[role].publish(f"capbench/visit/{topic}")
        deadline = time.monotonic() + 10
        while True:
            got = {role: roles[role].topics("capbench/visit/") for role in heard}
            if got == heard or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert got == heard
        assert not roles["health"].received
    finally:
        for each in roles.values():
            each.close()


def test_load_cannot_make_a_node_speak_where_only_nodes_may(installation: Installation) -> None:
    """The broker would let it pass: the node may publish there."""
    client, n3 = (Visitor.of(installation, v) for v in ("clients", "n3"))
    try:
        n3.subscribe("capbench/visit/#")
        client.subscribe("capbench/demo/rep/load/visit")
        client.ask("n1", "capbench/visit/net/n1/n3")
        client.ask("n1", "capbench/demo/rep/load/visit")
        deadline = time.monotonic() + 30
        while not client.received:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (answer,) = client.received
        assert msgspec.json.decode(answer[1])["outcome"] in ("ok", "fail")
        assert n3.received == []
    finally:
        client.close()
        n3.close()


def test_ports_are_published_on_loopback_only_and_every_container_has_its_limits(
    load: Installation,
) -> None:
    for name, container in load.containers().items():
        ports = container.attrs["NetworkSettings"]["Ports"] or {}
        published = [binding for bindings in ports.values() for binding in bindings or []]
        assert {each["HostIp"] for each in published} <= {"127.0.0.1"}, name
        assert bool(published) == (name in ("broker", "locust")), name
        host = container.attrs["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["Memory"] > 0, name
        assert host["PidsLimit"] == 64, name
        assert host["CapDrop"] == ["ALL"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["RestartPolicy"]["Name"] in ("", "no"), name
        assert not host["Privileged"], name
        assert container.attrs["Config"]["User"] not in ("", "0:0") or name == "setup", name
    assert load.containers()["setup"].attrs["HostConfig"]["NetworkMode"] == "none"


@pytest.mark.parametrize("service", ["n1", "locust-worker", "locust"])
def test_somebody_in_a_container_has_no_rights(load: Installation, service: str) -> None:
    found = within(load, service, RIGHTS)
    assert found.pop("children") < 64
    assert found == {
        "uid": 1000,
        "capabilities": 0,
        "no new privileges": "1",
        "writes the root": False,
        "has the engine": False,
        "logins": ["/data/login.json" if service == "n1" else "/clients/login.json"],
        "passwords in the environment": [],
    }
    load.wait_healthy()


def test_who_reaches_whom(load: Installation) -> None:
    """A link's port and the broker's are for nodes and load; Toxiproxy's API is the runner's."""
    api = [
        "toxiproxy-api:8474",
        *(f"{load.address('toxiproxy', each)}:8474" for each in ("nodes", "clients", "control")),
    ]
    links = ["broker:1883", "toxiproxy:20000"]
    page = ["locust:8089", "locust:5557"]
    elsewhere = [f"{load.address('broker', 'outside')}:1883"]
    everything = [*links, *api, *page, *elsewhere]

    def reached(ask: Any, service: str) -> set[str]:
        return {where for where, got in ask(load, service, REACH, *everything).items() if got}

    assert reached(within, "n1") == {*links}
    assert reached(within, "locust-worker") == {*links, *page}
    # The broker's own address is its own; the page is published, so that it has a way out.
    assert reached(within, "locust") == {*links, *page, *elsewhere}
    assert reached(beside, "broker") == {*links, *page, *elsewhere}
    own = {"toxiproxy-api:8474", f"{load.address('toxiproxy', 'control')}:8474"}
    assert reached(beside, "toxiproxy") == {*links, *page, *own}
    done = load.compose("run", "--rm", "--entrypoint", "python", "capbench", "-c", REACH, *api)
    answers = msgspec.json.decode(done.stdout.strip().splitlines()[-1])
    by_network = [answers[where] for where in api]
    assert by_network == [True, False, False, True], "that it is there at all"


@pytest.mark.parametrize("service", ["n1", "locust-worker"])
def test_nobody_but_the_runner_can_point_a_link_at_himself(
    load: Installation, service: str
) -> None:
    """A node connects to its link with its password: whoever moves the link's end is told it."""
    addresses = [load.address("toxiproxy", each) for each in ("nodes", "clients", "control")]
    said = within(load, service, STEAL, "toxiproxy", *addresses)
    assert set(said.values()) == {None}


def test_a_node_that_refuses_its_damaged_log_stays_down(installation: Installation) -> None:
    """And so does one that was killed: its exit code says which it was."""
    log = "/data/clusters/demo/log"
    n3 = installation.containers()["n3"]
    n3.kill()
    assert n3.wait()["StatusCode"] == 137
    intact = installation.read("n3", log)
    installation.write("n3", log, b"X" + intact[1:])
    try:
        for _ in range(2):
            n3.start()
            assert n3.wait(timeout=30)["StatusCode"] == 3
            assert b"this is not a capbench log" in n3.logs(tail=1)
        n3.reload()
        assert (n3.status, n3.attrs["RestartCount"]) == ("exited", 0)
        assert installation.read("n3", log) == b"X" + intact[1:], "it is left as it was found"
    finally:
        installation.write("n3", log, intact)
        n3.start()
    installation.wait_healthy()


# --- the other services ---


def test_the_runner_in_a_container_does_the_main_job(installation: Installation) -> None:
    (installation.results / "short.yaml").write_text(SHORT)
    done = installation.compose("run", "--rm", "capbench", "run", "results/short.yaml", "--json")
    (summary,) = msgspec.json.decode(done.stdout[done.stdout.index("{") :])["runs"]
    assert summary["verdict"] == "valid"
    folder = RunFolder(installation.results.parent / summary["folder"])
    assert folder.manifest().target == "compose"
    assert len(folder.operations()) > 400
    assert (folder.path / "report.html").stat().st_size > 10_000
    assert not any(folder.path.glob("**/cluster.json"))
    assert_whole(installation)


def test_a_cluster_that_only_has_addresses_is_measured_once(installation: Installation) -> None:
    """Without the engine: what kills processes is refused, and so is data from before."""
    file = installation.results / "by-addresses.yaml"

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return installation.compose(
            *("run", "--rm", "-e", "CAPBENCH_TARGET=attached", "capbench", "run", *more),
            check=False,
        )

    cut = "partition, groups: [[n1], [n2, n3, n4, n5]]"
    file.write_text(SHORT.replace(cut, "pause, nodes: all"))
    refused = run("results/by-addresses.yaml")
    assert "the target attached has no fault 'pause'" in refused.stdout + refused.stderr
    assert refused.returncode == 2
    file.write_text(SHORT)
    done = run("results/by-addresses.yaml", "--json")
    (summary,) = msgspec.json.decode(done.stdout[done.stdout.index("{") :])["runs"]
    assert summary["verdict"] == "valid"
    folder = RunFolder(installation.results.parent / summary["folder"])
    assert folder.manifest().target == "attached"
    (partition,) = folder.faults()
    assert outcomes(folder, "n1", {"cut": partition})["cut"] == {"info"}
    again = run("results/by-addresses.yaml")
    assert again.returncode == 3
    assert "the nodes hold data from before" in again.stdout + again.stderr
    other = run("healthy", "-p", "gossip")
    assert other.returncode == 3
    assert "has 5 of raft" in other.stdout + other.stderr


def test_locust_is_there_on_its_port(load: Installation) -> None:
    base = f"http://127.0.0.1:{load.locust_port}"
    form = {"user_count": 1, "spawn_rate": 1, "run_time": "10s", "rate": 100}
    assert requests.post(f"{base}/swarm", data=form, timeout=10).json()["success"]
    deadline = time.monotonic() + 60
    while True:
        told = requests.get(f"{base}/stats/requests", timeout=5).json()
        stats = told["stats"]
        done = {row["name"]: row["num_requests"] - row["num_failures"] for row in stats}
        if min(done.get("read", 0), done.get("write", 0)) > 50:
            break
        assert time.monotonic() < deadline, stats
        time.sleep(0.2)
    (tab,) = told["extended_stats"]
    # Faults of tests before this one stand there, too, as ended.
    rows = tab["data"]
    roles = {row["name"]: row["state"] for row in rows if row["name"] in NODES}
    assert sorted(roles) == list(NODES)
    assert all(row["state"] == "ended" for row in rows if row["name"].startswith("fault"))
    assert sorted(set(roles.values())) == ["follower", "leader"]
    requests.get(f"{base}/stop", timeout=10)


def test_tls_takes_no_plain_client_and_everybody_else(
    installation: Installation, tmp_path: Path
) -> None:
    """The last one, since another start takes its time: TLS stays on."""
    passwords = installation.login("n1")["password"]
    installation.compose("--profile", "load", "down")
    installation.compose("up", "-d", CAPBENCH_TLS="on")
    installation.wait_healthy()
    assert installation.login("n1")["password"] == passwords, "a second start keeps them"
    login = installation.login("clients")
    plain = paho.Client(CallbackAPIVersion.VERSION2)
    plain.username_pw_set(login["username"], login["password"])
    connected: list[object] = []
    plain.on_connect = lambda *a: connected.append(a)
    plain.connect("127.0.0.1", installation.broker_port)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        plain.loop(0.1)
    assert connected == []
    (tmp_path / "short.yaml").write_text(SHORT)
    done = capbench(
        installation, "run", "short.yaml", "--target", "compose", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (summary,) = msgspec.json.decode(done.stdout)["runs"]
    assert summary["verdict"] == "valid"
