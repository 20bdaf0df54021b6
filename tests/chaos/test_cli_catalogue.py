"""`capbench faults`, `capbench schema`, `capbench run --again`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from ruamel.yaml import YAML

from bench.record.run_folder import RunFolder
from chaos.commands.catalogue import experiment_schema
from chaos.experiments.experiment import CATALOGUE
from nodes.faults.catalogue import FAULTS
from tests.live.conftest import capbench


@pytest.mark.parametrize("path", sorted(CATALOGUE.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_catalogue_fits_the_schema(path: Path) -> None:
    jsonschema.validate(YAML(typ="safe").load(path), experiment_schema())


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"sead": 7}, "sead"),
        ({"duration": "soon"}, "soon"),
        ({"duration": 20}, "20"),
        ({"schedule": [{"at": "1s", "fault": "explode"}]}, "explode"),
        ({"schedule": [{"at": "1s", "fault": "pause"}]}, "pause"),
        ({"schedule": [{"at": "1s", "fault": "latency", "latency_ms": 0}]}, "latency"),
        ({"schedule": [{"fault": "wan"}]}, "wan"),
    ],
)
def test_the_schema_refuses_what_a_run_would(change: dict[str, Any], where: str) -> None:
    data = YAML(typ="safe").load(CATALOGUE / "healthy.yaml") | change
    with pytest.raises(jsonschema.ValidationError) as refused:
        jsonschema.validate(data, experiment_schema())
    assert where in str(refused.value)


def test_every_fault_is_described_with_its_parameters(tmp_path: Path) -> None:
    done = capbench("faults", "--json", cwd=tmp_path)
    told = {fault["name"]: fault for fault in msgspec.json.decode(done.stdout)["faults"]}
    assert set(told) == set(FAULTS)
    assert told["latency"]["parameters"] == {
        "latency_ms": "required",
        "links": 'default "all"',
        "node": "default none",
    }
    assert told["latency"]["targets"] == ["attached", "compose", "lab", "local", "sim"]
    for fault in told.values():
        for parameter in fault["parameters"]:
            assert f"`{parameter}`" in fault["description"], f"{fault['name']}: {parameter}"
    assert (
        "rolling-restart  (on compose, lab, local, sim)" in capbench("faults", cwd=tmp_path).stdout
    )


def test_again_repeats_the_operations_and_the_faults(tmp_path: Path) -> None:
    first = capbench(
        *("run", "halves", "--target", "sim", "--protocol", "gossip", "--nodes", "3"),
        *("--seed", "11", "--out", "first"),
        cwd=tmp_path,
    )
    assert first.returncode == 0, first.stderr
    [one] = (tmp_path / "first").glob("*/manifest.json")
    second = capbench("run", "--again", one.parent, "--out", "second", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    [other] = (tmp_path / "second").glob("*/manifest.json")
    before, after = RunFolder(one.parent), RunFolder(other.parent)
    assert after.manifest().seed == 11
    assert after.manifest().experiment == before.manifest().experiment
    assert after.faults() == before.faults()
    assert after.operations() == before.operations()


def test_again_takes_nothing_that_the_folder_says(tmp_path: Path) -> None:
    for arguments, said in [
        (("--again", "x", "--seed", "1"), "takes everything from the run folder"),
        (("--again", "nowhere"), "nowhere: no manifest.json in it"),
        ((), "name an experiment"),
    ]:
        done = capbench("run", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
