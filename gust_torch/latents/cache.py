"""Latent caches as they lie on disk: an index, memory-mapped latents and what belongs to them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gust_torch.checkpoint import load_model, model_digest
from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.key import FORMAT_VERSION, DataIdentity, LatentKey, canonical_json, data_identity
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.spec import FieldSpec
from solvers.common.files import file_sha256, hidden_part
from solvers.common.provenance import provenance

try:
    from isal.isal_zlib import crc32  # 20 times as fast, the same number
except ImportError:
    from zlib import crc32

INDEX, ENCODER = "index.json", "encoder.ckpt"
LATENTS, CHECKSUMS = "latents.npy", "checksums.npy"
TRAJECTORY, TIME, PARAMETERS = "trajectory.npy", "time.npy", "parameters.npy"
CHECKED = (CHECKSUMS, ENCODER, PARAMETERS, TIME, TRAJECTORY)
MISSING = -1
COMMAND = "scripts/precompute_latent_cache.py"
REMEDY = f"rerun {COMMAND} with --overwrite"
# What Python and numpy raise for JSON and headers that are none, or that promise more than there is.
BAD_INDEX = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
BAD_ARRAY = (*BAD_INDEX, ArithmeticError, EOFError, MemoryError, OSError, SyntaxError, tokenize.TokenError)


@dataclasses.dataclass(frozen=True)
class CacheIndex:
    """`index.json`: what is in a cache and what it was made from, entry by entry as in docs/formats.md."""

    task: str
    split: str
    source: str
    data: DataIdentity
    key: LatentKey
    latent_len: int
    latent_dim: int
    batch_size: int
    num_trajectories: int
    parameter_names: tuple[str, ...]
    device: str
    sha256: Mapping[str, str] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, str] = dataclasses.field(default_factory=provenance)

    @property
    def spec(self) -> FieldSpec | GraphSpec:
        """Of the data."""
        values = self.key.config["spec"]
        return FieldSpec.from_dict(values) if "grid" in values else GraphSpec.from_dict(values)

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and type of each array."""
        num, integers, floats = self.key.num_samples, np.dtype(np.int64), np.dtype(np.float64)
        return {
            LATENTS: ((num, self.latent_len, self.latent_dim), np.dtype(self.key.dtype)),
            CHECKSUMS: ((num,), integers),
            TRAJECTORY: ((num,), integers),
            TIME: ((num,), floats),
            PARAMETERS: ((self.num_trajectories, len(self.parameter_names)), floats),
        }

    def to_json(self) -> str:
        """Text of the file."""
        values = {"format_version": FORMAT_VERSION, "key_hex": self.key.hex, **dataclasses.asdict(self)}
        return json.dumps({"digest": _digest(values), **values}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> CacheIndex:
        """Inverse of `to_json`; one that makes no sense raises any of `BAD_INDEX`."""
        values = json.loads(text)
        if (version := values["format_version"]) != FORMAT_VERSION:
            raise ValueError(f"it has format version {version}, this version reads {FORMAT_VERSION}")
        if values.pop("digest", None) != _digest(values):
            raise ValueError("it was changed after it was written: its digest differs")
        del values["format_version"], values["key_hex"]
        values |= {"key": LatentKey(**values["key"]), "data": DataIdentity(**values["data"])}
        index = cls(**{**values, "parameter_names": tuple(values["parameter_names"])})
        if index.key.data != index.data.sha256 or not index.sha256.keys() >= set(CHECKED):
            raise ValueError("its entries contradict each other")
        _ = index.spec, index.arrays
        return index


def _digest(values: Mapping[str, Any]) -> str:
    """sha256 of all other entries of an index."""
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()


class LatentCache:
    """Latents (num_samples, latent_len, latent_dim) of one split; nothing is ever written.

    The latents are mapped when first read, also in copies for other processes, and the first reading of each
    sample in a process compares its checksum.

    Attributes:
        folder: Where it lies.
        index: What it holds.
        key: What decided the latents.
        trajectories: (num_samples,) int64.
        times: (num_samples,) float64.
        parameters: Name -> (num_trajectories,) float64, indexed by trajectory.
        checksums: (num_samples,) int64, CRC-32 of each sample's latents.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a cache and check that every file of it is there, whole and of the right type.

        Raises:
            ValueError: There is no cache, or it is damaged or of another version; with the remedy.
        """
        self.folder = Path(folder)
        path = self.folder / INDEX
        if not path.is_file():
            begun = hidden_part(self.folder).is_dir()
            what, remedy = ("finished ", "repeat the command that began it") if begun else ("", "make it")
            raise ValueError(f"no {what}latent cache at {folder}; {remedy}: {COMMAND}")
        try:
            self.index = CacheIndex.from_json(path.read_text(encoding="utf-8"))
        except BAD_INDEX as error:
            raise ValueError(f"{path} cannot be used: {error}; {REMEDY}") from error
        self.key = self.index.key
        for name in CHECKED:
            if name != ENCODER:  # that is compared where it is loaded
                self._compare(name)
        self._file(ENCODER)
        self.trajectories, self.times, self.checksums, table = (
            self._load(name).copy() for name in (TRAJECTORY, TIME, CHECKSUMS, PARAMETERS)
        )
        self.parameters = {name: table[:, i] for i, name in enumerate(self.index.parameter_names)}
        if self.parameters and not 0 <= self.trajectories.min() <= self.trajectories.max() < len(table):
            raise self._damaged(f"{PARAMETERS} lacks trajectories")
        self._latents: np.ndarray | None = self._load(LATENTS)
        self._compared = np.zeros(len(self), bool)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> LatentCache:
        """Open a cache; the same as `LatentCache(folder)`."""
        return cls(folder)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(latent_len, latent_dim)."""
        return self.index.latent_len, self.index.latent_dim

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.key.num_samples

    def latents(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Copy of samples `rows` (n,) in this order, (n, latent_len, latent_dim) float32.

        Raises:
            IndexError: A number is out of range.
            ValueError: The latents have changed since they were written.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"samples {rows.min()} to {rows.max()} of {len(self)}")
        gathered = np.take(self._checked(rows), rows, axis=0, mode="clip")
        # torch casts float16 eight times as fast as numpy.
        return gathered if gathered.dtype == np.float32 else torch.from_numpy(gathered).float().numpy()

    def encoder(self) -> LatentAutoencoder:
        """Load the autoencoder.

        Raises:
            ValueError: Its checkpoint is damaged, or is not the one that made the latents.
        """
        model = load_model(self.folder / ENCODER, LatentAutoencoder)
        if model_digest(model) != self.key.encoder:
            raise self._damaged(f"{ENCODER} is not its encoder")
        return model

    def check_fresh(
        self, *, data_path: str | os.PathLike[str] | None = None, encoder_digest: str | None = None
    ) -> None:
        """Compare the cache with the data and the encoder that it should have been made from.

        Args:
            data_path: The data, hashed only if they were touched; any where None.
            encoder_digest: `gust_torch.checkpoint.model_digest` of the encoder; any where None.

        Raises:
            ValueError: The cache is stale.
        """
        pairs = {}
        if data_path is not None:
            found = data_identity(data_path, known=self.index.data).sha256
            pairs[f"data file {data_path}"] = found, self.key.data
        if encoder_digest is not None:
            pairs["encoder"] = encoder_digest, self.key.encoder
        reasons = [
            f"the {what} differs (its sha256 is {now[:12]}, the cache was made from {then[:12]})"
            for what, (now, then) in pairs.items()
            if now != then
        ]
        if reasons:
            raise ValueError(f"{self.folder} is stale: {'; '.join(reasons)}; {REMEDY}")

    def verify(self) -> None:
        """Read everything and compare it with the checksums of when it was written.

        Raises:
            ValueError: Something has changed.
        """
        for name in CHECKED:
            self._compare(name)
        self.encoder()
        self._compared[:] = False
        self._checked(np.arange(len(self)))

    def _checked(self, rows: np.ndarray) -> np.ndarray:
        """Return the mapped latents, after comparing the rows that this process has not read before."""
        if self._latents is None:
            self._latents = self._load(LATENTS)
        for row in rows[~self._compared[rows]].tolist():
            if crc32(self._latents[row]) != self.checksums[row]:
                raise self._damaged(f"sample {row} of {LATENTS} is not what was written")
            self._compared[row] = True
        return self._latents

    def _compare(self, name: str) -> None:
        """Compare a file with its checksum."""
        if file_sha256(self._file(name)) != self.index.sha256[name]:
            raise self._damaged(f"{name} is not what was written")

    def _damaged(self, what: str) -> ValueError:
        return ValueError(f"{self.folder} is damaged: {what}; {REMEDY}")

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise self._damaged(f"{name} is missing")
        return path

    def _load(self, name: str) -> np.ndarray:
        """Map an array, and compare its shape, type and size with what the index says."""
        path, (shape, dtype) = self._file(name), self.index.arrays[name]
        try:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except BAD_ARRAY as error:
            raise self._damaged(f"{name} is truncated or no array") from error
        if array.shape != shape or array.dtype != dtype:
            raise self._damaged(f"{name} holds {array.dtype} {array.shape}, the index says {dtype} {shape}")
        if isinstance(array, np.memmap) and path.stat().st_size != array.offset + array.nbytes:
            raise self._damaged(f"{name} has bytes behind its end")
        return array.view(np.ndarray)  # its slices are made faster than those of np.memmap

    def __getstate__(self) -> dict[str, object]:
        """Without the map, which would be copied."""
        return {**self.__dict__, "_latents": None}


def verify(folders: Sequence[Path]) -> None:
    """Read caches, and print a line for each that is as it was written.

    Raises:
        ValueError: Some are not.
    """
    damages = []
    for folder in folders:
        try:
            cache = LatentCache(folder)
            cache.verify()
        except ValueError as error:
            damages.append(str(error))
        else:
            print(f"{folder}  {len(cache)} samples verified, key {cache.key.hex[:12]}", flush=True)
    if damages:
        raise ValueError("; ".join(damages))
