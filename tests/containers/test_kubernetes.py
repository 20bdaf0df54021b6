"""The Kubernetes manifests, against the published schemas and against the rest of the project. No
cluster is started: docs/CONTAINERS.md says what was not tried."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from nodes.registry import node_ids
from nodes.wire.links import link_ports
from tests.containers.conftest import NODES, ROOT

MANIFESTS = ROOT / "deploy" / "kubernetes"


def read(path: Path) -> list[dict[str, Any]]:
    return [dict(each) for each in YAML(typ="safe").load_all(path.read_text())]


KUSTOMIZATION = read(MANIFESTS / "kustomization.yaml")[0]
RESOURCES = [each for name in KUSTOMIZATION["resources"] for each in read(MANIFESTS / name)]
COMPOSE = read(ROOT / "docker-compose.yml")[0]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod specification, with its owner's name."""
    for resource in RESOURCES:
        if "template" in resource.get("spec", {}):
            yield resource["metadata"]["name"], resource["spec"]["template"]["spec"]


def test_every_manifest_is_listed() -> None:
    listed = {*KUSTOMIZATION["resources"], "kustomization.yaml"}
    assert {path.name for path in MANIFESTS.glob("*.yaml")} == listed


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: each["metadata"]["name"])
def test_it_is_what_the_published_schema_says(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, "1.31", strict=True)


def test_a_wrong_field_would_be_found() -> None:
    (wrong,) = (each for each in RESOURCES if each["kind"] == "StatefulSet")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**wrong, "spec": {"replica": 5}}, "1.31", strict=True)


def test_names_and_images_are_those_of_the_compose_file() -> None:
    services = {each["metadata"]["name"] for each in RESOURCES if each["kind"] == "Service"}
    assert {"broker", "toxiproxy", "locust"} <= services & set(COMPOSE["services"])
    images = {c["image"] for _, pod in pods() for c in pod["containers"]}
    in_compose = {each["image"].partition(":$")[0] for each in COMPOSE["services"].values()}
    assert images == in_compose
    (nodes,) = (each for each in RESOURCES if each["kind"] == "StatefulSet")
    assert nodes["spec"]["replicas"] == len(NODES)


def test_every_secret_that_is_mounted_is_made_of_what_the_set_up_writes(tmp_path: Path) -> None:
    volumes = tmp_path / "volumes"
    done = subprocess.run(
        [sys.executable, "-m", "chaos.clusters.containers.setup", "--at", volumes],
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0
    made = {each["name"] for each in KUSTOMIZATION["secretGenerator"]}
    mounted = {
        volume["secret"]["secretName"]
        for _, pod in pods()
        for volume in pod["volumes"]
        if "secret" in volume
    }
    assert mounted == made
    for secret in KUSTOMIZATION["secretGenerator"]:
        for file in secret["files"]:
            assert (tmp_path / file.rpartition("=")[2]).is_file(), file
    (nodes,) = (each for each in KUSTOMIZATION["secretGenerator"] if each["name"] == "nodes")
    of_pods = [file.partition("=")[2].split("/")[1] for file in nodes["files"]]
    assert of_pods == list(node_ids(len(NODES)))


def test_no_pod_has_more_rights_than_it_needs() -> None:
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["automountServiceAccountToken"] is False, name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"], name
            assert rights["capabilities"] == {"drop": ["ALL"]}, name
            assert rights["allowPrivilegeEscalation"] is False, name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
    mounts = {
        name: {mount["name"] for c in pod["containers"] for mount in c["volumeMounts"]}
        for name, pod in pods()
    }
    assert "logins" not in mounts["node"], "only its init container sees the others' passwords"


def test_kustomize_puts_it_together(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl here to put the manifests together")
    shutil.copytree(MANIFESTS, tmp_path / "kubernetes", ignore=shutil.ignore_patterns("volumes"))
    volumes = tmp_path / "kubernetes" / "volumes"
    subprocess.run(
        [sys.executable, "-m", "chaos.clusters.containers.setup", "--at", volumes],
        cwd=ROOT,
        check=True,
    )
    done = subprocess.run(
        [kubectl, "kustomize", tmp_path / "kubernetes"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = [dict(each) for each in YAML(typ="safe").load_all(done.stdout)]
    for resource in built:
        kubernetes_validate.validate(resource, "1.31", strict=True)
    assert {each["metadata"]["namespace"] for each in built if each["kind"] != "Namespace"} == {
        "capbench"
    }
    assert sum(each["kind"] == "Secret" for each in built) == len(KUSTOMIZATION["secretGenerator"])


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a selector of a policy takes a pod with these labels."""
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In"
        if labels.get(each["key"]) not in each["values"]:
            return False
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return {name: labels.get(name) for name in wanted} == wanted


def may_connect(source: dict[str, str], target: dict[str, str], port: int) -> bool:
    """What the network policies say, as Kubernetes documents them: what a policy selects is closed,
    but for what some policy opens."""
    policies = [each["spec"] for each in RESOURCES if each["kind"] == "NetworkPolicy"]
    closing = [p for p in policies if "Ingress" in p["policyTypes"]]
    of_target = [p for p in closing if selects(p["podSelector"], target)]
    rules = [rule for p in of_target for rule in p.get("ingress", [])]
    return not of_target or any(
        any(selects(peer["podSelector"], source) for peer in rule["from"])
        and any(p["port"] <= port <= p.get("endPort", p["port"]) for p in rule["ports"])
        for rule in rules
    )


def test_who_reaches_whom_is_as_in_the_compose_file() -> None:
    labels = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in RESOURCES
        if "template" in each.get("spec", {})
    }
    ports = link_ports(node_ids(len(NODES)), ("load",)).values()
    links = {("toxiproxy", port) for port in (min(ports), max(ports))}
    asked = {
        *(("broker", 1883), *links, ("toxiproxy", 8474), ("toxiproxy", max(ports) + 1)),
        *(("locust-master", 8089), ("locust-master", 5557), ("node", 80), ("runner", 80)),
    }

    def reached(source: str) -> set[tuple[str, int]]:
        return {each for each in asked if may_connect(labels[source], labels[each[0]], each[1])}

    usual = {("broker", 1883), *links}
    assert {source: reached(source) for source in labels} == {
        "node": usual,
        "locust-worker": {*usual, ("locust-master", 5557)},
        "locust-master": usual,
        "runner": {*usual, ("toxiproxy", 8474)},
        "toxiproxy": {("broker", 1883)},
        "broker": set(),
    }
    outside = {"app": "of-somebody-else"}
    assert not any(may_connect(outside, labels[name], port) for name, port in asked)
    services = [each for each in RESOURCES if each["kind"] == "Service"]
    assert {each["spec"].get("type", "ClusterIP") for each in services} == {"ClusterIP"}
