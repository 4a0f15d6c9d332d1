"""Scalars from analytic profiles."""

import numpy as np
import pytest

from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.diagnostics import NUSSELT, SCALARS, Profiles, diagnose
from solvers.rayleigh_benard.grids import chebyshev_nodes

Z = chebyshev_nodes(32)
ZERO = np.zeros_like(Z)


@pytest.mark.parametrize("delta", [1.0, 2.5])
def test_conduction_has_unit_nusselt_numbers(delta: float) -> None:
    """b = dT (1 - z) at rest: all five are 1, whatever dT is."""
    profiles = Profiles(
        delta * (1 - Z),
        (delta * (1 - Z)) ** 2,
        ZERO - delta,
        ZERO,
        ZERO + delta**2,
        ZERO,
        ZERO,
        max_speed=0.0,
    )
    scalars = diagnose(RBCConfig(dT=delta), profiles, dt=0.1)
    assert tuple(scalars) == SCALARS
    for name in NUSSELT:
        assert scalars[name] == pytest.approx(1.0, abs=1e-12)
    assert (scalars["reynolds_max"], scalars["kinetic_energy"], scalars["dt"]) == (0.0, 0.0, 0.1)


def test_each_number_by_hand() -> None:
    """<b>' = -1 - 2 z, <w b> = z (1 - z), |grad b|^2 = 3, |grad u|^2 = 5 z^2, u^2 = 2 z, max|u| = 4."""
    config = RBCConfig(rayleigh=1e4, prandtl=0.25, dT=2.0)
    profiles = Profiles(ZERO, ZERO, -1 - 2 * Z, Z * (1 - Z), ZERO + 3, 5 * Z**2, 2 * Z, max_speed=4.0)
    scalars = diagnose(config, profiles, dt=0.1)
    kappa, nu = 0.02, 0.005
    expected = {
        "nusselt_bottom": 0.5,
        "nusselt_top": 1.5,
        "nusselt_flux": 1 + 1 / 6 / (kappa * 2),
        "nusselt_thermal": 0.75,
        "nusselt_kinetic": 1 + nu * 5 / 3 / (kappa * 2),
        "reynolds_max": 4 / nu,
        "kinetic_energy": 0.5,
    }
    for name, value in expected.items():
        assert scalars[name] == pytest.approx(value), name
