"""Exact solutions, conservation, budgets and the order of accuracy."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.py2d_turbulence.config import SolverConfig
from solvers.py2d_turbulence.diagnostics import diagnose
from solvers.py2d_turbulence.grid import inverse_wavenumber_squared, parseval_weights, wavenumber_squared
from solvers.py2d_turbulence.initial import random_vorticity
from solvers.py2d_turbulence.stepper import State, Stepper, initial_state

Field = NDArray[np.float64]
Mesh = Callable[[int], tuple[Field, Field]]
Run = Callable[[SolverConfig, Field, int], State]
RandomField = Callable[[int], Field]


def distance(first: State, second: State) -> float:
    """Relative L2 distance of two flows."""
    return float(np.linalg.norm(first.omega_hat - second.omega_hat) / np.linalg.norm(second.omega_hat))


def observed_order(run: Run, config: SolverConfig, omega: Field, num_steps: int) -> float:
    """Order from three runs to the same time with the step halved twice."""
    coarse, middle, fine = (
        run(replace(config, dt=config.dt / factor), omega, num_steps * factor) for factor in (1, 2, 4)
    )
    return float(np.log2(distance(coarse, middle) / distance(middle, fine)))


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_budgets_are_exact(beta: float, random_field: RandomField) -> None:
    """dE/dt and dZ/dt from the right-hand side itself equal injection minus dissipation; beta drops out."""
    config = SolverConfig(Re=200.0, NX=48, fkx=3, fky=5, dt=1e-3, alpha=0.2, beta=beta)
    omega_hat = initial_state(random_field(48)).omega_hat
    inverse, weights = inverse_wavenumber_squared(48), parseval_weights(48) / 48**4
    kx = np.fft.fftfreq(48, 1 / 48)[:, None]
    axis = 2 * np.pi * np.arange(48) / 48
    forcing = 5 * np.cos(5 * axis)[None, :] + 3 * np.cos(3 * axis)[:, None]
    tendency = (
        -Stepper(config).advection(omega_hat)
        - (config.nu * wavenumber_squared(48) + config.alpha + 1j * beta * kx * inverse) * omega_hat
        - np.fft.rfft2(forcing)
    )
    rate = weights * (np.conj(omega_hat) * tendency).real
    numbers = diagnose(omega_hat, config)
    # Round-off of sums whose terms are of order one.
    assert np.sum(rate * inverse) == pytest.approx(
        numbers.energy_injection - numbers.energy_dissipation, abs=1e-13
    )
    assert np.sum(rate) == pytest.approx(
        numbers.enstrophy_injection - numbers.enstrophy_dissipation, abs=1e-11
    )


def test_budgets_along_a_run(run: Run, random_field: RandomField) -> None:
    """The same from one step to the next; the drag is of first order, so the error is of order dt."""
    config = SolverConfig(Re=200.0, NX=48, fkx=4, fky=4, dt=1e-5, alpha=0.1, beta=0.5)
    state = run(config, random_field(48), 50)
    stepper = Stepper(config)
    before, here = diagnose(state.omega_hat, config), diagnose(stepper.advance(state, 1).omega_hat, config)
    after = diagnose(stepper.advance(state, 2).omega_hat, config)
    energy_rate = (after.energy - before.energy) / (2 * config.dt)
    enstrophy_rate = (after.enstrophy - before.enstrophy) / (2 * config.dt)
    assert energy_rate == pytest.approx(here.energy_injection - here.energy_dissipation, rel=1e-4)
    assert enstrophy_rate == pytest.approx(here.enstrophy_injection - here.enstrophy_dissipation, rel=1e-4)


@pytest.mark.parametrize("size", [32, 30])
def test_advection_conserves_energy_and_enstrophy(size: int) -> None:
    """On white noise, where dealiasing errors would show: sum of conj(psi) N and of conj(omega) N vanish."""
    noise = np.random.default_rng(3).standard_normal((size, size))
    omega_hat = initial_state(noise).omega_hat
    advection = Stepper(SolverConfig(NX=size, fkx=0, fky=0)).advection(omega_hat)
    weights = parseval_weights(size)
    for test_function in (omega_hat, omega_hat * inverse_wavenumber_squared(size)):
        terms = weights * (np.conj(test_function) * advection).real
        assert abs(np.sum(terms)) < 1e-14 * np.sum(np.abs(terms))


def test_modes_of_one_wavenumber_do_not_interact(mesh: Mesh) -> None:
    """(5,0), (0,5), (3,4), (4,-3): omega is a function of psi."""
    x, y = mesh(32)
    omega = np.cos(5 * x) + 2 * np.sin(5 * y) + np.cos(3 * x + 4 * y + 1.0) - 3 * np.cos(4 * x - 3 * y)
    stepper = Stepper(SolverConfig(NX=32, fkx=0, fky=0))
    alone = stepper.advection(initial_state(omega).omega_hat)
    mixed = stepper.advection(initial_state(omega + np.cos(2 * x + y)).omega_hat)
    assert np.max(np.abs(alone)) < 1e-13 * np.max(np.abs(mixed))


def test_sign_of_the_advection(mesh: Mesh) -> None:
    """By hand, for psi = cos 2x + cos y: u = -sin y, v = 2 sin 2x, omega = 4 cos 2x + cos y."""
    x, y = mesh(16)
    stepper = Stepper(SolverConfig(NX=16, fkx=0, fky=0))
    omega = 4 * np.cos(2 * x) + np.cos(y)
    u, v = -np.sin(y), 2 * np.sin(2 * x)
    expected = u * (-8 * np.sin(2 * x)) + v * (-np.sin(y))
    result = np.fft.irfft2(stepper.advection(initial_state(omega).omega_hat), s=(16, 16))
    np.testing.assert_allclose(result, expected, atol=1e-13)


def test_free_decay(mesh: Mesh, run: Run) -> None:
    """2 cos x cos y decays at the rate 2 nu + alpha; the scheme's own factor is met to round-off."""
    config = SolverConfig(Re=10.0, NX=16, fkx=0, fky=0, dt=1e-3, alpha=0.3)
    x, y = mesh(16)
    omega = 2 * np.cos(x) * np.cos(y)
    result = run(config, omega, 1000).vorticity
    factor = (1 - config.dt * config.nu) / (1 + config.dt * config.alpha + config.dt * config.nu)
    np.testing.assert_allclose(result, omega * factor**1000, atol=1e-13)
    np.testing.assert_allclose(result, omega * np.exp(-(2 * config.nu + config.alpha)), atol=1e-4)


def test_single_precision_keeps_slow_decay(mesh: Mesh, run: Run) -> None:
    """dt nu K^2 = 2e-8 is under the rounding of float32 (6e-8): a float32 state would not decay at all."""
    config = SolverConfig(Re=1e4, NX=16, fkx=0, fky=0, dt=1e-4, alpha=0.0, dtype="float32")
    x, y = mesh(16)
    omega = 2 * np.cos(x) * np.cos(y)
    result = run(config, omega, 2000)
    loss = 1.0 - np.linalg.norm(result.omega_hat) / np.linalg.norm(initial_state(omega).omega_hat)
    assert loss == pytest.approx(-np.expm1(-2 * config.nu * config.dt * 2000), rel=1e-3)


@pytest.mark.parametrize("beta", [0.0, 1.5])
def test_forced_from_rest(beta: float, mesh: Mesh, run: Run) -> None:
    """omega_hat = -(F_hat / rate)(1 - exp(-rate t)), rate = alpha + nu K^2 + i beta kx / K^2; error O(dt)."""

    def error(dt: float) -> float:
        config = SolverConfig(Re=20.0, NX=16, fkx=3, fky=3, dt=dt, alpha=0.4, beta=beta)
        x, y = mesh(16)
        rate_x = config.alpha + config.nu * 9 + 1j * beta * 3 / 9
        rate_y = config.alpha + config.nu * 9
        exact = -3 * (np.exp(3j * x) / rate_x * (1 - np.exp(-rate_x))).real
        exact -= 3 * np.cos(3 * y) / rate_y * (1 - np.exp(-rate_y))
        result = run(config, np.zeros((16, 16)), round(1 / dt)).vorticity
        return float(np.max(np.abs(result - exact)) / np.max(np.abs(exact)))

    assert error(1e-3) < 1e-3
    assert error(1e-3) / error(5e-4) == pytest.approx(2.0, abs=0.02)


def test_rossby_wave_drifts_towards_positive_x(mesh: Mesh, run: Run, quiet: SolverConfig) -> None:
    """cos(kx x + ky y - beta kx t / K^2), without viscosity to speak of; error of order dt."""
    x, y = mesh(32)

    def error(dt: float) -> float:
        config = replace(quiet, Re=1e12, beta=2.0, dt=dt)
        result = run(config, np.cos(3 * x + y), round(1 / dt)).vorticity
        return float(np.max(np.abs(result - np.cos(3 * x + y - 2.0 * 3 / 10))))

    assert error(2e-3) < 1e-3
    assert error(2e-3) / error(1e-3) == pytest.approx(2.0, abs=0.05)


def test_second_order_without_drag_and_beta(run: Run, quiet: SolverConfig, random_field: RandomField) -> None:
    """Advection and viscosity."""
    order = observed_order(run, replace(quiet, dt=0.01), random_field(32), 40)
    assert order == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.0), (0.0, 8.0)])
def test_first_order_with_drag_or_beta(
    alpha: float, beta: float, run: Run, quiet: SolverConfig, random_field: RandomField
) -> None:
    """Drag is implicit Euler, beta forward Euler, as in py2d."""
    config = replace(quiet, alpha=alpha, beta=beta, dt=2.5e-3)
    assert observed_order(run, config, random_field(32), 160) == pytest.approx(1.0, abs=0.15)


def test_resolved_flow_does_not_depend_on_resolution(run: Run) -> None:
    """One seed at NX = 64 and 128: the same flow on common points, up to what 64 cannot resolve."""
    fields = {}
    for size in (64, 128):
        config = SolverConfig(Re=20.0, NX=size, dt=2e-3)
        fields[size] = run(config, random_vorticity(size, 7), 100).vorticity
    np.testing.assert_allclose(fields[128][::2, ::2], fields[64], atol=2e-3)


@pytest.mark.slow
def test_statistically_steady_turbulence(run: Run) -> None:
    """Re = 1000, alpha = 0.1, forcing at 4: rms vorticity near 5.5 (wide, for 10 time units)."""
    config = SolverConfig(NX=64, dt=1e-3, dtype="float32")
    stepper, state, values = Stepper(config), initial_state(random_vorticity(64, 0)), []
    for _ in range(30):
        state = stepper.advance(state, 1000)
        values.append(float(np.sqrt(2 * diagnose(state.omega_hat, config).enstrophy)))
    assert 4.5 < np.mean(values[20:]) < 6.5
