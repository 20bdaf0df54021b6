"""Faults on a tape: which, when, on whom, for how long.

A tape is a list of `Fault` records. It is drawn from the seed (`nodes.simulator.tape`), or given;
taking a record out of it leaves all the others as they were, which is what shrinking needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from nodes.contract.replica import Message
from nodes.simulator import network
from nodes.simulator.cluster import Cluster
from nodes.simulator.host import Host, Trap
from nodes.simulator.load import Clients
from nodes.simulator.network import LinkId, Quality

Heal: TypeAlias = Callable[[], None]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """``kind`` at ``at_s``, undone ``for_s`` later. ``args``: see the method `Nemesis.<kind>`. A
    node in ``args`` may be ``leader``: whoever believes itself leader then."""

    at_s: float
    kind: str
    for_s: float
    args: dict[str, Any] = {}


class Nemesis:
    """Plays a tape on a cluster. Each ``do_<kind>`` applies a fault and returns what undoes it."""

    def __init__(self, cluster: Cluster, clients: Clients | None, tape: Sequence[Fault]) -> None:
        self._cluster = cluster
        self._clients = clients
        self._heals: dict[int, Heal] = {}
        self._over = False
        self.played: dict[str, int] = {}
        for number, fault in enumerate(tape, 1):
            if not hasattr(self, "do_" + fault.kind.replace("-", "_")):
                raise ValueError(f"no fault {fault.kind!r}; there are {', '.join(KINDS)}")
            cluster.timeline.at(fault.at_s, self._start, (number, fault))

    def _start(self, what: tuple[int, Fault]) -> None:
        number, fault = what
        if self._over:
            return
        line = f"FAULT {number} {fault.kind} {fault.args} for {fault.for_s:g} s"
        self._cluster.timeline.tell("", "fault", line)
        self.played[fault.kind] = self.played.get(fault.kind, 0) + 1
        play: Callable[..., Heal] = getattr(self, "do_" + fault.kind.replace("-", "_"))
        self._heals[number] = play(number, fault, **fault.args)
        self._cluster.timeline.at(self._cluster.now + fault.for_s, self._heal, number)

    def _heal(self, number: int) -> None:
        heal = self._heals.pop(number, None)
        if heal is not None:
            self._cluster.timeline.tell("", "heal", f"HEAL {number}")
            heal()

    def heal_all(self) -> None:
        """Undo whatever is still wrong; what the tape still has is not played."""
        self._over = True
        for number in list(self._heals):
            self._heal(number)

    def _node(self, name: str) -> str:
        if name == "leader":
            return self._cluster.leader() or self._cluster.nodes[0]
        return name

    def _host(self, name: str) -> Host:
        return self._cluster.hosts[self._node(name)]

    def _links(self, links: Sequence[LinkId] | None) -> list[LinkId]:
        if links is not None:
            return [(src, dst) for src, dst in links]
        return [link for link in self._cluster.links if link[0] != link[1]]

    # --- the kinds ---

    def do_partition(
        self,
        number: int,
        fault: Fault,
        shape: str,
        nodes: Sequence[str] = (),
        groups: Sequence[Sequence[str]] = (),
        in_flight: bool = True,
    ) -> Heal:
        """``shape``: groups (of ``groups``), isolate, mute, deaf (``nodes`` together, from the
        others), one-way (from ``groups[0]`` to ``groups[1]``), bridge, ring, chain (of ``nodes`` in
        that order). ``in_flight``: messages under way are lost too."""
        everybody = self._cluster.nodes
        links: list[LinkId]
        if shape == "groups":
            links = network.across(groups)
        elif shape == "one-way":
            links = network.one_way(groups[0], groups[1])
        elif shape in ("isolate", "mute", "deaf"):
            few = [self._node(node) for node in nodes]
            others = [node for node in everybody if node not in few]
            out, into = network.one_way(few, others), network.one_way(others, few)
            links = (out if shape != "deaf" else []) + (into if shape != "mute" else [])
        else:
            shapes = {
                "bridge": network.bridge,
                "ring": network.majorities_ring,
                "chain": network.chain,
            }
            links = shapes[shape](nodes)
        self._cluster.cut(links, number, in_flight=in_flight)
        return lambda: self._cluster.heal_links(number)

    def do_degrade(
        self,
        number: int,
        fault: Fault,
        links: Sequence[LinkId] | None = None,
        nodes: Sequence[str] = (),
        **quality: Any,
    ) -> Heal:
        """Worse links (all: None), or those on which ``nodes`` send, by the fields of `Quality`."""
        worse = Quality(**{"latency_s": 0.0, "jitter_s": 0.0, **quality})
        if nodes:
            links = network.one_way([self._node(node) for node in nodes], self._cluster.nodes)
        self._cluster.degrade(self._links(links), worse, number)
        return lambda: self._cluster.heal_links(number)

    def do_client_loss(
        self, number: int, fault: Fault, node: str, requests: float = 0.0, replies: float = 0.0
    ) -> Heal:
        """Requests to a node, or its replies, are lost with these probabilities."""
        clients = self._clients
        if clients is None:
            return lambda: None
        node = self._node(node)
        clients.request_loss[node] = requests
        clients.reply_loss[node] = replies

        def heal() -> None:
            clients.request_loss.pop(node, None)
            clients.reply_loss.pop(node, None)

        return heal

    def do_crash(self, number: int, fault: Fault, nodes: Sequence[str], torn: float = 0.0) -> Heal:
        """Kill nodes, start them again at the end."""
        hosts = [self._host(node) for node in nodes]
        for host in hosts:
            host.crash(torn=torn)

        def heal() -> None:
            for host in hosts:
                host.start()

        return heal

    def do_trap(self, number: int, fault: Fault, nodes: Sequence[str], **trap: Any) -> Heal:
        """Crash, or cut off, the first of ``nodes`` that passes a `Trap`; the trap is taken away at
        the end."""
        shared = Trap(**trap)
        hosts = [self._host(node) for node in nodes]
        for host in hosts:
            host.traps.append(shared)

        def heal() -> None:
            for host in hosts:
                host.traps = [other for other in host.traps if other is not shared]

        return heal

    def do_pause(self, number: int, fault: Fault, nodes: Sequence[str]) -> Heal:
        """Stop processes, let them go on at the end."""
        hosts = [self._host(node) for node in nodes]
        for host in hosts:
            host.pause()

        def heal() -> None:
            for host in hosts:
                host.resume()

        return heal

    def do_clock(
        self,
        number: int,
        fault: Fault,
        node: str,
        rate: float = 1.0,
        jump_s: float = 0.0,
        wall_error_s: float = 0.0,
    ) -> Heal:
        """A clock that runs at ``rate``, has jumped by ``jump_s``, or shows the wrong time of
        day."""
        clock = self._host(node).clock
        clock.jump(jump_s)
        clock.set_rate(rate)
        clock.wall_error_s += wall_error_s

        def heal() -> None:
            clock.set_rate(1.0)
            clock.wall_error_s -= wall_error_s

        return heal

    def do_administer(
        self,
        number: int,
        fault: Fault,
        action: str,
        node: str,
        at: str,
        lost: str = "",
        every_s: float = 0.0,
    ) -> Heal:
        """Ask ``at`` for an ``action`` of the protocol (`Administration`) about ``node``, or to
        ``replace`` the node ``lost`` by it: again every ``every_s`` until the end, or once (0)."""
        cluster = self._cluster
        wanted = [(action, node)] if action != "replace" else [("add", node), ("remove", lost)]
        is_over = False

        def ask(turn: int) -> None:
            if is_over:
                return
            name, about = wanted[turn % len(wanted)]
            host = self._host(at)
            message = cluster.protocol.administration.messages[name](self._node(about))
            host.receive(Message(host.id, message))
            if every_s or turn + 1 < len(wanted):
                cluster.timeline.at(cluster.now + (every_s or 0.1), ask, turn + 1)

        def heal() -> None:
            nonlocal is_over
            is_over = True

        ask(0)
        return heal

    def do_slow_steps(self, number: int, fault: Fault, node: str, step_s: float) -> Heal:
        """Every step of a node takes so long; what arrives meanwhile is stepped together."""
        host = self._host(node)
        host.slow_down(step_s)
        return lambda: host.slow_down(0.0)

    def do_late_kinds(
        self, number: int, fault: Fault, kinds: Sequence[str], node: str = "", late_s: float = 0.1
    ) -> Heal:
        """Messages of these types that are sent to ``node`` (empty: to any) take longer by up to
        ``late_s``, and others overtake them: an answer comes when its question is long past."""
        cluster = self._cluster
        node = self._node(node)
        links = [link for link in cluster.links if link[0] != link[1] and node in ("", link[1])]
        types = {kind for kind in cluster.protocol.replica.MESSAGES if kind.__name__ in kinds}
        for link in links:
            cluster.links[link].delay(number, types, late_s)
        return lambda: cluster.heal_links(number)

    def do_slow_disk(self, number: int, fault: Fault, node: str, factor: float) -> Heal:
        """Every fsync takes ``factor`` times as long."""
        host = self._host(node)
        host.fsync_factor = factor
        return host.mend_disk

    def do_full_disk(self, number: int, fault: Fault, node: str) -> Heal:
        """The next write that cannot be stored stops the node; it starts again once there is
        room."""
        host = self._host(node)
        host.disk_full = True

        def heal() -> None:
            host.disk_full = False
            host.start()

        return heal

    def do_fsync_error(self, number: int, fault: Fault, node: str) -> Heal:
        """The next fsync fails, and the node with it; it starts again at the end."""
        host = self._host(node)
        host.fsync_fails = True

        def heal() -> None:
            host.fsync_fails = False
            host.start()

        return heal


KINDS = tuple(name[3:].replace("_", "-") for name in vars(Nemesis) if name.startswith("do_"))
