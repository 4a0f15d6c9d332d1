"""What data a file was made from: which changes are seen, which are none."""

import logging

import numpy as np
import pytest

from gust_torch.identity import (
    check_same,
    content_digest,
    differences,
    indices_digest,
    spec_identity,
    warn_of_scale,
)
from gust_torch.spec import FieldSpec

SPEC = FieldSpec(names=("a", "b"), grid=(8, 8), lengths=(1.0, 2.0))
IDENTITY = {**spec_identity(SPEC), "mean": [0.0, 5.0], "std": [1.0, 2.0], "content": "0" * 64}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fields": ["b", "a"]}, "fields: ['a', 'b'] there, ['b', 'a'] now"),
        ({"boundary": ["periodic", "wall"]}, "boundary"),
        ({"lengths": [1.0, 2.1]}, "lengths: [1.0, 2.0] there, [1.0, 2.1] now"),
        ({"std": [1000.0, 2.0]}, "std"),
        ({"mean": [0.1, 5.0]}, "mean"),
        ({"content": "1" * 64}, "content: 000000000000 there, 111111111111 now"),
        ({"std": [1.0]}, "std"),
    ],
)
def test_each_change_is_named(change, words):
    with pytest.raises(ValueError, match="was made from other data") as error:
        check_same(IDENTITY, IDENTITY | change, what="model.ckpt")
    assert words in str(error.value)
    assert "--data.allow_changed true" in str(error.value)


def test_round_off_and_entries_of_one_side_are_no_change():
    assert not differences(IDENTITY, IDENTITY | {"mean": [1e-5, 5.0], "std": [1.00001, 2.0], "more": 1})
    assert not differences(IDENTITY, {"fields": ["a", "b"]})


def test_a_change_that_is_meant_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        check_same(IDENTITY, IDENTITY | {"lengths": [2.0, 2.0]}, what="model.ckpt", allow_changed=True)
    assert "lengths: [1.0, 2.0] there, [2.0, 2.0] now" in caplog.text


def test_the_digest_is_of_the_values():
    frames = np.random.default_rng(0).standard_normal((20, 1, 4, 4)).astype(np.float32)
    assert content_digest(frames) == content_digest(frames.copy())
    for index in (0, 19):
        other = frames.copy()
        other[index, 0, 0, 0] += 1e-3
        assert content_digest(frames) != content_digest(other)
    assert content_digest(frames) != content_digest(frames.reshape(20, 1, 2, 8))
    assert indices_digest(np.arange(4)) == indices_digest(range(4)) != indices_digest(range(5))


@pytest.mark.parametrize(("std", "named"), [([1.0, 2.0], []), ([2.9, 0.7], []), ([1000.0, 2.0], ["a"])])
def test_other_units_are_warned_of(std, named, caplog):
    with caplog.at_level(logging.WARNING):
        assert warn_of_scale([1.0, 2.0], std, ("a", "b"), source="x.h5") == named
    assert bool(named) == ("same values and units" in caplog.text)
