"""Codes of a distributed prediction: every process writes its own, one merges them in sample order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["CodeShardWriter", "merge_shards"]

FLUSH_SAMPLES = 4096


class CodeShardWriter(BasePredictionWriter):
    """Save the codes of `predict_step` with the samples that they belong to.

    Codes stay on the device until `FLUSH_SAMPLES` samples are in, so that no batch waits for a transfer.

    Attributes:
        folder: where shards go; every process must see it. Process 0 names and creates it.
    """

    def __init__(self, folder: Path) -> None:
        """Start without shards.

        Args:
            folder: a folder that does not exist yet.
        """
        super().__init__(write_interval="batch")
        self.folder = folder
        self._indices: list[int] = []
        self._codes: list[Tensor] = []
        self._num_shards = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Agree on the folder of process 0."""
        self.folder = Path(trainer.strategy.broadcast(str(self.folder)))
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True)
        trainer.strategy.barrier()

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep a batch's codes (b, L) and sample numbers (b,)."""
        if batch_indices is None:
            raise ValueError("sample numbers are unknown; predict from a map-style dataset")
        self._indices.extend(batch_indices)
        self._codes.append(prediction)
        if len(self._indices) >= FLUSH_SAMPLES:
            self._flush(trainer.global_rank)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rest and wait for the other processes."""
        if self._codes:
            self._flush(trainer.global_rank)
        trainer.strategy.barrier()

    def _flush(self, rank: int) -> None:
        stem = f"rank{rank}_{self._num_shards}"
        np.save(self.folder / f"{stem}.codes.npy", torch.cat(self._codes).cpu().numpy())
        np.save(self.folder / f"{stem}.index.npy", np.array(self._indices, dtype=np.int64))
        self._num_shards += 1
        self._indices.clear()
        self._codes.clear()


def merge_shards(folder: Path, num_samples: int) -> NDArray[np.integer[Any]]:
    """Put the codes of all shards in sample order; a sample that a sampler repeated is kept once.

    Args:
        folder: where the shards lie; the merged array goes there too.
        num_samples: samples expected.

    Returns:
        (num_samples, L) memory-mapped codes.

    Raises:
        ValueError: if a sample is missing.
    """
    shards = sorted(folder.glob("*.codes.npy"))
    found = np.zeros(num_samples, dtype=bool)
    merged: NDArray[np.integer[Any]] | None = None
    for shard in shards:
        codes = np.load(shard)
        index = np.load(shard.with_name(shard.name.replace(".codes.", ".index.")))
        if merged is None:
            shape = (num_samples, codes.shape[1])
            merged = np.lib.format.open_memmap(
                folder / "merged.npy", mode="w+", dtype=codes.dtype, shape=shape
            )
        # A process that opened a growing file later than the first one saw more samples.
        known = index < num_samples
        merged[index[known]] = codes[known]
        found[index[known]] = True
    if merged is None or not found.all():
        raise ValueError(
            f"{num_samples - int(found.sum())} of {num_samples} samples have no tokens, the first is "
            f"{int(np.argmin(found))}; all processes must share the folder {folder.parent}"
        )
    return merged
