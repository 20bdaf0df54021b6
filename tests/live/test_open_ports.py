"""What each target opens to the network: nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from chaos.clusters.local import LocalCluster
from nodes import registry
from tests.live.conftest import ROOT


@pytest.mark.live
def test_a_local_cluster_listens_on_loopback_only(tmp_path: Path) -> None:
    with LocalCluster(
        registry.get("gossip"), registry.node_ids(2), tmp_path, cluster="ports"
    ) as cluster:
        addresses = {
            connection.laddr.ip
            for name in ("n1", "n2", "broker", "toxiproxy")
            for process in [psutil.Process(cluster.processes.pid(name))]
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert cluster.monitor.ready()
    assert addresses == {"127.0.0.1"}


def test_the_simulator_opens_no_port(tmp_path: Path) -> None:
    watched = (
        "import socket, sys\n"
        "def refuse(*_):\n"
        "    raise SystemExit('it wants to talk to somebody')\n"
        "socket.socket.listen = socket.socket.connect = refuse\n"
        "from chaos.commands.main import main\n"
        "sys.argv = ['capbench', 'run', 'healthy', '-p', 'gossip', '--target', 'sim', '--json']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", watched],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"verdict"' in done.stdout
