"""Files of a run folder that is not ours: what is read of it, and what is not."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.record.files import (
    NotReadable,
    is_named_pipe,
    listed,
    open_regular,
    read_named,
    read_regular,
    whole_lines,
    write_whole,
)


def directory(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_out(path: Path) -> None:
    (path.parent / "secret").write_text("{}")
    path.symlink_to(path.parent / "secret")


def link_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def listening(path: Path) -> None:
    # A socket's path has 107 bytes at most: bind it where it is.
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


HOSTILE: dict[Callable[[Path], None], str] = {
    directory: "is a directory",
    pipe: "is a pipe",
    link_to_zeros: "is a link",
    link_out: "is a link",
    link_nowhere: "is a link",
    huge: "1099511627776 bytes, limit 100",
    listening: "a socket",
}


@pytest.mark.parametrize("make", HOSTILE)
def test_only_regular_files_of_a_bounded_size_are_read(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "file")
    with pytest.raises(NotReadable, match=HOSTILE[make]) as refused:
        open_regular(tmp_path / "file", 100)
    assert str(tmp_path / "file") in str(refused.value)


def test_a_device_is_not_read() -> None:
    with pytest.raises(NotReadable, match="is a device"):
        read_regular(Path("/dev/zero"), 100)


def test_what_is_not_there_is_told_apart_and_what_is_there_is_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "file", 100)
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert read_regular(tmp_path / "file", 100) == b"x" * 100


def test_a_name_that_is_no_utf8_can_be_printed(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff")
    path.mkdir()
    with pytest.raises(NotReadable, match=r"\\xff: is a directory") as refused:
        read_regular(path, 100)
    str(refused.value).encode()


def test_lines_end_with_the_last_whole_one_or_the_first_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for content, lines in (
        (b"one\ntwo\nthr", [b"one\n", b"two\n"]),
        (b"one\n" + b"x" * 1000 + b"\ntwo\n", [b"one\n", b"x" * 11]),
        (b"0123456789\nx\n", [b"0123456789\n"]),
        (b"", []),
    ):
        path.write_bytes(content)
        with open_regular(path, 2000) as file:
            assert list(whole_lines(file, 10)) == lines


def test_a_directory_of_files_is_a_directory_with_bounds(tmp_path: Path) -> None:
    assert listed(tmp_path / "none", ".json", 100) == []
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in ("b.json", "a.json", "c.txt"):
        (inside / name).write_text("12345")
    assert [path.name for path in listed(inside, ".json", 10)] == ["a.json", "b.json"]
    with pytest.raises(NotReadable, match="10 bytes, limit 9"):
        listed(inside, ".json", 9)
    (tmp_path / "link").symlink_to(inside)
    with pytest.raises(NotReadable, match="is a link; a directory is expected"):
        listed(tmp_path / "link", ".json", 100)
    for number in range(1001):
        (inside / f"{number}.json").touch()
    with pytest.raises(NotReadable, match="more than 1000 files"):
        listed(inside, ".json", 100)


@pytest.mark.parametrize("name", ["out.json", "out.json.partial"])
def test_writing_replaces_a_link_and_follows_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / name).symlink_to(tmp_path / "precious")
    write_whole(tmp_path / "out.json", b"{}")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "out.json").read_bytes() == b"{}"
    assert stat.S_ISREG((tmp_path / "out.json").lstat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "precious"]


def test_a_link_that_leads_to_itself_is_one_line(tmp_path: Path) -> None:
    circle = tmp_path / "circle.yaml"
    circle.symlink_to("circle.yaml")
    with pytest.raises(NotReadable, match=r"circle\.yaml: a link that leads nowhere but to links"):
        read_named(circle, 100)
    real = tmp_path / "real"
    real.write_bytes(b"here")
    (tmp_path / "link").symlink_to("real")
    assert read_named(tmp_path / "link", 100) == b"here"


def test_a_named_pipe_is_one_however_it_is_reached_and_that_of_a_shell_is_none(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    assert is_named_pipe(tmp_path / "pipe")
    assert is_named_pipe(tmp_path / "link")
    reading, writing = os.pipe()
    try:
        assert not is_named_pipe(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)
        os.close(writing)
    assert not is_named_pipe(tmp_path)
    assert not is_named_pipe(tmp_path / "nowhere")
