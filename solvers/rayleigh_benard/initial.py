"""Initial buoyancy."""

import numpy as np

from solvers.rayleigh_benard.config import RBCConfig

NOISE_AMPLITUDE = 1e-3  # rms, relative to dT
NOISE_MODES = (32, 16)  # horizontal wavenumbers and vertical half waves that carry noise


def initial_buoyancy(config: RBCConfig, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Conductive profile plus noise: b = dT (1 - z) + 1e-3 dT * noise(x, z).

    Args:
        config: the run; its seed determines the noise.
        x: (nx,) points.
        z: (nz,) points.

    Returns:
        (nx, nz) float64, whole on every rank, so that the noise does not depend on their number.
    """
    return config.dT * ((1 - z)[None, :] + NOISE_AMPLITUDE * noise(config, x, z))


def noise(config: RBCConfig, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Seeded random field of unit variance that vanishes on the walls; (nx, nz).

        noise = sum_{m,n} (a_mn cos(2 pi m x / Lx) + b_mn sin(2 pi m x / Lx)) sin(n pi z),  m <= 32, n <= 16,

    with normal a_mn, b_mn drawn by wavenumber: the same physical field at every resolution that carries its
    modes. Modes that the grid does not resolve (m >= Nx/2, n >= Nz/2) are left out.
    """
    num_x, num_z = NOISE_MODES
    deviation = (2 / (num_x * num_z)) ** 0.5
    a, b = deviation * np.random.default_rng(config.seed).standard_normal((2, num_x, num_z))
    m, n = np.arange(1, num_x + 1), np.arange(1, num_z + 1)
    resolved = np.outer(m < config.resolution[0] // 2, n < config.resolution[1] // 2)
    phase = 2 * np.pi / config.length_x * np.outer(x, m)
    horizontal = np.cos(phase) @ (a * resolved) + np.sin(phase) @ (b * resolved)
    values: np.ndarray = horizontal @ np.sin(np.pi * np.outer(n, z))
    return values
