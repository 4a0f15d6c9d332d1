"""Physical parameters of trajectories, over one and several files."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from gust_torch.data.hdf5_dataset import HDF5Dataset


def with_parameters(path: str, **parameters: object) -> str:
    """Write /parameters into a file."""
    with h5py.File(path, "r+") as file:
        group = file.require_group("parameters")
        for name, values in parameters.items():
            group[name] = np.asarray(values, np.float64)
    return path


def frames(n: int) -> dict[str, np.ndarray]:
    return {"v": np.ones((n, 4, 4), np.float32)}


def test_one_file(write_file) -> None:
    path = with_parameters(write_file("a.h5", frames(6), [0, 0, 1, 1, 2, 2]), nu=[1, 2, 3], beta=[4, 5, 6])
    data = HDF5Dataset(path, n_steps=2, sample_start=2)
    assert {name: values.tolist() for name, values in data.parameters.items()} == {
        "beta": [4, 5, 6],
        "nu": [1, 2, 3],
    }
    assert data.parameters["nu"][data.trajectories].tolist() == [2, 3]
    assert pickle.loads(pickle.dumps(data)).parameters["nu"].tolist() == [1, 2, 3]


def test_several_files_go_by_the_ids_of_the_dataset(write_file) -> None:
    first = with_parameters(write_file("a.h5", frames(4), [0, 0, 1, 1]), nu=[1, 2])
    # Ids from 1 on, as in a part of a set: they are shifted, and so are their parameters.
    second = with_parameters(write_file("b.h5", frames(3), [1, 2, 2]), nu=[9, 3, 4])
    third = with_parameters(write_file("c.h5", frames(2)), nu=5.0)
    data = HDF5Dataset([first, second, third])
    assert data.trajectories.tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 4]
    assert data.parameters["nu"].tolist() == [1, 2, 3, 4, 5]


def test_no_parameters_and_unused_ids(write_file) -> None:
    assert HDF5Dataset(write_file("a.h5", frames(2))).parameters == {}
    path = with_parameters(write_file("b.h5", frames(2), [0, 2]), nu=[1, 2, 3])
    np.testing.assert_array_equal(HDF5Dataset(path).parameters["nu"], [1, np.nan, 3])


def test_files_with_different_parameters(write_file, tmp_path: Path) -> None:
    first = with_parameters(write_file("a.h5", frames(2)), nu=[1])
    second = with_parameters(write_file("b.h5", frames(2)), nu=[1], beta=[2])
    third = write_file("c.h5", frames(2))
    for other in (second, third):
        data = HDF5Dataset([first, other])
        assert len(data) == 4  # frames can be read all the same
        with pytest.raises(ValueError, match=r"[bc]\.h5 has the parameters .*a\.h5 has \['nu'\]; load them"):
            _ = data.parameters


def test_too_few_values(write_file) -> None:
    data = HDF5Dataset(with_parameters(write_file("a.h5", frames(4), [0, 1, 2, 2]), nu=[1.0]))
    with pytest.raises(ValueError, match=r"nu has 1 values, .* 2;"):
        _ = data.parameters
