"""Tiny meshes and particle sets with fields of every kind, and stores of them."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import zarr

from gust_torch.data.graphs.ragged import RaggedWriter
from gust_torch.data.graphs.schema import MESH, PARTICLES, Kind
from gust_torch.data.graphs.synthetic import random_mesh

if not all(map(find_spec, ("zarr", "fsspec", "torch_geometric"))):
    collect_ignore_glob = ["test_*.py"]  # without the extra `graphs`

Arrays = dict[str, np.ndarray]


def make_mesh(num_nodes: int, seed: int) -> Arrays:
    """Return a mesh with a target, a field that torch_geometric would shift, one over 4 times, and a
    scalar."""
    rng = np.random.default_rng(seed)
    return random_mesh(num_nodes, seed) | {
        "y": rng.standard_normal((num_nodes, 1)),
        "material_index": rng.integers(0, 3, num_nodes, dtype=np.int16),
        "history": rng.standard_normal((4, num_nodes, 2)).astype(np.float32),
        "dt": np.float64(0.25),
    }


def make_particles(num: int, seed: int, *, times: int = 3) -> Arrays:
    """Particles on a line of neighbors, the last one isolated; a charge and a radius."""
    rng = np.random.default_rng(seed)
    edges = np.stack([np.arange(num - 2), np.arange(1, num - 1)], axis=1).astype(np.int32)
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.lexsort(both.T[::-1])]
    return {
        "positions": rng.random((times, num, 3), dtype=np.float32),
        "velocities": rng.standard_normal((times, num, 3)).astype(np.float32),
        "indices": both[:, 1].astype(np.int32),
        "indptr": np.concatenate([[0], np.cumsum(np.bincount(both[:, 0], minlength=num))]).astype(np.int32),
        "edges": edges,
        "charge": rng.standard_normal(num).astype(np.float32),
        "radius": np.float32(0.1),
    }


def write_groups(path: Path, kind: Kind, samples: Sequence[Arrays], zarr_format: int) -> None:
    """Write a store of another program: one group a sample, the radius an attribute of the neighbors."""
    root = zarr.create_group(path, zarr_format=zarr_format)
    for index, arrays in enumerate(samples):
        sample = root.require_group(f"{kind.group}/sample_{index:05d}")
        sample.attrs["source"] = f"shard_{index}.npz"
        for name, array in arrays.items():
            sample.create_array(kind.folders.get(name, name), data=array)
        if "radius" in sample:
            del sample["radius"]
            sample["neighbors"].attrs["radius"] = arrays["radius"].item()


@pytest.fixture
def meshes() -> list[Arrays]:
    """Five meshes of different sizes."""
    return [make_mesh(size, seed) for seed, size in enumerate((9, 5, 14, 30, 6))]


@pytest.fixture
def particles() -> list[Arrays]:
    """Four particle sets of different sizes and durations."""
    return [make_particles(size, seed, times=2 + seed) for seed, size in enumerate((7, 4, 12, 5))]


@pytest.fixture
def write_store(tmp_path: Path) -> Callable[..., Path]:
    """Write samples to a new store."""

    def write(
        samples: Sequence[Arrays], *, layout: str = "ragged", name: str = "store.zarr", zarr_format: int = 3
    ) -> Path:
        kind: Kind = MESH if "coords" in samples[0] else PARTICLES
        if layout == "groups":
            write_groups(tmp_path / name, kind, samples, zarr_format)
        else:
            with RaggedWriter(tmp_path / name, kind) as writer:
                for index, arrays in enumerate(samples):
                    writer.append(arrays, source=f"shard_{index}.npz")
        return tmp_path / name

    return write
