"""Batches: read at once, collated without a copy, resumable in the middle of an epoch."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from gust_torch.data.sampler import BlockShuffleSampler

logger = logging.getLogger(__name__)


class FrameBatch(list[Tensor]):
    """Items of one batch that are views of one tensor.

    Attributes:
        stacked: The items as a tensor, (b, c, h, w) or (b, t, c, h, w).
    """

    def __init__(self, stacked: Tensor) -> None:
        """Args: stacked: as above."""
        super().__init__(stacked.unbind(0))
        self.stacked = stacked


def collate_frames(items: list[Tensor]) -> Tensor:
    """Items -> (b, ...) float32; a `FrameBatch` is a batch already and is not copied."""
    return items.stacked if isinstance(items, FrameBatch) else default_collate(items)


class ResumableLoader(DataLoader[Any]):
    """`DataLoader` over a `BlockShuffleSampler` that can stop and go on within an epoch.

    Its state counts the batches that training has finished, not those that workers have fetched ahead.
    Lightning saves and restores the state of loaders that have one.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: BlockShuffleSampler,
        *,
        batch_size: int,
        drop_last: bool,
        num_workers: int = 0,
        pin_memory: bool = False,
        num_finished: Callable[[], int] | None = None,
        collate: Callable[[list[Any]], Any] = collate_frames,
    ) -> None:
        """Workers, once started, live as long as the loader.

        Args:
            dataset: Gives the samples.
            sampler: Gives their order.
            batch_size: Samples in a batch.
            drop_last: Leave out an incomplete last batch.
            num_workers: Processes that load ahead.
            pin_memory: Put batches into page-locked memory.
            num_finished: Gives the number of batches of the current epoch that are finished. Without it a
                batch counts from when it is handed out.
            collate: Makes a batch of what the dataset gives.
        """
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            collate_fn=collate,
        )
        self._shuffler = sampler
        self._size = batch_size
        self._num_finished = num_finished
        self._num_given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches of what is left of the epoch.

        A generator: nothing is fetched before the first batch is asked for, thus after the caller has set the
        epoch.
        """
        self._num_given = self._shuffler.position // self._size
        for batch in super().__iter__():
            self._num_given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where training stands: the epoch's order, and this rank's samples of it that are finished."""
        num_finished = self._num_given if self._num_finished is None else self._num_finished()
        state = {**self._shuffler.state_dict(), "batch_size": self._size}
        return {**state, "position": num_finished * self._size}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue there at the next iteration.

        Where data, batch size or number of devices have changed there is no such place: the epoch's new order
        is then begun, with a warning.
        """
        try:
            if state["batch_size"] != self._size:
                raise ValueError(f"batch_size was {state['batch_size']}, is {self._size} now")
            self._shuffler.load_state_dict(state)
        except ValueError as error:
            logger.warning("resuming within an epoch is not exact: %s; some samples may repeat", error)
