"""Lightning data module over common-format files: leak-free split, shuffled blocks, resumable epochs."""

import hashlib
import logging
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.data.loader import BlockDataModule
from gust_torch.data.samples import split_samples
from gust_torch.identity import content_digest, indices_digest, spec_identity
from gust_torch.spec import FieldSpec

# A sequential read of this size keeps disks and networks busy.
READ_BYTES = 1 << 20
# Trajectories whose ends are read to look for copies.
MAX_COMPARED = 4096
MAX_COMPARED_REMOTE = 64

logger = logging.getLogger(__name__)


class FieldDataModule(BlockDataModule):
    """Batches (b, c, h, w), or (b, t, c, h, w) for n_steps > 1, of raw physical float32 values.

    Training batches are shuffled blocks of frames (`BlockShuffleSampler`), different on each rank; a run that
    was stopped within an epoch goes on with the batches it had not trained on. Prediction goes over all
    samples in order. Files are opened when first needed.
    """

    def __init__(
        self,
        data_path: list[str] | str,
        fields: list[str] | str | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        val_fraction: float = 0.1,
        n_steps: int = 1,
        stride: int = 1,
        sample_start: int = 0,
        sample_stop: int | None = None,
        block_size: int | None = None,
        gap: int | None = None,
        seed: int = 0,
        allow_changed: bool = False,
    ) -> None:
        """Remember the settings.

        Args:
            data_path: File, glob, URL or a list of these.
            fields: Fields to load as channels; all by default.
            batch_size: Samples in a batch, on each device.
            num_workers: Processes that load ahead; 0 loads in the training process.
            val_fraction: Part held out for validation: whole trajectories where there are several, else the
                end of the only one.
            n_steps: Frames in a sample.
            stride: Frames from one of a sample's frames to the next.
            sample_start: First frame to use.
            sample_stop: End of the frames to use, exclusive; all by default.
            block_size: Neighboring samples that stay together when shuffling, and are read at once. By
                default as many as make a read of 1 MiB, at most a quarter of a batch (one, for 512 x 512).
            gap: Frames dropped between training and validation of a single trajectory; by default half the
                number of validation frames, at least 1 and at most 256.
            seed: Of the shuffling and of the choice of validation trajectories.
            allow_changed: Continue a training on data that are not those of its checkpoint, and log what is
                different.

        Raises:
            ValueError: A number out of range.
        """
        super().__init__(batch_size, num_workers, block_size, seed, allow_changed)
        self.data_path, self.fields = data_path, fields
        self.val_fraction, self.gap = val_fraction, gap
        self.n_steps, self.stride = n_steps, stride
        self.sample_start, self.sample_stop = sample_start, sample_stop

    @cached_property
    def dataset(self) -> HDF5Dataset:
        """All samples, raw."""
        return HDF5Dataset(
            self.data_path,
            fields=self.fields,
            sample_start=self.sample_start,
            sample_stop=self.sample_stop,
            n_steps=self.n_steps,
            stride=self.stride,
        )

    @property
    def spec(self) -> FieldSpec:
        """Channels, grid and domain of the data."""
        return self.dataset.spec

    @cached_property
    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Increasing indices of the samples that are trained on, and of those that validate."""
        span = (self.n_steps - 1) * self.stride
        ids = self.dataset.trajectories
        train, val = split_samples(ids, self.val_fraction, span=span, gap=self.gap, seed=self.seed)
        _check_distinct(self.dataset, train, val)
        return train, val

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        return self.dataset.statistics(self.split[0])

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, (c, 1, 1) float32, over frames of the training set."""
        return self._statistics

    def identity(self) -> dict[str, Any]:
        """Return what checkpoints hold of the data; see `gust_torch.identity`."""
        mean, std = self.statistics()
        train, val = self.split
        return {
            **spec_identity(self.spec),
            "mean": mean.flatten().tolist(),
            "std": std.flatten().tolist(),
            "samples": len(self.dataset),
            "content": content_digest(self.dataset),
            "training samples": indices_digest(train),
            "validation samples": indices_digest(val),
        }

    def setup(self, stage: str) -> None:
        """Open the headers, so that bad files stop a run before it starts."""
        _ = self.split if stage in ("fit", "validate") else self.dataset

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Shuffled blocks of the training set; this rank's share."""
        frame_bytes = 4 * self.spec.num_channels * int(np.prod(self.spec.grid))
        default = max(1, min(READ_BYTES // frame_bytes, self.batch_size // 4))
        return self.shuffled(self._part(self.split[0]), default)

    def val_dataloader(self) -> DataLoader[Tensor] | list[DataLoader[Tensor]]:
        """Return the validation set in order; none when val_fraction is 0."""
        val = self._part(self.split[1])
        return self.ordered(val) if len(val) else []

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """All samples of the range, in order."""
        return self.ordered(self.dataset)

    def _part(self, indices: np.ndarray) -> Subset[Tensor]:
        """Part of the dataset. A list, since indices reach it as python integers then."""
        return Subset(self.dataset, indices.tolist())


def _check_distinct(dataset: HDF5Dataset, train: np.ndarray, val: np.ndarray) -> None:
    """Refuse copies among the trajectories, where a look costs little; warn of common first frames."""
    ids = dataset.trajectories
    trained, held_out = set(ids[train].tolist()), set(ids[val].tolist())
    most = MAX_COMPARED if dataset.is_local else MAX_COMPARED_REMOTE
    if not held_out - trained or len(held_out | trained) > most:
        return
    starts: dict[int, bytes] = {}
    alike: dict[tuple[int, bytes], list[np.ndarray]] = {}
    order = np.argsort(ids, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
        count, trajectory = len(own), int(ids[own[0]])
        frames = dataset.first_frames(own[[0, min(1, count - 1), count // 2, count - 1]])
        if not any(np.ptp(channel) > 0 for channel in frames[0]):
            continue  # constants have no structure to compare
        starts[trajectory] = hashlib.sha256(frames[0].tobytes()).digest()
        # Periodic motions may agree in these frames, not in all.
        others = alike.setdefault((count, hashlib.sha256(frames.tobytes()).digest()), [])
        for other in others:
            pairs = np.stack([own, other], axis=1)
            if all(np.array_equal(*dataset.first_frames(pair)) for pair in pairs):
                raise ValueError(
                    f"{dataset.where(own[0])}: trajectory {trajectory} repeats trajectory {ids[other[0]]}, "
                    f"which is in {dataset.where(other[0])}; leave one out, for validation's sake"
                )
        others.append(own)
    known = {starts[trajectory] for trajectory in trained & starts.keys()}
    if shared := sum(starts.get(trajectory) in known for trajectory in held_out):
        logger.warning(
            f"{shared} of {len(held_out)} validation trajectories start with the same frame as one that is "
            "trained on: a sweep over parameters from common initial conditions? They are not independent; "
            "split them by initial condition, as the converter does, and give training and validation apart"
        )
