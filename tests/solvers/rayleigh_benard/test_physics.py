"""The problem against linear theory, known steady states and exact budgets."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip("solvers.rayleigh_benard.generate_rbc", exc_type=ImportError)

from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.diagnostics import NUSSELT, Profiles, diagnose
from solvers.rayleigh_benard.generate_rbc import RayleighBenard
from solvers.rayleigh_benard.initial import noise
from solvers.rayleigh_benard.sampling import Sampler

Points = Callable[[Any], tuple[np.ndarray, np.ndarray]]
Perturb = Callable[[Any, float, float], None]


def growth_rate(perturb: Perturb, rayleigh: float, dt: float = 0.05) -> float:
    """Growth rate of the mode n = 2 of the Lx = 4 box, Pr = 1, once its slower relatives have decayed."""
    flow = RayleighBenard(RBCConfig(rayleigh=rayleigh, resolution=(8, 16)))
    sampler = Sampler(flow)
    perturb(flow, math.pi, 1e-6)
    energies = []
    for _ in range(2):
        for _ in range(200):
            flow.step(dt)
        profiles = sampler.profiles()
        energies.append(profiles.mean(profiles.speed_squared))
    return 0.5 * math.log(energies[1] / energies[0]) / (200 * dt)


@pytest.mark.slow
def test_onset(perturb: Perturb) -> None:
    """Decay at Ra = 1650, +0.0482 at Ra = 2000, neutral at 1707.92: linear theory, to 1 % of the growth."""
    assert growth_rate(perturb, 1650.0) < -0.01
    assert growth_rate(perturb, 2000.0) == pytest.approx(0.0482, rel=0.01)
    assert abs(growth_rate(perturb, 1707.92)) < 0.01 * 0.0482


@pytest.mark.slow
@pytest.mark.parametrize(("rayleigh", "nusselt"), [(5000.0, 2.1103), (1e4, 2.6525)])
def test_steady_rolls(perturb: Perturb, rayleigh: float, nusselt: float) -> None:
    """All five Nusselt numbers of steady rolls, k = 3.117, Pr = 0.71, to 0.3 % of the literature's."""
    config = RBCConfig(rayleigh=rayleigh, prandtl=0.71, resolution=(32, 24), length_x=2 * math.pi / 3.117)
    flow = RayleighBenard(config)
    perturb(flow, 3.117, 0.1)
    for _ in range(1000):
        flow.step(0.05)
    scalars = diagnose(config, Sampler(flow).profiles(), dt=0.05)
    for name in NUSSELT:
        assert scalars[name] == pytest.approx(nusselt, rel=3e-3), name


@pytest.fixture(scope="module")
def turbulent(points: Points) -> tuple[RBCConfig, float, list[Profiles]]:
    """Three neighboring instants of a turbulent state at Ra = 1e6."""
    config, dt = RBCConfig(rayleigh=1e6, resolution=(128, 48)), 2e-3
    flow = RayleighBenard(config)
    sampler = Sampler(flow)
    x, z = points(flow)
    flow.set_buoyancy((1 - z) + 0.1 * noise(config, x.ravel(), z.ravel()))
    for _ in range(640):
        flow.step(0.0125)
    instants = [sampler.profiles()]
    for _ in range(2):
        flow.step(dt)
        instants.append(sampler.profiles())
    return config, dt, instants


@pytest.mark.slow
class TestIdentities:
    """Budgets that hold at every instant; errors are relative to the larger term of the right-hand side."""

    def test_flow_is_turbulent(self, turbulent: tuple[RBCConfig, float, list[Profiles]]) -> None:
        """The others would be empty in a steady or resting state."""
        config, dt, instants = turbulent
        scalars = diagnose(config, instants[1], dt)
        assert scalars["nusselt_flux"] > 3
        assert scalars["reynolds_max"] > 300
        assert abs(scalars["nusselt_bottom"] - scalars["nusselt_top"]) > 0.05

    def test_mean_buoyancy(self, turbulent: tuple[RBCConfig, float, list[Profiles]]) -> None:
        """d<b>/dt = kappa (Nu_bottom - Nu_top)."""
        config, dt, (before, now, after) = turbulent
        change = (after.mean(after.b) - before.mean(before.b)) / (2 * dt)
        bottom, top = now.wall_gradients()
        assert change == pytest.approx(config.kappa * (top - bottom), abs=0.01 * config.kappa * abs(bottom))

    def test_buoyancy_variance(self, turbulent: tuple[RBCConfig, float, list[Profiles]]) -> None:
        """d<b^2>/dt / 2 = kappa (Nu_bottom - <|grad b|^2>) for dT = 1."""
        config, dt, (before, now, after) = turbulent
        change = (after.mean(after.b_squared) - before.mean(before.b_squared)) / (4 * dt)
        source = -now.wall_gradients()[0]
        expected = config.kappa * (source - now.mean(now.grad_b_squared))
        assert change == pytest.approx(expected, abs=0.01 * config.kappa * source)

    def test_kinetic_energy(self, turbulent: tuple[RBCConfig, float, list[Profiles]]) -> None:
        """d<u^2>/dt / 2 = <w b> - nu <|grad u|^2>."""
        config, dt, (before, now, after) = turbulent
        change = (after.mean(after.speed_squared) - before.mean(before.speed_squared)) / (4 * dt)
        work, dissipation = now.mean(now.flux), config.nu * now.mean(now.grad_u_squared)
        assert change == pytest.approx(work - dissipation, abs=0.01 * max(abs(work), dissipation))


def test_temperature_difference_scales_walls_and_profile() -> None:
    """b(0) = dT and b(1) = 0 at all times; with Ra dT fixed, b/dT is the same flow in units of dT^(-1/2)."""
    states = []
    for delta in (1.0, 4.0):
        # kappa and nu scale with sqrt(dT) when lengths and Ra dT stay, so Ra is taken 1/dT as large.
        config = RBCConfig(rayleigh=1e5 / delta, dT=delta, resolution=(32, 24))
        flow = RayleighBenard(config)
        flow.set_initial()
        for _ in range(40):
            flow.step(0.05 / delta**0.5)
        profiles = Sampler(flow).profiles()
        states.append(profiles.b / delta)
        assert -profiles.wall_gradients()[0] / delta == pytest.approx(1.0, rel=0.02)
    np.testing.assert_allclose(states[0], states[1], atol=1e-10)


@pytest.mark.parametrize("timestepper", ["RK222", "SBDF2"])
def test_second_order_in_time(points: Points, timestepper: str) -> None:
    """Halving the step divides the error by four, start-up step of the multistep scheme included."""
    finals = []
    for halvings in range(3):
        config = RBCConfig(rayleigh=1e5, resolution=(24, 16), timestepper=timestepper)
        flow = RayleighBenard(config)
        x, z = points(flow)
        flow.set_buoyancy((1 - z) + 0.1 * noise(config, x.ravel(), z.ravel()))
        for _ in range(20 * 2**halvings):
            flow.step(0.05 / 2**halvings)
        finals.append(flow.b["c"].copy())
    errors = [np.linalg.norm(coarse - fine) for coarse, fine in pairwise(finals)]
    # 3.2 is order 1.7: the asymptotic range is not quite reached at the coarsest step.
    assert errors[0] / errors[1] > 3.2
