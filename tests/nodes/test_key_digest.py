"""The digest of a replica's keys, whenever it is asked for."""

from __future__ import annotations

import random

import pytest

from nodes.parts.key_digest import KeyDigest
from nodes.parts.limits import KeyLimits


def _digest(versions: dict[str, int], **limits: int) -> KeyDigest:
    return KeyDigest(8, versions.__getitem__, KeyLimits(**limits))


def _change(digest: KeyDigest, versions: dict[str, int], key: str, version: int) -> None:
    versions[key] = version
    digest.touch(key)


@pytest.mark.parametrize("touched", [KeyLimits().digest_touched, 3])
def test_equal_keys_have_equal_hashes_however_often_somebody_asked(touched: int) -> None:
    rng = random.Random(7)
    ours: dict[str, int] = {}
    theirs: dict[str, int] = {}
    asked, silent = (_digest(versions, digest_touched=touched) for versions in (ours, theirs))
    for number in range(200):
        key = f"k{rng.randrange(30)}"
        _change(asked, ours, key, number)
        _change(silent, theirs, key, number)
        if rng.random() < 0.3:
            assert key in [each for bucket in range(8) for each in asked.keys(bucket)]
    assert asked.differing(silent.hashes) == []
    assert sorted(silent.portions(range(8))[0][1]) == sorted(theirs)


def test_one_other_version_is_one_bucket_that_differs_until_it_is_taken_back() -> None:
    versions = {f"k{number}": 1 for number in range(30)}
    digest = _digest(versions)
    for key in versions:
        digest.touch(key)
    before = list(digest.hashes)
    _change(digest, versions, "k3", 2)
    (bucket,) = digest.differing(before)
    assert "k3" in digest.keys(bucket)
    _change(digest, versions, "k3", 1)
    assert digest.differing(before) == []


def test_a_digest_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        _digest({}).differing([0] * 9)
