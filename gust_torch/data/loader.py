"""Batches: shuffled by blocks, read at once, collated without a copy, resumable in the middle of an epoch."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

if TYPE_CHECKING:
    from lightning import Trainer

logger = logging.getLogger(__name__)

Collate = Callable[[list[Any]], Any]


class BlockShuffleSampler(DistributedSampler[int]):
    """Cuts the samples into blocks of neighbors and shuffles the blocks, anew each epoch.

    Within a block samples keep their order, so a batch is read in `batch_size / block_size` sequential reads.
    Where the cuts fall changes with the epoch too. Each rank gets an equal, contiguous part of the shuffled
    order: no sample goes to two ranks, and all are used but the last `count % world_size`. The next iteration
    skips the first `position` samples of this rank.

    A `DistributedSampler`, because Lightning replaces every sampler that is not one when it trains on several
    devices.
    """

    def __init__(
        self, count: int, *, block_size: int = 1, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        """Start with epoch 0 of a dataset of `count` samples, which `world_size` processes share."""
        if count < world_size:
            raise ValueError(f"{count} samples are too few for {world_size} ranks; use fewer devices")
        super().__init__(range(count), num_replicas=world_size, rank=rank, seed=seed, drop_last=True)  # type: ignore[arg-type]
        self.block_size = block_size
        self.position = 0
        self._settings = {
            "num_samples": count,
            "block_size": block_size,
            "seed": seed,
            "world_size": world_size,
        }

    def order(self) -> np.ndarray:
        """Sample indices of this rank for the whole epoch, (count // world_size,) int64."""
        count = self._settings["num_samples"]
        rng = np.random.default_rng((self.seed, self.epoch))
        samples = np.roll(np.arange(count), -int(rng.integers(count)))
        num_blocks = count // self.block_size
        blocks = samples[: num_blocks * self.block_size].reshape(num_blocks, self.block_size)
        shuffled = np.concatenate([blocks[rng.permutation(num_blocks)].ravel(), samples[blocks.size :]])
        return shuffled[self.rank * len(self) : (self.rank + 1) * len(self)]

    def __iter__(self) -> Iterator[int]:
        """Yield indices of this rank from `position` on; the next iteration begins at 0 again."""
        start, self.position = self.position, 0
        yield from self.order()[start:].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order; a position within another epoch is forgotten."""
        if epoch != self.epoch:
            self.position = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return what fixes the order on all ranks, and `position`."""
        return {**self._settings, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a state at the next iteration; ValueError where it is of another order."""
        now = self._settings
        if changed := [
            f"{name} was {state[name]}, is {now[name]} now" for name in now if state[name] != now[name]
        ]:
            raise ValueError(f"the order of samples has changed: {', '.join(changed)}")
        self.epoch, self.position = state["epoch"], state["position"]


class ResumableLoader(DataLoader[Any]):
    """`DataLoader` over a `BlockShuffleSampler` that can stop and go on within an epoch.

    Its state counts the batches that training has finished, not those that workers have fetched ahead;
    without a trainer those that were handed out. Lightning saves and restores the state of loaders.
    """

    sampler: BlockShuffleSampler
    batch_size: int
    trainer: "Trainer | None" = None
    _num_given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches of what is left of the epoch.

        A generator: nothing is fetched before the first batch is asked for, thus after the caller has set the
        epoch.
        """
        self._num_given = self.sampler.position // self.batch_size
        for batch in super().__iter__():
            self._num_given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where training stands: the epoch's order, and this rank's samples of it that are finished."""
        num_finished = self._num_given
        if self.trainer is not None:
            progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
            num_finished = progress.processed
        position = {"batch_size": self.batch_size, "position": num_finished * self.batch_size}
        return {**self.sampler.state_dict(), **position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue there at the next iteration.

        Where data, batch size or number of devices have changed there is no such place: the epoch's new order
        is then begun, with a warning.
        """
        try:
            if state["batch_size"] != self.batch_size:
                raise ValueError(f"batch_size was {state['batch_size']}, is {self.batch_size} now")
            self.sampler.load_state_dict(state)
        except ValueError as error:
            logger.warning("resuming within an epoch is not exact: %s; some samples may repeat", error)


class BlockDataModule(LightningDataModule):
    """What data modules share: the settings of loading, shuffled and ordered loaders."""

    def __init__(
        self, batch_size: int, num_workers: int, block_size: int | None, seed: int, allow_changed: bool
    ) -> None:
        """Remember the settings; a ValueError names one that is out of range."""
        super().__init__()
        self.batch_size, self.num_workers = batch_size, num_workers
        self.block_size, self.seed = block_size, seed
        self.allow_changed = allow_changed
        check_least(batch_size=(batch_size, 1), num_workers=(num_workers, 0), block_size=(block_size, 1))

    def collate(self) -> Collate | None:
        """Return what makes a batch of items; None for torch's own."""
        return None

    def shuffled(self, dataset: Dataset[Any], block_size: int = 1) -> DataLoader[Any]:
        """Shuffled blocks of a training set, this rank's share; resumable within an epoch.

        Blocks are of `self.block_size`, else of `block_size` samples.
        With `trainer.overfit_batches` the set in order, as Lightning asks for. The trainer, if any, knows
        rank, epoch and finished batches. Workers, once started, live as long as the loader.
        """
        trainer = self.trainer
        if trainer and trainer.overfit_batches:  # type: ignore[attr-defined]
            return self.ordered(dataset)
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        sampler = BlockShuffleSampler(
            len(dataset),  # type: ignore[arg-type]
            block_size=self.block_size or block_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        if trainer:
            sampler.set_epoch(trainer.current_epoch)
        # All ranks have equally many samples, so a small set may keep its only, incomplete batch.
        drop_last = len(sampler) >= self.batch_size
        loader = ResumableLoader(dataset, sampler=sampler, drop_last=drop_last, **self._options())
        loader.trainer = trainer
        return loader

    def ordered(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        """Loader that goes through a set once, in order."""
        return DataLoader(dataset, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.num_workers > 0,
            "collate_fn": self.collate(),
        }


def check_least(**settings: tuple[int | None, int]) -> None:
    """Refuse settings, name=(value, smallest), that are below the smallest."""
    for name, (value, smallest) in settings.items():
        if value is not None and value < smallest:
            raise ValueError(f"expected {name} >= {smallest}, got {value}")
