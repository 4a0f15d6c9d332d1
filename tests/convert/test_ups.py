"""Grids that the universal simulator converted: `data`, `params/*`, `bc/*`."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from gust_torch.convert.commands import convert_family, convert_pattern
from gust_torch.convert.output import Options
from solvers.common.hdf5_utils import read_hdf5_info, validate
from tests.convert.conftest import values

VERIFY = Options(verify=True)


def write(path: Path, shape: tuple[int, ...], seed: int = 0, **datasets: object) -> Path:
    """Write a file as their converter leaves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"] = values(*shape, seed=seed)
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data
    return path


def test_files_keep_their_splits(tmp_path: Path, out: Path) -> None:
    for seed, (split, num) in enumerate((("train", 6), ("val", 2), ("test", 3))):
        nu = 0.01 * np.arange(num)
        write(tmp_path / f"burgers1d_{split}.h5", (num, 5, 8, 1), seed, params__Nu=nu, bc__left=np.zeros(num))
    result = convert_family("burgers1d", tmp_path, out, VERIFY)
    assert [counts["trajectories"] for counts in result.counts.values()] == [6, 2, 3]
    for split, path in result.outputs.items():
        assert validate(path) == []
        info = read_hdf5_info(path)
        with h5py.File(tmp_path / path.name) as source, h5py.File(path) as file:
            np.testing.assert_array_equal(
                file["fields/u"][:].reshape(-1, 5, 8, 1), source["data"], err_msg=split
            )
            np.testing.assert_array_equal(file["parameters/nu"], source["params/Nu"])
            assert file["parameters/bc_left"][0] == 0
            assert file["coordinates/time"][:6].tolist() == [0, 1, 2, 3, 4, 0]
        assert (info.metadata["length_x"], info.metadata["split_by"]) == (1.0, "file")
        assert "times are frame numbers" in info.metadata["note"]


@pytest.mark.parametrize(
    ("family", "shape", "field", "frame"),
    [
        ("advection1d", (4, 5, 8, 1), "u", (8, 1)),
        ("burgers1d", (4, 5, 8), "u", (8, 1)),
        ("darcy2d", (4, 6, 8, 1), "nu", (6, 8)),
        ("navier_stokes2d", (4, 5, 6, 8, 2), "velocity", (6, 8, 2)),
        ("navier_stokes2d", (4, 5, 6, 8, 1), "u", (6, 8)),
    ],
)
def test_one_file(tmp_path: Path, out: Path, caplog, family: str, shape, field: str, frame) -> None:
    path = write(tmp_path / f"{family}_train.h5", shape)
    convert_pattern(str(path), out / "a.h5", Options(splits=None, verify=True))
    info = read_hdf5_info(out / "a.h5")
    assert {name: shape for name, (shape, _) in info.fields.items()} == {field: frame}
    assert "is not stored, left out" in caplog.text


def test_targets_times_and_coordinates(tmp_path: Path, out: Path) -> None:
    write(tmp_path / "darcy2d_train.h5", (4, 6, 8, 1), targets=values(4, 6, 8, 1, seed=1), params__beta=2.0)
    convert_family("darcy2d", tmp_path, out, VERIFY)
    info = read_hdf5_info(out / "darcy2d_train.h5")
    assert list(info.fields) == ["nu", "u"]
    assert info.parameters["beta"].tolist() == [2.0] * 4
    x, t = (np.arange(8) + 0.5) / 4, 0.1 * np.arange(5)
    extras = {"x-coordinate": x, "t-coordinate": t}
    write(tmp_path / "burgers1d_train.h5", (4, 5, 8, 1), params__nu=np.ones((4, 1)), **extras)
    convert_family("burgers1d", tmp_path, out, VERIFY)
    info = read_hdf5_info(out / "burgers1d_train.h5")
    assert (info.metadata["length_x"], info.metadata["dt"]) == (2.0, 0.1)


@pytest.mark.parametrize(
    ("shape", "datasets", "words"),
    [
        ((4, 5, 8, 3), {}, "components"),
        ((4, 5), {}, "/data"),
        ((4, 5, 8, 1), {"params__nu": np.array([1, 2, 3, np.nan])}, "params/nu is not finite"),
        ((4, 5, 8, 1), {"fields__u": np.zeros(3)}, "common format"),
    ],
)
def test_refused(tmp_path: Path, out: Path, shape, datasets, words: str) -> None:
    path = write(tmp_path / "burgers1d_train.h5", shape, **datasets)
    with pytest.raises(ValueError, match=words) as caught:
        convert_family("burgers1d", tmp_path, out, Options())
    assert str(path) in str(caught.value)
    assert not out.exists()


def test_parameters_that_are_no_numbers_are_told(tmp_path: Path, out: Path, caplog) -> None:
    write(tmp_path / "burgers1d_train.h5", (4, 5, 8, 1), params__nu=np.ones(4), bc__profile=np.ones((4, 8)))
    convert_family("burgers1d", tmp_path, out, Options())
    assert "/bc/profile: not one number a sample, left out" in caplog.text
