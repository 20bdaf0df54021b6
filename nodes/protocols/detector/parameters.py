"""The knobs of the failure detectors."""

from __future__ import annotations

from nodes.contract.replica import Parameters
from nodes.parts.failure_detector import CountingParameters, HeartbeatParameters, PhiParameters


class DetectorParameters(Parameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One detector for each entry of ``counting`` and ``phi``, named by `labels`."""

    heartbeat_every_s: float = 2.0
    check_every_s: float = 1.0
    counting: tuple[CountingParameters, ...] = (CountingParameters(),)
    phi: tuple[PhiParameters, ...] = (PhiParameters(),)

    def __post_init__(self) -> None:
        if not self.counting and not self.phi:
            raise ValueError("at least one detector is needed: counting or phi")
        for counting in self.counting:
            HeartbeatParameters(heartbeat_every_s=self.heartbeat_every_s, counting=counting)
        self.heartbeat()

    def heartbeat(self) -> HeartbeatParameters:
        """When to send and to check. Raises ValueError for times that cannot be."""
        return HeartbeatParameters(
            heartbeat_every_s=self.heartbeat_every_s,
            check_every_s=self.check_every_s,
            detector="phi",
        )


def labels(kind: str, count: int) -> list[str]:
    """The names of ``count`` detectors of a kind: ``phi``, ``phi2``, ``phi3`` ..."""
    return [kind if number == 1 else f"{kind}{number}" for number in range(1, count + 1)]
