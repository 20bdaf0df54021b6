"""Which worker has which users, as Locust's master deals them out."""

from __future__ import annotations

from typing import Any

from locust.dispatch import UsersDispatcher


class SettledUsers(UsersDispatcher):
    """Users stay with the workers that were there when the test began. Locust's own dispatcher
    deals all users out anew whenever a worker comes, goes missing or is back, and so stops some of
    them in the middle of their part of the plan."""

    def add_worker(self, worker_node: Any) -> None:
        """It gets no users in this test."""

    def remove_worker(self, worker_node: Any) -> None:
        """Its users are lost with it."""
