"""`make bench-save` and `make bench-compare`: has the code become slower on this machine?

    python -m bench.compare --save [SUITE ...]
    python -m bench.compare [SUITE ...]

A run of the suites is saved in ``results/bench/saved.json`` (in pytest-benchmark's format). Later
runs compare each benchmark's median with it. If one is slower by more than 20%, the suites run
again, at most twice, since the machine may have been busy: it is a regression only if it is too
slow every time.

Exit code 0: no regression; 1: regressions, one line each; 2: nothing to compare with, or a saved
run of another machine; 3: a benchmark failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.__main__ import SUITES, run_suites
from bench.record.files import write_whole
from nodes.errors import InvalidInput
from nodes.runtime.scratch import scratch

SAVED = Path("results/bench/saved.json")
PERCENT = 20.0
TIMES_AGAIN = 2
REGRESSION, NOTHING_TO_COMPARE, FAILED = 1, 2, 3

Medians = dict[str, float]
"""Benchmark (its pytest id) -> median round, in seconds of CPU or wall time, as measured."""


class NotComparable(InvalidInput):
    """There is no saved run of this machine: says what to do."""


def machine(info: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in pytest-benchmark's machine_info for figures to be comparable."""
    cpu = info.get("cpu", {})
    return {
        "host": info.get("node"),
        "processor": cpu.get("brand_raw"),
        "cores": cpu.get("count"),
        "python": info.get("python_version"),
    }


def medians(run: dict[str, Any]) -> Medians:
    """The median of each benchmark of a run."""
    return {each["fullname"]: each["stats"]["median"] for each in run["benchmarks"]}


def read_saved(path: Path) -> dict[str, Any]:
    """The saved run. Raises NotComparable."""
    try:
        run = json.loads(path.read_bytes())
        machine(run["machine_info"])
        medians(run)
    except FileNotFoundError:
        raise NotComparable(f"{path}: not found; save a run first: make bench-save") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotComparable(f"{path}: not a saved run; save one: make bench-save") from None
    return dict(run)


def refuse_other_machine(saved: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Raises NotComparable if the runs are from two machines."""
    then, here = machine(saved["machine_info"]), machine(now["machine_info"])
    for name, value in then.items():
        if value != here[name]:
            raise NotComparable(
                f"{path} is of another machine ({name} {value!r}, here {here[name]!r}); "
                "save a run of this one: make bench-save"
            )


def slower(before: Medians, now: Medians, percent: float) -> Medians:
    """The benchmarks whose median grew by more than ``percent``, and by which factor."""
    return {
        name: now[name] / before[name]
        for name in sorted(now)
        if name in before and now[name] > before[name] * (1 + percent / 100)
    }


def measure(suites: list[str], keep: Path | None = None) -> dict[str, Any]:
    """Run suites, given by name or path; the result is also saved in the file ``keep``. Raises
    CalledProcessError."""
    with scratch("compare") as folder:
        raw = folder / "run.json"
        run_suites(suites, raw)
        text = raw.read_text()
    if keep is not None:
        keep.parent.mkdir(parents=True, exist_ok=True)
        write_whole(keep, text.encode())
    return dict(json.loads(text))


def compare(suites: list[str], path: Path, percent: float) -> int:
    """Measure, compare with the saved run, and print. Raises NotComparable, CalledProcessError."""
    saved = read_saved(path)
    run = measure(suites)
    refuse_other_machine(saved, run, path)
    before, now = medians(saved), medians(run)
    suspects = slower(before, now, percent)
    for _ in range(TIMES_AGAIN):
        if suspects:
            again = medians(measure(suites))
            now |= {name: min(now[name], again.get(name, now[name])) for name in suspects}
            suspects = slower(before, now, percent)
    common = sorted(name for name in now if name in before)
    for name in common:
        print(f"{now[name] / before[name]:6.2f} x  {name}")
    for name in sorted(now.keys() - before.keys()):
        print(f"   new    {name}: not in the saved run")
    for name, times in suspects.items():
        print(
            f"bench-compare: {name} takes {100 * (times - 1):.0f}% longer than in {path} "
            f"(more than {percent:g}%)",
            file=sys.stderr,
        )
    print(f"{len(suspects)} of {len(common)} benchmarks are slower by more than {percent:g}%")
    return REGRESSION if suspects else 0


def main(arguments: list[str] | None = None) -> int:
    """Save or compare."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"default: {' '.join(SUITES)}")
    parser.add_argument("--save", action="store_true", help="keep this run, to compare with later")
    parser.add_argument("--file", type=Path, default=SAVED, help=f"the saved run: {SAVED}")
    parser.add_argument("--percent", type=float, default=PERCENT, help="what counts as slower")
    options = parser.parse_args(arguments)
    suites = options.suites or list(SUITES)
    try:
        if options.save:
            count = len(medians(measure(suites, options.file)))
            print(f"{count} benchmarks saved in {options.file}")
            return 0
        return compare(suites, options.file, options.percent)
    except NotComparable as error:
        print(f"bench-compare: {error}", file=sys.stderr)
        return NOTHING_TO_COMPARE
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"bench-compare: a benchmark failed, see above ({error})", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
