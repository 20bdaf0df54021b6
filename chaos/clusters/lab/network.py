"""The network of a lab: a namespace for each node, routed through the one that we are in.

Node i has 10.77.0.i on a veth pair whose other end, ``v<i>``, is here. Each directed pair (i, j)
and peer port has a proxy of its own. What node i sends to that port of node j is turned to the
proxy (nat prerouting). The proxy's upstream is the alias 10.77.i.j, which exists nowhere: on its
way out the connection is marked with i, turned to node j, and given the address of node i as its
source. So node j sees the connection of node i, and neither of them knows of a proxy. Clients come
from here; their aliases are 10.77.254.j.

A proxy takes connections in the stead of its node, so it may do so only as long as the node would:
`open_to` tells which proxies may. To the others a connection is refused, as nobody listens; and
what tries to connect over a link that is cut gets no answer.

Whatever else one node sends to another is dropped and counted: a port that the system did not
declare would be a hole in every partition.

Two counters for each directed link prove a cut: attempts to connect, and packets with data that
came out of a proxy in this direction.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.record.cluster_file import Address
from chaos.clusters.lab.sandbox import NoLab
from chaos.errors import TargetFailed
from nodes.wire.links import Link

PREFIX = "10.77"
PROXIES = f"{PREFIX}.255.254"
"""Where Toxiproxy listens, on the loopback device of the lab."""
ROUTER = f"{PREFIX}.0.254"
CLIENTS = 254
"""The mark of clients' connections, and the third number of their aliases."""
_FIRST_PORT = 20_000
_TABLE = "lab"
_OPEN, _CUT = "open_to", "cut_off"
"""Sets of proxies, by the ports at which they take connections."""
_LOSSES = "lose"
"""The chain that loses packets."""
_PURE_ACK_BYTES = 80
"""No packet without data is longer: 20 bytes of IP, at most 60 of TCP."""


class Way(msgspec.Struct, frozen=True):
    """A proxy for connections that ``src`` opens to a port of ``dst``. ``listen``: where the proxy
    takes them; ``upstream``: the alias to which it goes on."""

    src: str
    dst: str
    name: str
    listen: Address
    upstream: Address


class Count(msgspec.Struct, frozen=True):
    """Since the lab began: attempts to open ``connections`` (each SYN is one, repeated or not),
    ``bytes`` (with headers) of packets with data that passed, and packets ``lost`` by `lose`."""

    connections: int
    bytes: int
    lost: int = 0


def host(number: int) -> str:
    """The address of node ``number``, from 1."""
    return f"{PREFIX}.0.{number}"


def ways(
    nodes: Sequence[str],
    groups: Sequence[str],
    peer_ports: Sequence[int],
    client_ports: Sequence[int],
) -> list[Way]:
    """A proxy for each directed pair of nodes and peer port, and for each client group, node and
    client port."""
    number = {node: i for i, node in enumerate(nodes, 1)}
    found: list[Way] = []

    def add(src: str, dst: str, third: int, port: int, kind: str) -> None:
        listen = Address(PROXIES, _FIRST_PORT + len(found))
        upstream = Address(f"{PREFIX}.{third}.{number[dst]}", port)
        found.append(Way(src, dst, f"{kind}_{src}_{dst}_{port}", listen, upstream))

    for src in nodes:
        for dst in nodes:
            for port in peer_ports if src != dst else ():
                add(src, dst, number[src], port, "link")
    for group in groups:
        for node in nodes:
            for port in client_ports:
                add(group, node, CLIENTS, port, "client")
    return found


class Network:
    """The network of these nodes, made in the network namespace of this process."""

    def __init__(self, nodes: Sequence[str], ways: Sequence[Way], nft: Sequence[str]) -> None:
        self._number = {node: i for i, node in enumerate(nodes, 1)}
        self._ways = ways
        self._nft = list(nft)
        self._members: dict[str, set[int]] = {_OPEN: set(), _CUT: set()}
        self._setting = threading.Lock()

    def make(self) -> None:
        """Make it. Raises NoLab."""
        run_command("mount", "-t", "tmpfs", "tmpfs", "/run")
        Path("/run/netns").mkdir()
        run_command("ip", "link", "set", "lo", "up")
        run_command("ip", "addr", "add", f"{PROXIES}/32", "dev", "lo")
        # Aliases have a way to nowhere: a connection needs one before it is turned.
        run_command("ip", "route", "add", f"{PREFIX}.0.0/16", "dev", "lo", "src", PROXIES)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for node, number in self._number.items():
            self._plug(node, number)
        run_command(*self._nft, "-f", "-", given="\n".join(self._rules()))

    def _plug(self, node: str, number: int) -> None:
        run_command("ip", "netns", "add", node)
        run_command(
            "ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", node
        )
        run_command("ip", "addr", "add", f"{ROUTER}/32", "dev", f"v{number}")
        run_command("ip", "link", "set", f"v{number}", "up")
        run_command("ip", "route", "add", f"{host(number)}/32", "dev", f"v{number}")
        inside = ("ip", "-n", node)
        run_command(*inside, "link", "set", "lo", "up")
        run_command(*inside, "addr", "add", f"{host(number)}/32", "dev", "eth0")
        run_command(*inside, "link", "set", "eth0", "up")
        run_command(*inside, "route", "add", f"{ROUTER}/32", "dev", "eth0")
        run_command(
            *inside, "route", "add", "default", "via", ROUTER, "dev", "eth0", "src", host(number)
        )

    @staticmethod
    def inside(node: str, argv: Iterable[str | Path]) -> list[str]:
        """The command that runs ``argv`` in the node's namespace."""
        return ["ip", "netns", "exec", node, *map(str, argv)]

    # --- rules ---

    def _rules(self) -> Iterator[str]:
        links = sorted({pair for way in self._ways for pair in _both(way)})
        yield f"table ip {_TABLE} {{"
        for link in links:
            yield f"counter {_counter('tried', link)} {{ }}"
            yield f"counter {_counter('passed', link)} {{ }}"
            yield f"counter {_counter('lost', link)} {{ }}"
        for src, dst in self._pairs():
            yield f"counter {_counter('strayed', (src, dst))} {{ }}"
        for name in self._members:
            yield f"set {name} {{ type inet_service; }}"
        yield from _chain(_LOSSES, "filter", "input", "-1", ())
        yield from _chain("take", "filter", "input", "0", self._taken())
        yield from _chain("turn", "nat", "prerouting", "dstnat", self._turned())
        yield from _chain("tell", "route", "output", "mangle", self._marked())
        yield from _chain("reach", "nat", "output", "-100", self._reached())
        yield from _chain("pose", "nat", "postrouting", "srcnat", self._posed())
        yield from _chain("watch", "filter", "output", "0", self._watched())
        yield from _chain("between", "filter", "forward", "0", self._dropped(), policy="drop")
        yield "}"

    def _pairs(self) -> Iterator[Link]:
        return ((src, dst) for src in self._number for dst in self._number if src != dst)

    def _turned(self) -> Iterator[str]:
        for way in self._ways:
            if way.src in self._number:
                to = str(way.listen)
                yield (
                    f'iifname "v{self._number[way.src]}" ip daddr {host(self._number[way.dst])} '
                    f"tcp dport {way.upstream.port} dnat to {to}"
                )

    def _marked(self) -> Iterator[str]:
        for third in self._thirds():
            yield f"ip daddr {PREFIX}.{third}.0/24 ct mark set {third}"

    def _thirds(self) -> list[int]:
        return sorted({int(way.upstream.host.split(".")[2]) for way in self._ways})

    def _reached(self) -> Iterator[str]:
        for upstream in sorted({way.upstream.host for way in self._ways}):
            yield f"ip daddr {upstream} dnat to {PREFIX}.0.{upstream.split('.')[3]}"

    def _taken(self) -> Iterator[str]:
        connects = f"ip daddr {PROXIES} tcp flags & (syn | ack) == syn tcp dport"
        for way in self._ways:
            tried = f"counter name {_counter('tried', (way.src, way.dst))}"
            yield f"{connects} {way.listen.port} {tried}"
        yield f"{connects} @{_CUT} drop"
        first, last = self._ways[0].listen.port, self._ways[-1].listen.port
        yield f"{connects} {first}-{last} tcp dport != @{_OPEN} reject with tcp reset"

    def _posed(self) -> Iterator[str]:
        for number in self._number.values():
            yield f"ct mark {number} snat to {host(number)}"

    def _watched(self) -> Iterator[str]:
        for way in self._ways:
            mark = way.upstream.host.split(".")[2]
            forth = (
                f"ct mark {mark} ip daddr {host(self._number[way.dst])} "
                f"tcp dport {way.upstream.port}"
            )
            back = f"ip saddr {way.listen.host} tcp sport {way.listen.port}"
            for match, link in zip((forth, back), _both(way), strict=True):
                counted = f"counter name {_counter('passed', link)}"
                yield f"{match} ip length > {_PURE_ACK_BYTES} {counted}"
                yield f"{match} ip length <= {_PURE_ACK_BYTES} tcp flags & psh == psh {counted}"

    def _dropped(self) -> Iterator[str]:
        for src, dst in self._pairs():
            yield (
                f'iifname "v{self._number[src]}" oifname "v{self._number[dst]}" '
                f"counter name {_counter('strayed', (src, dst))}"
            )

    # --- connections ---

    def open_to(self, listening: Collection[tuple[str, int]]) -> None:
        """Only these ports of nodes take connections. Raises TargetFailed."""
        self._set(_OPEN, lambda way: (way.dst, way.upstream.port) in listening)

    def cut_between(self, links: Collection[Link]) -> None:
        """Nobody connects over these links, nor against them: the answer would not arrive. Raises
        TargetFailed."""
        self._set(_CUT, lambda way: any(link in links for link in _both(way)))

    def _set(self, name: str, is_in: Callable[[Way], bool]) -> None:
        with self._setting:
            before = self._members[name]
            now = {way.listen.port for way in self._ways if is_in(way)}
            changes = [
                f"{change} element ip {_TABLE} {name} {{ {', '.join(map(str, sorted(ports)))} }}"
                for change, ports in (("add", now - before), ("delete", before - now))
                if ports
            ]
            if changes:
                run_command(*self._nft, "-f", "-", given="\n".join(changes))
            self._members[name] = now

    def lose(self, shares: Mapping[Link, float]) -> None:
        """Of all packets on these links between nodes, these shares are lost, and on all others
        none. Raises TargetFailed."""
        rules = [
            f"add rule ip {_TABLE} {_LOSSES} {match} numgen random mod 1000 < "
            f"{round(1000 * share)} counter name {_counter('lost', link)} drop"
            for link, share in shares.items()
            for match in self._sent_on(link)
        ]
        run_command(
            *self._nft, "-f", "-", given="\n".join([f"flush chain ip {_TABLE} {_LOSSES}", *rules])
        )

    def _sent_on(self, link: Link) -> Iterator[str]:
        """What a node sends: over connections that it opened, and as answers."""
        src, dst = (self._number[end] for end in link)
        for way in self._ways:
            if (way.src, way.dst) == link:
                yield f'iifname "v{src}" tcp dport {way.listen.port}'
            if (way.dst, way.src) == link:
                yield f'iifname "v{src}" ct mark {dst} tcp sport {way.upstream.port}'

    # --- counters ---

    def counts(self) -> dict[Link, Count]:
        """What was tried and what passed on each directed link. Raises TargetFailed."""
        counters = self._counters()
        links = {pair for way in self._ways for pair in _both(way)}
        return {
            link: Count(
                counters[_counter("tried", link)][0],
                counters[_counter("passed", link)][1],
                counters[_counter("lost", link)][0],
            )
            for link in links
        }

    def strayed(self) -> dict[Link, int]:
        """How many packets one node sent to another past all declared ports: they were dropped."""
        counters = self._counters()
        found = {pair: counters[_counter("strayed", pair)][0] for pair in self._pairs()}
        return {pair: packets for pair, packets in found.items() if packets}

    def _counters(self) -> Mapping[str, tuple[int, int]]:
        """Packets and bytes of each counter."""
        try:
            said = subprocess.run(
                [*self._nft, "-j", "list", "counters", "table", "ip", _TABLE],
                capture_output=True,
                check=True,
                timeout=30,
            )
            listed = msgspec.json.decode(said.stdout, type=_Listed).nftables
        except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
            raise TargetFailed(f"nft does not list its counters: {error}") from None
        return {
            each.counter.name: (each.counter.packets, each.counter.bytes)
            for each in listed
            if each.counter is not None
        }


class _Counter(msgspec.Struct):
    name: str
    packets: int
    bytes: int


class _Entry(msgspec.Struct):
    counter: _Counter | None = None


class _Listed(msgspec.Struct):
    nftables: list[_Entry]


def _both(way: Way) -> tuple[Link, Link]:
    """The links that a proxy's connections carry: what their opener sends, and the answers."""
    return (way.src, way.dst), (way.dst, way.src)


def _counter(what: str, link: Link) -> str:
    # A name of nft has no dashes.
    return f"{what}_{link[0]}_{link[1]}".replace("-", "_")


def _chain(
    name: str, kind: str, hook: str, priority: str, rules: Iterable[str], policy: str = "accept"
) -> Iterator[str]:
    yield f"chain {name} {{"
    yield f"type {kind} hook {hook} priority {priority}; policy {policy};"
    yield from rules
    yield "}"


def run_command(*argv: str, given: str | None = None) -> None:
    """Run a program of whoever makes the lab. Raises NoLab with the first line that it says."""
    program = shutil.which(argv[0]) or argv[0]
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLab(f"the network of the lab: {argv[0]}: {error}") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise NoLab(f"the network of the lab: {' '.join(argv)}: {said}")
