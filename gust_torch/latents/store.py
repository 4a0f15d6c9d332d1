"""Reading a latent cache: a few memory-mapped arrays and their index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gust_torch.latents.index import (
    ENCODER,
    INDEX,
    PARAMETERS,
    REMEDY,
    TIME,
    TRAJECTORY,
    CacheIndex,
)
from gust_torch.latents.key import LatentKey, data_identity


class LatentCache:
    """Latents (num_samples, latent_len, latent_dim) of one split; nothing is ever written.

    Use `LatentCache.open`. Shards are mapped when first read; copies for other processes map them anew.

    Attributes:
        folder: Where it lies.
        index: What it holds.
        trajectories: (num_samples,) int64.
        times: (num_samples,) float64.
        parameters: Name -> (num_trajectories,) float64, indexed by trajectory.
    """

    def __init__(self, folder: Path, index: CacheIndex) -> None:
        """Args: see `open`, which checks the files before."""
        self.folder, self.index = folder, index
        count = (index.num_samples,)
        self.trajectories = self._load(TRAJECTORY, count, np.dtype(np.int64))
        self.times = self._load(TIME, count, np.dtype(np.float64))
        table = self._load(PARAMETERS, (None, len(index.parameter_names)), np.dtype(np.float64))
        self.parameters = {name: table[:, i] for i, name in enumerate(index.parameter_names)}
        if self.parameters and not 0 <= self.trajectories.min() <= self.trajectories.max() < len(table):
            raise ValueError(f"{folder} is damaged: {PARAMETERS} lacks trajectories; {REMEDY}")
        self._starts = np.array([shard.start for shard in index.shards])
        self._maps: list[np.ndarray] | None = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> LatentCache:
        """Open a cache and check that every file of it is there, whole and of the right type.

        Raises:
            ValueError: There is no cache, or it is damaged or of another version; with the remedy.
        """
        folder = Path(folder)
        path = folder / INDEX
        if not path.is_file():
            unfinished = folder.with_name(f".{folder.name}.part").is_dir()
            remedy = "repeat the command that began it" if unfinished else "make it"
            raise ValueError(
                f"no {'finished ' if unfinished else ''}latent cache at {folder}; {remedy}: "
                "scripts/precompute_latent_cache.py"
            )
        try:
            index = CacheIndex.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:  # of JSON and of the encoding too
            raise ValueError(f"{path} cannot be used: {error}; {REMEDY}") from error
        cache = cls(folder, index)
        cache._maps = cache._map_shards()
        if not cache.encoder_path.is_file():
            raise ValueError(f"{folder} is damaged: {ENCODER} is missing; {REMEDY}")
        return cache

    @property
    def key(self) -> LatentKey:
        """What decided the latents."""
        return self.index.key

    @property
    def encoder_path(self) -> Path:
        """Checkpoint of the autoencoder, for `gust_torch.checkpoint.load_model`."""
        return self.folder / ENCODER

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(latent_len, latent_dim)."""
        return self.index.latent_len, self.index.latent_dim

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.index.num_samples

    def latents(self, rows: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copy of some samples in the order asked for, (n, latent_len, latent_dim) float32.

        Args:
            rows: (n,) sample numbers from 0.
            out: Where to put them, (n, latent_len, latent_dim) float32; new memory by default.

        Raises:
            IndexError: A number is out of range.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if out is None:
            out = np.empty((len(rows), *self.latent_shape), np.float32)
        if not len(rows):
            return out
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"samples {rows.min()} to {rows.max()} of {len(self)}")
        stored = np.dtype(self.key.dtype)
        if stored == out.dtype:
            self._gather(rows, out)
        else:
            # torch casts float16 eight times as fast as numpy; one large cast beats many small ones.
            gathered = np.empty(out.shape, stored)
            self._gather(rows, gathered)
            torch.from_numpy(out).copy_(torch.from_numpy(gathered))
        return out

    def _gather(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy samples (n,) as they are stored; runs of neighbors in one shard at once."""
        if self._maps is None:
            self._maps = self._map_shards()
        shard = np.searchsorted(self._starts, rows, side="right") - 1
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(shard) != 0)) + 1
        edges = [0, *breaks.tolist(), len(rows)]
        firsts = edges[:-1]
        numbers, places = shard[firsts].tolist(), (rows - self._starts[shard])[firsts].tolist()
        for start, stop, number, place in zip(firsts, edges[1:], numbers, places, strict=True):
            out[start:stop] = self._maps[number][place : place + stop - start]

    def check_fresh(
        self, *, data_path: str | os.PathLike[str] | None = None, encoder_digest: str | None = None
    ) -> None:
        """Compare the cache with the data and the encoder that it should have been made from.

        Args:
            data_path: The data; not looked at where None. The content is hashed only if the file was touched.
            encoder_digest: `gust_torch.latents.encoder_digest` of the encoder; any where None.

        Raises:
            ValueError: The cache is stale.
        """
        reasons = []
        if data_path is not None:
            found = data_identity(data_path, known=self.index.data).sha256
            if found != self.key.data:
                reasons.append(
                    f"the data file differs ({data_path} has sha256 {found[:12]}, the cache was made from "
                    f"{self.key.data[:12]})"
                )
        if encoder_digest is not None and encoder_digest != self.key.encoder:
            reasons.append(
                f"the encoder differs (it has digest {encoder_digest[:12]}, the cache was made by "
                f"{self.key.encoder[:12]})"
            )
        if reasons:
            raise ValueError(f"{self.folder} is stale: {'; '.join(reasons)}; {REMEDY}")

    def _map_shards(self) -> list[np.ndarray]:
        dtype = np.dtype(self.key.dtype)
        return [
            self._load(shard.file, (len(shard), *self.latent_shape), dtype, mapped=True)
            for shard in self.index.shards
        ]

    def _load(
        self, name: str, shape: tuple[int | None, ...], dtype: np.dtype, *, mapped: bool = False
    ) -> np.ndarray:
        """Return an array of the cache; in `shape` None stands for any length.

        Raises:
            ValueError: It is missing, truncated, or of another shape or type.
        """
        path = self.folder / name
        try:
            array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except FileNotFoundError as error:
            raise ValueError(f"{self.folder} is damaged: {name} is missing; {REMEDY}") from error
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"{self.folder} is damaged: {name} is truncated or no array; {REMEDY}"
            ) from error
        fits = len(array.shape) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != dtype:
            raise ValueError(
                f"{self.folder} is damaged: {name} holds {array.dtype} {array.shape}, the index says "
                f"{dtype} {shape}; {REMEDY}"
            )
        if isinstance(array, np.memmap) and path.stat().st_size != array.offset + array.nbytes:
            raise ValueError(f"{self.folder} is damaged: {name} has bytes behind its end; {REMEDY}")
        return array.view(np.ndarray)  # its slices are made faster than those of np.memmap

    def __getstate__(self) -> dict[str, object]:
        """Without the maps, which would be copied."""
        return {**self.__dict__, "_maps": None}
