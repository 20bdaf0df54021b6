"""Consistency checkers: from the history of a run to its verdict."""

from bench.checkers.standalone import check_history
from bench.checkers.verdict import check_run

__all__ = ["check_history", "check_run"]
