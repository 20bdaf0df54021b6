"""Is a slower commit found, and is nothing found between equal ones? With live clusters.

    python -m tests.live.planted_slowdown [--repeat 8] [--tries 10] [--keep FOLDER]

Clones of this commit are measured in pairs. One try has 20 ms of sleep planted in raft's handler of
requests: `capbench report --against` and `capbench history` must both call it worse. In ``--tries``
more the clones are equal, and both must find nothing in nine of ten.

The two versions are run in turns, the first of each pair too, since a machine has slow minutes;
a busy one then slows both. The figure that shows it is p10: with a load average of 8 to 12 on two
cores, the p10 of eight runs of one commit were 1.6 to 3.1 ms, their p50 2.7 to 12.7 ms. Nothing
finds 20 ms where even the fastest tenth takes up to 430 ms, as at a load average of 14. It takes
about 20 s per pair on a quiet machine: `make nightly` runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from nodes.runtime.scratch import scratch
from reports.data.difference import least_runs

ROOT = Path(__file__).resolve().parents[2]
HANDLER = ROOT / "nodes/protocols/raft/replica.py"
SIGNATURE = "    def on_request(self, request: Request) -> None:\n"
SLEEP = '        __import__("time").sleep(0.02)\n'
FIGURES = 7
"""Of a run without faults, of which one alone might have changed."""
EXPERIMENT = """
title: A short load without faults
shows: How long an operation takes
protocols: [raft]
nodes: 3
seed: 1
workload:
  arrival: {open_loop: 40/s, in_flight: 256}
  keys: {count: 20}
  mix: {read: 50, write: 50}
  timeout: 2s
duration: 4s
schedule: []
objectives:
  always: {consistency: claimed}
"""
GIT = ("-c", "user.name=capbench", "-c", "user.email=capbench@localhost")


def git(folder: Path, *arguments: str) -> None:
    """Run git there. Raises CalledProcessError."""
    subprocess.run(["git", "-C", str(folder), *GIT, *arguments], check=True, capture_output=True)


def clone(folder: Path, name: str, *, slow: bool) -> Path:
    """This commit with another on top, which changes nothing unless it is to be ``slow``."""
    path = folder / name
    git(folder, "clone", "--quiet", "--shared", str(ROOT), str(path))
    (path / ".cache").symlink_to(ROOT / ".cache")
    if slow:
        handler = path / HANDLER.relative_to(ROOT)
        text = handler.read_text()
        assert text.count(SIGNATURE) == 1, "the handler has another name now"
        handler.write_text(text.replace(SIGNATURE, SIGNATURE + SLEEP))
    git(path, "commit", "--quiet", "--allow-empty", "--all", "-m", name)
    # Else the first run of each would compile all of it, and be slower than the others.
    rooms = ("nodes", "bench", "reports", "chaos")
    subprocess.run([sys.executable, "-m", "compileall", "-q", *rooms], cwd=path, check=True)
    return path


def capbench(project: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command of the capbench in that folder."""
    code = "from chaos.commands.main import main; main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def measure(sides: dict[str, Path], results: Path, repeat: int) -> None:
    """Run each project ``repeat`` times, in turns, into ``results/<side>/<seed>``."""
    experiment = results / "short.yaml"
    experiment.parent.mkdir(parents=True, exist_ok=True)
    experiment.write_text(EXPERIMENT)
    for seed in range(1, repeat + 1):
        pair = list(sides.items()) if seed % 2 else list(sides.items())[::-1]
        for side, project in pair:
            given = ("-p", "raft", "--seed", seed, "-o", results / side / str(seed))
            done = capbench(project, "run", experiment, *given)
            # A busy machine may leave too little load for a verdict (5): figures are still figures.
            assert done.returncode in (0, 1, 5), done.stdout + done.stderr


def judged(results: Path) -> list[tuple[int, str]]:
    """Exit code and words of `report --against` and of `history`."""
    page = ("-o", results / "page.html")
    compared = capbench(ROOT, "report", results / "after", "--against", results / "before", *page)
    over_time = capbench(ROOT, "history", results / "before", results / "after", *page)
    return [(done.returncode, done.stdout + done.stderr) for done in (compared, over_time)]


def worse(words: str) -> list[str]:
    """The lines that name a change."""
    return [
        line.strip() for line in words.splitlines() if " worse: " in line or " better: " in line
    ]


@contextlib.contextmanager
def place(keep: Path | None) -> Iterator[Path]:
    """Where clones and results are; removed afterwards unless they are to be kept."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with scratch("planted") as folder:
        yield folder


def main() -> int:
    """Return 0 if the slowdown was found and at most one try in ten found what is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=8, help="runs of each commit")
    parser.add_argument("--tries", type=int, default=10, help="pairs of equal commits")
    parser.add_argument("--keep", type=Path, help="a new folder for clones and results")
    options = parser.parse_args()
    least = least_runs(FIGURES)
    print(
        f"{options.repeat} runs of each commit; {least} are needed for one change among {FIGURES}"
    )
    if options.repeat < least:
        parser.error(f"--repeat {options.repeat}: no test can show anything, {least} at least")
    began = time.monotonic()
    with place(options.keep) as folder:
        base = clone(folder, "base", slow=False)
        slow, same = clone(folder, "slow", slow=True), clone(folder, "same", slow=False)
        measure({"before": base, "after": slow}, folder / "slow-results", options.repeat)
        planted = judged(folder / "slow-results")
        for name, (code, words) in zip(("--against", "history"), planted, strict=True):
            print(f"planted, {name}: exit code {code}", *worse(words), sep="\n  ", flush=True)
        found = 0
        for number in range(1, options.tries + 1):
            results = folder / f"same-{number}"
            measure({"before": base, "after": same}, results, options.repeat)
            equal = judged(results)
            named = [line for _, words in equal for line in worse(words)]
            found += any(code == 1 for code, _ in equal) or bool(named)
            print(f"equal, try {number}: exit codes {[c for c, _ in equal]}", *named, sep="\n  ")
            sys.stdout.flush()
    seen = all(code == 1 and "latency p10" in words for code, words in planted)
    print(f"planted: {'found by both' if seen else 'MISSED'}; equal: {found} of {options.tries}")
    print(f"in {time.monotonic() - began:.0f} s")
    return 0 if seen and found <= options.tries / 10 else 1


if __name__ == "__main__":
    sys.exit(main())
