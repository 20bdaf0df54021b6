"""What an experiment looks at: a protocol of ours, or a system of others, named alike."""

from __future__ import annotations

from typing import TypeAlias

from bench.record.models.run import Kind, by_transactions
from bench.record.verdict import Claim
from chaos.clusters.capabilities import TARGETS, TargetName
from chaos.systems import catalogue
from chaos.systems.system import System
from nodes import registry
from nodes.errors import Unsupported
from nodes.registry import Protocol

Subject: TypeAlias = Protocol | System

OF_SYSTEMS: tuple[TargetName, ...] = ("lab", "attached")
"""Where systems run, the default first."""
ONLY_OF_SYSTEMS: TargetName = "lab"


def offered(subject: Subject) -> list[str]:
    """All operations that it takes, transactions among them."""
    return subject.offers if isinstance(subject, System) else list(subject.operations)


def claimed(subject: Subject, kind: Kind) -> Claim:
    """What it promises a workload of this kind: of transactions, their level."""
    if isinstance(subject, System) and subject.isolation and by_transactions(kind, subject.offers):
        return subject.isolation
    return subject.claim


def find(name: str) -> Subject:
    """The protocol or the system of that name. Raises nodes.registry.InvalidConfiguration."""
    is_system = catalogue.is_named(name)
    if name.endswith(".py"):
        is_system = catalogue.is_of_system(name)
    return catalogue.get(name) if is_system else registry.get(name)


def findable(subject: Subject) -> str:
    """What `find` finds it by in another process: its name, or the path of its file."""
    if isinstance(subject, System):
        return catalogue.findable_name(subject)
    return registry.findable_name(subject)


def target_of(subject: Subject, wanted: TargetName | None) -> TargetName:
    """Where it runs: at the target that is ``wanted``, or None: at the one that it has by default.
    Raises Unsupported."""
    is_system = isinstance(subject, System)
    if wanted is None:
        return OF_SYSTEMS[0] if is_system else "local"
    possible = OF_SYSTEMS if is_system else tuple(sorted(set(TARGETS) - {ONLY_OF_SYSTEMS}))
    if wanted not in possible:
        kind, where = "system" if is_system else "protocol", ", ".join(possible)
        raise Unsupported(
            f"{subject.name} is a {kind}, which the target {wanted} cannot run; it runs on: {where}"
        )
    return wanted
