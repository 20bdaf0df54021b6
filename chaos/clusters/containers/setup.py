"""The set-up of an installation in containers: passwords, the broker's rules, TLS, the proxies.

    python -m chaos.clusters.containers.setup --at /volumes

Run once before anything else starts (the service ``setup``), it fills a volume for each of the
others; what is there already stays, so that a second start changes no password. No password is in
an image, in the environment, or in the repository.

| volume | for | has |
|---|---|---|
| broker | Mosquitto | mosquitto.conf, passwords, rules, a login for health checks, keys |
| toxiproxy | Toxiproxy | proxies.json: a proxy for each directed link |
| n1, n2, ... | a node each | login.json |
| clients | load | login.json, cluster.json: how to reach the cluster ``demo`` |
| runner | the nemesis | login.json |

With ``--tls`` the broker speaks TLS only, and everybody gets ``ca.pem``.

What each may do at the broker (``rules``): node i publishes what comes from node i, what it tells
of itself, and replies; clients publish requests; only the runner gives nodes commands, and tells
which faults are on.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.record.cluster_file import Address, ClusterFile, write_cluster_file
from nodes.container import DEFAULT_CLUSTER, Login
from nodes.registry import InvalidConfiguration, get, node_ids
from nodes.wire.links import GROUP, link_names, link_ports

PORT = 1883
BROKER_UID = 1883
"""Of the user ``mosquitto`` in the image eclipse-mosquitto."""
OUR_UID = 1000
"""Of the user ``capbench`` in our image."""
RUNNER, HEALTH = "runner", "health"
PASSWORD_BYTES = 24
_ITERATIONS = 101
"""As mosquitto_passwd has it. Many would slow down the guessing of short passwords, and ours are
random; but all links connect at once, each within a second, and on a busy machine the broker would
never be done with those that have given up."""


def set_up(at: Path, count: int, protocol: str, *, tls: bool) -> list[str]:
    """Fill the volumes below ``at`` for an installation of ``count`` nodes that run ``protocol``.
    Returns a line for each thing that was done. Raises OSError, and InvalidConfiguration."""
    nodes = node_ids(count)
    for user in (*nodes, GROUP, RUNNER, HEALTH):
        volume = at / _volume(user)
        volume.mkdir(parents=True, exist_ok=True)
        path = volume / ("health.json" if user == HEALTH else "login.json")
        if not path.exists():
            _write(path, msgspec.json.encode(Login(user, secrets.token_urlsafe(PASSWORD_BYTES))))
    (at / "toxiproxy").mkdir(exist_ok=True)
    logins = [_login(at, user) for user in (*nodes, GROUP, RUNNER, HEALTH)]
    broker = at / "broker"
    _write(broker / "passwords", "".join(map(_password_line, logins)).encode())
    _write(broker / "rules", rules(nodes).encode())
    _write(broker / "mosquitto.conf", _configuration(tls=tls).encode())
    health = logins[-1]
    seen_by = "--cafile /mosquitto/config/ca.pem --insecure" if tls else ""
    _write(
        broker / "health",
        f"-h 127.0.0.1 -p {PORT} -u {health.username} -P {health.password} {seen_by}\n".encode(),
    )
    _write(at / "toxiproxy" / "proxies.json", proxies(nodes))
    done = [f"{len(nodes)} nodes, {len(link_names(nodes, (GROUP,)))} links, passwords, rules"]
    done.append(_certify(at, nodes) if tls else _forget_certificates(at, nodes))
    write_cluster_file(at / "clients" / "cluster.json", _cluster(at, nodes, protocol, tls=tls))
    for path in at.rglob("*"):
        uid = BROKER_UID if broker in (path, *path.parents) else OUR_UID
        if os.geteuid() == 0:
            os.chown(path, uid, uid)
    return done


def _cluster(at: Path, nodes: Sequence[str], protocol: str, *, tls: bool) -> ClusterFile:
    ports = link_ports(nodes, (GROUP,))
    login = _login(at, GROUP)
    return ClusterFile(
        cluster=DEFAULT_CLUSTER,
        protocol=protocol,
        nodes=list(nodes),
        operations=list(get(protocol).operations),
        broker=Address("broker", PORT),
        group=GROUP,
        request_links={node: Address("toxiproxy", ports[GROUP, node]) for node in nodes},
        username=login.username,
        password=login.password,
        tls_ca="/clients/ca.pem" if tls else None,
    )


def rules(nodes: Sequence[str]) -> str:
    """Mosquitto's access list: who may publish and read what, in every cluster. What is not in it
    is refused."""
    parts = []
    for node in nodes:
        parts += [
            f"user {node}",
            f"topic write capbench/+/net/{node}/+",
            f"topic read capbench/+/net/+/{node}",
            f"topic read capbench/+/req/{node}/#",
            f"topic read capbench/+/ctl/{node}",
            f"topic write capbench/+/status/{node}",
            f"topic write capbench/+/rep/{GROUP}/+",
            "",
        ]
    parts += [
        f"user {GROUP}",
        "topic write capbench/+/req/#",
        f"topic read capbench/+/rep/{GROUP}/#",
        "topic read capbench/+/status/#",
        "topic read capbench/+/faults",
        "",
        f"user {RUNNER}",
        "topic write capbench/+/ctl/#",
        "topic write capbench/+/faults",
        "topic read capbench/+/status/#",
        "",
        f"user {HEALTH}",
        "topic read $SYS/broker/uptime",
    ]
    return "\n".join(parts) + "\n"


def proxies(nodes: Sequence[str]) -> bytes:
    """Toxiproxy's configuration: a proxy in front of the broker for each directed link."""
    ports = link_ports(nodes, (GROUP,))
    listed = [
        {"name": name, "listen": f"0.0.0.0:{ports[link]}", "upstream": f"broker:{PORT}"}
        for link, name in link_names(nodes, (GROUP,)).items()
    ]
    return msgspec.json.format(msgspec.json.encode(listed), indent=2) + b"\n"


def _configuration(*, tls: bool) -> str:
    lines = [
        f"listener {PORT}",
        "allow_anonymous false",
        "password_file /mosquitto/config/passwords",
        "acl_file /mosquitto/config/rules",
        "persistence false",
        # Without it small frames wait for the acknowledgement of the one before.
        "set_tcp_nodelay true",
        "max_packet_size 16777216",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
    ]
    if tls:
        lines += [
            "certfile /mosquitto/config/broker.pem",
            "keyfile /mosquitto/config/broker.key",
            "tls_version tlsv1.3",
        ]
    return "\n".join(lines) + "\n"


def _password_line(login: Login) -> str:
    """As mosquitto_passwd writes it: PBKDF2 of SHA-512, salted."""
    salt = hashlib.sha256(f"{login.username}:{login.password}".encode()).digest()[:12]
    digest = hashlib.pbkdf2_hmac("sha512", login.password.encode(), salt, _ITERATIONS)
    encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
    return f"{login.username}:$7${_ITERATIONS}${encoded[0]}${encoded[1]}\n"


def _certify(at: Path, nodes: Sequence[str]) -> str:
    import trustme

    broker = at / "broker"
    if not (broker / "broker.pem").exists():
        # The authority signs this one certificate and is forgotten: its key is written nowhere.
        authority = trustme.CA(organization_name="capbench")
        certificate = authority.issue_cert("broker", "toxiproxy", "localhost", "127.0.0.1")
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        _write(broker / "broker.pem", chain)
        _write(broker / "broker.key", certificate.private_key_pem.bytes())
        _write(broker / "ca.pem", authority.cert_pem.bytes())
    for user in (*nodes, GROUP, RUNNER):
        _write(at / _volume(user) / "ca.pem", (broker / "ca.pem").read_bytes())
    return "TLS: on"


def _forget_certificates(at: Path, nodes: Sequence[str]) -> str:
    for user in (*nodes, GROUP, RUNNER):
        (at / _volume(user) / "ca.pem").unlink(missing_ok=True)
    return "TLS: off"


def _volume(user: str) -> str:
    return {GROUP: "clients", HEALTH: "broker"}.get(user, user)


def _login(at: Path, user: str) -> Login:
    path = at / _volume(user) / ("health.json" if user == HEALTH else "login.json")
    return msgspec.json.decode(path.read_bytes(), type=Login)


def _write(path: Path, content: bytes) -> None:
    """For its reader only, and a whole file at any moment."""
    partial = path.with_name(path.name + ".partial")
    partial.touch(mode=0o600)
    partial.write_bytes(content)
    os.replace(partial, path)


def main() -> int:
    """Set up, and say what was done. Exit code 2: there is no such protocol; 3: a volume
    could not be written."""
    parser = argparse.ArgumentParser(prog="python -m chaos.clusters.containers.setup")
    parser.add_argument("--at", type=Path, required=True, help="where the volumes are mounted")
    parser.add_argument("--nodes", type=int, default=5, help="how many nodes (default: 5)")
    parser.add_argument("--protocol", default="raft", help="what they run (default: raft)")
    parser.add_argument(
        "--tls",
        choices=("on", "off"),
        default="off",
        help="whether the broker speaks TLS (default: off)",
    )
    options = parser.parse_args()
    tls = options.tls == "on"
    try:
        for line in set_up(options.at, options.nodes, options.protocol, tls=tls):
            print(f"setup: {line}")
    except InvalidConfiguration as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"setup: {error.filename}: {error.strerror}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
