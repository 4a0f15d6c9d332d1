"""Spectral interpolation of a periodic field between grids, right at the Nyquist wavenumber too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def regrid(field: NDArray[np.floating], num_points: int) -> NDArray[np.float64]:
    """Return samples the trigonometric interpolant of a field on another grid.

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
    """Pad or cuts an FFT-ordered axis.

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
