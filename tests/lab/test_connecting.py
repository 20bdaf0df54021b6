"""Nodes never notice that a proxy takes their connections."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.children import environment
from chaos.clusters.lab import sandbox
from chaos.clusters.lab.listening import ports

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.live
def test_who_connects_meets_the_node_or_the_cut_and_never_the_proxy() -> None:
    try:
        sandbox.refuse()
        nft = sandbox.nft()
    except sandbox.NoLab as error:
        pytest.skip(str(error))
    done = subprocess.run(
        sandbox.command([sys.executable, "-P", "-m", "tests.lab.connecting", *nft]),
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *said, counted = done.stdout.splitlines()
    assert said == [
        "nobody listens: ConnectionRefusedError",
        "listens: connected",
        "cut one way: TimeoutError",
        "cut the other way: TimeoutError",
        "healed: connected",
        "listens no more: ConnectionRefusedError",
    ]
    assert counted == "attempts counted: 6"


HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
V4 = HEAD + (
    "   0: 02004D0A:0B40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0\n"
    "   1: 00000000:0F30 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0\n"
    "   2: 0100007F:0885 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0\n"
    "   3: 02004D0A:1F90 0100007F:0885 01 00000000:00000000 00:00000000 00000000 0\n"
    "   4: 0200"
)
V6 = HEAD + (
    "   0: 0000000000000000FFFF000002004D0A:0B40 00000000:0000 0A\n"
    "   1: 00000000000000000000000000000000:0F30 00000000:0000 0A\n"
)


def test_only_who_takes_connections_to_the_node_counts() -> None:
    assert list(ports(V4, "10.77.0.2")) == [0x0B40, 0x0F30]
    assert list(ports(V4, "10.77.0.1")) == [0x0F30]
    assert list(ports(V6, "10.77.0.2")) == [0x0B40, 0x0F30]
    assert list(ports(HEAD, "10.77.0.2")) == []
