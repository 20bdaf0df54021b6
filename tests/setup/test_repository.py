"""What is committed: pinned requirements, and nothing that belongs to one machine or one person."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"

# Written in pieces, so that this file does not hold what it looks for.
REGISTRIES = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "crates" + ".io",
    "proxy.golang" + ".org",
    "npm" + "js.org",
    "deb." + "debian.org",
    "maven" + ".org",
]
FORBIDDEN = {
    "registry host": re.compile("|".join(re.escape(host) for host in REGISTRIES)),
    "mark of a merge": re.compile(r"^(?:<{7} |>{7} )"),
    "path of one machine": re.compile(r"(?<![\w.~/-])/(?:work|tmp/w|root|home/\w+)/"),
    "secret": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{36}|\bxox[bap]-\w{10}"
        r"|(?i:\b(?:password|api_?key|secret|token)\b\s*[:=]\s*[\"'][\w+/-]{16,})"
    ),
}


def committed_texts() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: what is committed cannot be told")
    texts = {}
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            texts[name] = (ROOT / name).read_text(errors="replace")
    return texts


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_committed_file_holds_a(what: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in committed_texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if FORBIDDEN[what].search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("registry host", "--index-url https://" + REGISTRIES[0] + "/simple"),
        ("registry host", "https://files." + REGISTRIES[1] + "/packages"),
        ("mark of a merge", "<" * 7 + " HEAD"),
        ("path of one machine", "see /" + "work/main"),
        ("path of one machine", "'/" + "home/ann/results'"),
        ("secret", "api_key = '" + "0123456789abcdef0123'"),
        ("secret", "-----BEGIN RSA " + "PRIVATE KEY-----"),
    ],
)
def test_the_patterns_see_what_they_look_for(what: str, line: str) -> None:
    assert FORBIDDEN[what].search(line)


def test_there_is_no_lock_file_that_carries_addresses() -> None:
    assert "uv.lock" not in committed_texts()


# --- requirements -----------------------------------------------------------------------------


def pins(name: str) -> dict[str, list[tuple[Requirement, int]]]:
    """Of one requirements file: package -> its pins, one per kind of Python, and their hashes."""
    text = (REQUIREMENTS / f"{name}.txt").read_text().replace("\\\n", " ")
    found: dict[str, list[tuple[Requirement, int]]] = defaultdict(list)
    for line in text.splitlines():
        requirement, *hashes = line.split(" --hash=")
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one.strip()) for one in hashes), line
        parsed = Requirement(requirement.strip())
        assert [specifier.operator for specifier in parsed.specifier] == ["=="], line
        found[canonicalize_name(parsed.name)].append((parsed, len(hashes)))
    return dict(found)


@pytest.mark.parametrize("name", ["runtime", "dev", "embedded", "containers", "build", "uv"])
def test_every_requirement_is_pinned_with_its_hashes(name: str) -> None:
    assert [path.stem for path in REQUIREMENTS.iterdir()].count(name) == 1
    without = [str(pin) for some in pins(name).values() for pin, hashes in some if hashes == 0]
    assert without == []
    assert pins(name)


def project() -> dict[str, list[str]]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        text = tomllib.load(file)
    runtime = text["project"]["dependencies"]
    return {
        "runtime": runtime,
        "dev": [*runtime, *text["dependency-groups"]["dev"], *text["build-system"]["requires"]],
        "embedded": [*runtime, *text["project"]["optional-dependencies"]["embedded"]],
        "containers": [*runtime, *text["project"]["optional-dependencies"]["containers"]],
        "build": text["build-system"]["requires"],
    }


@pytest.mark.parametrize("name", ["runtime", "dev", "embedded", "containers", "build"])
def test_what_the_project_asks_for_is_pinned(name: str) -> None:
    pinned = pins(name)
    for wanted in map(Requirement, project()[name]):
        assert canonicalize_name(wanted.name) in pinned, f"{wanted}: run `make lock`"
        for pin, _ in pinned[canonicalize_name(wanted.name)]:
            version = next(iter(pin.specifier)).version
            assert wanted.specifier.contains(version), f"{pin} is not {wanted}: run `make lock`"


@pytest.mark.parametrize("name", ["runtime", "embedded", "containers", "build", "uv"])
def test_all_files_pin_the_same_versions_as_that_of_the_tests(name: str) -> None:
    tested = pins("dev")
    for package, some in pins(name).items():
        versions = {str(pin.specifier) for pin, _ in some}
        assert versions <= {str(pin.specifier) for pin, _ in tested[package]}, package


# --- Makefile, CI ------------------------------------------------------------------------------


def makefile_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))


def test_the_make_targets_that_documents_name_exist() -> None:
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        (path.name, target)
        for path in documents
        for target in re.findall(r"(?:^ {4,}\$? ?|`)make ([a-z-]+)", path.read_text(), re.MULTILINE)
    }
    assert ("README.md", "demo") in named
    assert ("README.md", "test") in named
    targets = makefile_targets()
    assert [(path, target) for path, target in named if target not in targets] == []


def test_help_shows_every_target() -> None:
    shown = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory", "help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {line.split()[0] for line in shown.splitlines()} == makefile_targets()
    phony = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == makefile_targets()


def test_set_up_without_python_says_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    make = subprocess.run(["sh", "-c", "command -v make"], capture_output=True, text=True)
    done = subprocess.run(
        [make.stdout.strip(), "-C", str(ROOT), "setup"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "No Python 3.11 or newer is on PATH" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_ci_is_a_bash_script_that_stops_at_the_first_failure() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()


def test_ci_types_the_commands_of_the_readme_in_its_order() -> None:
    typed = re.findall(r"^make ([a-z]+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    shown = re.findall(r"^    make ([a-z]+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown == ["demo", "test"]
    assert [each for each in typed if each in shown] == shown
