"""Means per area of a vorticity field, the terms of their budgets, and the CFL number.

E = <psi omega>/2, Z = <omega^2>/2, P = <|grad omega|^2>/2

dE/dt = -<psi F> - (2 nu Z + 2 alpha E)        beta does no work
dZ/dt = -<omega F> - (2 nu P + 2 alpha Z)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.py2d_turbulence.config import SolverConfig
from solvers.py2d_turbulence.grid import (
    DOMAIN_LENGTH,
    forcing_hat,
    inverse_wavenumber_squared,
    parseval_weights,
    wavenumber_squared,
    wavenumbers_x,
    wavenumbers_y,
)

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Diagnostics:
    """Numbers stored with each frame under /scalars.

    Attributes:
        energy: E, kinetic energy per area.
        enstrophy: Z.
        palinstrophy: P.
        cfl: dt max(|u| + |v|) / dx.
        energy_injection: -<psi F>, work of the forcing.
        energy_dissipation: 2 nu Z + 2 alpha E, by viscosity and drag.
        enstrophy_injection: -<omega F>.
        enstrophy_dissipation: 2 nu P + 2 alpha Z.
    """

    energy: float
    enstrophy: float
    palinstrophy: float
    cfl: float
    energy_injection: float
    energy_dissipation: float
    enstrophy_injection: float
    enstrophy_dissipation: float


def diagnose(omega_hat: Complex, config: SolverConfig) -> Diagnostics:
    """Compute the diagnostics of omega_hat in rfft2 layout (n, n/2 + 1)."""
    size = config.NX
    k_squared, inverse = wavenumber_squared(size), inverse_wavenumber_squared(size)
    weights = parseval_weights(size) / size**4
    squared = weights * np.abs(omega_hat) ** 2
    forced = weights * (np.conj(forcing_hat(config)) * omega_hat).real
    energy = 0.5 * float(np.sum(squared * inverse))
    enstrophy = 0.5 * float(np.sum(squared))
    palinstrophy = 0.5 * float(np.sum(squared * k_squared))
    return Diagnostics(
        energy=energy,
        enstrophy=enstrophy,
        palinstrophy=palinstrophy,
        cfl=config.dt * largest_speed(omega_hat) * size / DOMAIN_LENGTH,
        energy_injection=-float(np.sum(forced * inverse)),
        energy_dissipation=2.0 * config.nu * enstrophy + 2.0 * config.alpha * energy,
        enstrophy_injection=-float(np.sum(forced)),
        enstrophy_dissipation=2.0 * config.nu * palinstrophy + 2.0 * config.alpha * enstrophy,
    )


def velocity(omega_hat: Complex) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return u = d psi/dy and v = -d psi/dx, each (n, n), of omega_hat in rfft2 layout."""
    size = omega_hat.shape[0]
    psi_hat = omega_hat * inverse_wavenumber_squared(size)
    u = np.fft.irfft2(1j * wavenumbers_y(size)[None, :] * psi_hat, s=(size, size))
    v = np.fft.irfft2(-1j * wavenumbers_x(size)[:, None] * psi_hat, s=(size, size))
    return u, v


def largest_speed(omega_hat: Complex) -> float:
    """Return max(|u| + |v|), which bounds the frequency k (|u| + |v|) of sweeping on a square grid."""
    u, v = velocity(omega_hat)
    return float(np.max(np.abs(u) + np.abs(v)))
