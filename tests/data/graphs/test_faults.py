"""Stores of other programs, and stores that came to harm: what is wrong is named, nothing read as zeros."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from gust_torch import MeshZarrDataset, ParticleZarrDataset
from gust_torch.data.graphs import ragged
from gust_torch.data.graphs.datamodule import graph_spec
from gust_torch.data.graphs.schema import MESH, PARTICLES, describe

DATASETS = {"mesh": MeshZarrDataset, "particles": ParticleZarrDataset}


def opened(path: Path, kind=MESH):
    return DATASETS[kind.name](path)


@pytest.mark.parametrize("name", ["edges", "cells"])
def test_the_orientation_of_torch_geometric_is_refused(write_store, meshes, name: str) -> None:
    meshes[2][name] = np.ascontiguousarray(meshes[2][name].T)
    shape = meshes[2][name].shape
    store = opened(write_store(meshes, layout="groups"))
    with pytest.raises(
        ValueError, match=rf"'sample_00002': key '{name}' has shape \({shape[0]}, {shape[1]}\)"
    ):
        store[2]
    assert store[1].num_nodes == 5


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("edges", lambda a: a + 1, "'edges' has . indices outside 0 to 13, the first is 14"),
        ("cells", lambda a: a - 1, "'cells' has .* the first is -1"),
        ("laplacian_indices", lambda a: a + 100, "'laplacian_indices' has"),
        ("laplacian_indptr", lambda a: a[::-1].copy(), "'laplacian_indptr' begins with"),
        (
            "laplacian_indptr",
            lambda a: np.where(np.arange(len(a)) == 2, 0, a),
            "'laplacian_indptr' decreases",
        ),
        (
            "coords",
            lambda a: np.where(a == a[3], np.float32(np.nan), a),
            r"'coords' has 2 values .* not finite",
        ),
        ("coords", lambda a: (9 * a).astype(np.int32), "'coords' holds int32, expected floats"),
        ("laplacian_data", lambda a: a[1:], "numbers of entries differ"),
    ],
)
@pytest.mark.parametrize("layout", ["groups", "ragged"])
def test_values_that_cannot_be(write_store, meshes, layout: str, name: str, change, message: str) -> None:
    path = write_store(meshes, layout=layout)
    node = zarr.open_group(path, mode="r+")[MESH.group]
    if layout == "groups":
        parent = node["sample_00002"]
        where = MESH.folders[name]
        del parent[where]
        parent.create_array(where, data=change(meshes[2][name]))
    else:
        changed = change(meshes[2][name])
        if changed.shape != meshes[2][name].shape or changed.dtype != meshes[2][name].dtype:
            return  # the layout itself excludes it
        start = sum(len(arrays[name]) for arrays in meshes[:2])
        node[name][start : start + len(changed)] = changed
    with pytest.raises(ValueError, match=f"sample '?(sample_0000)?2'?: key {message}|{message}"):
        opened(path)[2]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_either_byte_order_is_read(write_store, meshes, zarr_format: int) -> None:
    swapped = [
        {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
        for arrays in meshes
    ]
    item = opened(write_store(swapped, layout="groups", zarr_format=zarr_format))[3]
    assert np.array_equal(item.pos, meshes[3]["coords"])
    assert item.pos.dtype == torch.float32


@pytest.mark.parametrize("name", ["coords", "edges", "laplacian/indptr"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_missing_chunk_is_no_zeros(write_store, meshes, name: str, zarr_format: int) -> None:
    path = write_store(meshes, layout="groups", zarr_format=zarr_format)
    for file in (path / MESH.group / "sample_00001" / name).rglob("*"):
        if file.is_file() and file.name not in ("zarr.json", ".zarray", ".zattrs"):
            file.unlink()
    with pytest.raises(ValueError, match=f"'sample_00001': array '{name}' lacks its chunk"):
        opened(path)[1]
    assert opened(path)[2].num_nodes == 14


def test_fields_that_are_zero_need_no_chunk(write_store, meshes) -> None:
    meshes[0]["material_index"][:] = 0
    assert not opened(write_store(meshes, layout="groups"))[0].material_index.any()


def test_a_missing_chunk_of_a_remote_store(write_store, meshes) -> None:
    path = write_store(meshes)
    (path / MESH.group / "coords" / "c" / "0" / "0").unlink()
    with pytest.raises(ValueError, match=r"'coords'.*lacks its chunk|damaged shard"):
        MeshZarrDataset(f"file://{path}")[0]


@pytest.mark.parametrize("layout", ["groups", "ragged"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(write_store, meshes, layout: str) -> None:
    path = write_store(meshes, layout=layout)
    folder = path / MESH.group / ("coords/c/0/0" if layout == "ragged" else "sample_00000/coords/c/0/0")
    folder.unlink()
    os.mkfifo(folder)
    with pytest.raises(ValueError, match="is no file"):
        opened(path)[0]


def test_an_index_that_was_changed_is_noticed(write_store, meshes) -> None:
    path = write_store(meshes)
    shard = path / MESH.group / "coords" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[-ragged.SHARD_CHUNKS * 16 - 4] ^= 1  # an offset of the first chunk
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="checksum of its index"):
        opened(path)[0]


@pytest.mark.parametrize("value", [10**12, 6, 0, -1, 5.0, "five", None])
def test_a_number_of_samples_that_is_not_so(write_store, meshes, value: object) -> None:
    path = write_store(meshes)
    zarr.open_group(path, mode="r+")[MESH.group].attrs["num_samples"] = value
    with pytest.raises(ValueError, match=r"store\.zarr: group 'mesh_poisson' is damaged"):
        opened(path)


def test_offsets_of_a_trillion_samples_take_no_memory(write_store, meshes) -> None:
    path = write_store(meshes)
    node = zarr.open_group(path, mode="r+")[MESH.group]
    node.attrs["num_samples"] = 10**12
    for axis in list(node["offsets"].array_keys()):
        node[f"offsets/{axis}"].resize((10**12 + 1,))
    with pytest.raises(ValueError, match="lacks its chunk"):
        opened(path)


@pytest.mark.parametrize("change", ["falls", "begins", "nodes"])
def test_offsets_must_rise(write_store, meshes, change: str) -> None:
    path = write_store(meshes)
    table = zarr.open_group(path, mode="r+")[f"{MESH.group}/offsets/node"]
    values = table[:]
    if change == "falls":
        values[1], values[2] = values[2], values[1]
    elif change == "begins":
        values[0] = 1
    else:
        values[1] += 1
    table[:] = values
    with pytest.raises(ValueError, match=r"is damaged: .*offsets"):
        opened(path)


def test_a_mesh_with_extras(write_store, meshes) -> None:
    """Arrays on edges and cells, and lists of nodes; torch_geometric's names."""
    rng = np.random.default_rng(0)
    for arrays in meshes:
        arrays["edge_attr"] = rng.standard_normal((len(arrays["edges"]), 2)).astype(np.float32)
        arrays["area"] = rng.random(len(arrays["cells"]))
        arrays["boundary_nodes"] = np.arange(3, dtype=np.int32)
        arrays["boundary_edges"] = arrays["edges"][:2]
    for layout in ("ragged", "groups"):
        dataset = opened(write_store(meshes, layout=layout, name=f"{layout}.zarr"))
        item = dataset[2]
        num_edges = len(meshes[2]["edges"])
        assert item.edge_attr.shape == (2 * num_edges, 2)
        pairs = {(int(i), int(j)): row for (i, j), row in zip(item.edge_index.T, item.edge_attr, strict=True)}
        for (i, j), row in zip(meshes[2]["edges"].tolist(), meshes[2]["edge_attr"], strict=True):
            assert np.array_equal(pairs[i, j], row)
            assert np.array_equal(pairs[j, i], row)
        assert np.array_equal(item.area, meshes[2]["area"])
        batch = Batch.from_data_list([dataset[0], dataset[2]])
        assert batch.boundary_nodes.tolist() == [0, 1, 2, 9, 10, 11]
        assert np.array_equal(batch.boundary_edges[2:], meshes[2]["edges"][:2] + 9)
        assert len(batch.edge_attr) == batch.edge_index.shape[1]
        assert "edge_attr" not in graph_spec(item).fields
        assert torch.equal(batch.get_example(1).boundary_nodes, item.boundary_nodes)
    meshes[3]["boundary_nodes"] = np.array([30], np.int32)
    with pytest.raises(ValueError, match="'boundary_nodes' has 1 indices outside 0 to 29"):
        opened(write_store(meshes, name="bad.zarr"))[3]


def test_where_edges_are_as_many_as_nodes_the_name_decides() -> None:
    ring = np.stack([np.arange(5), (np.arange(5) + 1) % 5], 1).astype(np.int32)
    arrays = {
        "positions": np.zeros((2, 5, 2), np.float32), "velocities": np.zeros((2, 5, 2), np.float32),
        "indices": ring[:, 1], "indptr": np.arange(6), "edges": ring,
        "edge_weight": np.ones(5), "charge": np.ones(5),
    }  # fmt: skip
    schema = describe(PARTICLES, arrays)
    assert (schema["edge_weight"].axis, schema["charge"].axis) == ("edge", "node")


def test_items_hold_plain_tensors(write_store, meshes, tmp_path: Path) -> None:
    dataset = opened(write_store(meshes))
    item = dataset[3]
    dense = item.laplacian.to_dense()
    for changed in (
        item.contiguous(),
        copy.deepcopy(item).share_memory_(),
        item.clone(),
        copy.copy(item),
    ):
        assert torch.equal(changed.laplacian().to_dense(), dense)
    torch.save(item, tmp_path / "item.pt")
    loaded = torch.load(tmp_path / "item.pt", weights_only=True)
    assert torch.equal(loaded.laplacian.to_dense(), dense)
    assert torch.equal(loaded.edge_index, item.edge_index)
    x = torch.randn(30, 2)
    torch.testing.assert_close(item.laplacian @ x, dense @ x)
    torch.testing.assert_close(torch.sparse.mm(item.laplacian, x), dense @ x)


def test_a_batch_gives_its_items_back(write_store, meshes) -> None:
    dataset = opened(write_store(meshes))
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    for item, part in zip(dataset, batch.to_data_list(), strict=False):
        assert torch.equal(part.laplacian.to_dense(), item.laplacian.to_dense())
        assert torch.equal(part.edge_index, item.edge_index)
        assert torch.equal(part.face, item.face)
    assert torch.equal(batch[1].laplacian.to_dense(), dataset[1].laplacian.to_dense())


@pytest.mark.parametrize("layout", ["groups", "ragged"])
@pytest.mark.parametrize("name", ["", "mesh_poisson", "coords"])
@pytest.mark.parametrize("damage", ["text", "empty object", "pipe", "gone"])
def test_damaged_metadata(write_store, meshes, layout: str, name: str, damage: str) -> None:
    path = write_store(meshes, layout=layout)
    array = "mesh_poisson/coords" if layout == "ragged" else "mesh_poisson/sample_00000/coords"
    file = path / (array if name == "coords" else name) / "zarr.json"
    if (name, damage) == ("", "empty object"):
        return  # zarr needs nothing of it
    file.unlink()
    if damage == "pipe":
        os.mkfifo(file)
    elif damage != "gone":
        file.write_text("{}" if damage == "empty object" else "[no json")
    with pytest.raises(ValueError, match=r"store\.zarr"):
        opened(path)[0]


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_damaged_chunks_of_other_programs(write_store, meshes, damage: str) -> None:
    path = write_store(meshes, layout="groups")
    chunk = path / MESH.group / "sample_00000/coords/c/0/0"
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-9] if damage == "truncate" else bytes([255 - data[0]]) + data[1:])
    with pytest.raises(ValueError, match="'sample_00000'"):
        opened(path)[0]


def test_declared_sizes_take_no_memory(write_store, meshes) -> None:
    path = write_store(meshes, layout="groups")
    zarr.open_group(path, mode="r+")[f"{MESH.group}/sample_00000/coords"].resize((10**11, 2))
    with pytest.raises(ValueError, match=r"'coords' of shape .* lacks chunks"):
        opened(path)[0]


def test_particles_come_out_of_their_batch(write_store, particles) -> None:
    samples = [
        arrays | {name: arrays[name][:2] for name in ("positions", "velocities")} for arrays in particles
    ]
    dataset = opened(write_store(samples), PARTICLES)
    batch = Batch.from_data_list([dataset[i] for i in range(4)])
    for item, part in zip(dataset, batch.to_data_list(), strict=True):
        assert torch.equal(part.positions, item.positions)
        assert torch.equal(part.edge_index, item.edge_index)
    with pytest.raises(AttributeError, match="laplacian"):
        _ = batch.laplacian
