"""What a path must be is one table: dataset, `validate`, `info` and `repack` refuse the same things."""

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from solvers.common.hdf5.reader import open_hdf5
from solvers.common.hdf5.structure import Contents, check_float32, fill_values
from solvers.common.hdf5_utils import main, repack, validate

Spoil = Callable[[h5py.File], object]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Spoil], Path]:
    """Write a small file of the format, spoiled by a function."""

    def written(spoil: Spoil) -> Path:
        with h5py.File(tmp_path / "other.h5", "w") as other:
            other["d"] = np.zeros((4, 8, 6), "f4")
            other["x"] = np.arange(8, dtype="f4")
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["fields/v"] = np.random.default_rng(0).standard_normal((4, 8, 6)).astype("f4")
            file["coordinates/x"], file["coordinates/y"] = np.arange(8, dtype="f4"), np.arange(6, dtype="f4")
            file["coordinates/time"] = np.arange(4.0)
            file.create_group("metadata")
            spoil(file)
        return tmp_path / "a.h5"

    return written


def put(name: str, value: object) -> Spoil:
    """Replace what a path holds."""

    def replace(file: h5py.File) -> None:
        if file.get(name, getlink=True) is not None:
            del file[name]
        if callable(value):
            value(file, name)
        else:
            file[name] = value

    return replace


def external(file: h5py.File, name: str) -> None:
    """Put external storage there."""
    file.create_dataset(name, data=np.zeros((4, 8, 6), "f4"), external=[(f"{file.filename}.raw", 0, 768)])


def scaled(file: h5py.File, name: str) -> None:
    """Put packed integers there."""
    file.create_dataset(name, data=np.zeros((4, 8, 6), "i2")).attrs["add_offset"] = 3.0


BROKEN: dict[str, Spoil] = {
    "fields/v is a group": put("fields/v", lambda file, name: file.create_group(name)),
    "fields/v of rank 2": put("fields/v", np.zeros((4, 8), "f4")),
    "fields/v empty": put("fields/v", h5py.Empty("f4")),
    "fields/v complex": put("fields/v", np.zeros((4, 8, 6), "c8")),
    "fields/v compound": put("fields/v", np.zeros((4, 8, 6), [("a", "f4"), ("b", "f4")])),
    "fields/v text": put("fields/v", np.full((4, 8, 6), b"x")),
    "fields/v dangling": put("fields/v", h5py.SoftLink("/nowhere")),
    "fields/v points at itself": put("fields/v", h5py.SoftLink("/fields/v")),
    "fields/v in another file": put("fields/v", h5py.ExternalLink("other.h5", "/d")),
    "fields/v in a missing file": put("fields/v", h5py.ExternalLink("none.h5", "/d")),
    "fields/v by a soft link to another file": lambda file: (
        put("there", h5py.ExternalLink("other.h5", "/"))(file),
        put("fields/v", h5py.SoftLink("/there/d"))(file),
    ),
    "fields/v in external storage": put("fields/v", external),
    "fields/v packed": put("fields/v", scaled),
    "fields/v never written": put(
        "fields/v", lambda file, name: file.create_dataset(name, (4, 8, 6), "f4", chunks=(1, 8, 6))
    ),
    "fields/v declared huge": put(
        "fields/v", lambda file, name: file.create_dataset(name, (10**9, 8, 6), "f4", chunks=(1, 8, 6))
    ),
    "fields/v longer": put("fields/v", np.zeros((5, 8, 6), "f4")),
    "fields is a dataset": put("fields", np.zeros(3)),
    "coordinates is a dataset": put("coordinates", np.zeros(3)),
    "coordinates/x is a group": put("coordinates/x", lambda file, name: file.create_group(name)),
    "coordinates/x of rank 2": put("coordinates/x", np.zeros((8, 6), "f4")),
    "coordinates/x in another file": put("coordinates/x", h5py.ExternalLink("other.h5", "/x")),
    "coordinates/x text": put("coordinates/x", np.full(8, b"x")),
    "coordinates/x NaN": put("coordinates/x", np.full(8, np.nan, "f4")),
    "coordinates/x not equidistant": put("coordinates/x", np.arange(8, dtype="f4") ** 2),
    "coordinates/time row": put("coordinates/time", np.arange(4.0)[None]),
    "coordinates/time a number": put("coordinates/time", 0.0),
    "coordinates/time short": put("coordinates/time", np.arange(3.0)),
    "coordinates/time text": put("coordinates/time", np.full(4, b"2020")),
    "coordinates/time NaN": put("coordinates/time", np.array([0, 1, np.nan, 3])),
    "coordinates/time huge": put(
        "coordinates/time", lambda file, name: file.create_dataset(name, (10**10,), "f8", chunks=(512,))
    ),
    "coordinates/trajectory fractions": put("coordinates/trajectory", np.array([0, 0, 0.5, 1])),
    "coordinates/trajectory NaN": put("coordinates/trajectory", np.array([0, 0, np.nan, 1])),
    "metadata is a dataset": put("metadata", np.zeros(3)),
    "metadata length_x": lambda file: file["metadata"].attrs.__setitem__("length_x", 3.0),
}
NOT_FOR_REPACK = {
    "coordinates/x NaN", "coordinates/x not equidistant", "coordinates/time NaN",
    "coordinates/trajectory fractions", "coordinates/trajectory NaN", "metadata length_x",
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_the_dataset_refuses_validate_tells_and_repack_leaves_alone(
    write: Callable[[Spoil], Path], name: str
) -> None:
    from gust_torch.data.hdf5_dataset import HDF5Dataset

    path = write(BROKEN[name])
    before = path.read_bytes()
    word = re.escape(name.split()[-1] if name == "metadata length_x" else name.split()[0])
    with pytest.raises(ValueError, match=word) as caught:
        HDF5Dataset(path)
    assert str(path) in str(caught.value)
    assert any(re.search(f"{word}|expected 3 samples", violation) for violation in validate(path))
    if name not in NOT_FOR_REPACK:
        with pytest.raises(ValueError, match=word):
            repack(path)
    assert main(["info", str(path)]) in (0, 1)  # without a traceback
    assert path.read_bytes() == before


def test_links_to_other_files_are_followed_on_request(write: Callable[[Spoil], Path]) -> None:
    from gust_torch.data.hdf5_dataset import HDF5Dataset

    for name in ("fields/v in another file", "fields/v in external storage", "coordinates/x in another file"):
        path = write(BROKEN[name])
        assert len(HDF5Dataset(path, allow_external=True)) == 4
        assert validate(path, allow_external=True) == []
    with pytest.raises(ValueError, match=r"none\.h5"):
        HDF5Dataset(write(BROKEN["fields/v in a missing file"]), allow_external=True)


def test_a_group_that_contains_itself_is_no_problem(write: Callable[[Spoil], Path]) -> None:
    path = write(lambda file: (put("fields/loop", file["fields"])(file), put("more", file["/"])(file)))
    assert "loop" in validate(path)[0]
    with open_hdf5(path) as file:
        assert Contents(file, "a.h5").dataset("fields/v") is not None


def test_float32_holds_it_or_says_no() -> None:
    assert check_float32(np.array([1, 2]), "a").dtype == np.float32
    assert np.isinf(check_float32(np.array([np.inf, 1.0]), "a")[0])
    with pytest.raises(ValueError, match=r"a: values up to 1e\+300 are beyond float32"):
        check_float32(np.array([1e300, 1.0]), "a")


def test_fill_values_of_netcdf(write: Callable[[Spoil], Path]) -> None:
    with h5py.File(write(lambda file: None), "r+") as file:
        assert fill_values(file["fields/v"]) == []
        file["fields/v"].attrs["_FillValue"] = np.array([-999.0], "f4")
        file["fields/v"].attrs["missing_value"] = 1e20
        assert fill_values(file["fields/v"]) == pytest.approx([-999.0, 1e20])
