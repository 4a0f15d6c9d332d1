"""`index.json` of a cache: what is in it, and what it was made from."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.key import FORMAT_VERSION, DataIdentity, LatentKey
from gust_torch.latents.plan import CachePlan, Shard
from gust_torch.spec import FieldSpec
from solvers.common.provenance import provenance

INDEX = "index.json"
ENCODER = "encoder.ckpt"
TRAJECTORY, TIME, PARAMETERS = "trajectory.npy", "time.npy", "parameters.npy"
REMEDY = "rerun scripts/precompute_latent_cache.py with --overwrite"


@dataclasses.dataclass(frozen=True)
class CacheIndex:
    """Attributes are those of `CachePlan`, and:

    Attributes:
        task: Such as "burgers1d".
        split: "train", "val" or "test".
        source: Path of the data, when the cache was made.
        data: Identity of the data.
        key: Of the latents.
        latent_len: Tokens of a sample.
        latent_dim: Features of a token.
        batch_size: Samples that were encoded together.
        shards: The files of latents.
        parameter_names: Columns of `parameters.npy`.
        device: Where the latents were computed.
        provenance: Package version and commit.
    """

    task: str
    split: str
    source: str
    data: DataIdentity
    key: LatentKey
    latent_len: int
    latent_dim: int
    batch_size: int
    shards: tuple[Shard, ...]
    parameter_names: tuple[str, ...]
    device: str
    provenance: Mapping[str, str]

    @classmethod
    def of(cls, plan: CachePlan, device: str) -> CacheIndex:
        """Index of the cache that a plan makes."""
        return cls(
            task=plan.task,
            split=plan.split,
            source=plan.source,
            data=plan.data,
            key=plan.key,
            latent_len=plan.latent_shape[0],
            latent_dim=plan.latent_shape[1],
            batch_size=plan.batch_size,
            shards=plan.shards,
            parameter_names=tuple(plan.parameters),
            device=device,
            provenance=provenance(),
        )

    @property
    def num_samples(self) -> int:
        """Samples of the cache."""
        return self.key.num_samples

    @property
    def spec(self) -> FieldSpec | GraphSpec:
        """Of the data."""
        values: Any = self.key.config["spec"]
        return FieldSpec.from_dict(values) if "grid" in values else GraphSpec.from_dict(values)

    def to_json(self) -> str:
        """Text of the file."""
        values = dataclasses.asdict(self)
        values["shards"] = [
            {"file": shard.file, "start": shard.start, "stop": shard.stop} for shard in self.shards
        ]
        return json.dumps({"format_version": FORMAT_VERSION, "key_hex": self.key.hex, **values}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> CacheIndex:
        """Inverse of `to_json`.

        Raises:
            ValueError: It is not an index of this version, or its parts contradict each other.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or "format_version" not in values:
            raise ValueError("it has no format_version")
        version = values.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"it has format version {version}, this version reads {FORMAT_VERSION}")
        try:
            key_hex = values.pop("key_hex")
            values["key"] = LatentKey.from_dict(values["key"])
            values["data"] = DataIdentity.from_dict(values["data"])
            values["shards"] = tuple(
                Shard(i, int(entry["start"]), int(entry["stop"])) for i, entry in enumerate(values["shards"])
            )
            values["parameter_names"] = tuple(values["parameter_names"])
            index = cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"an entry is missing or unknown ({error})") from error
        if index.key.hex != key_hex or index.key.data != index.data.sha256:
            raise ValueError("its key does not belong to its parts")
        edges = [0, *(shard.stop for shard in index.shards)]
        if [shard.start for shard in index.shards] != edges[:-1] or edges[-1] != index.num_samples:
            raise ValueError("its shards do not cover the samples")
        return index


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk itself.

    Raises:
        OSError: With the path, as from a full disk.
    """
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
