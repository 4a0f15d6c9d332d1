"""BlockShuffleSampler: coverage, blocks, ranks, epochs, resumption."""

import numpy as np
import pytest

from gust_torch.data.loader import BlockShuffleSampler


@pytest.mark.parametrize(("n", "block"), [(64, 4), (61, 4), (10, 16), (5, 1)])
def test_every_sample_once(n: int, block: int) -> None:
    order = list(BlockShuffleSampler(n, block_size=block, seed=1))
    assert sorted(order) == list(range(n))


def test_blocks_are_neighbors_in_order() -> None:
    n, block = 60, 6
    order = np.array(list(BlockShuffleSampler(n, block_size=block, seed=1))).reshape(-1, block)
    assert np.all(np.diff(order, axis=1) % n == 1)  # cyclic: the cuts begin anywhere
    assert not np.all(np.diff(order[:, 0]) > 0)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    sampler, other = BlockShuffleSampler(40, block_size=2), BlockShuffleSampler(40, block_size=2, seed=1)
    first = list(sampler)
    assert list(sampler) == first != list(other)
    sampler.set_epoch(1)
    assert list(sampler) != first


@pytest.mark.parametrize(("n", "world_size"), [(64, 2), (67, 3), (9, 4)])
def test_ranks_share_without_overlap(n: int, world_size: int) -> None:
    parts = []
    for rank in range(world_size):
        sampler = BlockShuffleSampler(n, block_size=4, rank=rank, world_size=world_size)
        sampler.set_epoch(3)
        parts.append(set(sampler))
        assert len(parts[-1]) == len(sampler) == n // world_size
    assert len(set.union(*parts)) == n - n % world_size  # disjoint


def test_resumes_where_it_stopped() -> None:
    sampler = BlockShuffleSampler(20, block_size=2, seed=5)
    sampler.set_epoch(2)
    full = list(sampler)
    again = BlockShuffleSampler(20, block_size=2, seed=5)
    again.load_state_dict({**sampler.state_dict(), "position": 7})
    again.set_epoch(2)
    assert list(again) == full[7:]
    assert list(again) == full  # once only
    again.load_state_dict({**sampler.state_dict(), "position": 7})
    again.set_epoch(3)
    assert len(list(again)) == 20


def test_a_state_of_another_order_is_refused() -> None:
    state = BlockShuffleSampler(20, block_size=2, seed=5).state_dict()
    with pytest.raises(ValueError, match=r"num_samples was 20, is 21 now, seed was 5, is 0"):
        BlockShuffleSampler(21, block_size=2).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"world_size": 11}, "fewer devices"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockShuffleSampler(10, **arguments)
