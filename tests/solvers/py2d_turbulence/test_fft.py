"""Transforms on fixed arrays, both backends, any alignment, and the cache of the plans."""

from pathlib import Path

import numpy as np
import pytest

from solvers.py2d_turbulence import fft
from solvers.py2d_turbulence.config import SolverConfig
from solvers.py2d_turbulence.fft import cached_wisdom_path, load_wisdom, store_wisdom
from solvers.py2d_turbulence.grid import padded_size
from solvers.py2d_turbulence.stepper import Stepper, initial_state


@pytest.fixture(params=["scipy", "pyfftw"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend in turn; pyFFTW where it is installed."""
    if request.param == "pyfftw":
        pytest.importorskip("pyfftw")
    else:
        monkeypatch.setattr(fft, "pyfftw", None)
    return str(request.param)


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("offset", [0, 1])
def test_plan(backend: str, dtype: type, inverse: bool, offset: int) -> None:
    """Strided view into a transposed buffer and back, aligned or not, without normalization."""
    dt = np.dtype(dtype)
    field = fft.aligned_zeros((12, 12), dt)
    columns, tile = field[:, offset : offset + 5], fft.aligned_zeros((5, 12), dt)
    there = fft.plan(columns, tile.T, axis=0, inverse=inverse)
    back = fft.plan(tile.T, columns, axis=0, inverse=not inverse)
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((12, 5)) + 1j * rng.standard_normal((12, 5))).astype(dt)
    field[...] = 9.0
    columns[...] = values
    there()
    expected = np.fft.ifft(values, axis=0) * 12 if inverse else np.fft.fft(values, axis=0)
    rounding = 1e-14 if dt == np.complex128 else 1e-5
    np.testing.assert_allclose(tile.T, expected, atol=rounding * 12)
    back()
    np.testing.assert_allclose(columns, 12 * values, atol=rounding * 144)
    assert np.all(np.delete(field, np.arange(offset, offset + 5), axis=1) == 9.0)


def test_plan_in_place(backend: str) -> None:
    """Along rows."""
    rows = fft.aligned_zeros((4, 10), np.dtype(complex))
    execute = fft.plan(rows, rows, axis=1, inverse=False)
    values = np.random.default_rng(1).standard_normal((4, 10))
    rows[...] = values
    execute()
    np.testing.assert_allclose(rows, np.fft.fft(values, axis=1), atol=1e-13)


def test_backends_give_the_same_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding, over a few whole steps."""
    pytest.importorskip("pyfftw")
    flows = []
    for module in (fft.pyfftw, None):
        monkeypatch.setattr(fft, "pyfftw", module)
        state = Stepper(SolverConfig(NX=16, dt=1e-3)).advance(initial_state(np.eye(16)), 5)
        flows.append(state.vorticity)
    assert np.any(flows[0] != np.eye(16))
    np.testing.assert_allclose(flows[0], flows[1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [4, 6, 14, 30, 64, 100, 128, 254, 256, 512])
def test_padded_size(size: int) -> None:
    """Even, of small factors, large enough for exact products and hardly larger than 3n/2."""
    padded = padded_size(size)
    assert padded % 2 == 0
    assert 3 * size // 2 - 2 <= padded <= 1.2 * (3 * size // 2) + 2
    rest = padded
    for factor in (2, 3, 5, 7, 11):
        while rest % factor == 0:
            rest //= factor
    assert rest == 1


def test_broken_plan_cache_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Plans are measured anew then."""
    path = tmp_path / "wisdom.npz"
    assert not load_wisdom(path)
    path.write_bytes(b"not an archive")
    assert not load_wisdom(path)
    assert "wisdom.npz" in caplog.text


def test_unwritable_plan_cache_is_no_error(tmp_path: Path) -> None:
    """A run without a home directory still runs."""
    (tmp_path / "file").write_text("")
    store_wisdom(tmp_path / "file" / "wisdom.npz")


def test_plan_cache_is_kept_by_size_and_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paths = {
        cached_wisdom_path(96, "float64"),
        cached_wisdom_path(96, "float32"),
        cached_wisdom_path(192, "float64"),
    }
    assert len(paths) == 3
    assert all(path.is_relative_to(tmp_path) for path in paths)
