"""Which broker and which Toxiproxy a machine gets, decided by what its PATH holds."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from setup.bootstrap import (
    TOXIPROXY_MODULE,
    TOXIPROXY_SHA256,
    TOXIPROXY_VERSION,
    CannotSetUp,
    Machine,
    broker,
    download_toxiproxy,
    toxiproxy,
)

Program = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads fail at once, whatever this machine could reach."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("CAPBENCH_TOXIPROXY", raising=False)


# --- broker -----------------------------------------------------------------------------------


def fake_apt(program: Program, programs: Path, *, refuses: str = "nothing") -> Path:
    """An apt-get that writes down how it was called, and installs empty programs."""
    log = programs / "apt.log"
    program(
        "apt-get",
        f"""
        echo "$@" >> {log}
        case "$*" in *{refuses}*) echo "E: Unable to locate package {refuses}"; exit 100;; esac
        case "$*" in install*mosquitto*)
            printf '#!/bin/sh\\n' > {programs}/mosquitto; /bin/chmod +x {programs}/mosquitto;;
        esac""",
    )
    return log


def test_the_mosquitto_that_is_there_is_used(
    machine: Machine, program: Program, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = fake_apt(program, programs)
    mosquitto = program("mosquitto", "")
    program("mosquitto_rr", "")
    broker(dataclasses.replace(machine, is_root=True))
    assert capsys.readouterr().out == f"setup: broker       {mosquitto} is used\n"
    assert not log.exists()


def test_root_gets_mosquitto_and_its_clients_by_apt(
    machine: Machine, program: Program, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = fake_apt(program, programs)
    broker(dataclasses.replace(machine, is_root=True))
    update, install = log.read_text().splitlines()
    assert update.startswith("update")
    assert install.split()[-2:] == ["mosquitto", "mosquitto-clients"]
    assert f"{programs}/mosquitto is used" in capsys.readouterr().out


def test_a_user_is_told_and_gets_the_embedded_broker(
    machine: Machine, program: Program, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = fake_apt(program, programs)
    broker(machine)
    (line,) = capsys.readouterr().out.splitlines()
    assert "embedded broker (amqtt)" in line
    assert "sudo apt-get install mosquitto" in line
    assert not log.exists()


def test_where_apt_fails_the_embedded_broker_is_used(
    machine: Machine, program: Program, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_apt(program, programs, refuses="mosquitto")
    broker(dataclasses.replace(machine, is_root=True))
    said = capsys.readouterr().out
    assert "E: Unable to locate package mosquitto" in said
    assert "embedded broker (amqtt)" in said


def test_the_browser_is_asked_for_alone_so_that_its_failure_costs_nothing_else(
    machine: Machine, program: Program, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = fake_apt(program, programs, refuses="chromium")
    broker(dataclasses.replace(machine, is_root=True, wants_browser=True))
    installs = [line for line in log.read_text().splitlines() if line.startswith("install")]
    assert [line.split()[-1] for line in installs] == ["mosquitto-clients", "chromium"]
    assert "mosquitto is used" in capsys.readouterr().out


# --- Toxiproxy --------------------------------------------------------------------------------


def test_toxiproxy_on_path_comes_first(
    machine: Machine, program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = program("toxiproxy-server", "echo toxiproxy-server version 2.12.0")
    toxiproxy(tmp_path, machine)
    assert capsys.readouterr().out == f"setup: toxiproxy    {found} is used\n"
    assert not (tmp_path / ".cache").exists()


# Go, as far as set-up asks: its version, and to put the server into GOBIN.
GO = """
echo "$@" >> {log}
[ "$1" = env ] && echo {version} && exit
printf '#!/bin/sh\\necho toxiproxy-server version 2.12.0\\n' > "$GOBIN/server"
/bin/chmod +x "$GOBIN/server"
"""


def test_go_builds_it_once(
    machine: Machine, program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "go.log"
    program("go", GO.format(log=log, version="go1.23.4"))
    toxiproxy(tmp_path, machine)
    assert log.read_text().splitlines()[-1].split()[-1] == (
        f"{TOXIPROXY_MODULE}/cmd/server@v{TOXIPROXY_VERSION}"
    )
    assert [path.name for path in (tmp_path / ".cache").iterdir()] == ["toxiproxy-server"]

    log.unlink()
    toxiproxy(tmp_path, machine)
    assert capsys.readouterr().out.endswith("/.cache/toxiproxy-server is used\n")
    assert not log.exists()


def test_a_cached_copy_that_does_not_start_is_replaced(
    machine: Machine, program: Program, tmp_path: Path
) -> None:
    cached = tmp_path / ".cache" / "toxiproxy-server"
    cached.parent.mkdir()
    cached.write_bytes(b"\x7fELF of another processor")
    cached.chmod(0o755)
    program("go", GO.format(log="/dev/null", version="go1.30.1"))
    toxiproxy(tmp_path, machine)
    assert b"2.12.0" in cached.read_bytes()


@pytest.mark.parametrize(
    ("go", "reason"),
    [
        (None, "no Go on PATH"),
        ("echo go1.22.9", "is go1.22.9; building needs 1.23"),
        ("echo devel +abc", "is devel +abc; building needs 1.23"),
        ('[ "$1" = env ] && echo go1.26 && exit; echo "go: no such module"; exit 1', "no such mod"),
    ],
)
def test_where_nothing_helps_all_four_ways_are_named(
    machine: Machine, program: Program, tmp_path: Path, go: str | None, reason: str
) -> None:
    if go is not None:
        program("go", go)
    with pytest.raises(CannotSetUp) as caught:
        toxiproxy(tmp_path, machine)
    message = str(caught.value)
    assert reason in message
    assert "the download failed" in message
    for way in (
        "on PATH",
        ".cache/toxiproxy-server",
        "Go 1.23",
        f"v{TOXIPROXY_VERSION}/toxiproxy-server-linux-amd64",
    ):
        assert way in message
    assert list((tmp_path / ".cache").iterdir()) == []


@pytest.fixture
def release(tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    """A release folder on loopback, and the binary that lies in it."""
    folder = tmp_path / "release"
    folder.mkdir()
    binary = b"#!/bin/sh\necho toxiproxy-server version 2.12.0\n"
    (folder / "toxiproxy-server-linux-amd64").write_bytes(binary)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", binary
        server.shutdown()
        thread.join()


def test_a_download_is_checked_and_made_executable(
    machine: Machine, release: tuple[str, bytes], tmp_path: Path
) -> None:
    address, binary = release
    target = tmp_path / "toxiproxy-server"
    checksums = {machine.kind: hashlib.sha256(binary).hexdigest()}
    download_toxiproxy(target, machine, address, checksums)
    assert target.read_bytes() == binary
    assert target.stat().st_mode & 0o111


def test_a_download_that_is_not_the_release_is_refused(
    machine: Machine, release: tuple[str, bytes], tmp_path: Path
) -> None:
    address, binary = release
    target = tmp_path / "toxiproxy-server"
    with pytest.raises(CannotSetUp, match=hashlib.sha256(binary).hexdigest()):
        download_toxiproxy(target, machine, address)
    assert not target.exists()


def test_a_download_that_is_not_there_says_so(
    machine: Machine, release: tuple[str, bytes], tmp_path: Path
) -> None:
    other = dataclasses.replace(machine, kind="linux-arm64")
    with pytest.raises(CannotSetUp, match=r"download failed.*File not found"):
        download_toxiproxy(tmp_path / "toxiproxy-server", other, release[0])


def test_no_download_without_a_known_checksum(machine: Machine, tmp_path: Path) -> None:
    other = dataclasses.replace(machine, kind="plan9-mips")
    with pytest.raises(CannotSetUp, match="no checksum is known"):
        download_toxiproxy(tmp_path / "toxiproxy-server", other)
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in TOXIPROXY_SHA256.values())
