"""What each write means, in numbers: both drivers and every protocol build on it."""

from __future__ import annotations

import pytest

from nodes.contract.disk import Append, Compact, Disk, Put, Truncate


def test_a_log_counts_from_one_and_goes_on_behind_its_snapshot() -> None:
    disk = Disk()
    assert (disk.first_index, disk.last_index) == (1, 0)
    assert [disk.append(entry) for entry in "abcde"] == [1, 2, 3, 4, 5]
    disk.truncate(4)
    assert disk.entries(1, 4) == ["a", "b", "c"]
    assert disk.last_index == 3
    disk.compact(2, "ab")
    assert (disk.first_index, disk.last_index, disk.snapshot) == (3, 3, "ab")
    assert disk.entry(3) == "c"
    disk.compact(7, "up to seven")
    assert (disk.first_index, disk.last_index) == (8, 7)
    assert disk.append("h") == 8
    assert disk.entries(8, 9) == ["h"]


def test_what_is_compacted_cannot_be_read_or_removed() -> None:
    disk = Disk()
    for entry in "abc":
        disk.append(entry)
    disk.compact(2, None)
    for wrong in (
        lambda: disk.entry(2),
        lambda: disk.entries(2, 4),
        lambda: disk.truncate(2),
        lambda: disk.compact(1, None),
    ):
        with pytest.raises(IndexError, match="snapshot"):
            wrong()
    assert disk.entries(3, 4) == ["c"]


def test_none_deletes_from_the_table() -> None:
    disk = Disk()
    disk.put("a", 1)
    disk.put("b", 2)
    disk.put("a", None)
    assert dict(disk.items()) == {"b": 2}
    assert disk.get("a", "gone") == "gone"


def test_the_journal_has_every_write_once_and_in_order() -> None:
    disk = Disk()
    disk.put("a", 1)
    disk.append("x")
    assert disk.take() == [Put("a", 1), Append("x")]
    disk.truncate(1)
    disk.compact(0, "s")
    assert disk.take() == [Truncate(1), Compact(0, "s")]
    assert disk.take() == []
    assert disk.position == 4
