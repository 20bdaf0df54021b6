"""Options of the whole suite, and the order of its files."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import pytest

OF_THE_USER = ("CLUSTER_FILE", "INSIDE", "PROJECT", "RESULTS", "RUNNER_LOGIN", "TARGET", "TLS")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--rewrite-transcripts``: write down what happens now; then review the difference."""
    parser.addoption(
        "--rewrite-transcripts", action="store_true", help="write tests/transcripts/**/*.txt anew"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several workers, files that mostly wait (for containers, clusters, Locust) take turns
    with those that compute. The long ones of both begin, so that none is left for the end."""
    if not hasattr(config, "workerinput"):
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)

    def marked(name: str, tests: list[pytest.Item]) -> int:
        return sum(test.get_closest_marker(name) is not None for test in tests)

    in_turn = sorted(files.values(), key=lambda tests: not marked("long", tests))
    waiting = [tests for tests in in_turn if marked("live", tests)]
    computing = [tests for tests in in_turn if not marked("live", tests)]
    items[:] = chain.from_iterable(
        chain.from_iterable(zip_longest(waiting, computing, fillvalue=[]))
    )


@pytest.fixture(scope="session", autouse=True)
def _nobody_elses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a neighbour's killed run left is no business of these tests, nor is what the user's
    shell has set, nor that a shell starts its background jobs deaf to SIGINT, which all that they
    start inherits."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        for name in OF_THE_USER:
            patch.delenv(f"CAPBENCH_{name}", raising=False)
        notes = tmp_path_factory.mktemp("notes") / "notes"
        patch.setenv("CAPBENCH_NOTES", str(notes))
        yield
