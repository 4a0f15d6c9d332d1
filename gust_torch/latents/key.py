"""Content addressing: what decides the latents of a cache, in one hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gust_torch.checkpoint import model_digest
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from solvers.common.files import file_sha256
from solvers.common.stage import differences

FORMAT_VERSION = 2
DTYPES = ("float32", "float16")


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
    """Identity of a file or folder, read only where `known` does not have its stamp.

    Args:
        path: A file, or a folder of which every file counts by its relative name and content.
        known: What an earlier call found.

    Returns:
        `known` itself where the stamp is the same.

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


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """(relative name, file), sorted; of a file the name is empty."""
    if path.is_file():
        yield "", path
        return
    if not path.is_dir():
        raise ValueError(f"no data at {path}; check the path, or convert the data first")
    files = [Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names]
    yield from sorted((file.relative_to(path).as_posix(), file) for file in files)


def _stamp(path: Path) -> tuple[int, str]:
    """Size and stamp."""
    size = 0
    marks = []
    for name, file in _files(path):
        status = file.stat()
        size += status.st_size
        mark = f"{status.st_mtime_ns}/{status.st_ctime_ns}/{status.st_ino}"
        marks.append(f"{name} {status.st_size} {mark}" if name else mark)
    if path.is_file():
        return size, marks[0]
    return size, hashlib.sha256("\n".join(marks).encode()).hexdigest()


def _hash(path: Path) -> str:
    """sha256 of a file's bytes; of a folder, of the names and sha256 of its files."""
    if path.is_file():
        return file_sha256(path)
    digest = hashlib.sha256()
    for name, file in _files(path):
        digest.update(f"{name}\0{file_sha256(file)}\0".encode())
    return digest.hexdigest()


def _config(model: LatentAutoencoder) -> dict[str, object]:
    return {
        "model": type(model).__name__,
        "architecture": model.architecture(),
        "spec": model.spec.to_dict(),
    }


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
        dtype: Of the stored latents.
        format_version: Of the cache.
    """

    encoder: str
    config: Mapping[str, Any]
    data: str
    statistics: Mapping[str, list[float]]
    num_samples: int
    dtype: str = "float32"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Check the values that a caller chooses."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        if not isinstance(self.num_samples, int) or self.num_samples < 1:
            raise ValueError(f"expected num_samples >= 1, got {self.num_samples}; the data are empty")

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
        """Key of the first `num_samples` latents of some data.

        Args:
            model: The autoencoder.
            data: What it encodes.
            num_samples: How many samples of it.
            dtype: Of the stored latents.
            options: How the data become the encoder's input: fields, a transform. Plain values.
        """
        config = {**_config(model), "data": dict(options or {})}
        statistics = {name: getattr(model, name).flatten().tolist() for name in ("mean", "std")}
        return cls(
            encoder=model_digest(model),
            config=json.loads(canonical_json(config)),
            data=data.sha256,
            statistics=statistics,
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
