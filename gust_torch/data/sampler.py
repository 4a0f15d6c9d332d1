"""Shuffled order of blocks of neighboring samples, shared out among ranks, resumable."""

from collections.abc import Iterator, Mapping

import numpy as np
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler


class BlockShuffleSampler(DistributedSampler[int]):
    """Cuts the samples into blocks of neighbors and shuffles the blocks, anew each epoch.

    Within a block samples keep their order, so a batch is read in `batch_size / block_size` sequential reads.
    Where the cuts fall changes with the epoch too. Each rank gets an equal, contiguous part of the shuffled
    order: no sample goes to two ranks, and all are used but the last `num_samples % world_size`.
    `block_size=1` is a plain shuffle.

    A `DistributedSampler`, because Lightning replaces every sampler that is not one when it trains on several
    devices.

    Attributes:
        position: Samples of this rank to skip at the next iteration.
        block_size: Neighboring samples that stay together.
        world_size: Number of ranks.
    """

    def __init__(
        self, num_samples: int, *, block_size: int = 1, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        """Start with epoch 0.

        Args:
            num_samples: Samples of the dataset.
            block_size: Neighboring samples that stay together.
            seed: Of the order, together with the epoch.
            rank: This process, 0 .. world_size - 1.
            world_size: Processes that share the samples.

        Raises:
            ValueError: A number out of range, or fewer samples than ranks.
        """
        if block_size < 1:
            raise ValueError(f"expected block_size >= 1, got {block_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"expected 0 <= rank < world_size, got rank {rank} of {world_size}")
        if num_samples < world_size:
            raise ValueError(f"{num_samples} samples are too few for {world_size} ranks; use fewer devices")
        super().__init__(_Sized(num_samples), num_replicas=world_size, rank=rank, seed=seed, drop_last=True)
        self._count = num_samples
        self.block_size = block_size
        self.world_size = world_size
        self.position = 0

    def order(self) -> np.ndarray:
        """Sample indices of this rank for the whole epoch, (num_samples // world_size,) int64."""
        rng = np.random.default_rng((self.seed, self.epoch))
        samples = np.roll(np.arange(self._count), -int(rng.integers(self._count)))
        num_blocks = self._count // self.block_size
        blocks = samples[: num_blocks * self.block_size].reshape(num_blocks, self.block_size)
        shuffled = np.concatenate([blocks[rng.permutation(num_blocks)].ravel(), samples[blocks.size :]])
        return shuffled[self.rank * len(self) : (self.rank + 1) * len(self)]

    def __iter__(self) -> Iterator[int]:
        """Yield indices of this rank from `position` on; the next iteration begins at 0 again."""
        start, self.position = self.position, 0
        yield from self.order()[start:].tolist()

    def __len__(self) -> int:
        """Return samples of this rank in a whole epoch."""
        return self._count // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order; a position within another epoch is forgotten."""
        if epoch != self.epoch:
            self.position = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return what fixes the order on all ranks, and `position`."""
        return {**self._settings(), "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a state at the next iteration.

        Raises:
            ValueError: The state is of another order.
        """
        changed = [
            f"{name} was {state[name]}, is {value} now"
            for name, value in self._settings().items()
            if state[name] != value
        ]
        if changed:
            raise ValueError(f"the order of samples has changed: {', '.join(changed)}")
        self.epoch, self.position = state["epoch"], state["position"]

    def _settings(self) -> dict[str, int]:
        return {
            "num_samples": self._count,
            "block_size": self.block_size,
            "seed": self.seed,
            "world_size": self.world_size,
        }


class _Sized(Dataset[int]):
    """Stands in for a dataset whose length is all that matters."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length
