"""What samples of stacks say of the parts of a process, and what is said where none can be had."""

from __future__ import annotations

import pytest

from bench.measure import cpu_profile

LOOP = "main (/x/nodes/__main__.py);_turn (/x/nodes/runtime/driver.py:245)"


def test_a_sample_counts_for_the_innermost_frame_that_belongs_to_a_part() -> None:
    lines = [
        f"{LOOP};step (/x/nodes/protocols/raft.py:300);sorted (builtin) 30",
        f"{LOOP};encode (/x/nodes/wire/codec.py:52) 20",
        f"{LOOP};publish (/x/nodes/runtime/mqtt.py:170);publish (/y/paho/mqtt/client.py:1700) 25",
        f"{LOOP};publish (/y/paho/mqtt/client.py:1700);Client._sock_send (/y/paho/client.py:1) 15",
        "run (/z/threading.py);commit (/x/nodes/runtime/durable_log.py:130) 5",
        "main (/x/nodes/__main__.py) 5",
        "",
    ]
    found = cpu_profile.shares(lines)
    assert found == {
        "protocol": 0.30,
        "frames": 0.20,
        "sockets": 0.15,
        "MQTT": 0.25,
        "log": 0.05,
        cpu_profile.OTHER: 0.05,
    }
    assert cpu_profile.shares([]) == {}


def test_every_file_that_a_part_names_is_there() -> None:
    from tests.live.conftest import ROOT

    for files in cpu_profile.PARTS.values():
        for file in files:
            assert (ROOT / file).exists() or not file.startswith(("nodes/", "bench/")), file


def test_without_py_spy_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert cpu_profile.main([]) == 3
    assert "pip install py-spy" in capsys.readouterr().err


def test_a_protocol_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cpu_profile.main(["--protocol", "rafft"]) == 2
    assert "rafft" in capsys.readouterr().err
