"""Windows along trajectories: of cached latents, or of raw frames that are encoded on the fly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.data.samples import window_frames
from gust_torch.latents.cache import LatentCache


class LatentBatch(NamedTuple):
    """Windows of t states.

    Attributes:
        states: Latents (b, t, latent_len, latent_dim) float32, or raw physical fields (b, t, c, h, w).
        time_steps: (b, t - 1) float32, from each state to the next.
        parameters: (b, p) float32, of the windows' trajectories, in physical units.
        encoded: Whether the states are latents.
    """

    states: Tensor
    time_steps: Tensor
    parameters: Tensor
    encoded: bool


def collate_windows(items: Sequence[LatentBatch]) -> LatentBatch:
    """Take the only item of what `__getitems__` of a `WindowDataset` gives; several are an error."""
    (batch,) = items
    return batch


class WindowDataset(Dataset[LatentBatch]):
    """What both datasets share. An item is a batch; collate them with `collate_windows`.

    Attributes:
        trajectories: (n,) int64, of each window.
        time_steps: (n, t - 1) float32.
        parameters: (n, p) float32.
        parameter_names: The columns of `parameters`.
    """

    encoded: bool

    def __init__(
        self, trajectories: np.ndarray, times: np.ndarray, parameters: Mapping[str, np.ndarray], where: str
    ) -> None:
        """Look up what belongs to the n windows of `trajectories` (n,) at `times` (n, t).

        `parameters` are name -> (num_trajectories,); `where` names the data in messages.

        Raises:
            ValueError: Times that do not increase, or parameters that are not finite.
        """
        self.trajectories = trajectories
        steps = np.diff(times, axis=1)
        bad = ~(steps > 0).all(axis=1)  # NaN too
        if bad.any():
            some = times[bad][0].tolist()
            raise ValueError(f"{where}: times {some} do not increase; correct coordinates/time of each frame")
        self.time_steps = torch.from_numpy(steps.astype(np.float32))
        self.parameter_names = tuple(parameters)
        self.parameters = torch.empty(len(trajectories), len(parameters))
        for column, (name, values) in zip(self.parameters.T, parameters.items(), strict=True):
            column[:] = torch.from_numpy(values[trajectories])
            if not column.isfinite().all():
                raise ValueError(f"{where}: {name} holds NaN or Inf (as float32); correct /parameters")

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.trajectories)

    def __getitem__(self, index: int) -> LatentBatch:
        """Return a batch of one window."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[LatentBatch]:
        """Return a list with one batch of the windows asked for, in their order."""
        windows = np.asarray(indices, dtype=np.int64)
        rows = torch.from_numpy(windows)
        states = self._states(windows)
        return [LatentBatch(states, self.time_steps[rows], self.parameters[rows], self.encoded)]

    def _states(self, windows: np.ndarray) -> Tensor:
        """(b, t, ...) float32 of windows (b,)."""
        raise NotImplementedError


class LatentDataset(WindowDataset):
    """Windows of cached latents (t, latent_len, latent_dim) float32."""

    encoded = True

    def __init__(self, cache: LatentCache, n_steps: int = 2, stride: int = 1) -> None:
        """Lay out the windows of `n_steps` states, `stride` frames apart.

        Raises:
            ValueError: No trajectory is long enough.
        """
        self.cache = cache
        where = str(cache.folder)
        self.rows = window_frames(cache.trajectories, n_steps, stride, 0, None, where=where)
        super().__init__(cache.trajectories[self.rows[:, 0]], cache.times[self.rows], cache.parameters, where)

    def _states(self, windows: np.ndarray) -> Tensor:
        rows = self.rows[windows]
        latents = torch.from_numpy(self.cache.latents(rows.ravel()))
        return latents.view(*rows.shape, *self.cache.latent_shape)


class FrameWindowDataset(WindowDataset):
    """The same windows, in the same order, of raw frames (t, c, h, w) in physical units."""

    encoded = False

    def __init__(self, dataset: HDF5Dataset, where: str) -> None:
        """Wrap a dataset of windows, not normalized; `where` names the data in messages."""
        self.dataset = dataset
        times = dataset.times.reshape(len(dataset), dataset.n_steps)
        super().__init__(dataset.trajectories, times, dataset.parameters, where)

    def _states(self, windows: np.ndarray) -> Tensor:
        frames: Tensor = self.dataset.__getitems__(windows.tolist()).stacked
        return frames.reshape(len(windows), self.dataset.n_steps, *frames.shape[-3:])
