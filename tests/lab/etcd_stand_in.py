"""deploy/systems/etcd with network namespaces in the place of containers: the same rules, proxies,
settings and script. Run as the first process of the namespaces of a lab, with the paths of etcd
and Toxiproxy, the command nft (as JSON), and a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench.record.cluster_file import Address
from chaos.systems.connection import JsonOverHttp

DEPLOYED = Path(__file__).resolve().parents[2] / "deploy" / "systems" / "etcd"


def run(*argv: str, **more: Any) -> None:
    subprocess.run(argv, check=True, **more)


def host_of(service: dict[str, Any]) -> str:
    return str(service["networks"]["nodes"]["ipv4_address"])


def plug(name: str, host: str) -> None:
    run("ip", "netns", "add", name)
    run("ip", "link", "add", f"v-{name[-9:]}", "type", "veth", "peer", "eth0", "netns", name)
    run("ip", "link", "set", f"v-{name[-9:]}", "master", "br0", "up")
    run("ip", "-n", name, "addr", "add", f"{host}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        run("ip", "-n", name, "link", "set", device, "up")


def put(host: str) -> bool:
    """Whether a write is acknowledged within a second."""
    try:
        status, _ = JsonOverHttp(Address(host, 2379), 1.0).post(
            "/v3/kv/put", {"key": "aw==", "value": "dg=="}
        )
    except Exception:  # Whatever it is, there was no acknowledgement.
        return False
    return status == 200


def wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited for {what} in vain")
        time.sleep(0.1)


def main() -> None:
    """Raises whatever goes wrong."""
    etcd, toxiproxy, nft, folder = (
        sys.argv[1],
        sys.argv[2],
        json.loads(sys.argv[3]),
        Path(sys.argv[4]),
    )
    services = YAML(typ="safe").load((DEPLOYED / "compose.yml").read_text())["services"]
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "link", "set", "br0", "up")
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", "172.31.77.1/24", "dev", "br0")
    plug("toxiproxy", host_of(services["toxiproxy"]))
    proxies = ["-host=0.0.0.0", f"-config={DEPLOYED / 'proxies.json'}"]
    log = (folder / "log").open("wb")
    background: Any = {"stdout": log, "stderr": log}
    subprocess.Popen(["ip", "netns", "exec", "toxiproxy", toxiproxy, *proxies], **background)
    hosts = {}
    for node in ("n1", "n2", "n3"):
        hosts[node] = host_of(services[f"links-{node}"])
        plug(node, hosts[node])
        inside = ["ip", "netns", "exec", node]
        run(*inside, *nft, "-f", str(DEPLOYED / "links" / f"{node}.nft"))
        settings = {**services[node]["environment"], "ETCD_DATA_DIR": str(folder / node)}
        subprocess.Popen([*inside, etcd], env={**os.environ, **settings}, **background)
    wait(lambda: all(map(put, hosts.values())), "three nodes that write")
    script = {"env": {**os.environ, "TOXIPROXY": f"http://{host_of(services['toxiproxy'])}:8474"}}
    run(str(DEPLOYED / "cut.sh"), "cut", "n1", **script)
    wait(lambda: put(hosts["n2"]) and put(hosts["n3"]), "the majority to write")
    assert not put(hosts["n1"]), "n1 wrote although it is cut off"
    run(str(DEPLOYED / "cut.sh"), "heal", "n1", **script)
    wait(lambda: put(hosts["n1"]), "n1 to write again")


if __name__ == "__main__":
    main()
