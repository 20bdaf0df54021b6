"""An experiment of somebody else is read within bounds of size, depth and what its aliases make."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.load.workload import BadWorkload, read_workload
from bench.record.cluster_file import BadClusterFile, read_cluster_file
from bench.record.sweep_file import BadSweep, read_sweep
from chaos.experiments.experiment import CATALOGUE, InvalidExperiment, load
from chaos.experiments.yaml_reader import MAX_BYTES, MAX_DEPTH, MAX_VALUES, BadYaml, read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n" for number in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (LAUGHS, 5, f"more than {MAX_VALUES:,} values with aliases expanded"),
        ("x: &x [" + "1, " * (MAX_VALUES // 2) + "]\ny: *x\n", 2, "more than"),
        ("- 1\n" * (MAX_VALUES + 1), MAX_VALUES, "more than"),
        ("[" * 50_000, 1, f"nested deeper than {MAX_DEPTH} levels"),
        ("{a: " * 20_000, 1, "nested deeper"),
        ("- " * 50_000, 1, "nested deeper"),
        ("? " * 50_000, 1, "nested deeper"),
        ("a: &x\n  b: *x\n", 2, "&x contains itself"),
        ("a: &x [1, [*x]]\n", 1, "&x contains itself"),
        ("x" * (MAX_BYTES + 1), None, "characters, at most"),
        ("a: " + "9" * 5000, None, "is not YAML: Exceeds the limit"),
        ("a: &x 1\nb: &x 2\n", 2, "the anchor &x is given twice"),
        ("a: *nothing\n", 1, "found undefined alias"),
    ],
)
def test_what_explodes_is_refused_where_it_does(text: str, line: int | None, says: str) -> None:
    with pytest.raises(BadYaml, match=says) as error:
        read_yaml(text)
    assert error.value.line == line
    assert str(error.value).isprintable()


def test_aliases_are_taken_as_long_as_they_are_few() -> None:
    assert read_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n")["d"]["b"] == 1


def test_an_experiment_with_an_alias_is_one_and_one_that_explodes_is_refused(
    tmp_path: Path,
) -> None:
    text = (CATALOGUE / "healthy.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("title: ", "title: &name ").replace("seed: ", "# *name\nseed: "))
    assert load(path).title == load("healthy").title
    path.write_text(text + "parameters:\n  " + LAUGHS.replace("\n", "\n  "))
    with pytest.raises(InvalidExperiment, match=rf"^{path}:\d+: has more than"):
        load(path)


READERS: list[tuple[Callable[[Path], object], type[Exception]]] = [
    (load, InvalidExperiment),
    (read_workload, BadWorkload),
    (read_cluster_file, BadClusterFile),
    (read_sweep, BadSweep),
]


@pytest.mark.parametrize(("read", "error"), READERS)
def test_what_is_no_file_of_a_size_is_not_read(
    tmp_path: Path, read: Callable[[Path], object], error: type[Exception]
) -> None:
    pipe, folder, large = (tmp_path / name for name in ("pipe.yaml", "folder.yaml", "large.yaml"))
    os.mkfifo(pipe)
    folder.mkdir()
    with large.open("wb") as file:
        file.truncate(1 << 40)
    zero = tmp_path / "zero.yaml"
    zero.symlink_to("/dev/zero")
    for path, says in [
        (pipe, "is a pipe; a regular file is expected"),
        (zero, "is a device; a regular file is expected"),
        (folder, "is a directory; a regular file is expected"),
        (large, "1099511627776 bytes, limit "),
    ]:
        with pytest.raises(error, match=says) as refused:
            read(path)
        assert str(path.resolve()) in str(refused.value)
