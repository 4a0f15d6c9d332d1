"""Which files make up a package, and which are refused."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from gust_torch.artifacts.describe import describe
from gust_torch.artifacts.package import PackageOptions, find_task, package, placeholder
from solvers.common.hdf5_utils import HDF5Writer


def pack(name: str, root: Path, **options: object) -> None:
    """Pack with some options."""
    package(PackageOptions(name, root, **options))


def write_grid(
    path: Path,
    *,
    fields: Sequence[str] = ("u",),
    shape: tuple[int, int] = (8, 4),
    complete: bool = True,
    note: str = "x",
) -> Path:
    """Two trajectories of two frames."""
    metadata = {
        "solver": "s",
        "boundary_x": "wall",
        "boundary_y": "wall",
        "grid_y": "uniform",
        "package_version": "1",
    }
    writer = HDF5Writer(
        path,
        fields=dict.fromkeys(fields, shape),
        coordinates={"x": np.arange(shape[0], dtype="f4"), "y": np.arange(shape[1], dtype="f4")},
        metadata={**metadata, "git_commit": "unknown"},
        texts={"split/manifest": note},
    )
    for step in range(4):
        frame = np.full(shape, step, "f4")
        writer.append(dict.fromkeys(fields, frame), time=step % 2, trajectory=step // 2)
    writer.close(complete=complete)
    return path


def write_store(path: Path, attributes: object, group: str = "particles_advect") -> Path:
    """Return a Zarr group and its attributes."""
    (path / group).mkdir(parents=True)
    whole = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    text = attributes if isinstance(attributes, str) else json.dumps(whole)
    (path / group / "zarr.json").write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("darcy2d", "darcy2d"),
        ("darcy2d_v1", "darcy2d"),
        ("darcy2d-v1", "darcy2d"),
        ("darcy2d_mesh", "darcy2d_mesh"),
        ("darcy2d_mesh_v1", "darcy2d_mesh"),
        ("darcy2d_meshes", "darcy2d"),
    ],
)
def test_longest_task(tmp_path: Path, name: str, task: str) -> None:
    for file in (
        "darcy2d_train.h5",
        "darcy2d_mesh_val.zarr",
        "burgers1d_test.h5",
        "darcy2d_v1.h5",
        "darcy2d_v1_all.h5",
    ):
        (tmp_path / file).touch()
    assert find_task(name, tmp_path) == task


def test_no_task(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it has none: give --task"):
        find_task("burgers1d_v1", tmp_path)
    (tmp_path / "burgers1d_train.h5").touch()
    for name in ("burgers", "burgers1dx", "x_burgers1d"):
        with pytest.raises(ValueError, match="it has burgers1d: give --task"):
            find_task(name, tmp_path)
    with pytest.raises(FileNotFoundError):
        find_task("burgers1d_v1", tmp_path / "other")


def test_description_of_a_grid(tmp_path: Path) -> None:
    item = describe(write_grid(tmp_path / "a_train.h5", fields=("u", "v")))
    assert (item.kind, item.samples, item.times, item.grid) == ("grid", 2, 2, (8, 4))
    assert (item.fields, item.parameters, item.conversion) == (("u", "v"), (), "x")


def test_older_files_need_not_say_that_they_are_complete(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a_train.h5", "w") as file:
        file["fields/omega"] = np.zeros((5, 4, 4), "f4")
        file["coordinates/x"] = file["coordinates/y"] = np.arange(4, dtype="f4")
        file.create_group("metadata")
    item = describe(tmp_path / "a_train.h5")
    assert (item.samples, item.times, item.grid, item.record["format_version"]) == (1, 5, (4, 4), None)


def test_unfinished_and_broken_grids(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "a_train.h5", complete=False)
    with pytest.raises(ValueError, match="its writer did not finish"):
        describe(path)
    path = write_grid(tmp_path / "b_train.h5")
    with h5py.File(path, "a") as file:
        file["coordinates/x"][0] = np.nan
        file["coordinates/y"][0] = np.nan
    with pytest.raises(
        ValueError, match=r"b_train.h5: /coordinates/x: expected finite.* and 1 more problem.* validate"
    ):
        describe(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated"):
        describe(path)
    path.write_text("text")
    with pytest.raises(ValueError, match=r"^[^ ]*b_train.h5: expected an HDF5 file"):
        describe(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="found a folder"):
        describe(path)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"layout": "ragged", "axes": {}}, "unfinished or damaged"),
        ({"layout": "ragged", "axes": {}, "num_samples": 0}, "unfinished or damaged"),
        ({"layout": "ragged", "axes": [], "num_samples": 2}, "unfinished or damaged"),
        ({}, "unfinished or damaged"),
        ("{", "unfinished or damaged"),
        ("[]", "unfinished or damaged"),
        ('{"attributes": 1}', "unfinished or damaged"),
    ],
)
def test_broken_stores(tmp_path: Path, attributes: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        describe(write_store(tmp_path / "a_train.zarr", attributes))


def test_foreign_stores(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a Zarr store with one group"):
        describe(write_store(tmp_path / "a.zarr", {}, group="other"))
    store = tmp_path / "b.zarr"
    pytest.importorskip("zarr").open_group(store, zarr_format=2).create_group("particles_advect/sample_0")
    assert (describe(store).kind, describe(store).samples) == ("particles", 1)


def test_splits_of_different_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_grid(tmp_path / "a_train.h5")
    write_grid(tmp_path / "a_val.h5", shape=(4, 4))
    with pytest.raises(
        ValueError, match=r"a_val.h5: grid \(4, 4\), a_train.h5 has \(8, 4\); convert them together"
    ):
        pack("a", tmp_path, out=tmp_path / "out")
    (tmp_path / "a_val.h5").unlink()
    write_grid(tmp_path / "a_val.h5", fields=("v",))
    with pytest.raises(ValueError, match=r"a_val.h5: fields \('v',\), a_train.h5 has \('u',\)"):
        pack("a", tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "a_val.h5").unlink()
    write_grid(tmp_path / "a_val.h5", note="y")
    pack("a", tmp_path, out=tmp_path / "out")
    assert "come from different conversions; make sure that they share no trajectory" in caplog.text


@pytest.mark.parametrize("what", ["link", "folder link", "pipe", "name", "dangling"])
def test_what_a_store_may_not_hold(tmp_path: Path, what: str) -> None:
    store = write_store(tmp_path / "a_train.zarr", {"layout": "ragged", "num_samples": 1, "axes": {}})
    odd = store / ("a:b" if what == "name" else "odd")
    if what == "pipe":
        os.mkfifo(odd)
    elif what == "name":
        odd.touch()
    else:
        odd.symlink_to({"link": "/etc/passwd", "folder link": "..", "dangling": "nowhere"}[what])
    with pytest.raises(ValueError, match=r"odd: expected files and folders|a:b: .*; rename or remove it"):
        pack("a", tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".a", "a b"])
def test_wrong_names(tmp_path: Path, name: str) -> None:
    write_grid(tmp_path / "a_train.h5")
    with pytest.raises(ValueError, match="expected a name of letters, digits"):
        pack(name, tmp_path, task="a", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("burgers1d_subset_v1", "burgers1d-subset:v0"),
        ("burgers1d", "burgers1d:v0"),
        ("burgers1d_viscous", "burgers1d-viscous:v0"),
        ("_v1", "-v1:v0"),
    ],
)
def test_placeholder(name: str, expected: str) -> None:
    assert placeholder(name) == f"<entity>/<project>/{expected}"


@pytest.mark.parametrize("where", ["field", "times", "group", "unused"])
@pytest.mark.parametrize("how", ["link", "storage", "virtual", "missing", "unwritten"])
def test_values_that_lie_elsewhere(tmp_path: Path, how: str, where: str) -> None:
    """Whatever is not stored in the file would be missing on the other machine."""
    path = write_grid(tmp_path / "a_train.h5")
    name = {"field": "fields/u", "times": "coordinates/time", "group": "metadata", "unused": "more/x"}[where]
    with h5py.File(path, "a") as file, h5py.File(tmp_path / "other.h5", "w") as other:
        if where == "unused":
            file[name] = np.arange(5.0)
        if where == "group" and how != "link":
            pytest.skip("values are no group")
        file.copy(name, other, "x")
        shape = getattr(other["x"], "shape", ())
        del file[name]
        layout = h5py.VirtualLayout(shape or (1,), dtype="f4")
        if how == "link":
            file[name] = h5py.ExternalLink("other.h5", "/x")
        elif how == "storage":
            other["x"][...].tofile(tmp_path / "raw")
            size = other["x"].dtype.itemsize * other["x"].size
            file.create_dataset(name, shape, other["x"].dtype, external=[(str(tmp_path / "raw"), 0, size)])
        elif how == "unwritten":
            file.create_dataset(name, shape, "f4", chunks=(1, *shape[1:]))
        else:
            source = tmp_path / ("other.h5" if how == "virtual" else "gone.h5")
            layout[...] = h5py.VirtualSource(source, "x", shape)
            file.create_virtual_dataset(name, layout)
    with pytest.raises(ValueError, match=r"a_train\.h5") as caught:
        pack("a", tmp_path, out=tmp_path / "out")
    assert name.rpartition("/")[2] in str(caught.value) or "metadata" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_link_within_the_file_is_packed(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "a_train.h5")
    with h5py.File(path, "a") as file:
        file["more/again"] = file["fields/u"]
        file["more/soft"] = h5py.SoftLink("/fields/u")
    pack("a", tmp_path, out=tmp_path / "out")
    assert (tmp_path / "out" / "a.tar.gz").is_file()


def test_deep_attributes_of_a_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unfinished or damaged"):
        describe(write_store(tmp_path / "a_train.zarr", "[" * 100_000))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("lost", [0, -1, None])
def test_a_store_that_lacks_a_chunk(tmp_path: Path, zarr_format: int, lost: int | None) -> None:
    zarr = pytest.importorskip("zarr")
    store = tmp_path / "a_train.zarr"
    group = zarr.open_group(store, mode="w", zarr_format=zarr_format).create_group("mesh_poisson")
    group.attrs.update({"layout": "ragged", "num_samples": 2, "axes": {"u": "node"}})
    group.create_array("u", data=np.arange(1.0, 24.0).reshape(-1, 1), chunks=(4, 1))
    group.create_array("one", data=np.ones(()))
    if zarr_format == 3:
        group.create_array("sharded", data=np.arange(1.0, 24.0), chunks=(2,), shards=(8,))
    metadata = (".zarray", ".zattrs", ".zgroup", "zarr.json")
    chunks = sorted(path for path in store.rglob("*") if path.is_file() and path.name not in metadata)
    if lost is None:
        assert describe(store).samples == 2
        return
    chunks[lost].unlink()
    with pytest.raises(ValueError, match=r"a chunk of .* is missing") as caught:
        describe(store)
    assert f"'{chunks[lost].relative_to(store).parts[1]}'" in str(caught.value)
