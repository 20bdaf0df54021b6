"""`capbench doctor` tells what is there, on this machine and on poorer ones."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from chaos.commands import doctor
from chaos.commands.doctor import Finding, examine, is_ready, table

Program = Callable[[str, str], Path]


def named(findings: list[Finding], name: str) -> Finding:
    (found,) = (finding for finding in findings if finding.name == name)
    return found


def shown(findings: list[Finding]) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table(findings))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_where_set_up_ran_a_run_can_start() -> None:
    findings = examine()
    assert [f for f in findings if f.required and f.status == "missing"] == []
    assert is_ready(findings)
    libraries = [f for f in findings if f.name.startswith("library ")]
    assert {f.status for f in libraries} == {"ok"}
    assert {"library pandas", "library locust", "library paho-mqtt"} <= {f.name for f in libraries}
    assert all(f.remedy for f in findings if f.status != "ok")
    assert not any(f.remedy for f in findings if f.status == "ok")
    assert msgspec.json.decode(msgspec.json.encode(findings), type=list[Finding]) == findings


def test_the_table_shows_every_trouble_and_folds_what_is_well() -> None:
    findings = [
        Finding(name="library one", status="ok", detail="1.0", required=True),
        Finding(name="library two", status="ok", detail="2.0", required=True),
        Finding(name="library bad", status="missing", detail="gone", remedy="get it"),
        Finding(name="docker", status="missing", detail="none", remedy="install it"),
        Finding(name="toxiproxy", status="missing", detail="no", remedy="setup", required=True),
        Finding(name="broker", status="fallback", detail="slow", remedy="better", required=True),
    ]
    rows = [" ".join(line.split()) for line in shown(findings).splitlines()[1:]]
    assert rows == [
        "ok libraries 2 as pinned",
        "optional library bad gone",
        "-> get it",
        "optional docker none",
        "-> install it",
        "missing toxiproxy no",
        "-> setup",
        "fallback broker slow",
        "-> better",
    ]
    assert not is_ready(findings)
    assert is_ready([f for f in findings if f.name != "toxiproxy"])


def test_programs_are_asked_for_their_version(
    program: Program, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("mosquitto", "echo mosquitto version 9.8.7; echo more; exit 3")
    program("toxiproxy-server", "echo toxiproxy-server version 9.9.9")
    program("mosquitto_rr", "echo speaks v3.1.1; echo mosquitto_rr version 9.8.7 here; exit 1")
    program("docker", "echo daemon is down >&2; exit 1")
    monkeypatch.setenv("PATH", str(programs))
    findings = examine()
    assert named(findings, "broker").detail == f"Mosquitto 9.8.7, {programs}/mosquitto"
    assert named(findings, "toxiproxy").detail == f"9.9.9, {programs}/toxiproxy-server"
    assert named(findings, "mosquitto_rr").detail == f"9.8.7, {programs}/mosquitto_rr"
    assert named(findings, "docker").status == "missing"
    assert "does not answer" in named(findings, "docker").detail
    assert named(findings, "chromium").status == "missing"
    assert is_ready(findings)


def test_a_toxiproxy_that_does_not_start_is_missing(
    program: Program, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("toxiproxy-server", "exit 126")
    monkeypatch.setenv("PATH", str(programs))
    findings = examine()
    assert named(findings, "toxiproxy").status == "missing"
    assert not is_ready(findings)


def test_results_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named(examine(), "results").status == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "results").write_text("a file, not a folder")
    finding = named(examine(), "results")
    assert (finding.status, finding.required) == ("missing", True)


def test_a_library_that_cannot_be_imported_is_found_by_importing_it() -> None:
    failures = doctor._import_failures(["json", "no_such_module"])
    assert failures["json"] == ""
    assert failures["no_such_module"].startswith("ModuleNotFoundError")
    finding = doctor._library("rich", "ImportError: broken", [])
    assert finding.status == "missing"
    assert "ImportError: broken" in finding.detail


def test_a_version_other_than_the_pinned_one_is_named() -> None:
    finding = doctor._library("rich", "", ["0.0.1", "0.0.2"])
    assert finding.status == "fallback"
    assert "tested with 0.0.1 or 0.0.2" in finding.detail
    assert doctor._pins()["rich"]


def test_a_machine_without_namespaces_has_no_lab(
    program: Program, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("unshare", "echo 'unshare failed: Operation not permitted' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    lab = named(examine(), "lab")
    assert lab.status == "missing"
    assert not lab.required
    assert "Operation not permitted" in lab.detail
