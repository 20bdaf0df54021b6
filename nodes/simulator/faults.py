"""What faults do to a simulated cluster, and tapes of them: which, when, for how long.

A tape is a list of `Fault` records. It is drawn from the seed (`nodes.simulator.tape`), or given;
taking a record out of it leaves all the others as they were, which is what shrinking needs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from nodes.contract.replica import Message
from nodes.errors import Unsupported
from nodes.faults import base as faults
from nodes.faults import capabilities
from nodes.faults.base import Resolved
from nodes.faults.capabilities import CanInject, CanKill, CanPause, IsSimulated
from nodes.faults.catalogue import FAULTS, OF_SEEDS
from nodes.faults.injected import (
    MAX_RATE,
    MIN_RATE,
    ClockError,
    CrashAt,
    Disconnected,
    Duplication,
    FsyncError,
    FullDisk,
    Injected,
    MessageLoss,
    Reordering,
    SlowFsync,
)
from nodes.faults.link_faults import LinkFaults
from nodes.faults.nemesis import ActiveFaults
from nodes.faults.simulated import LateKinds, SetTrap, SlowSteps
from nodes.simulator.cluster import Cluster
from nodes.simulator.host import Trap
from nodes.simulator.load import Clients
from nodes.simulator.network import Quality
from nodes.wire.links import GROUP, Link

_NEVER_S = 1e9
_NO_HARM = Quality(latency_s=0.0, jitter_s=0.0, late_s=0.0)
_FAULTS = 0
"""The one name under which the network holds a link's faults; `LinkFaults` keeps them apart."""


class SimulatedLinks(LinkFaults):
    """The links between nodes, and those of the client group, as at the local target. ``clients``:
    those of random seeds; others ask `wanted` and `lost`."""

    def __init__(self, cluster: Cluster, clients: Clients | None) -> None:
        self._cluster = cluster
        self._of_clients = clients
        between = [(src, dst) for src, dst in cluster.links if src != dst]
        requests = [(GROUP, node) for node in cluster.nodes]
        replies = [(node, GROUP) for node in cluster.nodes]
        super().__init__([*between, *requests, *replies])
        self._cut_behind: Counter[Link] = Counter()
        self._shares: dict[Link, list[float]] = {link: [] for link in self.links}

    def cut_behind(self, links: Iterable[Link]) -> None:
        """One more fault cuts these links for what is sent from now on."""
        self._more(self._cut_behind, links)

    def heal_behind(self, links: Iterable[Link]) -> None:
        """One fault fewer does."""
        self._fewer(self._cut_behind, links)

    def lose(self, links: Iterable[Link], share: float) -> None:
        """One more fault loses a share of what clients send or get; the largest counts."""
        self._put(self._shares, links, share)

    def lose_no_more(self, links: Iterable[Link], share: float) -> None:
        """Take back what `lose` did."""
        self._take(self._shares, links, share)

    def heal_all(self) -> None:
        """Remove all faults from all links."""
        self._cut_behind.clear()
        for shares in self._shares.values():
            shares.clear()
        super().heal_all()

    def lost(self, link: Link) -> float:
        """The share of what is lost on a link of the clients."""
        return 1.0 if self.wanted(link).cut else max(self._shares[link], default=0.0)

    def apply(self, links: Sequence[Link]) -> None:
        """A cut loses what is under way too, as closing a connection does."""
        for link in links:
            simulated = self._cluster.links.get(link)
            if simulated is None:
                if self._of_clients is not None:
                    src, dst = link
                    self._of_clients.lose(dst if src == GROUP else src, src, self.lost(link))
                continue
            wanted = self.wanted(link)
            simulated.heal(_FAULTS)
            if wanted.cut or self._cut_behind[link]:
                simulated.block(_FAULTS, in_flight=wanted.cut)
            if wanted.latency_ms:
                more = Quality(latency_s=wanted.latency_ms / 1000, jitter_s=0.0)
                simulated.degrade(_FAULTS, more)


class FaultyCluster(capabilities.Cluster, CanKill, CanPause, CanInject, IsSimulated):
    """What faults do to a simulated cluster."""

    links: SimulatedLinks

    def __init__(self, cluster: Cluster, clients: Clients | None = None) -> None:
        self.cluster = cluster
        self.nodes = cluster.nodes
        self.clients = (GROUP,)
        self.links = SimulatedLinks(cluster, clients)
        self._injected: dict[tuple[str, int], Injected] = {}
        self._traps: dict[int, Trap] = {}
        self._steps_ms: dict[str, list[int]] = {node: [] for node in cluster.nodes}
        self._kept: dict[str, float] = {}

    def leader(self) -> str | None:
        """The node that calls itself leader in the highest term."""
        return self.cluster.leader()

    def crash(self, node: str) -> None:
        """Kill the process: whatever was not durable is lost."""
        self.cluster.crash(node, torn=self._kept.pop(node, 0.0))

    def restart(self, node: str) -> None:
        """Start it again on what its disk kept."""
        self.cluster.restart(node)

    def pause(self, node: str) -> None:
        """Its timers come late, and what is sent to it waits."""
        self.cluster.hosts[node].pause()

    def resume(self, node: str) -> None:
        """Let it go on."""
        self.cluster.hosts[node].resume()

    # --- what a node does wrong itself ---

    def inject(self, node: str, number: int, injected: Injected) -> None:
        """As the node's own driver would; messages meet their fate by the link's random stream."""
        self._injected[node, number] = injected
        match injected:
            case MessageLoss(share=share, dst=dst):
                self._degrade(node, dst, number, replace(_NO_HARM, loss=share))
            case Duplication(share=share, dst=dst):
                self._degrade(node, dst, number, replace(_NO_HARM, duplicate=share))
            case Reordering(share=share, dst=dst, delay_ms=delay_ms):
                late = replace(_NO_HARM, reorder=share, late_s=delay_ms / 1000)
                self._degrade(node, dst, number, late)
            case ClockError(jump_s=jump_s):
                self.cluster.hosts[node].clock.jump(jump_s)
                self._set_clock(node)
            case CrashAt(point=point):
                self._set_trap([node], number, Trap(point=point, down_s=_NEVER_S))
            case Disconnected():
                self.links.cut(self._links_of(node))
            case SlowFsync() | FsyncError() | FullDisk():
                self._set_disk(node)
            case _:
                raise Unsupported(f"the simulator has no {type(injected).__name__}")

    def withdraw(self, node: str, number: int) -> None:
        """Stop injecting; restart the node if it stopped because of it."""
        injected = self._injected.pop((node, number), None)
        match injected:
            case MessageLoss(dst=dst) | Duplication(dst=dst) | Reordering(dst=dst):
                for each in dst:
                    self.cluster.links[node, each].heal(number)
            case ClockError():
                self._set_clock(node)
            case SlowFsync():
                self._set_disk(node)
                self.cluster.hosts[node].mend_disk()
            case FsyncError() | FullDisk():
                self._set_disk(node)
                self.restart(node)
            case CrashAt():
                self._remove_trap([node], number)
                self.restart(node)
            case Disconnected():
                self.links.heal(self._links_of(node))

    def _degrade(self, node: str, dst: Sequence[str], number: int, quality: Quality) -> None:
        for each in dst:
            self.cluster.links[node, each].degrade(number, quality)

    def _links_of(self, node: str) -> list[Link]:
        return [link for link in self.links.links if node in link]

    def _on(self, node: str) -> list[Injected]:
        return [injected for (on, _), injected in self._injected.items() if on == node]

    def _set_clock(self, node: str) -> None:
        """The sum of the active clock errors."""
        errors = [each for each in self._on(node) if isinstance(each, ClockError)]
        clock = self.cluster.hosts[node].clock
        clock.set_rate(min(MAX_RATE, max(MIN_RATE, 1 + sum(error.drift for error in errors))))
        clock.wall_error_s = sum(error.offset_s for error in errors)

    def _set_disk(self, node: str) -> None:
        host, on = self.cluster.hosts[node], self._on(node)
        slower_ms = sum(each.delay_ms for each in on if isinstance(each, SlowFsync))
        host.fsync_delay_s = slower_ms / 1000
        host.fsync_fails = any(isinstance(each, FsyncError) for each in on)
        host.disk_full = any(isinstance(each, FullDisk) for each in on)

    # --- what only a simulated cluster lets anybody do ---

    def keep_unsynced(self, node: str, share: float) -> None:
        """See `IsSimulated`."""
        self._kept[node] = share

    def play(self, fault: faults.Fault, resolved: Resolved) -> None:
        """See `IsSimulated`."""
        assert resolved.seed is not None
        match fault:
            case SetTrap():
                trap = fault.model_dump(exclude={"fault", "nodes"})
                self._set_trap(resolved.nodes, resolved.seed, Trap(**trap))
            case SlowSteps(step_ms=step_ms):
                for node in resolved.nodes:
                    self._steps_ms[node].append(step_ms)
                self._set_steps(resolved.nodes)
            case LateKinds(kinds=kinds, delay_ms=delay_ms):
                types = self.cluster.protocol.replica.MESSAGES
                late = {kind for kind in types if kind.__name__ in kinds}
                for link in resolved.links:
                    self.cluster.links[link].delay(resolved.seed, late, delay_ms / 1000)

    def stop(self, fault: faults.Fault, resolved: Resolved) -> None:
        """See `IsSimulated`."""
        assert resolved.seed is not None
        match fault:
            case SetTrap():
                self._remove_trap(resolved.nodes, resolved.seed)
            case SlowSteps(step_ms=step_ms):
                for node in resolved.nodes:
                    self._steps_ms[node].remove(step_ms)
                self._set_steps(resolved.nodes)
            case LateKinds():
                for link in resolved.links:
                    self.cluster.links[link].heal(resolved.seed)

    def _set_trap(self, nodes: Sequence[str], number: int, trap: Trap) -> None:
        self._traps[number] = trap
        for node in nodes:
            self.cluster.hosts[node].traps.append(trap)

    def _remove_trap(self, nodes: Sequence[str], number: int) -> None:
        trap = self._traps.pop(number)
        for node in nodes:
            host = self.cluster.hosts[node]
            host.traps = [other for other in host.traps if other is not trap]

    def _set_steps(self, nodes: Sequence[str]) -> None:
        for node in nodes:
            self.cluster.hosts[node].slow_down(max(self._steps_ms[node], default=0) / 1000)

    def administer(self, at: str, action: str, node: str) -> None:
        """See `IsSimulated`."""
        message = self.cluster.protocol.administration.messages[action](node)
        self.cluster.hosts[at].receive(Message(at, message))


# --- tapes ---


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault (`nodes.faults.catalogue`) of this ``kind`` and these ``args`` at ``at_s``, undone
    ``for_s`` later."""

    at_s: float
    kind: str
    for_s: float
    args: dict[str, Any] = {}


class Nemesis:
    """Plays a tape on a cluster."""

    def __init__(self, cluster: Cluster, clients: Clients | None, tape: Sequence[Fault]) -> None:
        self._cluster = cluster
        self._active = ActiveFaults(FaultyCluster(cluster, clients))
        self._over = False
        self.played: dict[str, int] = {}
        kinds = FAULTS | OF_SEEDS
        for number, fault in enumerate(tape, 1):
            if fault.kind not in kinds:
                raise ValueError(f"no fault {fault.kind!r}; there are {', '.join(kinds)}")
            cluster.timeline.at(fault.at_s, self._start, (number, fault))

    def _start(self, what: tuple[int, Fault]) -> None:
        number, planned = what
        if self._over:
            return
        timeline, now_s = self._cluster.timeline, self._cluster.now
        line = f"FAULT {number} {planned.kind} {planned.args} for {planned.for_s:g} s"
        timeline.tell("", "fault", line)
        self.played[planned.kind] = self.played.get(planned.kind, 0) + 1
        fault = (FAULTS | OF_SEEDS)[planned.kind](**planned.args)
        # By its time, not its number: what it draws is the same without those before it.
        rng = random.Random(f"{self._cluster.seed}/fault/{planned.at_s}/{planned.kind}")
        self._active.resolve(number, fault, rng)
        self._active.apply(number)
        for beat, after_s in enumerate(self._active.beats(number, planned.for_s)):
            timeline.at(now_s + after_s, self._beat, (number, beat))
        timeline.at(now_s + planned.for_s, self._heal, number)

    def _beat(self, what: tuple[int, int]) -> None:
        if what[0] in self._active:
            self._active.beat(*what)

    def _heal(self, number: int) -> None:
        if number in self._active:
            self._cluster.timeline.tell("", "heal", f"HEAL {number}")
            self._active.end(number)

    def heal_all(self) -> None:
        """Undo whatever is still wrong; what the tape still has is not played."""
        self._over = True
        for number in self._active:
            self._heal(number)
