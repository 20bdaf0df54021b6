"""Chaos Toolkit plays our faults: its own command, the experiment of the documents, a real
cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.live.conftest import ROOT, capbench
from tests.waiting import patience

pytestmark = pytest.mark.live
EXAMPLE = ROOT / "docs" / "chaos-toolkit.json"


def chaos_run(experiment: Path, cwd: Path) -> tuple[int, dict[str, Any]]:
    """The exit code of `chaos run`, and its journal."""
    command = Path(sys.executable).with_name("chaos")
    journal = cwd / "journal.json"
    journal.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *(command, "--no-version-check", "--no-log-file"),
            *("run", "--rollback-strategy", "always", experiment),
        ],
        cwd=cwd,
        # As if it were installed; and no settings or data of whoever runs the tests.
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=patience(120),
        check=False,
    )
    assert journal.exists(), done.stderr
    return done.returncode, msgspec.json.decode(journal.read_bytes())


def played(journal: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {run["activity"]["name"]: run for run in [*journal["run"], *journal["rollbacks"]]}


def changed(directory: Path, what: str, into: str) -> Path:
    """The example with something else in it."""
    path = directory / "changed.json"
    text = EXAMPLE.read_text()
    assert what in text
    path.write_text(text.replace(what, into))
    return path


def test_chaos_run_plays_our_faults_on_a_cluster_that_stays(workspace: Path) -> None:
    assert capbench("up", "--protocol", "raft", "--nodes", "3", cwd=workspace).returncode == 0
    code, journal = chaos_run(EXAMPLE, workspace)
    assert (code, journal["status"], journal["deviated"]) == (0, "completed", False), journal
    activities = played(journal)
    assert {each["status"] for each in activities.values()} == {"succeeded"}
    cut = activities["cut-n1-off"]["output"]
    assert cut["groups"] == [["n1"], ["n2", "n3"]]
    assert cut["started_ns"] <= cut["applied_ns"]
    assert activities["which-faults-are-on"]["output"] == ["partition"]
    assert activities["write-at-n1"]["output"] == "info"
    (healed,) = activities["heal"]["output"]
    assert healed["number"] == cut["number"]
    assert healed["healed_ns"] > cut["applied_ns"]

    # The node of the hypothesis itself is cut off: Chaos Toolkit sees it, and heals.
    other = changed(workspace, '[["n1"], ["n2", "n3"]]', '[["n3"], ["n1", "n2"]]')
    code, journal = chaos_run(other, workspace)
    assert (code, journal["status"], journal["deviated"]) == (1, "completed", True)
    assert len(played(journal)["heal"]["output"]) == 1

    # What is no fault makes the activity fail, with the line that says what there is.
    _, journal = chaos_run(changed(workspace, '"partition"', '"parttion"'), workspace)
    failed = played(journal)["cut-n1-off"]
    assert failed["status"] == "failed"
    assert "parttion" in str(failed["exception"])
    assert "replies-lost, requests-lost, reset" in str(failed["exception"])

    # Without a cluster the steady state is not there.
    assert capbench("down", cwd=workspace).returncode == 0
    code, journal = chaos_run(EXAMPLE, workspace)
    assert (code, journal["status"]) == (1, "failed")
    (probe,) = journal["steady_states"]["before"]["probes"]
    assert "capbench up" in str(probe["exception"])
