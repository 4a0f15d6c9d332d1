"""One pass over a data file: original codes of every sample, on one or many devices."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.data.loader import collate_frames
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.tokenizer.options import Compute, DataSelection
from gust_torch.tokenizer.shards import CodeShardWriter, merge_shards
from gust_torch.tokenizer.tokenizer import VQVAETokenizer, count_codes

__all__ = ["Encoded", "encode_data", "open_data"]

COUNT_BLOCK = 4096


@dataclass(frozen=True)
class Encoded:
    """Original codes of a data file.

    Attributes:
        codes: (n, L), memory-mapped.
        counts: S arrays (K_k,), occurrences of each code.
        device: where they were computed; another one may round differently.
    """

    codes: NDArray[np.integer[Any]]
    counts: tuple[NDArray[np.int64], ...]
    device: torch.device


def open_data(model: VQVAE2d, selection: DataSelection) -> HDF5Dataset:
    """Open the samples and check that the model was made for such fields.

    Raises:
        ValueError: if the data cannot be read, or their channels, grid or boundaries differ from the model's.
    """
    fields = model.spec.names if selection.fields is None else tuple(selection.fields)
    dataset = HDF5Dataset(
        selection.data_path,
        fields=fields,
        sample_start=selection.sample_start,
        sample_stop=selection.sample_stop,
    )
    own, data = model.spec, dataset.spec
    for what, expected, found in (
        ("channels", ", ".join(own.names), ", ".join(data.names)),
        ("grid", "{}x{}".format(*own.grid), "{}x{}".format(*data.grid)),
        ("boundaries", ", ".join(own.boundary), ", ".join(data.boundary)),
    ):
        if expected != found:
            raise ValueError(
                f"{selection.data_path} has {what} {found}, the checkpoint was trained on {expected}; "
                "choose data like those of the training, or --fields"
            )
    return dataset


@contextmanager
def encode_data(
    tokenizer: VQVAETokenizer, dataset: HDF5Dataset, compute: Compute, parent: Path | None = None
) -> Iterator[Encoded | None]:
    """Encode every sample once, by `Trainer.predict`.

    Args:
        tokenizer: needs no vocabulary.
        dataset: the samples.
        compute: devices and batches.
        parent: folder for the codes, which all processes must see; the system's temporary one by default.

    Yields:
        The codes in sample order, valid inside the `with` block; None in all processes but the first.

    Raises:
        ValueError: if there are fewer samples than processes.
    """
    # Equal batch shapes, whatever the number of processes: see VQVAETokenizer.predict_batch_size.
    batch_size = min(compute.batch_size, dataset.n_samples)
    tokenizer.predict_batch_size = batch_size
    loader = DataLoader(
        dataset, batch_size=batch_size, num_workers=compute.num_workers, collate_fn=collate_frames
    )
    with tempfile.TemporaryDirectory(dir=parent, prefix=".tokens_") as folder:
        writer = CodeShardWriter(Path(folder) / "shards")
        trainer = make_trainer(compute, writer)
        if dataset.n_samples < trainer.world_size:
            raise ValueError(
                f"{dataset.n_samples} samples are too few for {trainer.world_size} processes; lower --devices"
            )
        trainer.predict(tokenizer, loader, return_predictions=False)
        if not trainer.is_global_zero:
            yield None
            return
        codes = merge_shards(writer.folder, dataset.n_samples)
        yield Encoded(codes, total_counts(tokenizer.model, codes), trainer.strategy.root_device)


def make_trainer(compute: Compute, writer: CodeShardWriter) -> Trainer:
    """Build a trainer that predicts only.

    Raises:
        ValueError: if this machine lacks the devices.
    """
    try:
        return Trainer(
            devices=compute.devices,
            accelerator=compute.accelerator,
            strategy=compute.strategy,
            callbacks=[writer],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
        )
    # What Lightning raises for devices that are no numbers, not there, or not supported by the installation.
    except (MisconfigurationException, TypeError, ImportError) as error:
        raise ValueError(f"{error}; change --devices, --accelerator or --strategy") from error


def total_counts(model: VQVAE2d, codes: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], ...]:
    """Count the occurrences of each code, S arrays (K_k,), block by block."""
    areas = [h * w for h, w in model.scales]
    totals = [np.zeros(size, dtype=np.int64) for size in model.vocab_sizes]
    for start in range(0, len(codes), COUNT_BLOCK):
        counts = count_codes(codes[start : start + COUNT_BLOCK], areas, model.vocab_sizes)
        totals = [a + b for a, b in zip(totals, counts, strict=True)]
    return tuple(totals)
