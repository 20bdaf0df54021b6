"""Targets: where a run takes place, and how a fault becomes real there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from chaos.faults import Fault, LinkControl, TargetName


class Unsupported(ValueError):
    """An experiment has a fault that the target cannot make real: said before anything starts."""


class Target(ABC):
    """A cluster of one kind, started and stopped as a context manager: what it starts is gone when
    the context is left, for whatever reason. It is the `chaos.faults.FaultContext` of its
    nemesis."""

    name: ClassVar[TargetName]
    nodes: tuple[str, ...]
    links: LinkControl

    @classmethod
    def supports(cls, fault: Fault) -> bool:
        """Whether the fault can be made real here."""
        return cls.name in fault.TARGETS

    @classmethod
    def refuse_unsupported(cls, faults: Iterable[Fault]) -> None:
        """Raises Unsupported for the first fault that cannot be made real here."""
        for fault in faults:
            if not cls.supports(fault):
                raise Unsupported(
                    f"the target {cls.name} has no fault {fault.fault!r};"
                    f" it works on: {', '.join(sorted(fault.TARGETS))}"
                )

    @abstractmethod
    def leader(self) -> str | None:
        """The node that leads now, if any."""

    @abstractmethod
    def crash(self, node: str) -> None:
        """SIGKILL the node."""

    @abstractmethod
    def restart(self, node: str) -> None:
        """Start the node again on the same data."""
