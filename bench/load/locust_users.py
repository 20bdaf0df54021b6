"""How Locust's master assigns users to workers."""

from __future__ import annotations

from typing import Any

from locust.dispatch import UsersDispatcher


class SettledUsers(UsersDispatcher):
    """Users stay with the workers present at the start of the test. Locust's own dispatcher
    reassigns all users whenever a worker joins, is lost or returns, and so stops some in the middle
    of their part of the plan."""

    def add_worker(self, worker_node: Any) -> None:
        """A new worker gets no users in this test."""

    def remove_worker(self, worker_node: Any) -> None:
        """The users of a lost worker are lost."""
