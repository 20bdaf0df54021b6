"""The container engine: the containers of an installation that `docker compose up` started.

A thin layer over the package ``docker``: containers by their names in docker-compose.yml, files in
and out of them, and errors as one line. Every call asks the engine; nothing is remembered.
"""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from bench.paths import ROOT
from chaos.errors import TargetFailed
from nodes.contract.names import check_name

PART = "io.capbench.part"
"""The label of the containers that an experiment may touch: ``node``, ``broker``, ``toxiproxy``."""
PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
FOLDER = "com.docker.compose.project.working_dir"
OWNER = 1000
"""The user id that files get in a container: that of our image's user."""
TIMEOUT_S = 30
FREEZES = 3
"""How often a container is asked to pause before that counts as failed."""
MOST_BYTES = 256 << 20
"""Of a file that is read out of a container."""
NODES, CLIENTS, CONTROL = "nodes", "clients", "control"
"""The networks: of nodes; of load and the runner; of the runner and Toxiproxy's API. The broker and
the proxies of links are on both of the first."""
TOXIPROXY_API = "toxiproxy-api"
"""Toxiproxy's name on the network ``control``, the only one on which its API listens."""


class EngineFailed(TargetFailed):
    """The engine is not there, or refused: one line."""


def is_inside() -> bool:
    """Whether this process runs in a container of the installation itself."""
    return os.environ.get("CAPBENCH_INSIDE") == "1"


class Engine:
    """The containers of one installation. Every method raises EngineFailed."""

    def __init__(self, project: str | None = None) -> None:
        """``project``: compose's name of it; None: the one that CAPBENCH_PROJECT names, else the
        one that was started in this folder, one above it, or the folder of capbench itself."""
        try:
            import docker
        except ImportError:
            raise EngineFailed(
                "the compose target needs the package docker: pip install capbench[containers]"
            ) from None
        self._errors = (docker.errors.DockerException, OSError)
        with self._as_one_line("the container engine does not answer"):
            self._client = docker.from_env(timeout=TIMEOUT_S)
            self._client.ping()
        named = project or os.environ.get("CAPBENCH_PROJECT")
        # It becomes the name of a lock's file.
        self.project = check_name(named, "CAPBENCH_PROJECT") if named else self._find_project()
        if "toxiproxy" not in self.services():
            raise EngineFailed(
                f"no installation {self.project} is up; start it with `docker compose up -d`"
            )

    def _find_project(self) -> str:
        with self._as_one_line("looking for the installation"):
            if is_inside():
                own = self._client.containers.get(socket.gethostname())
                return str(own.labels[PROJECT])
            found = self._client.containers.list(all=True, filters={"label": PART})
        folders = {str(each.labels[PROJECT]): str(each.labels.get(FOLDER, "")) for each in found}
        for place in (Path.cwd(), *Path.cwd().parents, ROOT):
            ours = sorted(name for name, folder in folders.items() if folder == str(place))
            if len(ours) == 1:
                return ours[0]
            if ours:
                raise EngineFailed(
                    f"several installations of {place} are up: {', '.join(ours)}; say which with "
                    "CAPBENCH_PROJECT"
                )
        others = ", ".join(f"{name} of {folder}" for name, folder in sorted(folders.items()))
        raise EngineFailed(
            "no installation of this checkout is up; start one with `docker compose up -d`"
            + (f", or name another with CAPBENCH_PROJECT: {others}" if others else "")
        )

    @contextmanager
    def _as_one_line(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            reason = getattr(error, "explanation", None) or str(error) or type(error).__name__
            raise EngineFailed(f"{what}: {' '.join(str(reason).split())}") from None

    def close(self) -> None:
        """Close the connection to the engine."""
        self._client.close()

    # --- what there is ---

    def services(self) -> dict[str, str]:
        """Each part's name in docker-compose.yml, and its state: ``running``, ``paused``,
        ``exited`` ..."""
        with self._as_one_line("listing containers"):
            listed = self._client.api.containers(
                all=True, filters={"label": [f"{PROJECT}={self.project}", PART]}
            )
        return {each["Labels"][SERVICE]: each["State"] for each in listed}

    def nodes(self) -> list[str]:
        """The names of the nodes, in their order."""
        names = [name for name in self.services() if name[:1] == "n" and name[1:].isdigit()]
        return sorted(names, key=lambda name: int(name[1:]))

    def state(self, name: str) -> dict[str, Any]:
        """The engine's own record of a part's state."""
        state: dict[str, Any] = self._get(name).attrs["State"]
        return state

    def image(self, name: str) -> str:
        """The image that a part runs, and the start of its digest."""
        attrs = self._get(name).attrs
        return f"{attrs['Config']['Image']} ({attrs['Image'].removeprefix('sha256:')[:12]})"

    def address(self, name: str) -> str:
        """Where the broker, or Toxiproxy with its API, is reached from this process."""
        control = name == "toxiproxy"
        if is_inside():
            return TOXIPROXY_API if control else name
        network = self._network_name(CONTROL if control else CLIENTS)
        settings = self._get(name).attrs["NetworkSettings"]["Networks"].get(network)
        if settings is None or not settings["IPAddress"]:
            raise EngineFailed(f"{name} has no address on the network {network}")
        return str(settings["IPAddress"])

    def published(self, name: str, port: int) -> tuple[str, int] | None:
        """Where a part's port is published on this machine."""
        ports = self._get(name).attrs["NetworkSettings"]["Ports"].get(f"{port}/tcp")
        return (ports[0]["HostIp"], int(ports[0]["HostPort"])) if ports else None

    def runs(self, container: str) -> bool:
        """Whether the container with this id, of whatever project, has not ended."""
        import docker

        with self._as_one_line(f"looking for the container {container}"):
            try:
                return bool(self._client.containers.get(container).attrs["State"]["Running"])
            except docker.errors.NotFound:
                return False

    def last_line(self, name: str) -> str:
        """The last line of a part's log."""
        with self._as_one_line(f"the log of {name}"):
            lines = self._get(name).logs(tail=1).decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "(empty)"

    # --- what is done to it ---

    def kill(self, name: str) -> None:
        """SIGKILL. Nothing happens if it is not running."""
        if self.state(name)["Running"]:
            with self._as_one_line(f"killing {name}"):
                container = self._get(name)
                container.kill()
                container.wait(timeout=TIMEOUT_S)

    def start(self, name: str) -> None:
        """Start it. Nothing happens if it runs."""
        with self._as_one_line(f"starting {name}"):
            self._get(name).start()

    def pause(self, name: str) -> bool:
        """Freeze it. False: it does not run."""
        if self.state(name)["Status"] != "running":
            return False
        with self._as_one_line(f"pausing {name}"):
            container = self._get(name)
            # On a busy machine the kernel may not freeze a process in the time that the engine
            # gives it ("unable to freeze"); the engine has then thawed it again.
            for left in reversed(range(FREEZES)):
                try:
                    container.pause()
                    break
                except self._errors:
                    if self.state(name)["Paused"]:
                        break
                    if not left:
                        raise
        return True

    def unpause(self, name: str) -> bool:
        """Resume it. False: it was not paused."""
        if not self.state(name)["Paused"]:
            return False
        with self._as_one_line(f"unpausing {name}"):
            self._get(name).unpause()
        return True

    def disconnect(self, name: str) -> None:
        """Take a node off its network. Nothing happens if it is off."""
        if self.is_connected(name):
            with self._as_one_line(f"disconnecting {name}"):
                self._client.networks.get(self._network_name(NODES)).disconnect(self._get(name))

    def connect(self, name: str) -> None:
        """Put a node on its network again. Nothing happens if it is on."""
        if not self.is_connected(name):
            with self._as_one_line(f"connecting {name}"):
                network = self._client.networks.get(self._network_name(NODES))
                network.connect(self._get(name), aliases=[name])

    def all_of(self, names: Sequence[str], do: Callable[[str], object]) -> None:
        """``do`` to several parts at once. All are tried; the first failure is raised."""
        if names:
            with ThreadPoolExecutor(len(names)) as threads:
                for done in [threads.submit(do, name) for name in names]:
                    done.result()

    # --- files ---

    def read(self, name: str, path: str) -> bytes | None:
        """A file of a part, running or not; None: there is none."""
        import docker

        with self._as_one_line(f"reading {path} of {name}"):
            try:
                chunks, _ = self._get(name).get_archive(path)
                packed = _bounded(chunks)
            except docker.errors.NotFound:
                return None
        try:
            with tarfile.open(fileobj=packed) as archive:
                first = archive.next()
                member = archive.extractfile(first) if first and first.isreg() else None
                return None if member is None else member.read(MOST_BYTES)
        except tarfile.TarError as error:
            raise EngineFailed(f"{path} of {name}: {error}") from None

    def write(self, name: str, path: str, content: bytes) -> None:
        """Replace a file of a part, running or not."""
        where = PurePosixPath(path)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(where.name)
            entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o600, OWNER, OWNER
            archive.addfile(entry, io.BytesIO(content))
        with self._as_one_line(f"writing {path} of {name}"):
            self._get(name).put_archive(str(where.parent), packed.getvalue())

    def setup_file(self, path: str) -> bytes | None:
        """A file that the set-up left in a volume: ``runner/login.json``."""
        return self.read("setup", f"/volumes/{path}")

    # --- within ---

    def _get(self, name: str) -> Any:
        with self._as_one_line(f"looking for {name}"):
            found = self._client.containers.list(
                all=True,
                filters={"label": [f"{PROJECT}={self.project}", f"{SERVICE}={name}"]},
            )
        found = [each for each in found if each.labels.get("com.docker.compose.oneoff") != "True"]
        if not found:
            raise EngineFailed(f"the installation {self.project} has no {name}")
        return found[0]

    def _network_name(self, network: str) -> str:
        return f"{self.project}_{network}"

    def is_connected(self, name: str) -> bool:
        """Whether a node is on its network."""
        return self._network_name(NODES) in self._get(name).attrs["NetworkSettings"]["Networks"]


def _bounded(chunks: Iterable[bytes]) -> io.BytesIO:
    """A compromised part may hold anything."""
    packed = io.BytesIO()
    for chunk in chunks:
        packed.write(chunk)
        if packed.tell() > MOST_BYTES:
            raise EngineFailed(f"a file of over {MOST_BYTES} bytes")
    packed.seek(0)
    return packed
