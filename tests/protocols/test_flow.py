"""Records travel in portions that fit a frame."""

from __future__ import annotations

from nodes.parts.flow import CHARACTERS_PER_MESSAGE, portions


def test_records_go_in_portions_and_none_is_divided_or_lost() -> None:
    records = {f"k{number}": "x" * 1000 for number in range(600)}
    records["large"] = "x" * 3 * CHARACTERS_PER_MESSAGE
    keys = [*list(records)[:300], "large", "nobody's", *list(records)[300:600]]
    made = list(portions(keys, records, len))
    assert len(made) > 3
    assert {key: text for portion in made for key, text in portion.items()} == records
    assert sum(map(len, made)) == len(records)
    for portion in made:
        *before, _ = portion.values()
        assert sum(map(len, before)) <= CHARACTERS_PER_MESSAGE


def test_nothing_makes_no_portion() -> None:
    assert list(portions(["nobody's"], {"k": "v"}, len)) == []
