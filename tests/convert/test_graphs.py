"""Shards of meshes and particles: what becomes of good ones, and what is said of bad ones."""

import io
import os
import pickle
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zarr")

from gust_torch.convert import graphs
from gust_torch.convert.graphs import read_shard
from gust_torch.data.graphs.schema import MESH, PARTICLES, Kind
from gust_torch.data.graphs.stores import open_reader
from gust_torch.data.graphs.synthetic import random_mesh
from solvers.common.stage import Stage

Arrays = dict[str, np.ndarray]

# file in bad/mesh_npz or bad/particles_npz -> words that the refusal must have
BAD = {
    "mesh_npz/edge_index_out_of_range": "key 'edges' has 1 indices outside 0 to 133, the first is 134",
    "mesh_npz/indptr_not_monotone": "key 'laplacian_indptr' decreases",
    "mesh_npz/missing_key": "key 'laplacian_indptr' is missing",
    "mesh_npz/nan_coords": "key 'coords' has 1 values that are not finite",
    "mesh_npz/truncated": "unreadable, File is not a zip file",
    "mesh_npz/wrong_dtype": "key 'cells' holds float64, expected integers",
    "mesh_npz/wrong_dtype_object": "key 'coords' cannot be read: an object array, which is never unpickled",
    "mesh_npz/wrong_dtype_string": "key 'coords' holds <U12, expected floats",
    "particles_npz/edge_index_out_of_range": "key 'edges' has 1 indices outside 0 to 199, the first is 200",
    "particles_npz/indptr_end_mismatch": "key 'indptr' ends with 1066, expected 1064",
    "particles_npz/indptr_not_monotone": "key 'indptr' decreases",
    "particles_npz/missing_key": "key 'indptr' is missing",
    "particles_npz/nan_coords": "key 'positions' has 1 values that are not finite",
    "particles_npz/negative_index": "key 'edges' has 1 indices outside 0 to 199, the first is -1",
    "particles_npz/truncated": "unreadable, File is not a zip file",
    "particles_npz/wrong_dtype": "key 'edges' holds float64, expected integers",
    "particles_npz/wrong_dtype_object": "key 'positions' cannot be read: an object array",
    "particles_npz/wrong_dtype_string": "key 'positions' holds <U12, expected floats",
}
TASKS = {"mesh_npz": "darcy2d_mesh", "particles_npz": "particles_advect"}


@pytest.fixture(scope="module")
def main(script) -> Callable[[list[str]], int]:
    """Return the command."""
    return script("convert_pdebench_multimodal")


@pytest.fixture
def convert(main, tmp_path: Path, capsys) -> Callable[..., tuple[int, str]]:
    """Run the command with --root raw --out out; gives its exit code and stderr."""

    def run(task: str, *options: str, root: Path = tmp_path / "raw") -> tuple[int, str]:
        code = main([task, "--root", str(root), "--out", str(tmp_path / "out"), *options])
        return code, capsys.readouterr().err

    return run


def particles(num: int, seed: int) -> Arrays:
    """Return a chain of particles without periodic wrap."""
    rng = np.random.default_rng(seed)
    edges = np.stack([np.arange(num - 1), np.arange(1, num)], axis=1).astype(np.int32)
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.lexsort(both.T[::-1])]
    return {
        "positions": rng.random((3, num, 3), dtype=np.float32),
        "velocities": rng.random((3, num, 3), dtype=np.float32),
        "indices": both[:, 1],
        "indptr": np.concatenate([[0], np.cumsum(np.bincount(both[:, 0]))]).astype(np.int32),
        "edges": edges,
    }


def write_meshes(root: Path, count: int = 10, folder: str = "2D/Darcy/Train") -> list[Arrays]:
    """Shards in the released layout, every other one compressed."""
    (root / folder).mkdir(parents=True)
    samples = [random_mesh(8 + index, index) for index in range(count)]
    for index, arrays in enumerate(samples):
        save = np.savez if index % 2 else np.savez_compressed
        save(root / folder / f"mesh_{index:05d}.npz", **arrays)
    return samples


def read(path: Path, kind: Kind):
    return open_reader(path, kind, kind.group, cache_bytes=0, storage_options=None)


def assert_holds(path: Path, kind: Kind, samples: dict[str, Arrays]) -> list[str]:
    """Every sample of a store equals the shard it names; returns these names."""
    store = read(path, kind)
    names = [store.source(index) for index in range(store.num_samples)]
    for index, name in enumerate(names):
        stored, expected = store.read(index)[0], samples[Path(name).name]
        assert set(stored) == set(expected)
        for key, array in expected.items():
            assert stored[key].dtype == array.dtype
            assert np.array_equal(stored[key], array)
    return names


def test_three_disjoint_stores(convert, tmp_path) -> None:
    shards = write_meshes(tmp_path / "raw")
    samples = {f"mesh_{index:05d}.npz": arrays for index, arrays in enumerate(shards)}
    code, errors = convert("darcy2d_mesh", "--verify")
    assert (code, "error" in errors) == (0, False)
    names = [
        assert_holds(tmp_path / "out" / f"darcy2d_mesh_{split}.zarr", MESH, samples)
        for split in ("train", "val", "test")
    ]
    assert [len(each) for each in names] == [8, 1, 1]
    assert len({name for each in names for name in each}) == 10
    assert names[0][0].startswith("2D/Darcy/Train/mesh_")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "darcy2d_mesh_test.zarr",
        "darcy2d_mesh_train.zarr",
        "darcy2d_mesh_val.zarr",
    ]


def test_limit_seed_and_splits(convert, tmp_path) -> None:
    write_meshes(tmp_path / "raw")
    sources = []
    for seed in ("0", "1"):
        options = ("--limit", "6", "--splits", "0.5", "0.5", "0", "--seed", seed, "--overwrite")
        assert convert("darcy2d_mesh", *options)[0] == 0
        store = read(tmp_path / "out" / "darcy2d_mesh_train.zarr", MESH)
        sources.append([store.source(index) for index in range(store.num_samples)])
    assert [len(names) for names in sources] == [3, 3]
    assert sources[0] != sources[1]
    assert not (tmp_path / "out" / "darcy2d_mesh_test.zarr").exists()


def test_fields_are_carried_by_name(convert, tmp_path) -> None:
    folder = tmp_path / "raw" / "Particles" / "Advection"
    folder.mkdir(parents=True)
    samples = {}
    for index in range(3):
        fields = {"y": np.ones((5 + index, 2)), "heat": np.ones((3, 5 + index)), "radius": np.float32(0.2)}
        samples[f"p{index}.npz"] = particles(5 + index, index) | fields
        np.savez(folder / f"p{index}.npz", **samples[f"p{index}.npz"])
    assert convert("particles_advect", "--splits", "1", "0", "0", "--verify")[0] == 0
    assert len(assert_holds(tmp_path / "out" / "particles_advect_train.zarr", PARTICLES, samples)) == 3


def test_shards_are_found_anywhere(convert, tmp_path, caplog) -> None:
    write_meshes(tmp_path / "raw", 3, folder="a/b")
    np.savez(tmp_path / "raw" / "other.npz", **particles(5, 0))
    assert convert("darcy2d_mesh", "--splits", "1", "0", "0")[0] == 0
    assert "1 other .npz files left out" in caplog.text
    assert read(tmp_path / "out" / "darcy2d_mesh_train.zarr", MESH).num_samples == 3


def edit(path: Path, **arrays: np.ndarray | None) -> None:
    """Replace arrays of a shard; None removes one."""
    with np.load(path) as file:
        merged = {**file, **arrays}
    np.savez(path, **{name: array for name, array in merged.items() if array is not None})


def test_every_reason_in_one_line(convert, tmp_path) -> None:
    shards = write_meshes(tmp_path / "raw")
    arrays = {name: array.copy() for name, array in shards[4].items()}
    arrays["coords"][2, 1] = np.nan
    arrays["edges"][0] = (-1, 99)
    arrays["laplacian_indptr"][0] = 1
    arrays["laplacian_indices"] = arrays["laplacian_indices"][:-1]
    bad = tmp_path / "raw/2D/Darcy/Train/mesh_00004.npz"
    edit(bad, **arrays | {"cells": None, "weight": np.zeros(5), "label": np.array("text")})
    code, errors = convert("darcy2d_mesh")
    assert code == 1
    line = next(line for line in errors.splitlines() if line.startswith("error:"))
    for words in (
        f"{bad}: ",
        "key 'cells' is missing",
        "key 'coords' has 1 values that are not finite, the first at (2, 1)",
        "key 'edges' has 2 indices outside 0 to 11",
        "key 'laplacian_indptr' begins with 1",
        "numbers of entries differ",
        "key 'laplacian_indptr' ends with",
        "array 'weight' has shape (5,)",
        "key 'label' holds <U4",
    ):
        assert words in line
    assert not (tmp_path / "out").exists()


def test_skip_bad_goes_on_and_lists(convert, tmp_path, caplog) -> None:
    write_meshes(tmp_path / "raw")
    folder = tmp_path / "raw/2D/Darcy/Train"
    edit(folder / "mesh_00002.npz", edges=None)
    (folder / "mesh_00007.npz").write_bytes(b"no zip")
    assert convert("darcy2d_mesh", "--skip-bad")[0] == 0
    listed = caplog.text[caplog.text.index("skipped 2 of 10 shards:") :]
    assert "mesh_00002.npz: key 'edges' is missing" in listed
    assert "mesh_00007.npz: unreadable" in listed
    stores = [read(path, MESH) for path in (tmp_path / "out").iterdir()]
    assert sum(store.num_samples for store in stores) == 8


def test_all_bad(convert, tmp_path, caplog) -> None:
    write_meshes(tmp_path / "raw", 1)
    edit(tmp_path / "raw/2D/Darcy/Train/mesh_00000.npz", edges=None)
    code, errors = convert("darcy2d_mesh", "--skip-bad")
    assert code == 1
    assert "error: none of 1 shards can be used" in errors
    assert "key 'edges' is missing" in caplog.text
    assert not (tmp_path / "out").exists()


def test_shards_must_fit_together(convert, tmp_path) -> None:
    write_meshes(tmp_path / "raw")
    cells = np.zeros((4, 4), np.int32)
    edit(tmp_path / "raw/2D/Darcy/Train/mesh_00003.npz", cells=cells)
    code, errors = convert("darcy2d_mesh")
    assert code == 1
    assert "mesh_00003.npz: array 'cells' is int32 rows of shape (4,) along 'cell', earlier shards" in errors


class Trap:
    """Says when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a shard was unpickled",)


def test_nothing_is_unpickled(convert, tmp_path) -> None:
    write_meshes(tmp_path / "raw", 1)
    path = tmp_path / "raw/2D/Darcy/Train/mesh_00000.npz"
    edit(path, extra=np.array([Trap()], object))
    assert b"unpickled" in pickle.dumps(Trap())
    code, errors = convert("darcy2d_mesh")
    assert code == 1
    assert "key 'extra' cannot be read: an object array, which is never unpickled" in errors


def test_the_same_shard_twice(convert, tmp_path, caplog) -> None:
    write_meshes(tmp_path / "raw", 3)
    folder = tmp_path / "raw/2D/Darcy/Train"
    with np.load(folder / "mesh_00001.npz") as file:  # packed in another way
        np.savez_compressed(folder / "mesh_00001 (1).npz", **file)
    code, errors = convert("darcy2d_mesh")
    assert code == 1
    assert "mesh_00001.npz" in errors
    assert "mesh_00001 (1).npz" in errors
    assert convert("darcy2d_mesh", "--skip-bad")[0] == 0
    assert "skipped 1 of 4 shards" in caplog.text


@pytest.mark.parametrize("name", ["._mesh_00001.npz", ".mesh.npz"])
def test_hidden_shards_are_passed_over(convert, tmp_path, name: str) -> None:
    write_meshes(tmp_path / "raw", 3)
    (tmp_path / "raw/2D/Darcy/Train" / name).write_bytes(b"\0\5\x16\7 Mac OS X")
    assert convert("darcy2d_mesh")[0] == 0


def test_arrays_along_edges_and_lists_of_nodes_are_carried(convert, tmp_path) -> None:
    samples = {}
    for index, arrays in enumerate(write_meshes(tmp_path / "raw", 3)):
        extras = {
            "edge_attr": np.random.default_rng(index).random((len(arrays["edges"]), 2), dtype=np.float32),
            "boundary_nodes": np.arange(5 + index),
        }
        name = f"mesh_{index:05d}.npz"
        edit(tmp_path / "raw/2D/Darcy/Train" / name, **extras)
        samples[name] = arrays | extras
    assert convert("darcy2d_mesh", "--splits", "1", "0", "0", "--verify")[0] == 0
    assert len(assert_holds(tmp_path / "out" / "darcy2d_mesh_train.zarr", MESH, samples)) == 3


@pytest.mark.parametrize("num", [10**9, 10**12])
def test_a_size_that_is_not_there(convert, tmp_path, num: int) -> None:
    write_meshes(tmp_path / "raw", 1)
    path = tmp_path / "raw/2D/Darcy/Train/mesh_00000.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (num, 2)})
    edit(path, coords=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("coords.npy", header.getvalue() + bytes(64))
    code, errors = convert("darcy2d_mesh")
    assert code == 1
    assert "key 'coords' cannot be read" in errors


def test_damage_anywhere_is_a_refusal(tmp_path) -> None:
    write_meshes(tmp_path, 1)
    path = tmp_path / "2D/Darcy/Train/mesh_00000.npz"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = []
    for _ in range(300):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), rng.integers(1, 9)):
            data[position] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.2 else data)
        try:
            read_shard(path, MESH)
        except ValueError as error:  # anything else fails the test
            refused.append(str(error))
    assert len(refused) > 250
    assert all(str(path) in message for message in refused)


def test_existing_stores(convert, tmp_path) -> None:
    write_meshes(tmp_path / "raw", 3)
    assert convert("darcy2d_mesh")[0] == 0
    train = tmp_path / "out" / "darcy2d_mesh_train.zarr"
    before = (train / "zarr.json").stat().st_mtime_ns
    code, errors = convert("darcy2d_mesh")
    assert code == 1
    assert "darcy2d_mesh_train.zarr" in errors
    assert "give --overwrite" in errors
    assert (train / "zarr.json").stat().st_mtime_ns == before
    # Fewer shards: the store of the split that is empty now must not stay.
    assert convert("darcy2d_mesh", "--overwrite", "--limit", "1")[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["darcy2d_mesh_train.zarr"]
    (train / "zarr.json").unlink()
    assert "is not a Zarr store and stays" in convert("darcy2d_mesh", "--overwrite")[1]


def test_a_refusal_leaves_older_stores(convert, tmp_path) -> None:
    shards = write_meshes(tmp_path / "raw", 3)
    assert convert("darcy2d_mesh", "--splits", "1", "0", "0")[0] == 0
    edit(tmp_path / "raw/2D/Darcy/Train/mesh_00002.npz", edges=None)
    assert convert("darcy2d_mesh", "--splits", "1", "0", "0", "--overwrite")[0] == 1
    samples = {f"mesh_{index:05d}.npz": arrays for index, arrays in enumerate(shards)}
    names = assert_holds(tmp_path / "out" / "darcy2d_mesh_train.zarr", MESH, samples)
    assert len(names) == 3
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_stopped_conversion_leaves_nothing(convert, tmp_path, monkeypatch) -> None:
    write_meshes(tmp_path / "raw", 3)
    append = graphs.RaggedWriter.append

    def append_and_stop(self, arrays, **names) -> None:
        append(self, arrays, **names)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(graphs.RaggedWriter, "append", append_and_stop)
    assert convert("darcy2d_mesh")[0] == 128 + signal.SIGTERM
    assert not (tmp_path / "out").exists()


def test_what_a_killed_conversion_left_is_removed(convert, tmp_path) -> None:
    write_meshes(tmp_path / "raw", 3)
    left = Stage(tmp_path / "out" / ".darcy2d_mesh.part", {"task": "darcy2d_mesh"})
    left.begin()
    (left.folder / "darcy2d_mesh_train.zarr").mkdir()
    left.close()
    assert convert("darcy2d_mesh")[0] == 0
    assert not (tmp_path / "out" / ".darcy2d_mesh.part").exists()


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("darcy2d_mesh", ("--samples", "2"), "--samples is for grids"),
        ("darcy2d_mesh", ("--compression", "gzip"), "--compression is for grids"),
        ("darcy2d_mesh", ("--limit", "0"), "--limit is 0"),
        ("darcy2d_mesh", ("--pattern", "*.txt"), "no files match *.txt"),
        ("particles_advect", (), ".npz shards with positions"),
        ("burgers1d", ("--skip-bad",), "--skip-bad is for meshes"),
    ],
)
def test_refused_options(convert, tmp_path, task: str, options: tuple[str, ...], message: str) -> None:
    write_meshes(tmp_path / "raw", 2)
    code, errors = convert(task, *options)
    assert code == 1
    assert f"error: {message}" in errors or message in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", BAD)
def test_bad_sample_files(convert, tmp_path, shared_data: Path, case: str) -> None:
    folder, name = case.split("/")
    root = shared_data / "upstream" / "bad" / folder
    code, errors = convert(TASKS[folder], "--pattern", f"{name}.npz", root=root)
    assert code == 1
    assert errors.startswith(f"error: {root / name}.npz: {BAD[case]}")
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_every_bad_file_has_an_expected_outcome(shared_data: Path) -> None:
    root = shared_data / "upstream" / "bad"
    files = [path for folder in TASKS for path in (root / folder).glob("*.npz")]
    assert {path.relative_to(root).with_suffix("").as_posix() for path in files} == set(BAD)


@pytest.mark.parametrize(("task", "kind"), [("darcy2d_mesh", MESH), ("particles_advect", PARTICLES)])
def test_sample_files(convert, tmp_path, shared_data: Path, task: str, kind: Kind) -> None:
    root = shared_data / "upstream" / "ups" / "raw"
    assert convert(task, "--limit", "10", "--verify", root=root)[0] == 0
    stores = sorted((tmp_path / "out").iterdir())
    assert [read(path, kind).num_samples for path in stores] == [1, 8, 1]
