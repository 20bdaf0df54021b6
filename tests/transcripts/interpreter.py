"""Transcripts: commands to a cluster of replicas without I/O, and what came of each.

A file holds blocks. A block is comment lines (``#``), commands, ``----``, and what they printed, up
to an empty line. Nothing happens but what a command says: messages wait until they are delivered,
timers until they are fired, the clock stands still. Random draws are fixed (`FixedRng`).

    cluster protocol=raft nodes=3 [sync=manual] [quiet=TYPES] [PARAMETER=VALUE ...]
                                        messages of quiet types (heartbeats) arrive as soon as they
                                        are sent, or are lost on a cut link, and are not printed
    write NODE KEY=VALUE [by=CLIENT] [context=read]     also: delete NODE KEY, read NODE KEY
    cas NODE KEY OLD->NEW [by=CLIENT]
    retry NODE [by=CLIENT]              the client's last request once more, to that node
    deliver | drop | duplicate [from=NODES] [to=NODES] [type=TYPE] [FIELD=VALUE ...]
    settle [from=...] ...               deliver (those) until none is left
    fire NODE TIMER                     the timer fires now
    tick SECONDS                        every clock goes on; nothing fires
    pass SECONDS                        every clock goes on and timers fire when due, up to the
                                        first message that is not quiet; prints what nodes marked
                                        meanwhile, each with its time, and the time at the end
    campaign NODE [votes=NODES]         raft: stand for election now; the others do not hear of it
    craft NODE TERM TERMS               raft: start anew with a log of entries of these terms
    sync NODE | crash NODE [surviving=N] | restart NODE
    partition NODES NODES ... | heal    links between groups lose what they carry
    cut NODE NODE                       so does the link from the one to the other, one way
    expect NODE NAME=VALUE ...          fails if probe() or a key says otherwise
    status | flight                     all nodes; all messages on their way

After each command: what was sent (not by ``settle``), what clients were told, and each node whose
line changed. `deliver` without a match fails: a transcript says what happens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodes.contract.replica import Operation, Replica, Reply, Request, Value
from nodes.protocols.raft import Raft
from nodes.registry import get, node_ids
from tests.protocols.raft_cluster import RaftCluster
from tests.protocols.sans_io import Cluster, Packet
from tests.transcripts import words


class TranscriptError(Exception):
    """A command that cannot be carried out, or an ``expect`` that does not hold."""


class FixedRng:
    """The same draw each time: the middle, and the first ones."""

    def random(self) -> float:
        return 0.5

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def randrange(self, start: int, stop: int) -> int:
        return start

    def sample(self, population: Sequence[str], k: int) -> list[str]:
        return list(population[:k])


class _Scripted(Cluster):
    def restart(self, id: str) -> None:
        self.nodes[id].env.rng = FixedRng()  # type: ignore[assignment]
        super().restart(id)


class _ScriptedRaft(_Scripted, RaftCluster):
    pass


class Interpreter:
    """Carries out the commands of one transcript."""

    def __init__(self) -> None:
        self._cluster: Any = None
        self._shown: dict[str, str] = {}
        self._told = 0
        self._last: dict[str, Request] = {}
        self._versions: dict[str, Any] = {}
        self._quiet: frozenset[str] = frozenset()

    def run(self, command: str) -> list[str]:
        """Carry out one command; what it printed. Raises TranscriptError."""
        name, *arguments = command.split()
        method = getattr(self, f"do_{name}", None)
        if method is None or (self._cluster is None and name != "cluster"):
            raise TranscriptError(f"{command}: no such command here")
        in_flight = [] if self._cluster is None else list(self._cluster.network)
        try:
            lines: list[str] = method(*arguments) or []
            self._deliver_quiet()
        except (TypeError, KeyError, ValueError) as error:
            raise TranscriptError(f"{command}: {error!r}") from error
        if name in ("flight", "status", "expect"):
            return lines
        known = {id(packet) for packet in in_flight}
        sent = [packet for packet in self._cluster.network if id(packet) not in known]
        if name != "settle":
            lines += self._packets(sent)
        elif self._cluster.network:
            left = len(self._cluster.network)
            lines.append(f"{left} message{'s' * (left > 1)} still on the way")
        lines += self._replies()
        lines += self._changes()
        return lines

    def _deliver_quiet(self) -> None:
        for _ in range(100):
            packets = [p for p in self._cluster.network if type(p.msg).__name__ in self._quiet]
            if not packets:
                return
            for packet in packets:
                self._cluster.network.remove(packet)
                self._cluster.receive(packet)
        raise TranscriptError(f"quiet messages without an end: {words.message(packets[0].msg)}")

    # --- what is printed ---

    def _packets(self, packets: Sequence[Packet]) -> list[str]:
        """One line for the same message from one node to several."""
        lines: dict[tuple[str, str], list[str]] = {}
        for packet in packets:
            lines.setdefault((packet.src, words.message(packet.msg)), []).append(packet.dst)
        return [f"{src} -> {' '.join(dsts)}  {text}" for (src, text), dsts in lines.items()]

    def _replies(self) -> list[str]:
        replies = self._cluster.replies[self._told :]
        self._told += len(replies)
        for _, reply in replies:
            if reply.outcome == "ok":
                self._versions[reply.client] = reply.version
        return [f"{node} => {reply.client}  {self._reply(reply)}" for node, reply in replies]

    def _reply(self, reply: Reply) -> str:
        last = self._last.get(reply.client)
        asked = ""
        if last is not None and last.sequence == reply.sequence:
            asked = words.operation(last.operation)
        return f"{asked}: {words.reply(reply)}"

    def _line(self, node: str) -> str:
        host = self._cluster.nodes[node]
        if not host.up:
            return "down"
        unsynced = f", {len(host.unsynced)} unsynced" if host.unsynced else ""
        return words.replica(host.replica) + unsynced

    def _changes(self) -> list[str]:
        """Nodes that changed, those that say the same on one line."""
        lines: dict[str, list[str]] = {}
        for node in self._cluster.ids:
            line = self._line(node)
            if self._shown.get(node) != line:
                self._shown[node] = line
                lines.setdefault(line, []).append(node)
        return [f"{' '.join(nodes)}: {line}" for line, nodes in lines.items()]

    # --- the cluster ---

    def do_cluster(self, *options: str) -> None:
        given = _options(options)
        protocol = get(given.pop("protocol"))
        count = int(given.pop("nodes"))
        autosync = given.pop("sync", "auto") == "auto"
        self._quiet = frozenset(filter(None, given.pop("quiet", "").split(",")))
        for kind in self._quiet:
            _check_type(kind, protocol.replica)
        raw: dict[str, Any] = {name: _value(text) for name, text in given.items()}
        parameters = protocol.configure("n1", node_ids(count), raw).parameters
        if issubclass(protocol.replica, Raft):
            self._cluster = _ScriptedRaft(count, autosync=autosync, **raw)
        else:
            self._cluster = _Scripted(protocol.replica, parameters, count, autosync=autosync)

    def do_crash(self, node: str, *options: str) -> None:
        self._cluster.crash(node, surviving=int(_options(options).get("surviving", 0)))

    def do_restart(self, node: str) -> None:
        if self._cluster.nodes[node].up:
            raise TranscriptError(f"{node} runs")
        self._cluster.restart(node)

    def do_sync(self, node: str) -> None:
        self._cluster.sync(node)

    def do_tick(self, seconds: str) -> None:
        self._cluster.now_s += float(seconds)

    def do_pass(self, seconds: str) -> list[str]:
        cluster = self._cluster
        end_s = cluster.now_s + float(seconds)
        waiting = len(cluster.network)
        told: dict[tuple[float, str], list[str]] = {}
        while len(cluster.network) == waiting:
            due = [
                (at_s, node, timer)
                for node in cluster.ids
                for timer, at_s in cluster.nodes[node].timers.items()
            ]
            at_s, node, timer = min(due, default=(math.inf, "", ""))
            if at_s > end_s:
                cluster.now_s = end_s
                break
            cluster.now_s = max(cluster.now_s, at_s)
            marked = len(cluster.marks)
            cluster.fire(node, timer)
            self._deliver_quiet()
            for node, mark, details in cluster.marks[marked:]:
                told.setdefault((cluster.now_s, words.mark(mark, details)), []).append(node)
        lines = [f"{at_s:g} s  {' '.join(nodes)}: {text}" for (at_s, text), nodes in told.items()]
        return [*lines, f"now {cluster.now_s:g} s"]

    def do_fire(self, node: str, timer: str) -> None:
        self._cluster.fire(node, timer)

    # --- clients ---

    def _ask(self, node: str, operation: Operation, options: Sequence[str]) -> None:
        given = _options(options)
        client = given.pop("by", "c")
        if given.pop("context", None) == "read":
            operation = Operation(
                operation.op, operation.key, operation.value, None, self._versions[client]
            )
        if given:
            raise TranscriptError(f"unknown options {given}")
        sequence = self._last[client].sequence + 1 if client in self._last else 0
        self._last[client] = Request(client, sequence, operation)
        self._cluster.step(node, self._last[client])

    def do_write(self, node: str, what: str, *options: str) -> None:
        key, _, value = what.partition("=")
        self._ask(node, Operation("write", key, _value(value)), options)

    def do_read(self, node: str, key: str, *options: str) -> None:
        self._ask(node, Operation("read", key), options)

    def do_delete(self, node: str, key: str, *options: str) -> None:
        self._ask(node, Operation("delete", key), options)

    def do_cas(self, node: str, key: str, change: str, *options: str) -> None:
        old, _, new = change.partition("->")
        self._ask(node, Operation("cas", key, _value(new), _value(old)), options)

    def do_retry(self, node: str, *options: str) -> None:
        self._cluster.step(node, self._last[_options(options).get("by", "c")])

    # --- messages ---

    def _match(self, options: Sequence[str]) -> list[Packet]:
        given = _options(options)
        sources = given.pop("from", "").split(",")
        targets = given.pop("to", "").split(",")
        kind = given.pop("type", "")
        if kind:
            _check_type(kind, self._cluster.type)
        return [
            packet
            for packet in self._cluster.network
            if (sources == [""] or packet.src in sources)
            and (targets == [""] or packet.dst in targets)
            and kind in ("", type(packet.msg).__name__)
            and all(str(getattr(packet.msg, field, None)) == v for field, v in given.items())
        ]

    def _some(self, options: Sequence[str]) -> list[Packet]:
        packets = self._match(options)
        if not packets:
            raise TranscriptError(f"no message on its way is {' '.join(options)}")
        return packets

    def do_deliver(self, *options: str) -> None:
        for packet in self._some(options):
            self._cluster.network.remove(packet)
            self._cluster.receive(packet)

    def do_duplicate(self, *options: str) -> None:
        for packet in self._some(options):
            self._cluster.receive(packet)

    def do_drop(self, *options: str) -> None:
        for packet in self._some(options):
            self._cluster.network.remove(packet)

    def do_settle(self, *options: str) -> None:
        delivered = 0
        while packets := self._match(options):
            delivered += len(packets)
            if delivered > 2000:
                raise TranscriptError(f"messages without an end: {words.message(packets[0].msg)}")
            for packet in packets:
                self._cluster.network.remove(packet)
                self._cluster.receive(packet)

    def do_partition(self, *groups: str) -> None:
        self._cluster.partition(*[group.split(",") for group in groups])

    def do_heal(self) -> None:
        self._cluster.cut.clear()

    def do_cut(self, src: str, dst: str) -> None:
        for node in (src, dst):
            if node not in self._cluster.ids:
                raise TranscriptError(f"no node {node}")
        self._cluster.cut.add((src, dst))

    # --- raft ---

    def do_campaign(self, node: str, *options: str) -> None:
        votes = _options(options).get("votes")
        self._cluster.elect(node, None if votes is None else votes.split(","))

    def do_craft(self, node: str, term: str, terms: str) -> None:
        self._cluster.craft(node, [int(t) for t in terms.split(",")], int(term))

    # --- looking ---

    def do_status(self) -> list[str]:
        self._shown.clear()
        return self._changes()

    def do_flight(self) -> list[str]:
        return self._packets(self._cluster.network) or ["no message is on its way"]

    def do_expect(self, node: str, *wanted: str) -> None:
        replica = self._cluster[node]
        probe, state = replica.probe(), replica.state()
        for name, text in _options(wanted).items():
            if name in probe:
                found = probe[name]
            else:
                found = "|".join(str(v) for v in state[name][0]) if name in state else None
            if str(found) != text:
                raise TranscriptError(f"{node}: expected {name}={text}, found {found}")


def _check_type(kind: str, replica: type[Replica]) -> None:
    if kind not in {message.__name__ for message in replica.MESSAGES}:
        raise TranscriptError(f"no message {kind}")


def _options(words_: Sequence[str]) -> dict[str, str]:
    options = {}
    for word in words_:
        name, equals, value = word.partition("=")
        if not equals:
            raise TranscriptError(f"{word} is not NAME=VALUE")
        options[name] = value
    return options


def _value(text: str) -> Value:
    try:
        value: Value = json.loads(text)
    except ValueError:
        return text
    return value


def play(text: str) -> str:
    """The transcript ``text`` with what its commands print now."""
    interpreter = Interpreter()
    blocks = []
    for block in text.strip().split("\n\n"):
        script = block.split("\n----")[0].rstrip()
        commands = [line for line in script.splitlines() if line and not line.startswith("#")]
        if not commands:
            blocks.append(script)
            continue
        printed = [line for command in commands for line in interpreter.run(command)]
        blocks.append("\n".join([script, "----", *(printed or ["nothing changed"])]))
    return "\n\n".join(blocks) + "\n"


def check(path: Path, *, rewrite: bool) -> None:
    """Play a file and compare, or write it anew. Raises AssertionError, TranscriptError."""
    text = path.read_text()
    played = play(text)
    if rewrite:
        path.write_text(played)
    assert path.read_text() == played
