"""Records travel in portions that fit a frame."""

from __future__ import annotations

from nodes.parts.key_digest import portions

MOST = 20_000


def test_records_go_in_portions_and_none_is_divided_or_lost() -> None:
    records = {f"k{number}": "x" * 1000 for number in range(600)}
    records["large"] = "x" * 3 * MOST
    keys = [*list(records)[:300], "large", "nobody's", *list(records)[300:600]]
    made = list(portions(keys, records, len, MOST))
    assert len(made) > 30
    assert {key: text for portion in made for key, text in portion.items()} == records
    assert sum(map(len, made)) == len(records)
    for portion in made:
        *before, _ = portion.values()
        assert sum(map(len, before)) <= MOST


def test_nothing_makes_no_portion() -> None:
    assert list(portions(["nobody's"], {"k": "v"}, len, MOST)) == []
