"""What the clusters of each target are capable of (`nodes.faults.capabilities`): on which targets
a fault works follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from nodes.faults.capabilities import (
    CanInject,
    CanKill,
    CanPause,
    CanStopBroker,
    CanUnplug,
    Capability,
    CarriesFrames,
    DamagesLogs,
    FillsDisks,
    FlipsBits,
    IsSimulated,
    LosesMessages,
    ShapesStreams,
)


class OfAttached(CanInject, CarriesFrames, ShapesStreams):
    """A cluster run by others can only be reached."""


class OfLocal(
    CanInject, CarriesFrames, ShapesStreams, CanKill, CanPause, CanStopBroker, DamagesLogs
):
    """Processes of this machine."""


class OfCompose(
    CanInject,
    CarriesFrames,
    ShapesStreams,
    CanKill,
    CanPause,
    CanStopBroker,
    DamagesLogs,
    CanUnplug,
):
    """Containers."""


class OfLab(ShapesStreams, CanKill, CanPause, LosesMessages, FillsDisks, FlipsBits):
    """A system of others: its processes, its links and its disks are in our hands."""


class OfSim(CanKill, CanPause, CanInject, IsSimulated):
    """Virtual time: no broker, no connections, no files."""


TargetName: TypeAlias = Literal["sim", "local", "compose", "attached", "lab"]
TARGETS: dict[TargetName, type[Capability]] = {
    "local": OfLocal,
    "sim": OfSim,
    "compose": OfCompose,
    "attached": OfAttached,
    "lab": OfLab,
}
"""The capabilities of each target's clusters: a base of their classes (`chaos.targets.table`),
which cannot be instantiated without its methods."""


def works_on(needs: Iterable[type[Capability]]) -> list[TargetName]:
    """The targets that have all of these capabilities, by name."""
    wanted = tuple(needs)
    return sorted(
        name for name, has in TARGETS.items() if all(issubclass(has, each) for each in wanted)
    )
