"""Items, batches, worker processes, URLs, foreign stores."""

import pickle
import sys

import fsspec
import numpy as np
import pytest
import torch
import zarr
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from gust_torch import MeshZarrDataset, ParticleZarrDataset
from gust_torch.data.graphs import datasets
from gust_torch.data.graphs.items import both_ways

LAYOUTS = pytest.mark.parametrize("layout", ["ragged", "groups"])


def dense(arrays) -> np.ndarray:
    """Return the Laplacian of a sample, from its CSR arrays."""
    size = len(arrays["coords"])
    matrix = np.zeros((size, size), np.float32)
    rows = np.repeat(np.arange(size), np.diff(arrays["laplacian_indptr"]))
    matrix[rows, arrays["laplacian_indices"]] = arrays["laplacian_data"]
    return matrix


def pairs(edge_index) -> list[tuple[int, int]]:
    return sorted(map(tuple, edge_index.T.tolist()))


def both(edges: np.ndarray) -> list[tuple[int, int]]:
    return sorted(map(tuple, np.concatenate([edges, edges[:, ::-1]]).tolist()))


@LAYOUTS
def test_mesh_items(write_store, meshes, layout: str) -> None:
    dataset = MeshZarrDataset(write_store(meshes, layout=layout))
    assert len(dataset) == 5
    for index, arrays in enumerate(meshes):
        item = dataset[index]
        item.validate()
        assert np.array_equal(item.pos, arrays["coords"])
        assert item.pos.dtype == torch.float32
        assert pairs(item.edge_index) == both(arrays["edges"])
        assert np.array_equal(item.face.T, arrays["cells"])
        assert item.face.dtype == item.edge_index.dtype == torch.int64
        assert item.laplacian.layout == torch.sparse_csr
        assert np.array_equal(item.laplacian.to_dense(), dense(arrays))
        assert np.array_equal(item.y, arrays["y"])
        assert item.y.dtype == torch.float64
        assert np.array_equal(item.material_index, arrays["material_index"])
        assert np.array_equal(item.history, arrays["history"].swapaxes(0, 1))
        assert item.dt.tolist() == [0.25]
    assert np.array_equal(dataset[-1].pos, meshes[-1]["coords"])
    with pytest.raises(IndexError, match="sample 5 of 5"):
        dataset[5]


@LAYOUTS
def test_particle_items(write_store, particles, layout: str) -> None:
    dataset = ParticleZarrDataset(write_store(particles, layout=layout))
    for index, arrays in enumerate(particles):
        item = dataset[index]
        assert item.num_nodes == arrays["positions"].shape[1]
        assert np.array_equal(item.positions, arrays["positions"].swapaxes(0, 1))
        assert np.array_equal(item.velocities, arrays["velocities"].swapaxes(0, 1))
        assert np.array_equal(item.pos, arrays["positions"][0])
        assert pairs(item.edge_index) == both(arrays["edges"])
        assert np.array_equal(item.charge, arrays["charge"])
        assert torch.equal(item.radius, torch.tensor([0.1]))
    assert "indptr" not in item


def test_particles_at_one_time(write_store, particles) -> None:
    sample = particles[0] | {name: particles[0][name][0] for name in ("positions", "velocities")}
    del sample["radius"]
    item = ParticleZarrDataset(write_store([sample]))[0]
    assert item.positions.shape == (7, 1, 3)
    assert np.array_equal(item.pos, sample["positions"])
    assert "radius" not in item


@LAYOUTS
@pytest.mark.parametrize("workers", [0, 2])
def test_mesh_batches_are_their_parts(write_store, meshes, layout: str, workers: int) -> None:
    dataset = MeshZarrDataset(write_store(meshes, layout=layout))
    loader = DataLoader(dataset, batch_size=3, num_workers=workers)
    for batch, start in zip(loader, (0, 3), strict=True):
        parts = meshes[start : start + 3]
        shift = np.cumsum([0, *(len(arrays["coords"]) for arrays in parts)])
        assert batch.num_graphs == len(parts)
        for name, key in (("pos", "coords"), ("y", "y"), ("material_index", "material_index")):
            assert np.array_equal(batch[name], np.concatenate([arrays[key] for arrays in parts]))
        assert np.array_equal(
            batch.history, np.concatenate([arrays["history"].swapaxes(0, 1) for arrays in parts])
        )
        assert batch.dt.tolist() == [0.25] * len(parts)
        shifted = zip(parts, shift, strict=False)
        edges = [arrays["edges"] + first for arrays, first in shifted]
        assert pairs(batch.edge_index) == both(np.concatenate(edges))
        cells = [arrays["cells"] + first for arrays, first in zip(parts, shift, strict=False)]
        assert np.array_equal(batch.face.T, np.concatenate(cells))
        assert batch.laplacian.layout == torch.sparse_csr
        blocks = torch.block_diag(*(torch.from_numpy(dense(arrays)) for arrays in parts))
        assert torch.equal(batch.laplacian.to_dense(), blocks)
        assert batch.ptr.tolist() == shift.tolist()


def test_particle_batches_are_their_parts(write_store, particles) -> None:
    samples = [arrays | {"positions": arrays["positions"][:2]} for arrays in particles]
    samples = [arrays | {"velocities": arrays["velocities"][:2]} for arrays in samples]
    dataset = ParticleZarrDataset(write_store(samples))
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    shift = np.cumsum([0, *(len(arrays["charge"]) for arrays in samples)])
    edges = [arrays["edges"] + first for arrays, first in zip(samples, shift, strict=False)]
    assert pairs(batch.edge_index) == both(np.concatenate(edges))
    expected = np.concatenate([arrays["positions"].swapaxes(0, 1) for arrays in samples])
    assert np.array_equal(batch.positions, expected)
    assert batch.radius.shape == (4,)
    assert np.array_equal(Batch.get_example(batch, 2).velocities, dataset[2].velocities)


def test_edges_in_any_order_become_both_ways_once() -> None:
    edges = np.array([[2, 0], [0, 2], [1, 1], [1, 2], [1, 2]], np.int32)
    index, rows = both_ways(edges, 3)
    assert pairs(index) == [(0, 2), (1, 1), (1, 2), (2, 0), (2, 1)]
    # Both directions were given for 0 and 2: each keeps its own row.
    assert rows.tolist() == [1, 2, 3, 0, 3]
    index, rows = both_ways(np.zeros((0, 2), np.int32), 3)
    assert (index.shape, rows) == ((2, 0), None)


def test_workers_read_what_the_parent_reads(write_store, meshes) -> None:
    dataset = MeshZarrDataset(write_store(meshes))
    expected = [dataset[index] for index in range(5)]  # the parent's store is open
    loader = DataLoader(dataset, batch_size=1, num_workers=1, multiprocessing_context="fork")
    for batch, item in zip(loader, expected, strict=True):
        assert torch.equal(batch.pos, item.pos)
        assert torch.equal(batch.laplacian.to_dense(), item.laplacian.to_dense())


def test_each_process_opens_the_store(write_store, meshes, monkeypatch) -> None:
    dataset = MeshZarrDataset(write_store(meshes))
    parents = dataset.reader
    assert dataset.reader is parents
    assert b"RaggedReader" not in pickle.dumps(dataset)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1].pos, dataset[1].pos)
    monkeypatch.setattr(datasets.os, "getpid", lambda: -1)
    assert dataset.reader is not parents


@LAYOUTS
def test_urls(write_store, meshes, layout: str) -> None:
    path = write_store(meshes, layout=layout)
    assert np.array_equal(MeshZarrDataset(f"file://{path}")[2].pos, meshes[2]["coords"])
    memory = fsspec.filesystem("memory")
    memory.put(str(path), f"/{layout}.zarr", recursive=True)
    remote = MeshZarrDataset(f"memory://{layout}.zarr")
    for index in (3, 0):
        assert np.array_equal(remote[index].y, meshes[index]["y"])
        assert torch.equal(remote[index].edge_index, MeshZarrDataset(path)[index].edge_index)
    with pytest.raises(ValueError, match=r"memory://absent\.zarr: not a Zarr group"):
        MeshZarrDataset("memory://absent.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_of_other_programs(tmp_path, particles, zarr_format: int) -> None:
    """One group a sample, the radius an attribute of the neighbors; no attributes of ours."""
    root = zarr.create_group(tmp_path / "p.zarr", zarr_format=zarr_format)
    for index, arrays in enumerate(particles):
        sample = root.require_group(f"particles_advect/sample_{index:05d}")
        for name in ("positions", "velocities"):
            sample.create_array(name, data=arrays[name])
        neighbors = sample.create_group("neighbors", attributes={"radius": 0.15})
        for name in ("indices", "indptr", "edges"):
            neighbors.create_array(name, data=arrays[name])
    dataset = ParticleZarrDataset(tmp_path / "p.zarr", group="particles_advect")
    assert np.array_equal(dataset[2].positions, particles[2]["positions"].swapaxes(0, 1))
    assert torch.equal(dataset[2].radius, torch.tensor([0.15]))
    assert dataset.source(2) == "sample_00002"
    with pytest.raises(ValueError, match="has no array 'coords'; is it a store of mesh"):
        MeshZarrDataset(tmp_path / "p.zarr", group="particles_advect")[0]


def test_transform(write_store, meshes) -> None:
    def double(item):
        item.y = 2 * item.y
        return item

    assert np.array_equal(MeshZarrDataset(write_store(meshes), transform=double)[0].y, 2 * meshes[0]["y"])


@pytest.mark.parametrize("package", ["zarr", "torch_geometric"])
def test_missing_packages_are_named(write_store, meshes, monkeypatch, package: str) -> None:
    path = write_store(meshes)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"graphs need {package}.*pip install 'gust_torch\[graphs\]'"):
        MeshZarrDataset(path)
