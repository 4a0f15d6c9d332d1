"""Splits: whole trajectories, or time blocks with a gap."""

import numpy as np
import pytest

from gust_torch.data.samples import split_samples


def test_whole_trajectories_are_held_out() -> None:
    trajectories = np.repeat(np.arange(7), 5)
    train, val = split_samples(trajectories, 0.2, span=0, gap=None, seed=0)
    assert len(val) == 2 * 5  # ceil(0.2 * 7) trajectories
    assert not set(trajectories[train]) & set(trajectories[val])
    assert sorted([*train, *val]) == list(range(35))
    others = [split_samples(trajectories, 0.2, span=0, gap=None, seed=seed)[1].tolist() for seed in range(5)]
    assert others[0] == val.tolist()
    assert any(other != val.tolist() for other in others)


def test_at_least_one_trajectory_on_each_side() -> None:
    train, val = split_samples(np.array([0, 0, 1, 1]), 0.9, span=0, gap=None, seed=0)
    assert len(train) == len(val) == 2


def test_time_blocks_have_a_gap() -> None:
    train, val = split_samples(np.zeros(100, int), 0.1, span=0, gap=None, seed=0)
    assert train.tolist() == list(range(85))  # 10 held out, a gap of 5
    assert val.tolist() == list(range(90, 100))
    train, _ = split_samples(np.zeros(100, int), 0.1, span=0, gap=20, seed=0)
    assert train[-1] == 69


def test_the_default_gap_is_bounded() -> None:
    train, val = split_samples(np.zeros(10**5, int), 0.1, span=0, gap=None, seed=0)
    assert val[0] - train[-1] - 1 == 256


def test_training_windows_stay_clear_of_the_gap() -> None:
    n_steps, stride, gap = 4, 3, 5
    span = (n_steps - 1) * stride
    train, val = split_samples(np.zeros(100, int), 0.1, span=span, gap=gap, seed=0)
    assert val[0] - (train[-1] + span) - 1 == gap


def test_nothing_held_out() -> None:
    train, val = split_samples(np.zeros(10, int), 0.0, span=0, gap=None, seed=0)
    assert len(train) == 10
    assert len(val) == 0


@pytest.mark.parametrize(
    ("n", "fraction", "gap", "message"),
    [
        (10, 1.0, None, "val_fraction < 1"),
        (10, -0.1, None, "val_fraction"),
        (10, 0.1, -1, "gap"),
        (10, 0.1, 9, "leave none to train on"),
        (1, 0.1, None, "leave none to train on"),
    ],
)
def test_bad_splits(n: int, fraction: float, gap: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_samples(np.zeros(n, int), fraction, span=0, gap=gap, seed=0)
