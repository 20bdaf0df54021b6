"""Consistency checkers: from the history of a run to its verdict."""

from bench.checkers.verdict import check_run

__all__ = ["check_run"]
