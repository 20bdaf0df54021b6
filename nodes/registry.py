"""Every protocol by name: its replica class, what it claims and what it offers.

A protocol of your own joins by `register`, called in a file of its own that `load_file` imports
(see docs/ADDING_A_PROTOCOL.md).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from nodes.contract.administration import Administration
from nodes.contract.knobs import Knobs
from nodes.contract.names import BadName, check_name, did_you_mean
from nodes.contract.pace import Pace
from nodes.contract.replica import Config, OperationKind, Parameters, Replica
from nodes.errors import InvalidInput
from nodes.parts.knobs import PLACED_MOMENTS
from nodes.protocols import detector, gossip, paxos, quorum_register, raft

Model: TypeAlias = Literal["linearizable", "sequential", "causal", "eventual"]
"""Consistency models, strongest first."""


class InvalidConfiguration(InvalidInput):
    """A protocol, a parameter or a cluster that cannot be. One line that says what would be
    right."""


Needs: TypeAlias = Literal["any node", "majority", "first node", "all nodes"]
"""Which nodes must be up and reach each other, so that each node that is up completes operations:
any one; any majority of those that hold a key; the first of the cluster (a fixed primary), whoever
else is there; all."""

Retries: TypeAlias = Literal["any node", "node asked first", "nowhere"]
"""Where a client may send a request again, so that it is applied at most once. ``nowhere``: each
copy of a request is applied."""


class Protocol(msgspec.Struct, frozen=True):
    """A registered protocol. ``parameters``: what it sets differently from its class's defaults.
    ``needs``: what it asks of a cluster; the simulator and the conformance suite hold it to
    that. ``retries``: where a request that is sent again is applied at most once.

    For the simulator: ``knobs``, which parameters vary from seed to seed; ``moments``, marks
    (`Out.mark`) at which something rare has just begun, so that faults strike there;
    ``administration``, what is asked of it while it runs; ``bugs``, modules whose ``BUGS`` are
    planted bugs of it (`nodes.simulator.bugs`); ``pace``: what its parameters, on these nodes,
    promise of time and messages (`nodes.contract.pace`)."""

    name: str
    replica: type[Replica]
    claim: Model
    operations: tuple[OperationKind, ...]
    summary: str
    parameters: Mapping[str, Any] = {}
    needs: Needs = "majority"
    retries: Retries = "any node"
    knobs: Knobs = ()
    moments: tuple[str, ...] = ()
    administration: Administration = Administration()
    bugs: tuple[str, ...] = ()
    pace: Callable[[Any, tuple[str, ...]], Pace] = lambda parameters, nodes: Pace()

    def core_size(self, nodes: int, copies: int | None = None) -> int:
        """The fewest nodes with which it must serve. ``copies``: how many nodes hold each key, if
        not all of them."""
        copies = copies or nodes
        if self.needs == "first node" or not self.operations:
            return 1
        if self.needs == "any node" and copies == nodes:
            return 1
        if self.needs == "all nodes":
            return nodes
        # Not as the parts count a majority: they are judged by it. Where keys move, `any node` is
        # no exception: a new member of a range copies from a majority.
        return nodes - copies + copies // 2 + 1

    def configure(
        self, node: str, nodes: tuple[str, ...], parameters: Mapping[str, Any] | None = None
    ) -> Config:
        """The checked configuration of one replica. Raises InvalidConfiguration."""
        if not nodes:
            raise InvalidConfiguration("a cluster has at least one node")
        if len(set(nodes)) != len(nodes) or node not in nodes:
            raise InvalidConfiguration(f"node {node!r} must be one of the distinct nodes {nodes}")
        merged = {**self.parameters, **(parameters or {})}
        known = self.replica.PARAMETERS.__struct_fields__
        for name in merged:
            if name not in known:
                raise InvalidConfiguration(
                    f"protocol {self.name} has no parameter {did_you_mean(name, known, 'it has')}"
                )
        try:
            checked = msgspec.convert(merged, self.replica.PARAMETERS)
            checked.check(nodes)
            _check_bounds(checked)
        except (msgspec.ValidationError, ValueError) as error:
            raise InvalidConfiguration(f"protocol {self.name}: {error}") from None
        return Config(node, nodes, checked)


MAX_PARAMETER = 10**9
"""Of any number: what is larger than that is a slip, and overflows somewhere."""


def _check_bounds(parameters: Parameters) -> None:
    """Finite numbers, none below 0. Raises ValueError; what is below that, each protocol knows."""
    for name in parameters.__struct_fields__:
        value = getattr(parameters, name)
        if isinstance(value, int | float) and not 0 <= value <= MAX_PARAMETER:
            raise ValueError(f"{name} is {value}: use 0 to {MAX_PARAMETER:,}")


PROTOCOLS: dict[str, Protocol] = {}
"""The protocols that hold data: those that are listed, compared and held to every test."""
INTERNAL: dict[str, Protocol] = {
    "heartbeat": Protocol(
        name="heartbeat",
        replica=detector.Detector,
        claim="eventual",
        operations=(),
        needs="any node",
        summary="no data: heartbeats only, to measure failure detectors",
        knobs=detector.KNOBS,
        pace=detector.pace,
        bugs=("nodes.simulator.bugs.detection",),
    )
}
"""What is neither listed nor compared, and runs when asked for by name (`get`): protocols without
operations, and those whose knobs make them a case for the simulator."""
_LOADED: dict[Path, tuple[Protocol, ...]] = {}


def register(protocol: Protocol) -> None:
    """Make a protocol known by its name. Raises InvalidConfiguration for a name that is taken, or
    is none."""
    try:
        check_name(protocol.name, "a protocol's name")
    except BadName as error:
        raise InvalidConfiguration(str(error)) from None
    if protocol.name in PROTOCOLS or protocol.name in INTERNAL:
        raise InvalidConfiguration(f"there is a protocol {protocol.name!r} already")
    PROTOCOLS[protocol.name] = protocol


def get(name: str) -> Protocol:
    """The protocol of that name, or the first one of a file, if it is the path of one (``my.py``).
    Raises InvalidConfiguration that lists the known ones."""
    if name.endswith(".py"):
        return load_file(name)[0]
    try:
        return PROTOCOLS[name] if name in PROTOCOLS else INTERNAL[name]
    except KeyError:
        raise InvalidConfiguration(
            f"unknown protocol {did_you_mean(name, sorted(PROTOCOLS))}"
        ) from None


def findable_name(protocol: Protocol) -> str:
    """What `get` finds the protocol by in another process: its name, or the path of its file."""
    for file, protocols in _LOADED.items():
        if protocols[0] is protocol:
            return str(file)
    return protocol.name


def load_file(path: str | Path) -> tuple[Protocol, ...]:
    """Import a Python file and return the protocols that it registers. A file that was loaded
    before is not imported again. Raises InvalidConfiguration, and then nothing is registered."""
    try:
        file = Path(path).resolve()
    except (RuntimeError, OSError):  # Until Python 3.13 a circle is a RuntimeError.
        raise InvalidConfiguration(f"{path}: a link that leads nowhere but to links") from None
    if file in _LOADED:
        return _LOADED[file]
    if not file.is_file():
        raise InvalidConfiguration(f"there is no protocol file {path}")
    name = f"capbench_protocol_{file.stem}_{len(_LOADED)}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InvalidConfiguration(f"{path} is not a Python file (its name must end in .py)")
    known = set(PROTOCOLS)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = tuple(protocol for key, protocol in PROTOCOLS.items() if key not in known)
        if not found:
            raise InvalidConfiguration("it registers no protocol")
    except Exception as error:
        del sys.modules[name]
        for key in set(PROTOCOLS) - known:
            del PROTOCOLS[key]
        what = "" if isinstance(error, InvalidConfiguration) else f"{type(error).__name__}: "
        line = " ".join(str(error).split())
        raise InvalidConfiguration(f"protocol file {path}: {what}{line}") from error
    _LOADED[file] = found
    return found


def node_ids(count: int) -> tuple[str, ...]:
    """``n1`` to ``n<count>``. Raises InvalidConfiguration for fewer than one."""
    if count < 1:
        raise InvalidConfiguration(f"a cluster has at least one node, not {count}")
    return tuple(f"n{i}" for i in range(1, count + 1))


__all__ = [
    "INTERNAL",
    "PROTOCOLS",
    "InvalidConfiguration",
    "Model",
    "Needs",
    "Parameters",
    "Protocol",
    "Retries",
    "findable_name",
    "get",
    "load_file",
    "node_ids",
    "register",
]

register(
    Protocol(
        name="raft",
        replica=raft.Raft,
        claim="linearizable",
        operations=("read", "write", "cas", "delete"),
        summary="a leader replicates a log to a majority; elections by randomised timeouts",
        knobs=raft.KNOBS,
        pace=raft.pace,
        moments=raft.MOMENTS,
        administration=raft.ADMINISTRATION,
        bugs=tuple(
            f"nodes.simulator.bugs.{name}"
            for name in (
                *("raft", "clients", "claims", "promises", "retries", "heeded"),
                *("unhelped", "exact", "unlimited"),
            )
        ),
    )
)
register(
    Protocol(
        name="raft-stale-read",
        replica=raft.Raft,
        claim="eventual",
        operations=("read", "write", "cas", "delete"),
        summary="raft, but each node answers reads from what it has applied, however old",
        parameters={"stale_reads": True},
        knobs=raft.KNOBS,
        pace=raft.pace,
        moments=raft.MOMENTS,
        administration=raft.ADMINISTRATION,
    )
)
register(
    Protocol(
        name="gossip",
        replica=gossip.Gossip,
        claim="eventual",
        operations=("read", "write", "delete"),
        needs="any node",
        retries="node asked first",
        summary="every node answers on its own; rumours and anti-entropy spread; siblings are kept",
        knobs=gossip.KNOBS,
        pace=gossip.pace,
        bugs=(
            "nodes.simulator.bugs.gossip",
            "nodes.simulator.bugs.upkeep",
            "nodes.simulator.bugs.rare",
        ),
    )
)
register(
    Protocol(
        name="gossip-lww",
        replica=gossip.Gossip,
        claim="eventual",
        operations=("read", "write", "delete"),
        needs="any node",
        retries="node asked first",
        summary="gossip, but of concurrent writes the one with the latest hybrid clock wins",
        parameters={"conflict": "lww"},
        knobs=gossip.KNOBS,
        pace=gossip.pace,
    )
)
register(
    Protocol(
        name="quorum",
        replica=quorum_register.QuorumRegister,
        claim="linearizable",
        operations=("read", "write", "delete"),
        summary="no leader: a majority holds the newest version, reads and writes ask a majority",
        retries="node asked first",
        knobs=quorum_register.KNOBS,
        pace=quorum_register.pace,
        bugs=("nodes.simulator.bugs.quorum",),
    )
)
register(
    Protocol(
        name="quorum-weak",
        replica=quorum_register.QuorumRegister,
        claim="eventual",
        operations=("read", "write", "delete"),
        summary="quorum, but with quorums of one: fast, and a read may miss what was written",
        parameters={"read_quorum": 1, "write_quorum": 1, "weak": True},
        retries="node asked first",
        knobs=quorum_register.KNOBS,
        pace=quorum_register.pace,
    )
)
register(
    Protocol(
        name="paxos",
        replica=paxos.Paxos,
        claim="linearizable",
        operations=("read", "write", "cas", "delete"),
        summary="a log of Paxos instances; a stable leader runs phase 1 once for all of them",
        knobs=paxos.KNOBS,
        pace=paxos.pace,
        moments=paxos.MOMENTS,
        bugs=("nodes.simulator.bugs.paxos",),
    )
)
register(
    Protocol(
        name="paxos-basic",
        replica=paxos.Paxos,
        claim="linearizable",
        operations=("read", "write", "cas", "delete"),
        summary="paxos without a leader: both phases each time, from every node, so proposers duel",
        parameters={"stable_leader": False},
        knobs=paxos.KNOBS,
        pace=paxos.pace,
        moments=paxos.MOMENTS,
    )
)


def _placed(name: str, knobs: Knobs, **changes: Any) -> None:
    """A protocol as a case for the simulator: with fewer copies of a key than nodes, which move
    soon."""
    INTERNAL[f"{name}-placed"] = msgspec.structs.replace(
        PROTOCOLS[name],
        name=f"{name}-placed",
        summary=f"{name}, simulated with fewer copies of a key than nodes, which move soon",
        knobs=knobs,
        moments=PLACED_MOMENTS,
        **{"bugs": (), **changes},
    )


_placed("quorum", quorum_register.PLACED_KNOBS, bugs=("nodes.simulator.bugs.recovery",))
for _name in ("gossip", "gossip-lww"):
    _placed(_name, gossip.PLACED_KNOBS, retries="nowhere")
