"""Random and read initial fields, and the interpolation between grids."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from solvers.common.hdf5_utils import HDF5Writer
from solvers.py2d_turbulence.diagnostics import velocity
from solvers.py2d_turbulence.initial import random_vorticity, read_vorticity, regrid
from solvers.py2d_turbulence.stepper import initial_state

Mesh = Callable[[int], tuple[NDArray[np.float64], NDArray[np.float64]]]


def test_random_field_is_the_same_at_every_resolution() -> None:
    """On common points to round-off, where 24 is resolved; below, the coarse field lacks the fine modes."""
    fine = random_vorticity(192, 5)
    for factor in (2, 3):
        np.testing.assert_allclose(random_vorticity(192 // factor, 5), fine[::factor, ::factor], atol=1e-12)
    cut = initial_state(regrid(fine, 24)).vorticity  # without the Nyquist modes
    np.testing.assert_allclose(random_vorticity(24, 5), cut, atol=1e-12)


def test_random_field_statistics() -> None:
    """Zero mean, unit rms velocity, spectrum k^4 exp(-2 (k/5)^2) on average over seeds."""
    spectra = []
    for seed in range(60):
        omega = random_vorticity(64, seed)
        assert abs(np.mean(omega)) < 1e-14
        omega_hat = np.fft.fft2(omega) / 64**2
        k = np.sqrt(np.add.outer(np.fft.fftfreq(64, 1 / 64) ** 2, np.fft.fftfreq(64, 1 / 64) ** 2))
        energy = 0.5 * np.abs(omega_hat) ** 2 / np.where(k == 0, np.inf, k) ** 2
        assert np.sum(energy) == pytest.approx(0.5, rel=1e-12)
        spectra.append([energy[np.round(k) == shell].sum() for shell in range(1, 13)])
    mean, shells = np.mean(spectra, axis=0), np.arange(1, 13)
    expected = shells**4 * np.exp(-2 * (shells / 5) ** 2)
    # Shells hold few modes, whose number is not quite 2 pi k, and 60 seeds leave some scatter.
    assert np.argmax(mean) + 1 in (4, 5, 6)
    np.testing.assert_allclose(mean[2:9] / mean.sum(), expected[2:9] / expected.sum(), rtol=0.35)


def test_seeds_differ() -> None:
    """And one seed is one field."""
    np.testing.assert_array_equal(random_vorticity(16, 1), random_vorticity(16, 1))
    assert np.max(np.abs(random_vorticity(16, 1) - random_vorticity(16, 2))) > 1.0


def test_velocity_of_a_known_flow(mesh: Mesh) -> None:
    """psi = cos(2x) sin(3y): u = dpsi/dy, v = -dpsi/dx."""
    x, y = mesh(16)
    u, v = velocity(np.fft.rfft2(13 * np.cos(2 * x) * np.sin(3 * y)))
    np.testing.assert_allclose(u, 3 * np.cos(2 * x) * np.cos(3 * y), atol=1e-13)
    np.testing.assert_allclose(v, 2 * np.sin(2 * x) * np.sin(3 * y), atol=1e-13)


@pytest.mark.parametrize(("old", "new"), [(16, 24), (16, 48), (15, 32), (16, 21), (10, 14)])
def test_regrid_up_and_back_loses_nothing(old: int, new: int) -> None:
    """White noise, Nyquist included."""
    field = np.random.default_rng(old).standard_normal((old, old))
    np.testing.assert_allclose(regrid(regrid(field, new), old), field, atol=1e-13)


def test_regrid_keeps_the_points_that_grids_share() -> None:
    """The interpolant goes through the data."""
    field = np.random.default_rng(2).standard_normal((16, 16))
    np.testing.assert_allclose(regrid(field, 48)[::3, ::3], field, atol=1e-13)


@pytest.mark.parametrize(("k", "l"), [(8, 0), (0, 8), (8, 8), (8, 3), (3, 8)])
def test_regrid_at_the_nyquist_wavenumber(k: int, l: int, mesh: Mesh) -> None:  # noqa: E741
    """cos(n x / 2) and its products become the same functions on the finer grid."""
    x, y = mesh(16)
    fine_x, fine_y = mesh(40)
    field = np.cos(k * x) * np.cos(l * y)
    np.testing.assert_allclose(regrid(field, 40), np.cos(k * fine_x) * np.cos(l * fine_y), atol=1e-13)


def test_regrid_down_cuts_and_does_not_alias(mesh: Mesh) -> None:
    """Modes above the new n/2 vanish, those below stay, the one at n/2 keeps its cosine."""
    x, y = mesh(48)
    coarse_x, coarse_y = mesh(16)
    kept = np.cos(7 * x + 3 * y) + np.cos(8 * x) + np.cos(8 * y) * np.sin(2 * x)
    cut = np.sin(9 * x) + np.cos(15 * y + 2 * x) + np.cos(17 * x)
    expected = np.cos(7 * coarse_x + 3 * coarse_y) + np.cos(8 * coarse_x)
    expected += np.cos(8 * coarse_y) * np.sin(2 * coarse_x)
    np.testing.assert_allclose(regrid(kept + cut, 16), expected, atol=1e-13)


def test_read_mat(shared_data: Path) -> None:
    """py2d's own initial fields, at their resolution and at another."""
    path = shared_data / "upstream" / "py2d_ics" / "NX64" / "1.mat"
    field = scipy.io.loadmat(path)["Omega"]
    np.testing.assert_array_equal(read_vorticity(path, 64), field)
    np.testing.assert_allclose(read_vorticity(path, 128)[::2, ::2], field, atol=1e-12)


@pytest.mark.parametrize("name", ["omega0", "omega"])
def test_read_npz(name: str, tmp_path: Path, random_field: Callable[[int], NDArray[np.float64]]) -> None:
    """One field, or the last of several."""
    path = tmp_path / "a.npz"
    field = random_field(16)
    np.savez(path, **{name: np.stack([0 * field, field])})
    np.testing.assert_array_equal(read_vorticity(path, 16), field)
    np.savez(path, **{name: field})
    np.testing.assert_array_equal(read_vorticity(str(path), 16), field)


@pytest.mark.parametrize("name", ["vorticity", "omega"])
def test_read_last_frame_of_common_format(name: str, tmp_path: Path) -> None:
    """Both names of the field."""
    path = tmp_path / "a.h5"
    frames = np.random.default_rng(0).standard_normal((3, 16, 16)).astype(np.float32)
    frames -= frames.mean(axis=(1, 2), keepdims=True)
    axis = np.arange(16.0)
    with HDF5Writer(path, fields={name: (16, 16)}, coordinates={"x": axis, "y": axis}, metadata={}) as writer:
        writer.append({name: frames}, time=np.arange(3.0))
    np.testing.assert_array_equal(read_vorticity(path, 16), frames[-1])


def test_mean_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It has no place in a periodic flow."""
    np.savez(tmp_path / "a.npz", omega=np.full((8, 8), 3.0))
    with caplog.at_level(logging.WARNING):
        read_vorticity(tmp_path / "a.npz", 8)
    assert "mean vorticity 3 removed" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", {"w": np.zeros((4, 4))}, "omega0 or omega"),
        ("a.npz", {"omega": np.zeros((4, 6))}, "square"),
        ("a.npz", {"omega": np.full((4, 4), np.nan)}, "NaN"),
        ("a.npz", {"omega": np.zeros((4, 4), dtype=complex)}, "real"),
        ("a.mat", {"w": np.zeros((4, 4))}, r"Omega, found \['w'\]"),
    ],
)
def test_unusable_file(name: str, content: dict[str, NDArray], message: str, tmp_path: Path) -> None:
    """The file and what was expected."""
    path = tmp_path / name
    if path.suffix == ".mat":
        scipy.io.savemat(path, content)
    else:
        np.savez(path, **content)
    with pytest.raises(ValueError, match=message) as caught:
        read_vorticity(path, 8)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.txt", "a.npz", "a.mat", "a.h5"])
def test_file_of_another_kind(name: str, tmp_path: Path) -> None:
    """Bytes that are none of it; and a missing file."""
    with pytest.raises(ValueError, match="no such file"):
        read_vorticity(tmp_path / name, 8)
    for content in (b"0123456789" * 20, b"x", b""):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_vorticity(tmp_path / name, 8)
