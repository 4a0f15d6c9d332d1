"""Every violation of the format is found, and all of them at once."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from solvers.common.hdf5_utils import HDF5Writer, validate


@pytest.fixture
def path(open_writer: Callable[..., HDF5Writer], tmp_path: Path) -> Path:
    """Return a valid file of two trajectories of three frames."""
    with open_writer(scalars=["energy"], parameters={"Re": [1.0, 2.0]}) as writer:
        writer.append(
            {"vorticity": np.zeros((6, 8, 6))},
            time=np.array([0.0, 1.0, 2.0, 0.0, 1.0, 2.0]),
            trajectory=np.repeat([0, 1], 3),
            scalars={"energy": 1.0},
        )
        writer.close(complete=True)
    return tmp_path / "data.h5"


def _replace(file: h5py.File, name: str, values: np.ndarray) -> None:
    del file[name]
    file[name] = values


def _set(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file["metadata"].attrs.__setitem__(name, value)


VIOLATIONS: list[tuple[Callable[[h5py.File], object], str]] = [
    (lambda f: f.__delitem__("metadata"), "/metadata: expected a group, found none"),
    (lambda f: f.__delitem__("coordinates/x"), "/coordinates/x: expected a dataset, found none"),
    (lambda f: f.__delitem__("fields/vorticity"), "/fields: expected at least one dataset"),
    (
        lambda f: _replace(f, "fields/vorticity", np.zeros((6, 8), "f4")),
        r"\(n_samples, H, W\).*found shape \(6, 8\)",
    ),
    (lambda f: _replace(f, "fields/vorticity", np.zeros((6, 8, 6))), "expected float32, found float64"),
    (lambda f: f.__setitem__("fields/psi", np.zeros((6, 4, 4), "f4")), "one grid for all fields"),
    (lambda f: f.__setitem__("fields/psi", np.zeros((5, 8, 6), "f4")), "psi: expected 6 samples, found 5"),
    (lambda f: f["scalars/energy"].resize(7, axis=0), "energy: expected 6 samples, found 7"),
    (lambda f: f["coordinates/trajectory"].resize(5, axis=0), "trajectory: expected 6 samples, found 5"),
    (
        lambda f: _replace(f, "coordinates/x", np.arange(7, dtype="f4")),
        "x: expected 8 entries .*axis 1, found 7",
    ),
    (lambda f: _replace(f, "coordinates/y", np.arange(6.0)), "y: expected float32, found float64"),
    (lambda f: f["coordinates/y"].__setitem__(2, np.nan), "y: expected finite coordinates, found 1"),
    (lambda f: f["coordinates/y"].__setitem__(2, 0.0), "y: expected strictly increasing"),
    (lambda f: f["coordinates/time"].__setitem__(4, -1.0), "1 that do not, the first at sample 4"),
    (lambda f: f["coordinates/time"].__setitem__(4, np.inf), "time: expected finite times, found 1"),
    (lambda f: f["coordinates/trajectory"].__setitem__(5, 2), r"ids from 0 to 1 .*, found 0 to 2"),
    (lambda f: _replace(f, "scalars/energy", np.zeros(6, "i4")), "energy: expected float64, found int32"),
    (lambda f: f.__setitem__("parameters/nu", [1.0]), "parameters: expected equal lengths"),
    (
        lambda f: f.__setitem__("parameters/nu", 1.0),
        r"nu: expected \(n_trajectories,\) float64, found a single",
    ),
    (lambda f: f["metadata"].attrs.__delitem__("solver"), "expected the attribute 'solver', found none"),
    (_set("format_version", 2), "expected format_version 1, found 2"),
    (_set("boundary_x", "open"), r"boundary_x to be one of \('periodic', 'wall'\), found 'open'"),
    (_set("grid_y", "log"), r"grid_y to be one of \('uniform', 'chebyshev'\), found 'log'"),
]


def test_a_written_file_is_valid(path: Path) -> None:
    assert validate(path) == []


@pytest.mark.parametrize(("spoil", "message"), VIOLATIONS, ids=[message[:40] for _, message in VIOLATIONS])
def test_each_violation_is_found(path: Path, spoil: Callable[[h5py.File], object], message: str) -> None:
    with h5py.File(path, "r+") as file:
        spoil(file)
    violations = validate(path)
    assert len(violations) == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(violations[0])


def test_all_violations_are_listed_at_once(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs["boundary_x"] = "open"
        file["coordinates/time"][4] = -1.0
        file["coordinates/trajectory"][5] = 7
        del file["coordinates/y"]
    assert len(validate(path)) == 4


def test_a_missing_file_is_a_violation(tmp_path: Path) -> None:
    assert validate(tmp_path / "absent.h5") == [
        f"{tmp_path / 'absent.h5'}: expected an HDF5 file, found none; check the path"
    ]
