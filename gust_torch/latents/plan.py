"""What a cache will hold, decided before the first sample is encoded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gust_torch.latents.frames import FrameSource
from gust_torch.latents.key import DataIdentity, LatentKey
from gust_torch.models.latent_autoencoder import LatentAutoencoder

SHARD_BYTES = 64 << 20
MAX_SHARDS = 256


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of latents: samples `start` to `stop`, exclusive.

    Attributes:
        index: Its number.
        start: First sample.
        stop: End of its samples.
    """

    index: int
    start: int
    stop: int

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"latents_{self.index:05d}.npy"

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.stop - self.start


@dataclasses.dataclass(frozen=True, eq=False)
class CachePlan:
    """A cache to be made, and what is known of it before encoding.

    Attributes:
        task: Such as "burgers1d".
        split: "train", "val" or "test".
        source: Path of the data.
        data: Identity of the data.
        key: Of the latents.
        model: The autoencoder; a copy goes into the cache.
        trajectories: (num_samples,) int64.
        times: (num_samples,) float64.
        parameters: Name -> (num_trajectories,) float64, indexed by trajectory.
        batch_size: Samples that are encoded together. Shards hold whole batches, so that the composition of
            batches, and with it every bit of the result, depends on no number of processes.
        device: Where the latents are computed, for the record.
    """

    task: str
    split: str
    source: str
    data: DataIdentity
    key: LatentKey
    model: LatentAutoencoder
    trajectories: np.ndarray
    times: np.ndarray
    parameters: Mapping[str, np.ndarray]
    batch_size: int
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if self.batch_size < 1:
            raise ValueError(f"expected batch_size >= 1, got {self.batch_size}")
        counts = {len(self.trajectories), len(self.times), self.num_samples}
        if len(counts) != 1:
            raise ValueError(f"expected one trajectory and time for each sample, got {sorted(counts)}")
        short = [n for n, v in self.parameters.items() if len(v) <= int(self.trajectories.max())]
        if short:
            raise ValueError(f"parameters {short} have fewer values than there are trajectories")

    @property
    def num_samples(self) -> int:
        """Samples of the cache."""
        return self.key.num_samples

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Type of the stored latents."""
        return np.dtype(self.key.dtype)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(latent_len, latent_dim)."""
        return self.model.latent_shape

    @property
    def shards(self) -> tuple[Shard, ...]:
        """At least 64 MiB each but the last, at most 256 of them, whole batches in each."""
        row_bytes = math.prod(self.latent_shape) * self.dtype.itemsize
        wanted = max(math.ceil(SHARD_BYTES / row_bytes), math.ceil(self.num_samples / MAX_SHARDS))
        size = math.ceil(wanted / self.batch_size) * self.batch_size
        starts = range(0, self.num_samples, size)
        return tuple(Shard(i, start, min(start + size, self.num_samples)) for i, start in enumerate(starts))


def plan_cache(
    model: LatentAutoencoder,
    frames: FrameSource,
    *,
    task: str,
    split: str,
    source: Path,
    data: DataIdentity,
    batch_items: int,
    num_items: int | None = None,
    dtype: str = "float32",
    options: Mapping[str, object] | None = None,
    device: str = "cpu",
) -> CachePlan:
    """Plan the cache of the first `num_items` items of a source, all by default.

    Args:
        model: The autoencoder.
        frames: What it encodes.
        task: Such as "burgers1d".
        split: "train", "val" or "test".
        source: Path of the data.
        data: `data_identity(source)`.
        batch_items: Items that are encoded together.
        num_items: Items to encode, at most; all by default.
        dtype: "float32" or "float16".
        options: How the data become items (fields, transform), plain values for the key.
        device: Where the latents are computed.

    Raises:
        ValueError: A number out of range or an unknown dtype.
    """
    if num_items is not None and num_items < 1:
        raise ValueError(f"expected at least one item, got a limit of {num_items}")
    items = frames.num_items if num_items is None else min(num_items, frames.num_items)
    num_samples = items * frames.samples_per_item
    return CachePlan(
        task=task,
        split=split,
        source=str(source),
        data=data,
        key=LatentKey.of(model, data, num_samples=num_samples, dtype=dtype, options=options),
        model=model,
        trajectories=frames.trajectories[:num_samples],
        times=frames.times[:num_samples],
        parameters=frames.parameters,
        batch_size=batch_items * frames.samples_per_item,
        device=device,
    )
