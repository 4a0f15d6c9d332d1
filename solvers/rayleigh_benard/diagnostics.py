"""Scalars that are stored with every frame, from horizontal means (plain numpy)."""

from dataclasses import dataclass

import numpy as np

from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.grids import interpolation_matrix, quadrature_weights

NUSSELT = ("nusselt_bottom", "nusselt_top", "nusselt_flux", "nusselt_thermal", "nusselt_kinetic")
SCALARS = (*NUSSELT, "reynolds_max", "kinetic_energy", "dt")


@dataclass(frozen=True)
class Profiles:
    """Horizontal means (nz,) at Chebyshev nodes, and the largest speed.

    Attributes:
        b: <b>.
        b_squared: <b^2>.
        b_gradient: <db/dz>.
        flux: <w b>.
        grad_b_squared: <|grad b|^2>.
        grad_u_squared: <|grad u|^2>, all four components.
        speed_squared: <u^2 + w^2>.
        max_speed: largest |u| in the domain.
    """

    b: np.ndarray
    b_squared: np.ndarray
    b_gradient: np.ndarray
    flux: np.ndarray
    grad_b_squared: np.ndarray
    grad_u_squared: np.ndarray
    speed_squared: np.ndarray
    max_speed: float

    def mean(self, values: np.ndarray) -> float:
        """Volume mean of a profile."""
        return float(quadrature_weights(len(values)) @ values)

    def wall_gradients(self) -> tuple[float, float]:
        """<db/dz> at z = 0 and z = 1."""
        bottom, top = interpolation_matrix(len(self.b), np.array([0.0, 1.0])) @ self.b_gradient
        return float(bottom), float(top)


def diagnose(config: RBCConfig, profiles: Profiles, dt: float) -> dict[str, float]:
    """Return the entries of /scalars.

    The heat flux over kappa dT, five ways, equal in the long-time mean (<.> volume mean, Shraiman & Siggia,
    Phys. Rev. A 42 (1990) 3650, eqs. (2.8) and (2.9)):

        nusselt_bottom, nusselt_top   -d<b>/dz / dT at the walls
        nusselt_flux                  1 + <w b> / (kappa dT)
        nusselt_thermal               <|grad b|^2> / dT^2
        nusselt_kinetic               1 + nu <|grad u|^2> / (kappa dT)

    reynolds_max is max|u| / nu, kinetic_energy is <u^2 + w^2> / 2.
    """
    kappa, delta = config.kappa, config.dT
    bottom, top = profiles.wall_gradients()
    return {
        "nusselt_bottom": -bottom / delta,
        "nusselt_top": -top / delta,
        "nusselt_flux": 1 + profiles.mean(profiles.flux) / (kappa * delta),
        "nusselt_thermal": profiles.mean(profiles.grad_b_squared) / delta**2,
        "nusselt_kinetic": 1 + config.nu * profiles.mean(profiles.grad_u_squared) / (kappa * delta),
        "reynolds_max": profiles.max_speed / config.nu,
        "kinetic_energy": 0.5 * profiles.mean(profiles.speed_squared),
        "dt": dt,
    }
