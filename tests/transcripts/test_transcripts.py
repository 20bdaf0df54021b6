"""Each transcript still tells what happens. After a change that is meant, run pytest with
``--rewrite-transcripts`` and review the difference like prose."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transcripts.interpreter import TranscriptError, check, play

FILES = sorted(Path(__file__).parent.glob("*/*.txt"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_transcript(file: Path, request: pytest.FixtureRequest) -> None:
    check(file, rewrite=request.config.getoption("--rewrite-transcripts"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_transcript_names_its_source(file: Path) -> None:
    first = file.read_text().split("\n\n")[0]
    assert first.startswith("# ")
    assert any(word in first for word in ("section", "figure")), first


def test_a_command_that_finds_no_message_fails() -> None:
    start = "cluster protocol=raft nodes=3\n\n"
    with pytest.raises(TranscriptError, match="no message on its way"):
        play(start + "deliver type=AppendEntries")
    with pytest.raises(TranscriptError, match="no message Nonsense"):
        play(start + "deliver type=Nonsense")
    with pytest.raises(TranscriptError, match="found follower"):
        play(start + "expect n1 role=leader")
    with pytest.raises(TranscriptError, match="no such command"):
        play(start + "dance n1")
    with pytest.raises(TranscriptError, match="no node n9"):
        play(start + "cut n1 n9")
    with pytest.raises(TranscriptError, match="no message Nonsense"):
        play("cluster protocol=raft nodes=3 quiet=Nonsense")


def test_playing_twice_prints_the_same() -> None:
    for file in FILES:
        text = file.read_text()
        assert play(text) == play(text)
