"""What holds after every step of the failure detectors."""

from __future__ import annotations

from typing import Any, Protocol

from nodes.contract.replica import Config, Invariant, InvariantBroken
from nodes.protocols.detector.parameters import DetectorParameters


class Observed(Protocol):
    """What the invariant looks at; see `nodes.protocols.detector.replica.Detector`."""

    config: Config
    counting: Any


class SuspicionFallsSlowly(Invariant):
    """A counting detector takes back at most one ``fall`` per check, whatever arrives."""

    name = "suspicion falls slowly"

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Observed, dict[str, float]]] = {}

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken."""
        # The level of a counting detector is that of its last check, whatever the time.
        detector = replica.counting
        if detector is None:
            return
        levels = {peer: detector.level(peer, 0.0) for peer in replica.config.peers}
        before = self._seen.get(node)
        self._seen[node] = (replica, levels)
        if before is None or before[0] is not replica or before[1] == levels:
            return
        assert isinstance(replica.config.parameters, DetectorParameters)
        fall = replica.config.parameters.counting[0].fall
        for peer, level in levels.items():
            if level < before[1][peer] - fall - 1e-9:
                raise InvariantBroken(
                    f"{node}: suspicion of {peer} fell from {before[1][peer]} to {level} at once"
                )
