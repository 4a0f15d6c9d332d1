"""Content addressing: what decides the latents of a cache, in one hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gust_torch.checkpoint import model_digest
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from solvers.common.files import file_sha256
from solvers.common.stage import differences

FORMAT_VERSION = 2


@dataclasses.dataclass(frozen=True)
class DataIdentity:
    """A data file, or the tree of a Zarr folder, by its content.

    Attributes:
        sha256: Of the content, 64 hex digits.
        size: Bytes.
        stamp: Times of change and inode. While they stay, the content need not be hashed again.
    """

    sha256: str
    size: int
    stamp: str


def data_identity(path: str | os.PathLike[str], known: DataIdentity | None = None) -> DataIdentity:
    """Return the identity of a file or folder, whose content is read only if `known` has another stamp.

    Raises:
        ValueError: There is no such file, or it changes while it is read.
    """
    path = Path(path)
    size, stamp = _stamp(path)
    if known is not None and (known.size, known.stamp) == (size, stamp):
        return known
    digest = _hash(path)
    if _stamp(path) != (size, stamp):
        raise ValueError(f"{path} changed while it was read; wait until it is complete, then try again")
    return DataIdentity(digest, size, stamp)


def _files(path: Path) -> list[tuple[str, Path]]:
    """(relative name, file), sorted; of a file the name is empty."""
    if path.is_file():
        return [("", path)]
    if not path.is_dir():
        raise ValueError(f"no data at {path}; check the path, or convert the data first")
    files = [Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names]
    return sorted((file.relative_to(path).as_posix(), file) for file in files)


def _stamp(path: Path) -> tuple[int, str]:
    """Size and stamp."""
    stats = [(name, file.stat()) for name, file in _files(path)]
    marks = [f"{name} {s.st_size} {s.st_mtime_ns}/{s.st_ctime_ns}/{s.st_ino}" for name, s in stats]
    return sum(s.st_size for _, s in stats), hashlib.sha256("\n".join(marks).encode()).hexdigest()


def _hash(path: Path) -> str:
    """sha256 of a file's bytes; of a folder, of the names and sha256 of its files."""
    if path.is_file():
        return file_sha256(path)
    parts = [f"{name}\0{file_sha256(file)}\0" for name, file in _files(path)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def canonical_json(value: object) -> str:
    """Return the same text for equal plain values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclasses.dataclass(frozen=True)
class LatentKey:
    """Everything that decides the latents.

    Attributes:
        encoder: `gust_torch.checkpoint.model_digest`.
        config: Class, architecture and spec of the autoencoder, and options of the data (`data`).
        data: sha256 of the data.
        statistics: `mean` and `std`, by which the encoder normalizes each channel.
        num_samples: Samples in the cache, counted from the first of the data.
        dtype: Of the stored latents, float32 or float16.
        format_version: Of the cache.
    """

    encoder: str
    config: Mapping[str, Any]
    data: str
    statistics: Mapping[str, list[float]]
    num_samples: int
    dtype: str = "float32"
    format_version: int = FORMAT_VERSION

    @classmethod
    def of(
        cls,
        model: LatentAutoencoder,
        data: DataIdentity,
        *,
        num_samples: int,
        dtype: str = "float32",
        options: Mapping[str, object] | None = None,
    ) -> LatentKey:
        """Return the key of the first latents of data that `options` (plain values) turn into input."""
        config = {
            "model": type(model).__name__,
            "architecture": model.architecture(),
            "spec": model.spec.to_dict(),
            "data": dict(options or {}),
        }
        return cls(
            encoder=model_digest(model),
            config=json.loads(canonical_json(config)),
            data=data.sha256,
            statistics={name: getattr(model, name).flatten().tolist() for name in ("mean", "std")},
            num_samples=num_samples,
            dtype=dtype,
        )

    @property
    def hex(self) -> str:
        """sha256 of the canonical JSON of all of it."""
        return hashlib.sha256(canonical_json(dataclasses.asdict(self)).encode()).hexdigest()

    def differences(self, other: LatentKey) -> list[str]:
        """Return what is different in `other`, in words; empty for the same latents."""
        return differences(dataclasses.asdict(self), dataclasses.asdict(other))
