# ruff: noqa: E501 - a table of error lines is read across
"""An experiment that is wrong is refused before anything starts, with file, line and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chaos.experiments import experiment as experiments
from chaos.experiments.experiment import Experiment, InvalidExperiment, load, validate
from nodes import registry
from nodes.faults.catalogue import Partition

GOOD = """\
title: The leader is cut off
shows: who stays available
protocols: [raft, gossip]
nodes: 5
seed: 7
workload:
  arrival: {open_loop: 300/s, in_flight: 64}
  keys: {count: 20, distribution: zipfian}
  mix: {read: 50, write: 50}
  timeout: 1500ms
duration: 20s
schedule:
  - {at: 12s, fault: crash, nodes: leader}
  - {at: 5s, for: 8s, fault: partition, groups: leader-alone}
  - at: 5s
    for: 200ms
    fault: latency
    latency_ms: 50
objectives:
  before: {availability: ">= 0.999"}
  during: {availability.majority: ">= 0.6"}
  always: {consistency: claimed}
"""


def said(tmp_path: Path, text: str, **overrides: Any) -> list[str]:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InvalidExperiment) as refused:
        load(path, **overrides)
    return [line.removeprefix(f"{tmp_path}/") for line in str(refused.value).splitlines()]


def good(tmp_path: Path, **overrides: Any) -> Experiment:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    return load(path, **overrides)


def test_a_good_one_becomes_a_workload_and_a_plan(tmp_path: Path) -> None:
    experiment = good(tmp_path)
    assert experiment.name == "mine"
    assert experiment.node_ids() == ("n1", "n2", "n3", "n4", "n5")
    workload = experiment.workload(seed=9)
    assert (workload.rate_per_s, workload.in_flight, workload.keys) == (300.0, 64, 20)
    assert (workload.timeout_s, workload.duration_s, workload.seed) == (1.5, 20.0, 9)
    assert (workload.distribution, workload.mix) == ("zipfian", {"read": 50.0, "write": 50.0})
    plan = experiment.plan()
    assert [(p.number, p.at_s, p.heal_at_s, p.fault.fault) for p in plan] == [
        (0, 5.0, 13.0, "partition"),
        (1, 5.0, 5.2, "latency"),
        (2, 12.0, 20.0, "crash"),
    ]
    assert plan[0].fault == Partition(groups="leader-alone")
    assert [o.metric for o in experiment.parsed_objectives()] == [
        "availability",
        "availability.majority",
        "consistency",
    ]


def test_a_fault_comes_again_as_often_as_it_ends_within_the_load(tmp_path: Path) -> None:
    text = GOOD.replace("for: 8s,", "for: 3s, every: 6s,")
    path = tmp_path / "again.yaml"
    path.write_text(text)
    experiment = load(path)
    times = [
        (p.number, p.at_s, p.heal_at_s) for p in experiment.plan() if p.fault.fault == "partition"
    ]
    # The next would begin at 23 s; one at 17.1 s would end after the load.
    assert times == [(0, 5.0, 8.0), (2, 11.0, 14.0), (4, 17.0, 20.0)]
    data = experiment.as_data()
    assert data["schedule"][1]["every"] == "6s"
    assert validate(data, source="manifest.json", name="again") == experiment
    path.write_text(text.replace("at: 5s, for: 3s", "at: 5.1s, for: 3s"))
    assert len([p for p in load(path).plan() if p.fault.fault == "partition"]) == 2


def test_what_the_manifest_keeps_is_the_experiment(tmp_path: Path) -> None:
    experiment = good(tmp_path)
    data = experiment.as_data()
    assert data["schedule"][1] == {
        "at": "5s",
        "for": "8s",
        "fault": "partition",
        "groups": "leader-alone",
    }
    assert data["duration"] == "20s"
    assert data["workload"]["timeout"] == "1.5s"
    assert validate(data, source="manifest.json", name="mine") == experiment


def test_the_command_line_may_override(tmp_path: Path) -> None:
    experiment = good(tmp_path, nodes=3, seed=11, protocols=["gossip"])
    assert (experiment.nodes, experiment.seed, experiment.protocols) == (3, 11, ("gossip",))
    assert good(tmp_path, nodes=None).nodes == 5
    assert said(tmp_path, GOOD, protocols=["goship"]) == [
        "bad.yaml: protocols[0] (given instead of the file's): unknown protocol 'goship';"
        " did you mean gossip? known: " + ", ".join(sorted(registry.PROTOCOLS))
    ]
    assert said(tmp_path, GOOD, nodes=1) == [
        "bad.yaml:14: schedule[1].groups: leader-alone needs at least 2 nodes, there are 1"
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("leader-alone", "leader-alon", "bad.yaml:14: schedule[1].groups: unknown group 'leader-alon'; did you mean leader-alone? use leader-alone, halves"),
        ("leader-alone", "[[n1], [n2, n3, n4, n9]]", "bad.yaml:14: schedule[1].groups: unknown node 'n9'; there are n1, n2, n3, n4, n5"),
        ("leader-alone", "5", "bad.yaml:14: schedule[1].groups: neither a name nor lists of nodes"),
        ("fault: crash", "fault: crush", "bad.yaml:13: schedule[0].fault: unknown fault 'crush'; did you mean crash?"),
        ("fault: crash, ", "", "bad.yaml:13: schedule[0].fault: is missing; use one of bandwidth"),
        ("at: 12s, ", "", "bad.yaml:13: schedule[0].at: is missing; write `at: 10s`"),
        ("at: 12s", "at: 12", "bad.yaml:13: schedule[0].at: 12 is not a duration; use a number with a unit: 10s"),
        ("at: 12s, ", "at: 12s, every: 2s, ", "bad.yaml:13: schedule[0].every: needs a for"),
        ("for: 8s", "for: 8s, every: 7s", "bad.yaml:14: schedule[1].every: must be at least as long as for"),
        ("at: 12s", "at: -1s", "bad.yaml:13: schedule[0].at: '-1s' is not a duration"),
        ("at: 12s", "at: 20s", "bad.yaml:13: schedule[0].at: the fault begins at 20s, the load ends at 20s"),
        ("for: 8s", "for: 16s", "bad.yaml:14: schedule[1].for: the fault ends at 21s, the load at 20s"),
        ("for: 200ms", "for: 0s", "bad.yaml:16: schedule[2].for: must be longer than 0s"),
        ("latency_ms: 50", "latency_ms: 50ms", "bad.yaml:18: schedule[2].latency_ms: must be a valid integer, not '50ms'"),
        ("latency_ms: 50", "latency_ms: 0", "bad.yaml:18: schedule[2].latency_ms: must be greater than or equal to 1, not 0"),
        ("latency_ms: 50", "latency: 50", "bad.yaml:18: schedule[2].latency: unknown field; did you mean latency_ms?"),
        ("nodes: leader", "nodes: [n6]", "bad.yaml:13: schedule[0].nodes: unknown node 'n6'"),
        ("nodes: 5", "nodes: five", "bad.yaml:4: nodes: must be a valid integer, not 'five'"),
        ("nodes: 5", "nodes: true", "bad.yaml:4: nodes: must be a valid integer, not True"),
        ("nodes: 5", "nodes: 0", "bad.yaml:4: nodes: must be greater than or equal to 1, not 0"),
        ("[raft, gossip]", "[raft, goship]", "bad.yaml:3: protocols[1]: unknown protocol 'goship'; did you mean gossip?"),
        ("[raft, gossip]", "raft", "bad.yaml:3: protocols: must be a list, not 'raft'"),
        ("[raft, gossip]", "[]", "bad.yaml:3: protocols: must not be empty"),
        ("300/s", "300", "bad.yaml:7: workload.arrival.open_loop: 300 is not a rate; use operations per second: 300/s"),
        ("300/s", "0/s", "bad.yaml:7: workload.arrival.open_loop: '0/s' is not a rate"),
        ("300/s", "9999999/s", "bad.yaml:6: workload: rate_per_s is 9999999"),
        ("zipfian", "zipf", "bad.yaml:8: workload.keys.distribution: unknown 'zipf'; did you mean zipfian? use 'uniform'"),
        ("write: 50", "wirte: 50", "bad.yaml:9: workload.mix.wirte: unknown 'wirte'; did you mean write? use 'read'"),
        ("read: 50, write: 50", "read: 0", "bad.yaml:9: workload.mix: has no operation with a weight"),
        ("read: 50", "read: -1", "bad.yaml:9: workload.mix.read: must be greater than or equal to 0"),
        ("duration: 20s", "duration: 0s", "bad.yaml:11: duration: must be longer than 0s"),
        ("seed: 7", "sead: 7", "bad.yaml:5: sead: unknown field; did you mean seed?"),
        ("title: The", "title: The: x", "bad.yaml:1: mapping values are not allowed here"),
        ("seed: 7", "nodes: 7", 'bad.yaml:5: found duplicate key "nodes"'),
        ("seed: 7", "seed: [", "bad.yaml:7: expected ',' or ']'"),
        ('">= 0.999"', '"0.999"', "bad.yaml:20: objectives.before.availability: '0.999' is not a comparison"),
        ('">= 0.999"', '">= 99.9"', "bad.yaml:20: objectives.before.availability: '>= 99.9': availability is a share, from 0 to 1"),
        ("availability.majority", "availability.all", "bad.yaml:21: objectives.during.availability.all: unknown metric 'availability.all'; during has: availability"),
        ("claimed", "strong", "bad.yaml:22: objectives.always.consistency: 'strong' is not a consistency model; use claimed"),
        ("always:", "allways:", "bad.yaml:22: objectives.allways: unknown 'allways'"),
    ],
)  # fmt: skip
def test_an_error_names_file_line_field_and_what_would_be_right(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    assert GOOD.count(old) == 1
    lines = said(tmp_path, GOOD.replace(old, new))
    assert any(each.startswith(line) for each in lines), lines
    assert all(each.startswith("bad.yaml:") for each in lines)


def test_all_errors_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("nodes: 5", "nodes: x").replace("at: 12s", "at: 1").replace("50}", "z}")
    lines = said(tmp_path, text)
    assert [line.split(": ")[1] for line in lines] == [
        "nodes",
        "workload.mix.write",
        "schedule[0].at",
    ]


@pytest.mark.parametrize("field", ["title", "shows", "protocols", "nodes", "workload", "duration"])
def test_what_is_missing_is_asked_for(tmp_path: Path, field: str) -> None:
    data = {k: v for k, v in good(tmp_path).as_data().items() if k != field}
    with pytest.raises(InvalidExperiment, match=rf"^f:1: {field}: is missing; write `{field}: "):
        validate(data, source="f", name="f")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "bad.yaml:1: an experiment is a mapping that begins with `title:`"),
        ("[1, 2]", "bad.yaml:1: an experiment is a mapping"),
        ("--- 1\n--- 2\n", "bad.yaml:2: but found another document"),
        ("title: \x00", "bad.yaml: is not YAML: unacceptable character"),
        ("a: &x\n  b: *x\n", "bad.yaml"),
        ("? [a, b]\n: 1\n", "bad.yaml:1: ('a', 'b'): unknown field"),
        ("title: !!python/object:os.system x\n", "bad.yaml:1: shows: is missing"),
    ],
)
def test_any_text_is_refused_in_words(tmp_path: Path, text: str, line: str) -> None:
    lines = said(tmp_path, text)
    assert any(each.startswith(line) for each in lines), lines


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidExperiment, match=r"nothing\.yaml: No such file"):
        load(tmp_path / "nothing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"title: \xe9\n")
    with pytest.raises(InvalidExperiment, match=r"latin\.yaml: is not UTF-8 text"):
        load(tmp_path / "latin.yaml")
    with pytest.raises(InvalidExperiment, match="did you mean healthy"):
        load("heathy")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(InvalidExperiment, match=r"loop\.yaml: a link that leads nowhere"):
        load(tmp_path / "loop.yaml")


def test_a_file_may_begin_with_a_byte_order_mark_as_yaml_allows(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(path) == good(tmp_path)


def test_faults_need_a_schedule_to_be_expected_from(tmp_path: Path) -> None:
    data = {**good(tmp_path).as_data(), "schedule": []}
    with pytest.raises(InvalidExperiment, match=r"objectives\.during: the schedule has no fault"):
        validate(data, source="f", name="f")


def test_the_catalogue_is_valid_and_short_enough_for_the_quick_comparison() -> None:
    catalogue = experiments.catalogue()
    assert {"healthy", "leader-partition", "latency-50ms"} <= set(catalogue)
    for name, experiment in catalogue.items():
        assert experiment.name == name
        assert len(experiment.shows) > 80
    quick = ("healthy", "leader-partition", "latency-50ms")
    assert 2 * sum(catalogue[name].duration_s for name in quick) <= 90


def test_a_workload_of_ycsb_gives_what_the_file_does_not(tmp_path: Path) -> None:
    shape = "  keys: {count: 20, distribution: zipfian}\n  mix: {read: 50, write: 50}\n"
    assert shape in GOOD
    text = GOOD.replace(shape, "  ycsb: f\n  keys: {count: 9, conflict_rate: 0.1}\n")
    path = tmp_path / "f.yaml"
    path.write_text(text)
    experiment = load(path)
    workload = experiment.workload()
    assert workload.mix == {"read": 50, "rmw": 50}
    assert (workload.keys, workload.conflict_rate) == (9, 0.1)
    assert (workload.distribution, workload.value_bytes) == ("zipfian", 1000)
    again = validate(experiment.as_data(), source="manifest", name="f")
    assert again.workload() == workload
    assert any(
        line.startswith("bad.yaml:8: workload.ycsb: unknown 'e'; use 'a', 'b', 'c', 'd' or 'f'")
        for line in said(tmp_path, text.replace("ycsb: f", "ycsb: e"))
    )
