"""Initial vorticity: a seeded random field, or one read from a file and brought to the grid."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError

from solvers.common.hdf5_utils import num_samples, open_file

logger = logging.getLogger(__name__)

Field = NDArray[np.float64]

PEAK_WAVENUMBER = 5.0
LARGEST_WAVENUMBER = 24  # at 24 the spectrum below is 1e-17 of its peak
KINETIC_ENERGY = 0.5


def random_vorticity(num_points: int, seed: int) -> Field:
    """Draw a smooth random field; one seed gives the same physical field at every resolution.

    Random phases and amplitudes with the energy spectrum E(k) ~ k^4 exp(-2 (k / 5)^2), which peaks at k = 5.
    They are drawn for a fixed set of wavenumbers, |kx|, |ky| <= 24; a grid that resolves fewer leaves out the
    rest. The kinetic energy of the full set is 1/2 (unit rms velocity), its mean vorticity zero.

    Args:
        num_points: n.
        seed: seed of numpy's default generator.

    Returns:
        (n, n) vorticity, indexed [x, y].
    """
    k = np.arange(-LARGEST_WAVENUMBER, LARGEST_WAVENUMBER + 1)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    draws = np.random.default_rng(seed).standard_normal((2, *kx.shape))
    # Of the modes k and -k, which are conjugates, the one with ky > 0, or ky = 0 and kx > 0, is drawn.
    drawn = np.where((ky > 0) | ((ky == 0) & (kx > 0)), draws[0] + 1j * draws[1], 0.0)
    k_squared = np.maximum(kx**2 + ky**2, 1)
    # A mode's share of E(k) = k^4 exp(..) is E(k) / (2 pi k), and its vorticity amplitude K sqrt(2 E).
    omega = drawn * k_squared**1.25 * np.exp(-k_squared / PEAK_WAVENUMBER**2)
    omega += np.conj(omega[::-1, ::-1])
    omega *= np.sqrt(KINETIC_ENERGY / (0.5 * np.sum(np.abs(omega) ** 2 / k_squared)))
    resolved = np.abs(k) < num_points / 2
    hat = np.zeros((num_points, num_points), dtype=np.complex128)
    hat[np.ix_(k[resolved], k[resolved])] = omega[np.ix_(resolved, resolved)]
    return np.fft.ifft2(hat).real * num_points**2


def read_vorticity(path: str | Path, num_points: int) -> Field:
    """Read a vorticity field and bring it to the grid.

    Args:
        path: .mat with `Omega` (n, n); .npz with `omega0` or `omega`, (n, n) or (time, n, n); .h5 of the
            common format. Where there are several frames the last is taken.
        num_points: points along each axis of the grid wanted.

    Returns:
        (num_points, num_points) vorticity.

    Raises:
        ValueError: if the file is missing, of another kind, or does not hold a finite square field.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"{path}: {found}; check --ic_file")
    if path.suffix not in _READERS:
        raise ValueError(f"{path}: expected one of {', '.join(_READERS)}; convert the file for --ic_file")
    try:
        field = np.asarray(_READERS[path.suffix](path))
    except NotImplementedError as error:
        raise ValueError(f"{path}: a MATLAB 7.3 file; save it with the option '-v7'") from error
    except (MatReadError, ValueError, TypeError, OSError, EOFError, BadZipFile, zlib.error) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: cannot be read ({error}); check --ic_file") from error
    if field.ndim == 3:
        field = field[-1]
    if field.ndim != 2 or field.shape[0] != field.shape[1] or field.shape[0] < 2:
        raise ValueError(
            f"{path}: expected a square vorticity field (n, n), found {field.shape}; give another --ic_file"
        )
    if not (np.issubdtype(field.dtype, np.floating) and np.all(np.isfinite(field))):
        found = f"{field.dtype} with NaN or Inf" if np.issubdtype(field.dtype, np.floating) else field.dtype
        raise ValueError(f"{path}: expected finite real numbers, found {found}; give another --ic_file")
    if field.shape[0] != num_points:
        logger.info("%s: %d x %d regridded to NX=%d", path, *field.shape, num_points)
        field = regrid(field, num_points)
    field = field.astype(np.float64)
    mean, rms = float(np.mean(field)), float(np.sqrt(np.mean(field**2)))
    if abs(mean) > 1e-6 * rms:
        logger.warning("%s: mean vorticity %.3g removed (a periodic flow has none)", path, mean)
    return field


def _read_mat(path: Path) -> NDArray[np.generic]:
    name = _one_of(path, ("Omega",), [name for name, _, _ in scipy.io.whosmat(path)])
    return scipy.io.loadmat(path, variable_names=[name])[name]


def _read_npz(path: Path) -> NDArray[np.generic]:
    if not is_zipfile(path):  # numpy would take it for a pickle
        raise ValueError("cut short, or no .npz file")
    with np.load(path, allow_pickle=False) as contents:
        return contents[_one_of(path, ("omega0", "omega"), contents.files)]


def _read_h5(path: Path) -> NDArray[np.generic]:
    with open_file(path) as file:
        count = num_samples(file)
        if count == 0:
            raise ValueError("it holds no frame")
        return file["fields"][_one_of(path, ("vorticity", "omega"), list(file["fields"]))][count - 1]


def _one_of(path: Path, wanted: Sequence[str], found: Sequence[str]) -> str:
    for name in wanted:
        if name in found:
            return name
    raise ValueError(f"{path}: expected an array {' or '.join(wanted)}, found {found}; rename it")


_READERS: dict[str, Callable[[Path], NDArray[np.generic]]] = {
    ".mat": _read_mat,
    ".npz": _read_npz,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
}


def regrid(field: NDArray[np.floating], num_points: int) -> NDArray[np.float64]:
    """Sample the trigonometric interpolant of a field on another grid.

    On the way up nothing is lost: the new field has the old one's values where the grids meet, and going back
    restores it. On the way down wavenumbers above the new n/2 are cut off (not aliased).

    Args:
        field: (n, n) on [0, 2 pi)^2.
        num_points: points along each axis of the new grid.

    Returns:
        (num_points, num_points) field.
    """
    resized = _resize(np.fft.fft2(np.asarray(field, dtype=np.float64)), num_points, axis=0)
    resized = _resize(resized, num_points, axis=1)
    return np.fft.ifft2(resized).real * (num_points / field.shape[0]) ** 2


def _resize(hat: NDArray[np.complex128], size: int, *, axis: int) -> NDArray[np.complex128]:
    """Pad or cut an FFT-ordered axis.

    On an even grid cos(n x / 2) is the sum of the modes +n/2 and -n/2, which share one entry: it is split in
    halves on the way up, and the two entries are added on the way down.
    """
    hat = np.moveaxis(hat, axis, 0)
    old = hat.shape[0]
    shared = min(old, size)
    positive, negative = (shared + 1) // 2, (shared - 1) // 2  # modes 0 <= k < shared/2 and -shared/2 < k < 0
    result = np.zeros((size, *hat.shape[1:]), dtype=hat.dtype)
    result[:positive] = hat[:positive]
    result[size - negative :] = hat[old - negative :]
    if shared % 2 == 0:
        nyquist = shared // 2
        if old > size:
            result[nyquist] = hat[nyquist] + hat[old - nyquist]
        elif old < size:
            result[nyquist] = result[size - nyquist] = 0.5 * hat[nyquist]
        else:
            result[nyquist] = hat[nyquist]
    return np.moveaxis(result, 0, axis)
