"""Planted bugs: protocols with one mistake each, that the simulator must catch.

They measure the simulator, not the protocols: a mutant that survives says which faults, knobs or
checks are missing. Each is a small subclass of the real machine and names where its mistake is
known from. A protocol declares the modules with its bugs (`nodes.registry.Protocol.bugs`).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import msgspec

from nodes.contract.replica import Replica
from nodes.registry import INTERNAL, PROTOCOLS, Model, Protocol, get


class Bug(msgspec.Struct, frozen=True, kw_only=True):
    """``replica`` is ``protocol`` (a registered name) with one mistake. ``source``: where it is
    known from. ``parameters``: knobs of the protocol that the mistake needs.
    ``claim``: what is claimed with them, if not what the protocol claims."""

    name: str
    protocol: str
    replica: type[Replica]
    source: str
    parameters: dict[str, Any] = {}
    claim: Model | None = None

    @property
    def summary(self) -> str:
        """The mistake, in one line."""
        return (self.replica.__doc__ or "").strip().split("\n")[0]

    def planted(self) -> Protocol:
        """The protocol with the mistake in it, under the bug's name."""
        original = get(self.protocol)
        return msgspec.structs.replace(
            original,
            name=self.name,
            replica=self.replica,
            summary=self.summary,
            claim=self.claim or original.claim,
            parameters={**original.parameters, **self.parameters},
            bugs=(),
        )


def all_bugs() -> Iterator[Bug]:
    """Every planted bug, by protocol."""
    for protocol in (*PROTOCOLS.values(), *INTERNAL.values()):
        for module in protocol.bugs:
            yield from import_module(module).BUGS
