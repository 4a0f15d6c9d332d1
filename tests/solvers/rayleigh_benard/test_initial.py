"""The seeded noise."""

import numpy as np

from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.initial import initial_buoyancy, noise

X, Z = np.linspace(0, 4, 9), np.linspace(0, 1, 7)


def test_noise_is_the_same_field_at_every_resolution() -> None:
    """It is drawn by wavenumber."""
    coarse = noise(RBCConfig(resolution=(128, 48)), X, Z)
    fine = noise(RBCConfig(resolution=(512, 128)), X, Z)
    np.testing.assert_array_equal(coarse, fine)


def test_noise_has_unit_variance_and_vanishes_on_the_walls() -> None:
    """10 % is three standard deviations of the variance of 1024 draws, 4.4 %, and a bit."""
    x, z = np.arange(256) / 64, (np.arange(128) + 0.5) / 128
    values = noise(RBCConfig(), x, z)
    assert abs(values.var() - 1) < 0.15
    assert abs(values.mean()) < 1e-12
    np.testing.assert_allclose(noise(RBCConfig(), X, np.array([0.0, 1.0])), 0, atol=1e-12)


def test_seed_matters_and_coarse_grids_leave_modes_out() -> None:
    """Another seed, another field; a grid of 16 x 8 carries 7 x 3 modes."""
    assert np.abs(noise(RBCConfig(seed=1), X, Z) - noise(RBCConfig(seed=2), X, Z)).max() > 0.1
    assert np.abs(noise(RBCConfig(resolution=(16, 8)), X, Z)).max() < 1.0


def test_profile_scales_with_the_temperature_difference() -> None:
    """Walls at dT and 0, everything in proportion."""
    one, three = (initial_buoyancy(RBCConfig(dT=delta), X, Z) for delta in (1.0, 3.0))
    np.testing.assert_allclose(three, 3 * one)
    np.testing.assert_allclose(three[:, [0, -1]], [[3.0, 0.0]] * len(X), atol=1e-12)
