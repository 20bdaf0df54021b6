"""docs/ADDING_A_FAULT.md: what it says, done to a copy of the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.clusters.capabilities import TARGETS as HAS
from chaos.targets.table import TARGETS
from nodes.faults import capabilities
from nodes.faults.capabilities import Capability

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "ADDING_A_FAULT.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)


def added(text: str, after: str, line: str) -> str:
    """``text`` with a line more behind the first ``after``."""
    assert line not in text
    assert after in text
    return text.replace(after, f"{after}\n{line}", 1)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the code that the guide changes."""
    for package in ("chaos", "nodes", "tests/chaos"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def run(copy: Path, command: str) -> str:
    """What the command prints in the copy. It must end with 0."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def append(path: Path, code: str) -> None:
    path.write_text(path.read_text() + "\n\n" + code)


def test_the_guide_makes_a_fault(copy: Path) -> None:
    """Class, import and `AnyFault`, quick test, and the commands of the third part."""
    kind, known, test, *_ = blocks("python")
    append(copy / "nodes" / "faults" / "links.py", kind)
    catalogue = copy / "nodes" / "faults" / "catalogue.py"
    begin, line, _, _, union, first, *_ = known.splitlines()
    catalogue.write_text(added(added(catalogue.read_text(), begin, line), union, f"{first}\n    |"))
    append(copy / "tests" / "chaos" / "test_faults.py", test)
    pytest, capbench = blocks("sh")[0].splitlines()
    said = run(copy, pytest.replace(".venv/bin/pytest", f"{sys.executable} -m pytest -q"))
    assert "2 passed" in said
    said = run(copy, capbench.replace("capbench", f"{sys.executable} -m chaos.commands.main"))
    assert "trickle  (on attached, compose, lab, local)" in said


IMPORT = "from chaos.clusters.broker"

NEMESIS = """
import os, pathlib, sys, time
from bench.record.run_folder import RunFolder
from chaos.clusters.local import LocalCluster
from chaos.targets.nemesis import FaultPlayer, PlannedFault
from nodes.faults.processes import Crowd
from nodes import registry

folder = RunFolder(pathlib.Path(sys.argv[1]))
raft = registry.get("raft")
with LocalCluster(raft, ("n1",), folder.path / "c", cluster="crowd", proxied=False) as cluster:
    pid = cluster.processes.pid("n1")
    before = os.sched_getaffinity(pid)
    player = FaultPlayer([PlannedFault(0, 0.0, 1.0, Crowd(nodes="all"))], cluster, folder, seed=1)
    assert player.begin(0, time.monotonic_ns()), player.errors
    assert os.sched_getaffinity(pid) == {0}, os.sched_getaffinity(pid)
    player.end(0)
    assert not player.errors, player.errors
    assert os.sched_getaffinity(pid) == before
"""


@pytest.mark.live
def test_the_guide_makes_a_fault_with_a_capability_of_its_own(copy: Path) -> None:
    """A capability that nothing here knows of: through the nemesis, its methods reach a real
    node."""
    *_, capability, methods, fault = blocks("python")
    append(copy / "nodes" / "faults" / "capabilities.py", capability)
    targets = copy / "chaos" / "clusters" / "capabilities.py"
    text = targets.read_text()
    for before, after in (
        ("    CanInject,\n", "    CanCrowd,\n    CanInject,\n"),
        ("DamagesLogs\n):", "DamagesLogs, CanCrowd\n):"),
    ):
        assert before in text
        text = text.replace(before, after, 1)
    targets.write_text(text)
    local = copy / "chaos" / "clusters" / "local.py"
    begin = "    # --- start and stop ---\n"
    text = local.read_text().replace(begin, f"{methods}\n{begin}", 1)
    local.write_text(
        text if "\nimport os\n" in text else text.replace(IMPORT, f"import os\n{IMPORT}", 1)
    )
    processes = copy / "nodes" / "faults" / "processes.py"
    processes.write_text(
        processes.read_text().replace("    CanKill,\n", "    CanCrowd,\n    CanKill,\n", 1)
    )
    append(processes, fault)
    script = copy / "nemesis.py"
    script.write_text(NEMESIS)
    (copy / "run").mkdir()
    run(copy, f"{sys.executable} {script} run")
    found = run(
        copy,
        f"{sys.executable} -c 'import json; from chaos.clusters.capabilities import works_on;"
        " from nodes.faults.processes import Crowd; print(json.dumps(works_on(Crowd.NEEDS)))'",
    )
    assert json.loads(found) == ["local"]


def test_the_guide_names_the_capabilities_as_they_are() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|[^|]*\| ?(.*?) ?\| ?(.*?) ?\| ?(.*?) ?\| ?(.*?) ?\| ?(.*?) ?\|$",
        GUIDE,
        flags=re.MULTILINE,
    )
    said = {name: [cell == "yes" for cell in cells] for name, *cells in rows}
    kinds = [kind for kind in vars(capabilities).values() if isinstance(kind, type)]
    found = {
        kind.__name__: [
            issubclass(TARGETS[target].cluster, kind)
            for target in ("local", "compose", "attached", "sim", "lab")
        ]
        for kind in kinds
        if issubclass(kind, Capability) and kind.__name__[:2] != "Of" and kind is not Capability
    }
    assert said == found


def test_a_target_has_what_its_clusters_are_capable_of() -> None:
    for name, target in TARGETS.items():
        kinds = [kind for kind in vars(capabilities).values() if isinstance(kind, type)]
        can = {kind for kind in kinds if issubclass(kind, Capability) and kind.__name__[:2] != "Of"}
        declared = HAS[name]
        assert {kind for kind in can if issubclass(target.cluster, kind)} == {
            kind for kind in can if issubclass(declared, kind)
        }
