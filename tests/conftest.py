"""Options of the whole suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--rewrite-transcripts``: write down what happens now; then review the difference."""
    parser.addoption(
        "--rewrite-transcripts", action="store_true", help="write tests/transcripts/**/*.txt anew"
    )
