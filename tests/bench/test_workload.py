"""Workloads: validated, repeatable, and distributed as they say."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load import ycsb
from bench.load.workload import (
    BadWorkload,
    PlannedOperation,
    Workload,
    make_workload,
    parse_mix,
    plan,
    read_workload,
)

NODES = ("n1", "n2", "n3")


def workload(**changes: Any) -> Workload:
    fields = {"mix": {"read": 50, "write": 50}, "duration_s": 20, "seed": 7, "rate_per_s": 1000}
    return make_workload({**fields, **changes})


def planned(**changes: Any) -> list[PlannedOperation]:
    return list(plan(workload(**changes), NODES))


def shares(operations: list[PlannedOperation]) -> dict[str, float]:
    counts = Counter(operation.key for operation in operations)
    return {key: count / len(operations) for key, count in counts.most_common()}


DIGEST = """
import hashlib, msgspec
from bench.load.workload import make_workload, plan
fields = msgspec.json.decode({fields!r})
plan = list(plan(make_workload(fields), ("n1", "n2", "n3")))
print(hashlib.sha256(msgspec.json.encode(plan)).hexdigest())
"""


@pytest.mark.parametrize("distribution", ["uniform", "zipfian", "latest", "hotspot"])
def test_a_plan_is_the_same_in_every_process(distribution: str) -> None:
    fields = {
        "mix": {"write": 1, "read": 2, "cas": 3, "delete": 1},
        "duration_s": 2,
        "seed": 3,
        "distribution": distribution,
    }
    operations = list(plan(make_workload(fields), NODES))
    here = hashlib.sha256(msgspec.json.encode(operations)).hexdigest()
    elsewhere = {
        subprocess.run(
            [sys.executable, "-c", DIGEST.format(fields=msgspec.json.encode(fields))],
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "PYTHONHASHSEED": str(hash_seed),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in (1, 2)
    }
    assert elsewhere == {here}


def test_another_seed_is_another_plan() -> None:
    one, other = planned(seed=1), planned(seed=2)
    assert [o.intended_ns for o in one[:100]] != [o.intended_ns for o in other[:100]]
    assert [o.key for o in one[:100]] != [o.key for o in other[:100]]
    assert [o.op for o in one[:100]] != [o.op for o in other[:100]]


def test_mix_and_keys_leave_the_arrival_times_alone() -> None:
    one = planned()
    other = planned(mix={"cas": 1}, distribution="zipfian", keys=7)
    assert [o.intended_ns for o in one] == [o.intended_ns for o in other]


def test_arrivals_are_poisson() -> None:
    times = [o.intended_ns for o in planned() if o.intended_ns is not None]
    gaps = [b - a for a, b in pairwise(times)]
    assert min(gaps) >= 0
    assert times[-1] < 20e9
    # 20,000 expected, its standard deviation is 141; gaps deviate by as much as their mean.
    assert abs(len(times) - 20_000) < 3 * 141
    assert statistics.mean(gaps) == pytest.approx(1e6, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(1e6, rel=0.03)


def test_written_values_are_unique_and_reads_have_none() -> None:
    operations = planned(mix={"read": 1, "write": 1, "cas": 1, "delete": 1})
    written = [o.value for o in operations if o.op in ("write", "cas")]
    assert len(set(written)) == len(written) > 9000
    assert {type(value) for value in written} == {int}
    assert {o.value for o in operations if o.op in ("read", "delete")} == {None}


def test_written_strings_have_the_length_asked_for() -> None:
    written = [o.value for o in planned(mix={"write": 1}, value_bytes=64)]
    assert len(set(written)) == len(written)
    assert {len(str(value).encode()) for value in written} == {64}


def test_nodes_are_asked_in_turn() -> None:
    assert [o.node for o in planned()[:5]] == ["n1", "n2", "n3", "n1", "n2"]


def test_the_mix_is_kept() -> None:
    counts = Counter(o.op for o in planned(mix={"read": 80, "write": 15, "cas": 5, "delete": 0}))
    total = counts.total()
    assert counts["delete"] == 0
    assert counts["read"] / total == pytest.approx(0.80, abs=0.01)
    assert counts["write"] / total == pytest.approx(0.15, abs=0.01)
    assert counts["cas"] / total == pytest.approx(0.05, abs=0.01)


def test_uniform_keys() -> None:
    share = shares(planned(keys=50))
    assert set(share) == {f"k{number}" for number in range(50)}
    assert max(share.values()) < 1.3 / 50
    assert min(share.values()) > 0.7 / 50


def test_zipfian_keys() -> None:
    operations = planned(distribution="zipfian", keys=100)
    ranked = list(shares(operations).values())
    weights = [1 / rank**0.99 for rank in range(1, 101)]
    for rank in (0, 1, 2, 9):
        assert ranked[rank] == pytest.approx(weights[rank] / sum(weights), rel=0.12)
    popular = [next(iter(shares(planned(distribution="zipfian", seed=seed)))) for seed in range(5)]
    assert len(set(popular)) > 2, "popular keys are scrambled"


def test_latest_prefers_what_was_written_last() -> None:
    last_written: list[str] = []
    distances = []
    for operation in planned(distribution="latest", keys=50):
        if operation.op == "write":
            last_written.insert(0, operation.key)
            del last_written[50:]
        elif len(last_written) == 50:
            distances.append(last_written.index(operation.key))
    counts = Counter(distances)
    weights = [1 / rank**0.99 for rank in range(1, 51)]
    assert counts[0] / len(distances) == pytest.approx(weights[0] / sum(weights), rel=0.05)
    assert counts[0] > counts[1] > counts[3] > counts[10] > counts[49]


def test_hotspot_keys() -> None:
    share = list(shares(planned(distribution="hotspot", keys=50)).values())
    assert sum(share[:10]) == pytest.approx(0.8, abs=0.02)
    assert max(share[10:]) < 0.01
    assert set(shares(planned(distribution="hotspot", keys=1))) == {"k0"}


@settings(max_examples=30, deadline=None)
@given(
    parts=st.integers(1, 9),
    seed=st.integers(0, 2**32),
    distribution=st.sampled_from(["uniform", "zipfian", "latest", "hotspot"]),
)
def test_the_parts_are_the_whole(parts: int, seed: int, distribution: str) -> None:
    whole = workload(duration_s=0.2, seed=seed, distribution=distribution)
    split = [list(plan(whole, NODES, part=part, parts=parts)) for part in range(parts)]
    merged = sorted((o for part in split for o in part), key=lambda o: o.id)
    assert merged == list(plan(whole, NODES))
    assert [o.id for o in merged] == list(range(1, len(merged) + 1))


def test_a_closed_loop_has_no_times_and_no_end() -> None:
    operations = list(islice(plan(workload(rate_per_s=None), NODES), 100_000))
    assert {o.intended_ns for o in operations} == {None}
    assert operations[-1].id == 100_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate_per_s": 0}, "rate_per_s is 0.0: use more than 0"),
        ({"rate_per_s": float("nan")}, "rate_per_s is nan"),
        ({"in_flight": 0}, "in_flight is 0: use 1 to"),
        ({"keys": 0}, "keys is 0: use 1 to"),
        ({"mix": {}}, "mix needs"),
        ({"key_prefix": "a b"}, "key_prefix is 'a b': use 1 to 64"),
        ({"conflict_rate": 1.5}, "conflict_rate is 1.5: use a share, 0 to 1"),
        ({"mix": {"read": -1}}, "mix needs"),
        ({"mix": {"read": 0}}, "mix has only weights of 0"),
        ({"mix": {"raed": 1}}, "operation kinds: read, write, cas, delete, rmw"),
        ({"distribution": "zipf"}, "distributions: uniform, zipfian, latest, hotspot"),
        ({"ask": "n1"}, "whom to ask: any, leader"),
        ({"value_bytes": 3}, "value_bytes is 3: use 0 (integers) or 12"),
        ({"timeout_s": 0}, "timeout_s is 0.0"),
        ({"duration_s": -1}, "duration_s is -1.0"),
        ({"rates": 3}, "rates"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadWorkload) as refused:
        workload(**changes)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_workload_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "workload.json"
    path.write_bytes(msgspec.json.encode(workload(rate_per_s=None)))
    assert read_workload(path) == workload(rate_per_s=None)
    path.write_text('{"mix": {"read": 1}, "duration_s": 1}')
    with pytest.raises(BadWorkload, match=r"workload\.json: .*seed"):
        read_workload(path)
    with pytest.raises(BadWorkload, match="not found"):
        read_workload(tmp_path / "none.json")


def test_mixes_as_text() -> None:
    assert parse_mix("read=50, write=12.5") == {"read": 50.0, "write": 12.5}
    for text in ("read", "read=x", "read=1,read=2", ""):
        with pytest.raises(BadWorkload, match="read=50,write=50"):
            parse_mix(text)


def test_a_part_that_cannot_be() -> None:
    for part, parts in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="part"):
            plan(workload(), NODES, part=part, parts=parts)


def test_a_read_modify_write_is_a_read_and_what_comes_behind_it() -> None:
    whole = workload(mix={"rmw": 1, "read": 1}, duration_s=5, value_bytes=20)
    items = list(plan(whole, NODES))
    both = [item for item in items if item.then is not None]
    assert 0.4 < len(both) / len(items) < 0.6
    ids = [o.id for item in items for o in (item, item.then) if o is not None]
    assert ids == list(range(1, len(ids) + 1))
    for read in both:
        write = read.then
        assert write is not None
        assert (read.op, read.value, write.op) == ("read", None, "write")
        assert write.value == str(write.id).rjust(20, ".")
        assert (read.key, read.node, read.intended_ns) == (write.key, write.node, write.intended_ns)
    split = [list(plan(whole, NODES, part=part, parts=3)) for part in range(3)]
    assert sorted((o for part in split for o in part), key=lambda o: o.id) == items


def test_conflicting_operations_ask_for_one_key_and_leave_the_others_alone() -> None:
    plain = planned(keys=1000)
    some = planned(keys=1000, conflict_rate=0.25)
    moved = [(a, b) for a, b in zip(plain, some, strict=True) if a.key != b.key]
    assert {b.key for _, b in moved} == {"k0"}
    assert len(moved) / len(plain) == pytest.approx(0.25, abs=0.02)
    assert {o.key for o in planned(keys=1000, conflict_rate=1)} == {"k0"}


@pytest.mark.parametrize("name", ycsb.NAMES)
def test_the_workloads_of_ycsb(name: str) -> None:
    """Shares and distributions of table 2 of the paper."""
    made = workload(**ycsb.fields(name.upper()))
    share = Counter("rmw" if o.then is not None else o.op for o in plan(made, NODES))
    total = share.total()
    read, other, kind = {
        "a": (0.5, 0.5, "write"),
        "b": (0.95, 0.05, "write"),
        "c": (1.0, 0.0, "write"),
        "d": (0.95, 0.05, "write"),
        "f": (0.5, 0.5, "rmw"),
    }[name]
    assert share["read"] / total == pytest.approx(read, abs=0.02)
    assert share[kind] / total == pytest.approx(other, abs=0.02)
    assert made.distribution == ("latest" if name == "d" else "zipfian")
    assert (made.keys, made.value_bytes) == (1000, 1000)


def test_what_ycsb_has_and_we_have_not() -> None:
    with pytest.raises(BadWorkload, match="no YCSB workload 'e': E scans ranges of keys"):
        ycsb.fields("e")
    with pytest.raises(BadWorkload, match="no YCSB workload 'x': use a, b, c, d, f"):
        ycsb.fields("x")


def test_keys_have_the_prefix_that_was_asked_for() -> None:
    assert {o.key for o in planned(keys=3, key_prefix="x-")} == {"x-0", "x-1", "x-2"}
