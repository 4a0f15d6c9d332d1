"""Wavenumbers and sizes of the doubly periodic square [0, 2 pi)^2, and its forcing; arrays indexed [x, y]."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from solvers.py2d_turbulence.config import SolverConfig

DOMAIN_LENGTH = 2.0 * math.pi


def coordinates(num_points: int) -> NDArray[np.float64]:
    """Return the grid points (num_points,) of one axis; the end point 2 pi is the first one again."""
    return np.arange(num_points, dtype=np.float64) * (DOMAIN_LENGTH / num_points)


def wavenumbers_x(num_points: int) -> NDArray[np.float64]:
    """Return the integer wavenumbers (n,) of axis 0 in FFT order: 0, 1, ..., n/2 - 1, -n/2, ..., -1."""
    return np.fft.fftfreq(num_points, 1.0 / num_points).astype(np.float64)


def wavenumbers_y(num_points: int) -> NDArray[np.float64]:
    """Return the wavenumbers (n/2 + 1,) of axis 1 of a real transform."""
    return np.fft.rfftfreq(num_points, 1.0 / num_points).astype(np.float64)


@lru_cache(maxsize=4)
def wavenumber_squared(num_points: int) -> NDArray[np.float64]:
    """Return K^2 = kx^2 + ky^2 in rfft2 layout (n, n/2 + 1), read-only."""
    k_squared = wavenumbers_x(num_points)[:, None] ** 2 + wavenumbers_y(num_points)[None, :] ** 2
    k_squared.setflags(write=False)
    return k_squared


@lru_cache(maxsize=4)
def inverse_wavenumber_squared(num_points: int) -> NDArray[np.float64]:
    """Return 1/K^2 in rfft2 layout, zero at K = 0 (the stream function has no mean), read-only."""
    k_squared = wavenumber_squared(num_points).copy()
    k_squared[0, 0] = np.inf
    inverse = 1.0 / k_squared
    inverse.setflags(write=False)
    return inverse


def parseval_weights(num_points: int) -> NDArray[np.float64]:
    """Return the weights (n/2 + 1,) with which rfft2 columns enter a sum over all modes: 1, 2, ..., 2, 1."""
    weights = np.full(num_points // 2 + 1, 2.0)
    weights[0] = weights[-1] = 1.0
    return weights


def padded_size(num_points: int) -> int:
    """Return the size M of the transforms on which products of two fields are exact.

    The modes that are kept have |k| <= n/2 - 1, so a product reaches n - 2 and comes back at M - (n - 2).
    That misses the kept modes from M = 3n/2 - 2 on: every such M gives the same result as M = 3n/2, and
    the next even one with small prime factors is taken.
    """
    size = scipy.fft.next_fast_len(max(3 * num_points // 2 - 2, 4))
    while size % 2:
        size = scipy.fft.next_fast_len(size + 1)
    return size


def forcing_modes(config: SolverConfig) -> list[tuple[int, int, float]]:
    """Return (row, column, value) of each non-zero mode of F_hat in rfft2 layout.

    cos(k x) has the modes +k and -k, n^2 / 2 each; a real transform stores only ky >= 0.
    """
    amplitude = 0.5 * config.NX**2
    modes = []
    if config.fkx:
        modes.append((config.fkx, 0, config.fkx * amplitude))
        modes.append((config.NX - config.fkx, 0, config.fkx * amplitude))
    if config.fky:
        modes.append((0, config.fky, config.fky * amplitude))
    return modes


def forcing_hat(config: SolverConfig) -> NDArray[np.complex128]:
    """Return F_hat in rfft2 layout (n, n/2 + 1)."""
    result = np.zeros((config.NX, config.NX // 2 + 1), dtype=np.complex128)
    for row, column, value in forcing_modes(config):
        result[row, column] = value
    return result
