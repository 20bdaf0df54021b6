"""Names lead nowhere else, and only what we made is removed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.record.cluster_file import Address, BadClusterFile, ClusterFile, read_cluster_file
from chaos.clusters.containers.engine import Engine
from chaos.experiments.experiment import InvalidExperiment, load
from nodes import registry
from nodes.contract.names import MAX_CHARACTERS, BadName, check_name
from nodes.runtime import own_folder
from nodes.runtime.settings import BadSettings, Endpoint, NodeSettings, read_settings

BAD = [
    *("", ".", "..", "../results", "/tmp", "a/b", "a\\b", ".hidden", "-x", "--", "_"),
    *("a b", "a+b", "+", "#", "a#", "$SYS", "a\0b", "a\nb", "\x1b[31m", "ü", "x" * 65),
]


@pytest.mark.parametrize("name", BAD)
def test_what_would_lead_elsewhere_is_no_name(name: str) -> None:
    with pytest.raises(BadName) as refused:
        check_name(name, "--name")
    line = str(refused.value)
    assert line.startswith("--name: ")
    assert line.isprintable()
    assert line.isascii()
    assert len(line) < 250


@pytest.mark.parametrize("name", ["a", "A.1", "1-b_c..d", "x" * MAX_CHARACTERS])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert check_name(name, "--name") == name


def test_every_place_that_takes_a_name_refuses_what_is_none(tmp_path: Path) -> None:
    """But for the command line's: those are tried where it is driven."""
    gossip = registry.get("gossip")
    with pytest.raises(registry.InvalidConfiguration, match="is no name"):
        registry.register(msgspec.structs.replace(gossip, name="../../mine"))
    experiment = tmp_path / "...yaml"
    experiment.write_text("title: Up\n")
    with pytest.raises(InvalidExperiment, match=r"that of its file: '\.\.' is no name"):
        load(experiment)
    at = Address("127.0.0.1", 1)
    cluster = ClusterFile(
        cluster="#",
        protocol="raft",
        nodes=["n1"],
        operations=["read"],
        broker=at,
        group="load",
        request_links={"n1": at},
    )
    (tmp_path / "cluster.json").write_bytes(msgspec.json.encode(cluster))
    with pytest.raises(BadClusterFile, match="'#' is no name"):
        read_cluster_file(tmp_path / "cluster.json")
    for wrong in ({"cluster": "a/b"}, {"node": "+", "nodes": ["+"]}):
        fields = {"cluster": "demo", "node": "n1", "nodes": ["n1"], **wrong}
        settings = NodeSettings(
            **fields,  # type: ignore[arg-type]
            protocol="raft",
            data_dir=str(tmp_path),
            broker=Endpoint("127.0.0.1", 1),
            links={},
        )
        (tmp_path / "settings.json").write_bytes(msgspec.json.encode(settings))
        with pytest.raises(BadSettings, match="is no name"):
            read_settings(tmp_path / "settings.json")


def test_nor_does_the_name_of_an_installation_lead_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Nobody:
        def __init__(self, **_: object) -> None: ...

        def ping(self) -> None: ...

    monkeypatch.setattr("docker.from_env", Nobody)
    monkeypatch.setenv("CAPBENCH_PROJECT", "../../elsewhere")
    with pytest.raises(BadName, match=r"CAPBENCH_PROJECT: '\.\./\.\./elsewhere' is no name"):
        Engine()


def test_only_what_we_made_is_removed(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    own_folder.make(ours)
    (ours / "deep").mkdir()
    (ours / "deep" / "file").touch()
    theirs.mkdir()
    (theirs / "photo").touch()
    (ours / "link").symlink_to(theirs)
    with pytest.raises(own_folder.NotOurs, match="theirs: is there already"):
        own_folder.make(theirs)
    with pytest.raises(own_folder.NotOurs, match="photo: is there already"):
        own_folder.make(theirs / "photo")
    assert not own_folder.remove(theirs)
    assert not own_folder.remove(tmp_path / "nowhere")
    # A link to one of ours is somebody's own.
    (tmp_path / "alias").symlink_to(ours)
    assert not own_folder.remove(tmp_path / "alias")
    assert (ours / "deep" / "file").exists()
    own_folder.make(ours)
    assert (ours / "deep" / "file").exists(), "one that is ours stays as it is"
    assert own_folder.remove(ours)
    assert not ours.exists()
    assert (theirs / "photo").exists()
