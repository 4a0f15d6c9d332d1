"""The steady forcing F = fky cos(fky y) + fkx cos(fkx x) of the vorticity equation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.py2d_turbulence.config import SolverConfig


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
