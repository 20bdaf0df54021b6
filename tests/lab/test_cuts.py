"""What is said of cuts, by what passed on them."""

from __future__ import annotations

from chaos.clusters.lab.links import HELD_BYTES, Cut, in_words, leak


def cut(src: str, dst: str, passed: int, tried: int = 0) -> Cut:
    return Cut(link=(src, dst), from_ns=0, until_ns=1, bytes=passed, connections=tried)


def test_cuts_that_held_are_told_in_a_line() -> None:
    cuts = [cut("n1", "n2", 0, 3), cut("n2", "n1", 0, 2), cut("n1", "n2", 0, 1)]
    assert leak(cuts) is None
    assert in_words(cuts, {}) == [
        "cuts: 2 directed links were cut, 3 times in all; while they were, 0 bytes passed, and "
        "nodes or clients tried to connect 6 times"
    ]
    assert in_words([], {}) == []


def test_a_cut_that_let_data_pass_was_none() -> None:
    cuts = [cut("n1", "n2", 0), cut("n3", "n2", HELD_BYTES + 1)]
    assert leak(cuts) == f"the cut of n3->n2 was none: {HELD_BYTES + 1} bytes passed"
    assert f"{HELD_BYTES + 1} bytes on n3->n2 passed" in in_words(cuts, {})[0]
    # What the sockets held before it is told, and no failure.
    few = [cut("n1", "n2", 60)]
    assert leak(few) is None
    assert "60 bytes on n1->n2 passed" in in_words(few, {})[0]


def test_what_strayed_past_the_declared_ports_is_told() -> None:
    (line,) = in_words([], {("n1", "n2"): 7})
    assert line == "dropped, since no declared port carries it: n1->n2 (7 packets)"
