"""The real docker-compose.yml, unmodified, with a real engine."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import msgspec
import pytest

from chaos.clusters.processes import free_ports

ROOT = Path(__file__).resolve().parents[2]
PROJECT = f"capbench-test-{os.getpid()}"
# An image for each checkout: neighbours build theirs on the same engine, and layers are kept.
TAG = f"test-{zlib.crc32(str(ROOT).encode()):08x}"
NODES = ["n1", "n2", "n3", "n4", "n5"]


def compose_command() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    return ["docker", "compose"]


class Installation:
    """What `docker compose up` starts, with a project name, an image, ports and results of its
    own: nothing of the checkout's, and nothing of a neighbour's."""

    image = f"capbench:{TAG}"

    def __init__(self, folder: Path) -> None:
        self.broker_port, self.locust_port = free_ports(2)
        self.results = folder / "results"
        self.results.mkdir()
        self.environment = {
            **os.environ,
            "CAPBENCH_BROKER_PORT": str(self.broker_port),
            "CAPBENCH_LOCUST_PORT": str(self.locust_port),
            "CAPBENCH_PROJECT": PROJECT,
            "CAPBENCH_RESULTS": str(self.results),
            "CAPBENCH_TAG": TAG,
            # No other test's command shall clean up what a killed run of ours left.
            "CAPBENCH_NOTES": str(folder / "notes"),
            "PYTHONPATH": str(ROOT),
        }
        self.engine = docker.from_env()

    def compose(
        self, *arguments: str, timeout_s: float = 600, check: bool = True, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Type ``docker compose ...`` in the project's folder."""
        done = subprocess.run(
            [*compose_command(), "-p", PROJECT, *arguments],
            cwd=ROOT,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def containers(self) -> dict[str, Any]:
        found = self.engine.containers.list(
            all=True, filters={"label": f"com.docker.compose.project={PROJECT}"}
        )
        return {each.labels["com.docker.compose.service"]: each for each in found}

    def wait_healthy(self, timeout_s: float = 240) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            states = {name: each.attrs["State"] for name, each in self.containers().items()}
            health = {n: states.get(n, {}).get("Health", {}).get("Status") for n in NODES}
            if set(health.values()) == {"healthy"}:
                return
            assert time.monotonic() < deadline, f"not healthy: {health}"
            time.sleep(0.3)

    def setup_file(self, path: str) -> bytes:
        """A file of the volumes, as the set-up sees them."""
        return self.read("setup", f"/volumes/{path}")

    def read(self, service: str, path: str) -> bytes:
        """A file of a container, running or not."""
        chunks, _ = self.containers()[service].get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            file = archive.extractfile(archive.getmembers()[0])
            assert file is not None
            return file.read()

    def find(self, service: str, path: str) -> bytes | None:
        """The same; None: there is none."""
        try:
            return self.read(service, path)
        except docker.errors.NotFound:
            return None

    def write(self, service: str, path: str, content: bytes) -> None:
        """Replace a file of a container, running or not, by one of our image's user."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(Path(path).name)
            entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o600, 1000, 1000
            archive.addfile(entry, io.BytesIO(content))
        self.containers()[service].put_archive(str(Path(path).parent), packed.getvalue())

    def address(self, service: str, network: str) -> str:
        """Of a container on one of the installation's networks."""
        networks = self.containers()[service].attrs["NetworkSettings"]["Networks"]
        return str(networks[f"{PROJECT}_{network}"]["IPAddress"])

    def login(self, volume: str) -> Mapping[str, str]:
        login: Mapping[str, str] = msgspec.json.decode(self.setup_file(f"{volume}/login.json"))
        return login

    def leftovers(self) -> list[str]:
        """Whatever of the project the engine still has."""
        label = {"label": f"com.docker.compose.project={PROJECT}"}
        return [
            *(each.name for each in self.engine.containers.list(all=True, filters=label)),
            *(each.name for each in self.engine.networks.list(filters=label)),
            *(each.name for each in self.engine.volumes.list(filters=label)),
        ]


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips where there is no container engine and none can be had."""
    done = subprocess.run(
        [ROOT / ".ci" / "containers"], capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode == 3:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installation(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Up and healthy; gone afterwards, with all that it had."""
    installation = Installation(tmp_path_factory.mktemp("installation"))
    installation.compose("build")
    try:
        installation.compose("up", "-d")
        installation.wait_healthy()
        yield installation
    finally:
        installation.compose("--profile", "load", "down", "-v", "--remove-orphans", check=False)
        installation.engine.close()
    assert installation.leftovers() == []
