"""Splits: sizes, disjointness, determinism, manifest."""

import numpy as np
import pytest

from gust_torch.convert.output import Options
from gust_torch.convert.splits import make_splits


@pytest.mark.parametrize(
    ("num", "fractions", "sizes"),
    [
        (100, (0.8, 0.1, 0.1), (80, 10, 10)),
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (6, (0.8, 0.1, 0.1), (4, 1, 1)),
        (3, (0.8, 0.1, 0.1), (1, 1, 1)),
        (2, (0.8, 0.1, 0.1), (1, 1, 0)),
        (1, (0.8, 0.1, 0.1), (1, 0, 0)),
        (7, (1, 0, 0), (7, 0, 0)),
        (10, (0.5, 0.5, 0), (5, 5, 0)),
        (1000, (1 / 3, 1 / 3, 1 / 3), (334, 333, 333)),
    ],
)
def test_sizes(num: int, fractions: tuple[float, float, float], sizes: tuple[int, int, int]) -> None:
    splits = make_splits(range(num), fractions, seed=0)
    assert tuple(splits.chosen(name).sum() for name in splits.names) == sizes
    wanted = [
        name
        for name, fraction, size in zip(splits.names, fractions, sizes, strict=True)
        if fraction and not size
    ]
    assert list(splits.empty) == wanted


@pytest.mark.parametrize(
    ("groups", "wished"),
    [
        ([7] * 10, 2),  # equal ones, as in a sweep
        ([1] * 50 + [2] * 25, 3),
        ([90] + [1] * 10, 60),  # a group that is larger than a share
        ([5, 5], 30),
    ],
)
def test_groups_stay_together_and_no_split_is_empty(groups: list[int], wished: int) -> None:
    keys = np.repeat(np.arange(len(groups)), groups)
    for seed in range(20):
        splits = make_splits(keys.tolist(), (0.8, 0.1, 0.1), seed)
        assert splits.num_groups == len(groups)
        assert all(len(set(splits.assignment[keys == group])) == 1 for group in range(len(groups)))
        assert len(splits.used) == min(3, len(groups))
        assert abs(splits.chosen("train").sum() - 0.8 * len(keys)) <= max(wished, 0.1 * len(keys))


def test_seed_decides() -> None:
    first, again, other = (make_splits(range(50), (0.8, 0.1, 0.1), seed).assignment for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (np.diff(first[:40]) != 0).any()  # shuffled, not cut


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (np.nan, 0.0, 1.0)])
def test_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="three shares"):
        Options(splits=fractions)
