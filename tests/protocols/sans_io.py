"""A cluster of replicas without I/O, driven by hand: every delivery, loss, sync and crash is a
call.

It does a driver's duties (`nodes.contract.replica`): sends and replies wait for their writes,
timers are one-shot, a crash loses what was not synced. Messages and writes go through the real
codecs, so that a replica shares no object with another one or with its own past. Invariants are
observed after every step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from nodes.contract.disk import Disk, Write
from nodes.contract.replica import (
    Config,
    Durable,
    Input,
    Invariant,
    Message,
    Operation,
    Parameters,
    Replica,
    Reply,
    Request,
    Scene,
    Timer,
    Value,
    Version,
)
from nodes.wire.codec import Codec, WriteCodec


class ManualEnv:
    """The cluster's time, and a wall clock that is wrong by ``wall_offset_s``."""

    def __init__(self, cluster: Cluster, seed: str) -> None:
        self.rng = random.Random(seed)
        self.wall_offset_s = 0.0
        self._cluster = cluster

    def now(self) -> float:
        return self._cluster.now_s

    def wall(self) -> float:
        return 1_700_000_000.0 + self._cluster.now_s + self.wall_offset_s


class Packet:
    """A message in flight."""

    def __init__(self, src: str, dst: str, msg: Any) -> None:
        self.src, self.dst, self.msg = src, dst, msg

    def __repr__(self) -> str:
        return f"{self.src}->{self.dst} {self.msg}"


class Node:
    """One node: its replica while it runs, and what its disk holds."""

    def __init__(self, env: ManualEnv) -> None:
        self.env = env
        self.replica: Any = None
        self.synced: list[Write] = []
        self.unsynced: list[Write] = []
        self.durable = 0
        self.gate: list[tuple[int, Packet | Reply]] = []
        self.timers: dict[str, float] = {}

    @property
    def up(self) -> bool:
        return self.replica is not None


class Cluster:
    """``autosync``: every write is durable at once; else by `sync`."""

    def __init__(
        self,
        replica_type: type[Replica],
        parameters: Parameters,
        count: int = 3,
        *,
        seed: int = 1,
        autosync: bool = True,
    ) -> None:
        self.type = replica_type
        self.parameters = parameters
        self.ids = tuple(f"n{i}" for i in range(1, count + 1))
        self.autosync = autosync
        self.now_s = 0.0
        self.network: list[Packet] = []
        self.cut: set[tuple[str, str]] = set()
        """Directed links on which everything is lost."""
        self.lost = 0
        self.lies = False
        """Whether somebody sends what cannot be true."""
        self.refused: list[str] = []
        """Of that, what was refused, and why."""
        self.replies: list[tuple[str, Reply]] = []
        self.marks: list[tuple[str, str, dict[str, Any]]] = []
        """(node, name, details), in the order in which they were made."""
        self.on_reply: Callable[[str, Reply], None] = lambda node, reply: None
        self.invariants = [kind() for kind in replica_type.INVARIANTS]
        scene = Scene({id: Config(id, self.ids, parameters) for id in self.ids}, {})
        for invariant in self.invariants:
            invariant.begin(scene)
        self._messages: Codec[Any] = Codec(replica_type.MESSAGES)
        self._writes = WriteCodec(replica_type.RECORDS)
        self._sequences: dict[str, int] = {}
        self.nodes = {id: Node(ManualEnv(self, f"{seed}/{id}")) for id in self.ids}
        for id in self.ids:
            self.restart(id)

    def __getitem__(self, id: str) -> Any:
        return self.nodes[id].replica

    # --- steps ---

    def step(self, id: str, *inputs: Input) -> None:
        """One step of a node that runs."""
        node = self.nodes[id]
        node.replica.step(inputs)
        self._effects(id)

    def _effects(self, id: str) -> None:
        node = self.nodes[id]
        out = node.replica.out
        assert self.lies or not out.refused, f"nobody lies here: {out.refused}"
        self.refused += out.refused
        writes = node.replica.disk.take()
        node.unsynced.extend(self._writes.decode(self._writes.encode(writes)))
        for invariant in self.invariants:
            if type(invariant).observe is not Invariant.observe and invariant.is_needed():
                invariant.observe(id, node.replica)
        for name, delay_s in out.timers:
            node.timers.pop(name, None)
            if delay_s is not None:
                node.timers[name] = self.now_s + delay_s
        for send in out.sends:
            self._gate(id, send.position, Packet(id, send.dst, send.msg))
        for position, reply in out.replies:
            self._gate(id, position, reply)
        self.marks.extend((id, name, details) for name, details in out.marks)
        for effects in (out.timers, out.sends, out.replies, out.marks, out.refused):
            effects.clear()
        if self.autosync and node.unsynced:
            self.sync(id)

    def _gate(self, id: str, position: int, what: Packet | Reply) -> None:
        node = self.nodes[id]
        if position > node.durable:
            node.gate.append((position, what))
        elif isinstance(what, Packet):
            (msg,) = self._messages.decode(self._messages.encode([what.msg]))
            self.network.append(Packet(what.src, what.dst, msg))
        else:
            self.replies.append((id, what))
            self.on_reply(id, what)

    # --- the disk, crashes ---

    def sync(self, id: str) -> None:
        """All writes of the node become durable, and what waited for them leaves."""
        node = self.nodes[id]
        node.synced.extend(node.unsynced)
        node.durable += len(node.unsynced)
        node.unsynced.clear()
        waiting, node.gate = node.gate, []
        for position, what in waiting:
            self._gate(id, position, what)
        self.step(id, Durable(node.durable))

    def sync_all(self) -> None:
        """Every node that runs syncs."""
        for id in self.ids:
            if self.nodes[id].unsynced:
                self.sync(id)

    def crash(self, id: str, *, surviving: int = 0) -> None:
        """Lose the writes that are not synced, but for the first ``surviving``."""
        node = self.nodes[id]
        node.synced.extend(node.unsynced[:surviving])
        node.unsynced.clear()
        node.gate.clear()
        node.timers.clear()
        node.replica = None

    def restart(self, id: str) -> None:
        """Build a new replica on what the disk kept."""
        node = self.nodes[id]
        node.durable = 0
        disk = Disk.replay(node.synced)
        node.replica = self.type(Config(id, self.ids, self.parameters), node.env, disk)
        self._effects(id)

    # --- the network, time ---

    def deliver(self, **match: Any) -> int:
        """Deliver the packets that are in flight now and match; returns how many there were.
        ``src``, ``dst``: nodes; ``kind``: the message's type."""
        packets = self.find(**match)
        for packet in packets:
            self.network.remove(packet)
            self.receive(packet)
        return len(packets)

    def drop(self, **match: Any) -> int:
        """Lose the packets that are in flight now and match; returns how many there were."""
        packets = self.find(**match)
        for packet in packets:
            self.network.remove(packet)
        return len(packets)

    def find(
        self, *, src: str | None = None, dst: str | None = None, kind: type[Any] | None = None
    ) -> list[Packet]:
        """The packets in flight that match."""
        return [
            packet
            for packet in self.network
            if src in (None, packet.src)
            and dst in (None, packet.dst)
            and (kind is None or isinstance(packet.msg, kind))
        ]

    def receive(self, packet: Packet) -> None:
        """The packet arrives, unless the link is cut or the node is not running."""
        if (packet.src, packet.dst) in self.cut or not self.nodes[packet.dst].up:
            self.lost += 1
        else:
            self.step(packet.dst, Message(packet.src, packet.msg))

    def settle(self, limit: int = 10_000) -> None:
        """Deliver until nothing is in flight. Time stands still."""
        while self.deliver():
            limit -= 1
            assert limit > 0, "the network never becomes quiet"

    def partition(self, *groups: Sequence[str]) -> None:
        """Cut every link between two groups."""
        side = {id: number for number, group in enumerate(groups) for id in group}
        self.cut = {(a, b) for a in self.ids for b in self.ids if side[a] != side[b]}

    def fire(self, id: str, name: str) -> None:
        """The timer fires now."""
        del self.nodes[id].timers[name]
        self.step(id, Timer(name))

    def run(self, seconds: float) -> None:
        """Let time pass: messages arrive at once, timers fire when due."""
        end_s = self.now_s + seconds
        while True:
            self.settle()
            due = [
                (at_s, id, name) for id in self.ids for name, at_s in self.nodes[id].timers.items()
            ]
            if not due or min(due)[0] > end_s:
                break
            at_s, id, name = min(due)
            self.now_s = max(self.now_s, at_s)
            self.fire(id, name)
        self.now_s = end_s

    def heal(self) -> None:
        """All links whole, all nodes running, all writes durable from now on."""
        self.cut.clear()
        self.autosync = True
        for id in self.ids:
            if not self.nodes[id].up:
                self.restart(id)
            elif self.nodes[id].unsynced:
                self.sync(id)

    # --- clients ---

    def ask(
        self,
        id: str,
        op: Any,
        key: str,
        value: Value = None,
        *,
        client: str = "c",
        sequence: int | None = None,
        context: Version = None,
        acked: int = 0,
    ) -> Request:
        """A client's request arrives; its reply will be in `replies`."""
        if sequence is None:
            sequence = self._sequences.get(client, 0)
        self._sequences[client] = max(sequence + 1, self._sequences.get(client, 0))
        request = Request(client, sequence, Operation(op, key, value, None, context), acked)
        self.step(id, request)
        return request

    def reply_to(self, request: Request) -> Reply:
        """The one answer to ``request``."""
        name = (request.client, request.sequence)
        (reply,) = [r for _, r in self.replies if (r.client, r.sequence) == name]
        return reply

    def write(self, id: str, key: str, value: Value, **options: Any) -> Reply:
        """Write, and take the answer that is there at once."""
        return self._now(self.ask(id, "write", key, value, **options))

    def delete(self, id: str, key: str, **options: Any) -> Reply:
        """Delete, and take the answer that is there at once."""
        return self._now(self.ask(id, "delete", key, **options))

    def read(self, id: str, key: str, **options: Any) -> Reply:
        """Read, and take the answer that is there at once."""
        return self._now(self.ask(id, "read", key, **options))

    def _now(self, request: Request) -> Reply:
        _, reply = self.replies[-1]
        assert (reply.client, reply.sequence) == (request.client, request.sequence), "no reply yet"
        return reply

    # --- random schedules ---

    def disturb(self, rng: random.Random, *, crashes: bool = True) -> None:
        """One random event: deliveries out of order, losses, copies, syncs, crashes, restarts,
        timers, cuts. Deliveries are the most frequent."""
        id = self.ids[rng.randrange(len(self.ids))]
        node = self.nodes[id]
        dice = rng.random()
        if dice < 0.55:
            if self.network:
                packet = self.network.pop(rng.randrange(len(self.network)))
                if rng.random() < 0.1:
                    self.network.append(packet)
                self.receive(packet)
        elif dice < 0.60:
            if self.network:
                self.network.pop(rng.randrange(len(self.network)))
        elif dice < 0.75:
            if node.up and node.unsynced:
                self.sync(id)
        elif dice < 0.90:
            if node.timers:
                name = sorted(node.timers)[rng.randrange(len(node.timers))]
                self.now_s = max(self.now_s, node.timers[name])
                self.fire(id, name)
        elif dice < 0.94:
            if node.up and crashes:
                self.crash(id, surviving=rng.randrange(len(node.unsynced) + 1))
        elif dice < 0.985:
            if not node.up:
                self.restart(id)
        elif self.cut:
            self.cut.clear()
        else:
            self.partition([id], [other for other in self.ids if other != id])
