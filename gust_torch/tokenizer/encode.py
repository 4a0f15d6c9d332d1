"""One pass over data: original codes of every sample, on one or many devices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.identity import evenly_spaced, warn_of_scale
from gust_torch.models.token_model import TokenModel
from gust_torch.predict import Ranks
from gust_torch.tokenizer.options import DataOptions
from gust_torch.tokenizer.tokenizer import VQVAETokenizer, count_codes
from solvers.common.progress import Progress
from solvers.common.urls import redact

__all__ = ["encode_data", "open_data", "warn_of_other_scale"]

SCALE_SAMPLES = 16


def open_data(model: TokenModel, options: DataOptions) -> HDF5Dataset:
    """Open the samples and check that the model was made for such fields.

    Raises:
        ValueError: if the data cannot be read, or their channels, grid, boundaries or lengths differ from the
            model's.
    """
    dataset = HDF5Dataset(
        options.data_path,
        fields=model.spec.names if options.fields is None else options.fields,
        sample_start=options.sample_start,
        sample_stop=options.sample_stop,
    )
    if changed := model.spec.differences(dataset.spec):
        raise ValueError(
            f"{_source(options)} does not fit the model, which was trained on {'; '.join(changed)}; give "
            "data like those of its training, or other --fields"
        )
    return dataset


def warn_of_other_scale(model: TokenModel, dataset: HDF5Dataset, options: DataOptions) -> list[str]:
    """Warn of channels whose values are of another order than the training's, as in other units.

    Looks at some evenly spaced samples.

    Returns:
        The names of these channels.
    """
    values = dataset.__getitems__(evenly_spaced(len(dataset), SCALE_SAMPLES)).stacked.double()
    found = values.std(dim=(0, 2, 3), correction=0).numpy()
    trained = model.std.flatten().cpu().numpy()
    return warn_of_scale(trained, found, dataset.spec.names, source=_source(options))


def _source(options: DataOptions) -> str:
    """Name the data for people."""
    return redact(", ".join(options.data_path))


class SampleBatches(Dataset[tuple[int, Tensor]]):
    """Batches (first sample, fields (b, c, h, w)) of a dataset."""

    def __init__(self, dataset: HDF5Dataset, num_samples: int, batch_size: int) -> None:
        """Remember them.

        Args:
            dataset: the samples.
            num_samples: how many of them.
            batch_size: samples in all batches but the last.
        """
        self._dataset, self._num_samples, self._batch_size = dataset, num_samples, batch_size

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self._num_samples // self._batch_size)

    def rows(self, index: int) -> range:
        """Return the samples of a batch."""
        start = index * self._batch_size
        return range(start, min(start + self._batch_size, self._num_samples))

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        """Read a batch."""
        rows = self.rows(index)
        return rows.start, self._dataset.__getitems__(list(rows)).stacked


def encode_data(
    tokenizer: VQVAETokenizer,
    dataset: HDF5Dataset,
    ranks: Ranks,
    *,
    num_samples: int,
    batch_size: int,
    num_workers: int = 0,
    write: Callable[[int, NDArray[np.integer[Any]]], None] | None = None,
) -> tuple[NDArray[np.int64], ...]:
    """Encode every sample once; all processes call it, and each takes a share of the batches.

    The tokenizer, which needs no vocabulary, is left on the device. Batches are the same for any number of
    processes, and so are the codes: see `VQVAETokenizer.predict_batch_size`.

    Args:
        tokenizer: with the trained model.
        dataset: the samples.
        ranks: the processes, started.
        num_samples: the first so many, the same number in all processes.
        batch_size: samples in a batch.
        num_workers: processes that read ahead.
        write: called with the number of the first sample and the codes (n, L) of each batch of this process.

    Returns:
        S arrays (K_k,), occurrences of each code in all samples.
    """
    batch_size = min(batch_size, num_samples)
    tokenizer.predict_batch_size = batch_size
    ranks.to_device(tokenizer)
    areas, sizes = [h * w for h, w in tokenizer.model.scales], tokenizer.model.vocab_sizes
    counts = [np.zeros(size, dtype=np.int64) for size in sizes]
    batches = SampleBatches(dataset, num_samples, batch_size)
    share = range(ranks.rank, len(batches), ranks.num_ranks)
    part = f", process 0 of {ranks.num_ranks}" if ranks.num_ranks > 1 else ""
    total = sum(len(batches.rows(index)) for index in share)
    with ExitStack() as stack:
        progress: Progress | None = None
        if ranks.rank == 0:
            progress = stack.enter_context(Progress(total, unit="sample", description=f"tokens{part}"))

        def keep(start: int, codes: Tensor) -> None:
            values = codes.numpy()
            for count, found in zip(counts, count_codes(values, areas, sizes), strict=True):
                count += found
            if write is not None:
                write(start, values)
            if progress is not None:
                progress.update(len(values))

        ranks.predict(lambda x: tokenizer.predict_step(x, 0), batches, keep, num_workers=num_workers)
    return tuple(ranks.sum(torch.from_numpy(count)).cpu().numpy() for count in counts)
