"""The branches that no seed of the simulator has to reach, and why."""

from __future__ import annotations

_REASONS: dict[str, tuple[str, ...]] = {}
"""Reason -> names of branches (`chaos.seeds.branches.Branch`)."""

UNREACHED: dict[str, str] = {name: why for why, names in _REASONS.items() for name in names}
