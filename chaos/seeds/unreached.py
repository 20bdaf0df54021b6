"""The branches that no seed of the simulator has to reach, and why."""

from __future__ import annotations

_REASONS: dict[str, tuple[str, ...]] = {
    "a node refuses ten thousand requests: tests/nodes/test_forwarding.py": (
        "parts/forwarding.py: Requests._refuse: len(self._refused) > MAX_REFUSED",
    ),
    "a client leaves thousands of answers unacknowledged: tests/protocols/test_raft.py": (
        "parts/replicated_map.py: ReplicatedMap.apply:"
        " len(session.replies) > 2 * self._client_replies",
    ),
    "no cluster is configured without a node": ("parts/quorum.py: majority: n < 1",),
}
"""Reason -> names of branches (`chaos.seeds.branches.Branch`)."""

UNREACHED: dict[str, str] = {name: why for why, names in _REASONS.items() for name in names}
