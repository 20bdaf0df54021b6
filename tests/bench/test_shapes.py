"""Shapes: what their texts mean, and that arrivals follow them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.shapes import BadShape, Part, Shape, parse_shape
from bench.load.workload import BadWorkload, Workload, make_workload, plan

levels = st.just(0.0) | st.floats(0.01, 1000)
parts = st.lists(
    st.builds(Part, st.floats(0.1, 100), levels, levels), min_size=1, max_size=5
).filter(lambda parts: any(part.begin or part.end for part in parts))


@pytest.mark.parametrize(
    ("text", "levels", "duration_s", "mean"),
    [
        ("ramp:0-500/30s", {0: 0, 15: 250, 29.94: 499, 30: 0, 31: 0}, 30, 250),
        ("ramp:40-10/1.5m", {0: 40, 45: 25}, 90, 25),
        ("steps:100,200,400/10s", {0: 100, 9.9: 100, 10: 200, 29: 400, 30: 0}, 30, 700 / 3),
        ("spike:100,1000/10s,5s,20", {9: 100, 10: 1000, 14.9: 1000, 15: 100, 34: 100}, 35, None),
        ("steps:3/500ms", {-0.1: 0, 0: 3, 0.4: 3, 0.5: 0}, 0.5, 3),
    ],
)
def test_what_a_text_means(
    text: str, levels: dict[float, float], duration_s: float, mean: float | None
) -> None:
    shape = parse_shape(text)
    assert {at_s: shape.level(at_s) for at_s in levels} == pytest.approx(levels)
    assert shape.duration_s == duration_s
    if mean is not None:
        assert shape.mean == pytest.approx(mean)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "ramp",
            "ramp:",
            "ramp:1-2",
            "ramp:1/2s",
            "ramp:1-2-3/2s",
            "ramp:-1-2/2s",
            "hill:1/2s",
        ),
        *(
            "steps:/2s",
            "steps:1,/2s",
            "steps:1/2x",
            "spike:1/1,1,1",
            "spike:1,2/1,1",
            "steps:nan/1",
        ),
        *("steps:1/0s", "steps:0/1s", "steps:1e9/1s", "steps:2000000/1s", "ramp:0-1/99999h"),
        "steps:" + "1," * 1001 + "1/1s",
    ],
)
def test_what_is_no_shape_is_one_line(text: str) -> None:
    with pytest.raises(BadShape) as raised:
        parse_shape(text)
    assert "\n" not in str(raised.value)
    with pytest.raises(BadWorkload, match="shape"):
        make_workload({"mix": {"read": 1}, "duration_s": 1, "seed": 1, "shape": text})


@given(parts, st.floats(0, 0.9999))
def test_when_is_the_time_at_which_as_many_are_expected(parts: list[Part], share: float) -> None:
    shape = Shape(parts)
    total = shape.mean * shape.duration_s
    assert shape.when(total * 1.0001) is None
    at_s = shape.when(share * total)
    assert at_s is not None
    area, begin_s = 0.0, 0.0
    for part in parts:
        length = min(max(at_s - begin_s, 0.0), part.duration_s)
        slope = (part.end - part.begin) / part.duration_s
        area += part.begin * length + slope * length**2 / 2
        begin_s += part.duration_s
    assert area == pytest.approx(share * total, rel=1e-6, abs=1e-6 * (1 + total))


def shaped(text: str, duration_s: float, **changes: object) -> Workload:
    """A workload that follows a shape."""
    fields = {"mix": {"read": 1, "write": 1}, "duration_s": duration_s, "seed": 3, "shape": text}
    return make_workload({**fields, **changes})


def test_arrivals_follow_the_shape() -> None:
    workload = shaped("steps:100,1000,200/10s", 30)
    operations = list(plan(workload, ["n1", "n2", "n3"]))
    times = [operation.intended_ns or 0 for operation in operations]
    assert all(before <= after for before, after in pairwise(times))
    counts = Counter(time // 10_000_000_000 for time in times)
    # Poisson: within five standard deviations.
    for step, expected in enumerate((1000, 10_000, 2000)):
        assert abs(counts[step] - expected) < 5 * expected**0.5
    assert workload.offered_per_s == pytest.approx(1300 / 3)
    # Of a ramp from 0, a quarter comes in the first half.
    ramp = [o.intended_ns or 0 for o in plan(shaped("ramp:0-1000/20s", 20), ["n1"])]
    early = sum(time < 10_000_000_000 for time in ramp)
    assert abs(early - 2500) < 5 * 2500**0.5
    assert abs(len(ramp) - 10_000) < 5 * 10_000**0.5


def test_a_shape_changes_the_times_alone() -> None:
    with_shape = plan(shaped("ramp:100-300/5s", 5), ["n1", "n2"])
    without = plan(make_workload({**_fields(), "rate_per_s": 1000}), ["n1", "n2"])
    for one, other in zip(with_shape, without, strict=False):
        assert (one.id, one.node, one.op, one.key, one.value) == (
            *(other.id, other.node, other.op, other.key, other.value),
        )


def _fields() -> dict[str, object]:
    return {"mix": {"read": 1, "write": 1}, "duration_s": 5, "seed": 3}


def test_parts_of_a_shaped_plan_are_the_whole() -> None:
    workload = shaped("spike:50,500/1s,1s,1s", 3)
    whole = list(plan(workload, ["n1", "n2"]))
    shares = [list(plan(workload, ["n1", "n2"], part=part, parts=3)) for part in range(3)]
    assert sorted((o for share in shares for o in share), key=lambda o: o.id) == whole


def test_the_load_ends_with_the_shape_or_before() -> None:
    long = [o.intended_ns or 0 for o in plan(shaped("steps:100/2s", 60), ["n1"])]
    assert 1_500_000_000 < max(long) < 2_000_000_000
    cut = [o.intended_ns or 0 for o in plan(shaped("steps:100/2s", 1), ["n1"])]
    assert 500_000_000 < max(cut) < 1_000_000_000
