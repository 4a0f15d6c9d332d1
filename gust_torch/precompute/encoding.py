"""One pass over the pending shards of a cache: each process encodes whole shards of its own."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gust_torch.latents.frames import FrameSource
from gust_torch.latents.plan import Shard
from gust_torch.latents.writer import CacheWriter
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.precompute.options import Compute
from gust_torch.precompute.ranks import Ranks
from solvers.common.progress import Progress

if TYPE_CHECKING:
    from gust_torch.models.latent_autoencoder import Batch

    Part: TypeAlias = tuple[int, int, Batch]


class ShardBatches(Dataset["Part"]):
    """Batches of shards: (place of the shard in `shards`, first sample, frames).

    Batches begin anew with each shard, so that which samples are encoded together depends neither on the
    number of processes nor on what an earlier run has finished.
    """

    def __init__(self, frames: FrameSource, shards: Sequence[Shard], batch_size: int) -> None:
        """List the batches.

        Args:
            frames: What is encoded.
            shards: To make.
            batch_size: Samples in a batch; whole items.
        """
        self._frames = frames
        self._batches = [
            (place, start, min(start + batch_size, shard.stop))
            for place, shard in enumerate(shards)
            for start in range(shard.start, shard.stop, batch_size)
        ]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __getitem__(self, index: int) -> "Part":
        """Read a batch."""
        place, start, stop = self._batches[index]
        each = self._frames.samples_per_item
        return place, start, self._frames.read(range(start // each, stop // each))


class EncoderModule(LightningModule):
    """An autoencoder that predicts latents."""

    def __init__(self, model: LatentAutoencoder) -> None:
        super().__init__()
        self.model = model
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more processes than shards

    def predict_step(self, batch: "Part", batch_idx: int) -> Tensor:
        """Latents (b, latent_len, latent_dim)."""
        return self.model.encode(batch[2])


class ShardWriting(Callback):
    """Writes each batch while the device computes the next one, and closes each shard behind its last."""

    def __init__(self, writer: CacheWriter, shards: Sequence[Shard], progress: Progress | None) -> None:
        """Remember where to write.

        Args:
            writer: Of the cache.
            shards: Of this process.
            progress: Counts samples; None shows nothing.
        """
        self._writer, self._shards, self._progress = writer, shards, progress
        self._dtype = torch.float16 if writer.plan.key.dtype == "float16" else torch.float32
        self._waiting: tuple[int, int, Tensor, torch.cuda.Event | None] | None = None
        self._parent = os.getppid()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: "Part",
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Begin to copy this batch and write the one before."""
        assert isinstance(outputs, Tensor)
        if os.getppid() != self._parent:
            raise SystemExit("the process that started this one is gone")
        latents = outputs.to(self._dtype).to("cpu", non_blocking=outputs.is_cuda)
        copied = torch.cuda.current_stream().record_event() if outputs.is_cuda else None
        self._write()
        self._waiting = batch[0], batch[1], latents, copied

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last batch."""
        self._write()

    def _write(self) -> None:
        if self._waiting is None:
            return
        place, start, latents, copied = self._waiting
        if copied is not None:
            copied.synchronize()
        shard = self._shards[place]
        self._writer.write(shard, start, latents)
        if start + len(latents) == shard.stop:
            self._writer.finish_shard(shard)
        if self._progress is not None:
            self._progress.update(len(latents))
        self._waiting = None


def encode(
    writer: CacheWriter, frames: FrameSource, pending: Sequence[Shard], compute: Compute, ranks: Ranks
) -> None:
    """Encode and write the pending shards; every process calls it with the same ones.

    Args:
        writer: Of the cache, begun.
        frames: What is encoded.
        pending: Shards that are missing.
        compute: How to load.
        ranks: The processes.

    Raises:
        ValueError: Data that cannot be read, or latents that are not finite.
    """
    shards = list(pending)[ranks.rank :: ranks.num_ranks]
    loader: DataLoader[Part] = DataLoader(
        ShardBatches(frames, shards, writer.plan.batch_size),
        batch_size=None,
        num_workers=compute.num_workers if shards else 0,
        pin_memory=compute.pin_memory and torch.cuda.is_available(),
    )
    progress = None
    if ranks.rank == 0:
        part = f", process 0 of {ranks.num_ranks}" if ranks.num_ranks > 1 else ""
        description = f"{writer.folder.name}{part}"
        progress = Progress(sum(map(len, shards)), unit="sample", description=description)
    callback = ShardWriting(writer, shards, progress)
    ranks.trainer(callback).predict(EncoderModule(writer.plan.model), loader, return_predictions=False)
    if progress is not None:
        progress.close()
