"""What can be done to a cluster, as small capabilities that a target's cluster has or lacks.

A fault names the capabilities that it needs (`nodes.faults.base.Fault.NEEDS`) and asks the cluster
for each one where it uses it: ``cluster.can(CanKill).crash(node)``. On which targets a fault works
follows from the classes of their clusters. (The model is Jepsen's ``db.clj``: Process, Pause,
Primary, LogFiles.)

To add a capability, subclass `Capability` here with the methods that faults call, and make it a
base of each target that has it (`chaos.clusters.capabilities`). Every method raises an exception on
failure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from nodes.errors import Unsupported
from nodes.faults.injected import Injected
from nodes.wire.links import Link


class LinkControl(Protocol):
    """The links of a cluster; overlapping faults are counted (`nodes.faults.link_faults`)."""

    def cut(self, links: Iterable[Link]) -> None: ...
    def heal(self, links: Iterable[Link]) -> None: ...
    def add_latency(self, latency_ms: Mapping[Link, int]) -> None: ...
    def remove_latency(self, latency_ms: Mapping[Link, int]) -> None: ...
    def heal_all(self) -> None: ...


class StreamControl(LinkControl, Protocol):
    """Links that are connections, with a rate and an end."""

    def limit(self, links: Iterable[Link], rate_kb_per_s: int) -> None: ...
    def unlimit(self, links: Iterable[Link], rate_kb_per_s: int) -> None: ...
    def close(self, links: Iterable[Link]) -> None: ...
    def reopen(self, links: Iterable[Link]) -> None: ...
    def reset(self, links: Iterable[Link]) -> None: ...
    def unreset(self, links: Iterable[Link]) -> None: ...
    def close_slowly(self, links: Iterable[Link], delay_ms: int) -> None: ...
    def close_quickly(self, links: Iterable[Link], delay_ms: int) -> None: ...


class SimulatedControl(LinkControl, Protocol):
    """Links whose every message has a fate of its own."""

    def cut_behind(self, links: Iterable[Link]) -> None: ...
    def heal_behind(self, links: Iterable[Link]) -> None: ...
    def lose(self, links: Iterable[Link], share: float) -> None: ...
    def lose_no_more(self, links: Iterable[Link], share: float) -> None: ...


class Capability(ABC):  # noqa: B024 - some capabilities are marks without a method
    """Base of all capabilities."""


Wanted = TypeVar("Wanted", bound=Capability)


class Cluster:
    """What every cluster has. ``nodes``: all configured nodes, in their fixed order. ``clients``:
    the client groups. ``links``: the directed links, which can be cut and slowed on every
    target."""

    nodes: Sequence[str]
    clients: Sequence[str]
    links: LinkControl

    def leader(self) -> str | None:
        """The current leader; None: there is none, or the protocol has none."""
        raise NotImplementedError

    def can(self, capability: type[Wanted]) -> Wanted:
        """This cluster, typed as having ``capability``. Raises Unsupported if it does not."""
        if not isinstance(self, capability):
            raise Unsupported(f"this cluster has no capability {capability.__name__}")
        return self


class CanKill(Capability):
    """Nodes can be killed and restarted on what their disks kept."""

    @abstractmethod
    def crash(self, node: str) -> None:
        """SIGKILL the node; it is gone when this returns. Nothing happens if it is gone already."""

    @abstractmethod
    def restart(self, node: str) -> None:
        """Start the node again on what its disk kept; does not wait until it serves."""

    def abandon(self, node: str) -> None:
        """Never restart the node, whichever fault ends. The nemesis ensures this; a cluster need do
        nothing."""


class CanPause(Capability):
    """Nodes can be paused and resumed with their memory intact."""

    @abstractmethod
    def pause(self, node: str) -> None:
        """Stop the node (SIGSTOP): it keeps its connections and its memory, and does nothing.
        Nothing happens if it is gone."""

    @abstractmethod
    def resume(self, node: str) -> None:
        """Resume it (SIGCONT). Does nothing if it is gone or was not paused."""


class CanUnplug(Capability):
    """Nodes have their own network connection, which can be removed."""

    @abstractmethod
    def unplug(self, node: str) -> None:
        """Take the node off its network: its connections are silent, not closed."""

    @abstractmethod
    def plug(self, node: str) -> None:
        """Put it on its network again."""


class TakesOrders(Capability):
    """Faults can be put into single nodes; subclasses say which."""

    @abstractmethod
    def inject(self, node: str, number: int, injected: Injected) -> None:
        """Put a fault into the node until `withdraw` with the same ``number``, even after a
        restart."""

    @abstractmethod
    def withdraw(self, node: str, number: int) -> None:
        """Undo `inject`. A node that stopped because of it is restarted."""


class LosesMessages(TakesOrders):
    """What nodes send to each other can be lost at random (`MessageLoss`)."""


class FillsDisks(TakesOrders):
    """The disk of a node can be full (`FullDisk`)."""


class CanInject(LosesMessages, FillsDisks):
    """Nodes can inject all kinds of faults into themselves on command."""


class CarriesFrames(Capability):
    """Messages are frames of bytes on a real broker: they can be corrupted, or sent with QoS 1."""


class ShapesStreams(Capability):
    """Links are connections that can be throttled and closed."""

    links: StreamControl


class FlipsBits(Capability):
    """What a node that is down has stored can be damaged."""

    @abstractmethod
    def flip(self, node: str, where: float) -> None:
        """Flip a bit in what a node that is down has stored, ``where`` (0 to 1) in it, and let the
        node try to start. Of a log, in its first half."""

    @abstractmethod
    def unflip(self, node: str) -> None:
        """Flip the bit back, the node being down."""


class DamagesLogs(FlipsBits):
    """The log of a node that is down can be changed."""

    @abstractmethod
    def tear(self, node: str, rest: bytes) -> None:
        """Leave ``rest`` of a record at the end of the log of a node that is down."""


class CanStopBroker(Capability):
    """The broker can be killed and paused."""

    @abstractmethod
    def crash_broker(self) -> None:
        """SIGKILL the broker."""

    @abstractmethod
    def restart_broker(self) -> None:
        """Start the broker again, with nothing in its memory. Nothing happens if it runs."""

    @abstractmethod
    def pause_broker(self) -> None:
        """Stop the broker (SIGSTOP)."""

    @abstractmethod
    def resume_broker(self) -> None:
        """Let it go on (SIGCONT)."""


class IsSimulated(Capability):
    """The cluster is simulated: its messages, writes and steps can be told apart."""

    links: SimulatedControl

    @abstractmethod
    def keep_unsynced(self, node: str, share: float) -> None:
        """The next `CanKill.crash` of the node leaves this share of the writes that were not
        synced, oldest first."""

    @abstractmethod
    def play(self, fault: Any, resolved: Any) -> None:
        """Begin a ``fault`` of `nodes.faults.simulated`, ``resolved`` as by itself."""

    @abstractmethod
    def stop(self, fault: Any, resolved: Any) -> None:
        """Undo `play`."""

    @abstractmethod
    def administer(self, at: str, action: str, node: str) -> None:
        """Ask the node ``at`` for an action of its protocol (`Administration`) about ``node``."""
