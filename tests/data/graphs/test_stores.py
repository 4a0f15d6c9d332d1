"""What is written is read back bit for bit, in both layouts; damage is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from gust_torch.data.graphs import ragged, stores
from gust_torch.data.graphs.ragged import RaggedWriter
from gust_torch.data.graphs.schema import MESH, PARTICLES, describe
from gust_torch.data.graphs.stores import open_reader


def reader(path, kind, cache_bytes: int = 1 << 20):
    return open_reader(path, kind, kind.group, cache_bytes=cache_bytes, storage_options=None)


def assert_equal(stored, expected) -> None:
    assert set(stored) == set(expected)
    for name, array in expected.items():
        assert stored[name].shape == array.shape, name
        if name != "radius":  # a JSON number in the groups layout
            assert stored[name].dtype == array.dtype, name
        assert np.array_equal(stored[name], array), name


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let samples span chunks, and shards too."""
    monkeypatch.setattr(ragged, "CHUNK_BYTES", 64)
    monkeypatch.setattr(ragged, "SHARD_CHUNKS", 3)


@pytest.mark.parametrize("layout", ["ragged", "groups"])
@pytest.mark.parametrize("which", ["meshes", "particles"])
def test_round_trip(layout, which, request, write_store) -> None:
    samples = request.getfixturevalue(which)
    stored = reader(write_store(samples, layout=layout), MESH if which == "meshes" else PARTICLES)
    assert stored.num_samples == len(samples)
    for index in (2, 0, 1, 3):
        assert_equal(stored.read(index)[0], samples[index])
        assert stored.source(index) == f"shard_{index}.npz"


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("cache_bytes", [0, 300, 1 << 20])
def test_samples_across_chunks_and_shards(
    small_shards, monkeypatch, write_store, meshes, direct: bool, cache_bytes: int
) -> None:
    monkeypatch.setattr(stores, "is_plain", lambda array: direct)
    path = write_store(meshes)
    assert len(list((path / MESH.group / "coords" / "c").iterdir())) > 1
    stored = reader(path, MESH, cache_bytes)
    for index in (4, 1, 3, 0, 2, 2):
        assert_equal(stored.read(index)[0], meshes[index])


def test_our_shards_are_read_directly(write_store, meshes) -> None:
    node = zarr.open_group(write_store(meshes), mode="r")[MESH.group]
    assert all(stores.is_plain(node[name]) for name in meshes[0])
    other = zarr.create_array({}, shape=(8,), chunks=(2,), shards=(4,), dtype="i4", compressors=None)
    assert not stores.is_plain(other)


def test_layout_on_disk(small_shards, write_store, meshes) -> None:
    """As docs/formats.md has it; any Zarr v3 program can read the arrays."""
    path = write_store(meshes)
    node = zarr.open_group(path, mode="r")[MESH.group]
    attributes = dict(node.attrs)
    assert attributes["layout"] == "ragged"
    assert (attributes["version"], attributes["kind"], attributes["num_samples"]) == (1, "mesh", 5)
    sizes = np.cumsum([0, *(len(arrays["coords"]) for arrays in meshes)])
    assert node["offsets/node"][:].tolist() == sizes.tolist()
    assert node["offsets/step"][:].tolist() == (4 * sizes).tolist()
    for name in ("coords", "edges", "laplacian_data", "material_index"):
        assert np.array_equal(node[name][:], np.concatenate([arrays[name] for arrays in meshes]))
    metadata = json.loads((path / MESH.group / "coords" / "zarr.json").read_text())
    assert metadata["zarr_format"] == 3
    assert metadata["codecs"][0]["name"] == "sharding_indexed"


def test_files_do_not_grow_with_samples(write_store, meshes) -> None:
    few, many = write_store(meshes, name="few"), write_store(100 * meshes, name="many")
    assert len(list(few.rglob("*"))) == len(list(many.rglob("*")))


def test_other_arrays_are_refused(tmp_path, meshes) -> None:
    changed = meshes[1] | {"dt": np.float32(1), "extra": np.float32(1)}
    del changed["y"]
    with RaggedWriter(tmp_path / "a", MESH) as writer:
        writer.append(meshes[0], source="a.npz")
        with pytest.raises(
            ValueError, match=r"b.npz: array 'dt' is float32.*'y' is missing.*'extra' is .* have none"
        ):
            writer.append(changed, source="b.npz")


def test_unclosed_and_empty_stores(tmp_path, meshes) -> None:
    writer = RaggedWriter(tmp_path / "a", MESH)
    with pytest.raises(ValueError, match="at least one sample"):
        writer.close()
    writer.append(meshes[0], source="a.npz")
    with pytest.raises(ValueError, match="is unfinished, its writer did not end; convert again"):
        reader(tmp_path / "a", MESH)


@pytest.mark.parametrize("damage", ["delete", "truncate", "overwrite", "flip", "index"])
def test_damaged_shards(write_store, meshes, damage: str) -> None:
    path = write_store(meshes)
    shard = path / MESH.group / "coords" / "c" / "0" / "0"
    data = shard.read_bytes()
    if damage == "delete":
        shard.unlink()
    else:
        changed = {
            "truncate": data[:-100],
            "overwrite": b"\1" * 40 + data[40:],
            "flip": data[:60] + bytes([data[60] ^ 1]) + data[61:],
            "index": data[: -ragged.SHARD_CHUNKS * 16] + b"\xff" * ragged.SHARD_CHUNKS * 16,
        }
        shard.write_bytes(changed[damage])
    with pytest.raises(ValueError, match=r"coords/c/0/0: damaged shard.*convert the store again"):
        reader(path, MESH).read(0)


def test_offsets_and_arrays_must_agree(write_store, meshes) -> None:
    path = write_store(meshes)
    zarr.open_group(path, mode="r+")[f"{MESH.group}/coords"].resize((3, 2))
    with pytest.raises(ValueError, match="'coords' has 3 rows, which the offsets contradict"):
        reader(path, MESH)


def test_refused_stores(write_store, tmp_path, meshes) -> None:
    path = write_store(meshes)
    with pytest.raises(ValueError, match="no such Zarr store"):
        reader(tmp_path / "absent", MESH)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="not a Zarr group"):
        reader(tmp_path / "empty", MESH)
    with pytest.raises(ValueError, match="no group 'particles_advect', the store has mesh_poisson"):
        reader(path, PARTICLES)
    with pytest.raises(ValueError, match="kind is 'mesh', expected 'particles'"):
        open_reader(path, PARTICLES, MESH.group, cache_bytes=0, storage_options=None)
    zarr.open_group(path, mode="r+")[MESH.group].attrs["version"] = 2
    with pytest.raises(ValueError, match="version is 2, expected 1; update gust_torch"):
        reader(path, MESH)


@pytest.mark.parametrize(("cache_bytes", "kept"), [(0, False), (1 << 20, True)])
def test_the_cache_is_bounded(write_store, meshes, cache_bytes: int, kept: bool) -> None:
    stored = reader(write_store(meshes), MESH, cache_bytes)
    for index in (0, 1, 0):
        stored.read(index)
    info = stored._chunk.cache_info()
    assert (info.currsize > 0, info.hits > 0) == (kept, kept)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("f", np.zeros((7, 3)), r"'f' has shape \(7, 3\), expected .*\(9, ...\)"),
        ("f", np.zeros((9, 9)), "'f' has shape .* one alone"),
        ("pos", np.zeros(9), "'pos' cannot keep its name"),
        ("a-b", np.zeros(9), "'a-b' cannot keep its name"),
    ],
)
def test_arrays_that_are_no_fields(meshes, name: str, array: np.ndarray, message: str) -> None:
    sample = {key: meshes[0][key] for key in MESH.arrays} | {name: array}
    with pytest.raises(ValueError, match=message):
        describe(MESH, sample)


def test_a_dataset_can_be_moved(write_store, meshes, tmp_path: Path) -> None:
    """Nothing in a store names its place."""
    moved = write_store(meshes).rename(tmp_path / "moved")
    assert_equal(reader(moved, MESH).read(3)[0], meshes[3])
