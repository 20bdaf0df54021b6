"""deploy/systems: what there is for machines that refuse the namespaces of a lab."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from chaos.clusters.lab import sandbox
from chaos.clusters.toxiproxy import find_toxiproxy
from chaos.systems.system import Programs
from tests.lab.etcd_stand_in import DEPLOYED

ROOT = Path(__file__).resolve().parents[2]


def test_every_link_has_a_proxy_and_a_rule() -> None:
    """Names, addresses and ports in four files."""
    services = YAML(typ="safe").load((DEPLOYED / "compose.yml").read_text())["services"]
    host = {
        name: service["networks"]["nodes"]["ipv4_address"]
        for name, service in services.items()
        if "networks" in service
    }
    proxies = {each["name"]: each for each in json.loads((DEPLOYED / "proxies.json").read_text())}
    nodes = ("n1", "n2", "n3")
    assert set(services) == {"toxiproxy", *nodes, *(f"links-{node}" for node in nodes)}
    assert len(proxies) == 6
    for src, dst in itertools.permutations(nodes, 2):
        proxy = proxies[f"link_{src}_{dst}"]
        assert proxy["upstream"] == f"{host[f'links-{dst}']}:2380"
        port = proxy["listen"].removeprefix("0.0.0.0:")
        rules = (DEPLOYED / "links" / f"{src}.nft").read_text()
        turned = f"dnat to {host['toxiproxy']}:{port}\n"
        assert f"ip daddr {host[f'links-{dst}']} tcp dport 2380 {turned}" in rules
        assert f"nft -f /rules/{src}.nft" in services[f"links-{src}"]["command"][2]
        assert services[src]["network_mode"] == f"service:links-{src}"
        assert services[src]["environment"]["ETCD_NAME"] == src
        assert (
            f"{dst}=http://{proxy['upstream']}"
            in (services[src]["environment"]["ETCD_INITIAL_CLUSTER"])
        )


@pytest.mark.live
def test_its_rules_cut_a_node_off(tmp_path: Path, to_be_had: Callable[[str], Programs]) -> None:
    """With namespaces in the place of containers."""
    etcd = to_be_had("etcd").paths["etcd"]
    if shutil.which("curl") is None:
        pytest.skip("the script needs curl")
    arguments = [etcd, str(find_toxiproxy()), json.dumps(sandbox.nft()), str(tmp_path)]
    stand_in = [sys.executable, "-m", "tests.lab.etcd_stand_in", *arguments]
    done = subprocess.run(
        sandbox.command(stand_in),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if "type is not supported" in done.stderr or "Unknown device type" in done.stderr:
        pytest.skip("this kernel has no bridges")
    assert done.returncode == 0, done.stderr
