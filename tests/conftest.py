"""Options of the whole suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--rewrite-transcripts``: write down what happens now; then review the difference."""
    parser.addoption(
        "--rewrite-transcripts", action="store_true", help="write tests/transcripts/**/*.txt anew"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For runs in several processes: a file's tests share their fixtures in one process, and all
    that start a cluster run one after the other, for a machine has no more than one to give."""
    for item in items:
        group = "live" if item.get_closest_marker("live") else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
