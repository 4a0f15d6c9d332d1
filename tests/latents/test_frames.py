"""Where encoder input comes from: files of a task, grids, graphs."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.cache import LatentCache
from gust_torch.latents.dataset import LatentDataset
from gust_torch.latents.frames import GraphFrames, GridFrames, open_grid
from gust_torch.latents.key import data_identity
from gust_torch.latents.writer import CacheWriter
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.spec import FieldSpec

needs_graphs = pytest.mark.skipif(
    not all(map(find_spec, ("zarr", "fsspec", "torch_geometric"))), reason="without the extra `graphs`"
)


def test_grid_frames(root: Path) -> None:
    dataset = HDF5Dataset(root / "burgers1d_train.h5")
    frames = GridFrames(dataset)
    assert (frames.num_items, frames.samples_per_item) == (20, 1)
    assert torch.equal(frames.read([7, 2]), torch.stack([dataset[7], dataset[2]]))
    assert set(frames.parameters) == {"nu", "rho"}


def test_the_model_must_fit(root: Path) -> None:
    path = root / "burgers1d_train.h5"
    fitting = FieldSpec(names=("u",), grid=(16, 1), lengths=(1.0, 1.0))
    for spec in (fitting, replace(fitting, lengths=(1.00001, 1.0))):  # lengths may come from float32 numbers
        assert open_grid(path, spec).spec.names == ("u",)
    for spec, match in (
        (replace(fitting, grid=(32, 1)), "grid 32x1, got 16x1; give"),
        (replace(fitting, boundary=("wall", "periodic")), "boundary"),
        (
            replace(fitting, boundary=("periodic", "wall"), grid_y="chebyshev"),
            "grid_y chebyshev",
        ),
        (replace(fitting, lengths=(1.001, 1.0)), r"lengths \(1\.001, 1\.0\), got \(1\.0, 1\.0\)"),
        (FieldSpec(names=("w",), grid=(16, 1)), "no field 'w'"),
        (GraphSpec(("u",), (1,), 2), "trained on graphs"),
    ):
        with pytest.raises(ValueError, match=match):
            open_grid(path, spec)


def particles(folder: Path, times: list[int]) -> Path:
    """Return a store of particle sets with a radius and a time step."""
    from gust_torch.data.graphs.ragged import RaggedWriter
    from gust_torch.data.graphs.schema import PARTICLES

    rng = np.random.default_rng(0)
    path = folder / "particles_advect_train.zarr"
    with RaggedWriter(path, PARTICLES) as writer:
        for index, (count, nodes) in enumerate(zip(times, (5, 7, 4, 6), strict=False)):
            edges = np.array([[0, 1], [1, 2]], np.int32)
            arrays = {
                "positions": rng.random((count, nodes, 2), dtype=np.float32),
                "velocities": rng.standard_normal((count, nodes, 2)).astype(np.float32),
                "indices": np.array([1, 0, 2, 1], np.int32),
                "indptr": np.array([0, 1, 3, 4, *[4] * (nodes - 3)], np.int32),
                "edges": edges,
                "radius": np.float32(0.1 + index),
                "dt": np.float64(0.5 + index),
            }
            writer.append(arrays, source=f"shard_{index}.npz")
    return path


@needs_graphs
def test_moving_graphs_are_a_sample_for_each_time(tmp_path: Path, helpers) -> None:
    from gust_torch.data.graphs.datasets import ParticleZarrDataset

    path = particles(tmp_path, [4, 4, 4])
    spec = GraphSpec(("velocities",), (2,), 2, moving=True)
    frames = GraphFrames(ParticleZarrDataset(path), spec)
    assert (frames.num_items, frames.samples_per_item) == (3, 4)
    assert frames.trajectories.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    np.testing.assert_allclose(frames.times[:8], [0, 0.5, 1, 1.5, 0, 1.5, 3, 4.5])
    np.testing.assert_allclose(frames.parameters["radius"], [0.1, 1.1, 2.1], rtol=1e-6)
    torch.manual_seed(0)
    model = LatentAutoencoder(
        spec, latent_len=3, latent_dim=8, width=16, num_local_layers=1, num_layers=1, num_heads=2
    ).eval()
    writer = CacheWriter(
        tmp_path / "cache" / "particles_advect_train",
        model,
        frames,
        task="particles_advect",
        split="train",
        source=path,
        data=data_identity(path),
        batch_size=9,
        limit=6,
    )
    assert (writer.index.key.num_samples, writer.index.batch_size) == (8, 8)
    with writer, torch.no_grad():
        assert writer.begin() == [range(8)]
        writer.write(0, model.encode(frames.read_samples(range(8))))
        writer.finish()
    cache = LatentCache.open(writer.folder)
    assert cache.index.spec == spec
    windows = LatentDataset(cache, n_steps=3)
    assert windows.rows.tolist() == [[0, 1, 2], [1, 2, 3], [4, 5, 6], [5, 6, 7]]
    np.testing.assert_allclose(windows.time_steps[2], [1.5, 1.5])


@needs_graphs
def test_graphs_of_different_durations(tmp_path: Path) -> None:
    from gust_torch.data.graphs.datasets import ParticleZarrDataset

    path = particles(tmp_path, [4, 3])
    frames = GraphFrames(ParticleZarrDataset(path), GraphSpec(("velocities",), (2,), 2, moving=True))
    with pytest.raises(ValueError, match=r"sample 1 \(shard_1\.npz\) has 3 times, sample 0 has 4"):
        frames.read([0, 1])


@needs_graphs
def test_meshes_are_trajectories_of_one_sample(tmp_path: Path) -> None:
    from gust_torch.data.graphs.datasets import MeshZarrDataset
    from gust_torch.data.graphs.ragged import RaggedWriter
    from gust_torch.data.graphs.schema import MESH
    from gust_torch.data.graphs.synthetic import random_mesh

    with RaggedWriter(tmp_path / "mesh.zarr", MESH) as writer:
        for seed in range(3):
            writer.append(random_mesh(9 + seed, seed) | {"u": np.zeros(9 + seed)}, source=f"{seed}.npz")
    frames = GraphFrames(MeshZarrDataset(tmp_path / "mesh.zarr"), GraphSpec(("u",), (1,), 2))
    assert (frames.num_items, frames.samples_per_item) == (3, 1)
    assert frames.trajectories.tolist() == [0, 1, 2]
    assert frames.times.tolist() == [0.0, 0.0, 0.0]
    assert frames.parameters == {}
    assert frames.read([2, 0]).num_graphs == 2
