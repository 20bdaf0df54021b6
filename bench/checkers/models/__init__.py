"""Sets, counters, queues, locks, banks and the like: from a history to a verdict."""

from bench.checkers.models.check import check_model

__all__ = ["check_model"]
