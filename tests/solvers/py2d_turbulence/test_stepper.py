"""States in, states out: restarts, threads, kernels, sizes, blow-ups."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.py2d_turbulence import kernels_numpy
from solvers.py2d_turbulence.config import SolverConfig
from solvers.py2d_turbulence.diagnostics import velocity
from solvers.py2d_turbulence.stepper import BlowUpError, State, Stepper, best_kernels, initial_state, rollout

RandomField = Callable[[int], NDArray[np.float64]]

FLOW = SolverConfig(Re=500.0, NX=32, fkx=3, fky=4, dt=1e-3, alpha=0.1, beta=0.5)


def assert_same(first: State, second: State) -> None:
    """Bit for bit."""
    assert first.step == second.step
    np.testing.assert_array_equal(first.omega_hat, second.omega_hat)
    np.testing.assert_array_equal(first.advection_hat, second.advection_hat)


def copy(state: State) -> State:
    """Return the same state in other memory, as a checkpoint brings it back."""
    return State(state.omega_hat.copy(), state.advection_hat.copy(), state.step)


def advection_on_a_fine_grid(omega_hat: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """u grad omega by plain transforms on twice the points, where it cannot alias."""
    size = omega_hat.shape[0]
    fine = np.zeros((2 * size, size + 1), dtype=complex)
    half = size // 2
    fine[:half, :half] = 4 * omega_hat[:half, :half]
    fine[-half + 1 :, :half] = 4 * omega_hat[half + 1 :, :half]
    u, v = velocity(fine)
    kx = np.fft.fftfreq(2 * size, 1 / (2 * size))[:, None]
    ky = np.arange(size + 1)[None, :]
    shape = (2 * size, 2 * size)
    product = u * np.fft.irfft2(1j * kx * fine, s=shape) + v * np.fft.irfft2(1j * ky * fine, s=shape)
    full = np.fft.rfft2(product) / 4
    result = np.zeros_like(omega_hat)
    result[:half, :half] = full[:half, :half]
    result[half + 1 :, :half] = full[-half + 1 :, :half]
    return result


@pytest.mark.parametrize("size", [4, 6, 8, 14, 22, 30, 34, 64, 100, 130])
@pytest.mark.parametrize("kernels", [kernels_numpy, best_kernels()], ids=["numpy", "best"])
def test_advection_at_any_even_size(size: int, kernels: ModuleType) -> None:
    """White noise up to the last resolved mode, against the plain form; 130 has slabs of two widths."""
    noise = np.random.default_rng(size).standard_normal((size, size))
    omega_hat = initial_state(noise).omega_hat
    stepper = Stepper(replace(FLOW, NX=size, fkx=0, fky=0), workers=2, kernels=kernels)
    expected = advection_on_a_fine_grid(omega_hat)
    scale = np.max(np.abs(expected)) or 1.0
    np.testing.assert_allclose(stepper.advection(omega_hat), expected, atol=1e-13 * scale)


@pytest.mark.parametrize("size", [14, 30, 100])
def test_kernels_agree(size: int, random_field: RandomField) -> None:
    """The compiled passes and the numpy ones: equal to round-off after 50 steps."""
    config = replace(FLOW, NX=size)
    state = initial_state(random_field(size))
    first = Stepper(config, kernels=kernels_numpy).advance(state, 50)
    second = Stepper(config, kernels=best_kernels()).advance(state, 50)
    np.testing.assert_allclose(first.vorticity, second.vorticity, atol=1e-12)
    np.testing.assert_allclose(first.advection_hat, second.advection_hat, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kernels", [kernels_numpy, best_kernels()], ids=["numpy", "best"])
def test_restart_is_exact(dtype: str, kernels: ModuleType, random_field: RandomField) -> None:
    """200 steps = 100 + restart in a new stepper + 100, and in uneven portions."""
    config = replace(FLOW, dtype=dtype)
    start = initial_state(random_field(32))
    whole = Stepper(config, kernels=kernels).advance(start, 200)
    middle = copy(Stepper(config, kernels=kernels).advance(start, 100))
    assert_same(Stepper(config, kernels=kernels).advance(middle, 100), whole)
    stepper, state = Stepper(config, kernels=kernels), start
    for portion in (1, 2, 50, 47, 100):
        state = stepper.advance(state, portion)
    assert_same(state, whole)


def test_result_does_not_depend_on_threads(random_field: RandomField) -> None:
    """Slabs are the same for any number of threads, more threads than slabs included."""
    config = replace(FLOW, NX=80)
    start = initial_state(random_field(80))
    alone = Stepper(config).advance(start, 20)
    for workers in (2, 3, 7):
        assert_same(Stepper(config, workers=workers).advance(start, 20), alone)


def test_stepper_is_pure(random_field: RandomField) -> None:
    """An old state gives the same result again, whatever the stepper did in between; states are read-only."""
    stepper = Stepper(FLOW)
    start = initial_state(random_field(32))
    first = stepper.advance(start, 10)
    kept = copy(first)
    stepper.advance(first, 7)
    stepper.advection(start.omega_hat)
    assert_same(first, kept)
    assert_same(stepper.advance(start, 10), kept)
    assert stepper.advance(first, 0) is first
    with pytest.raises(ValueError, match="read-only"):
        first.omega_hat[0, 0] = 1.0


def test_first_step_is_euler(random_field: RandomField) -> None:
    """N^{-1} = N^0: one step by the formula of the scheme."""
    config = replace(FLOW, beta=0.0, fkx=0, fky=0)
    start = initial_state(random_field(32))
    stepper = Stepper(config)
    advection = stepper.advection(start.omega_hat)
    k_squared = np.fft.fftfreq(32, 1 / 32)[:, None] ** 2 + np.arange(17)[None, :] ** 2
    viscous = 0.5 * config.dt * config.nu * k_squared
    expected = start.omega_hat * (1 - viscous) - config.dt * advection
    expected /= 1 + config.dt * config.alpha + viscous
    np.testing.assert_allclose(stepper.advance(start, 1).omega_hat, expected, atol=1e-11)


def test_mean_and_nyquist_are_removed() -> None:
    """A periodic flow has no mean vorticity; the Nyquist mode has no direction."""
    noise = 1.0 + np.random.default_rng(0).standard_normal((16, 16))
    state = Stepper(replace(FLOW, NX=16)).advance(initial_state(noise), 3)
    assert state.omega_hat[0, 0] == 0
    assert not state.omega_hat[8].any()
    assert not state.omega_hat[:, 8].any()


def test_rollout_visits_every_save(random_field: RandomField) -> None:
    """Multiples of save_every and the last step, in order, whatever lies between."""
    states = list(rollout(Stepper(FLOW), initial_state(random_field(32)), num_steps=500, save_every=37))
    steps = [state.step for state in states]
    assert steps == sorted(set(steps))
    assert {*range(37, 500, 37), 500} <= set(steps)
    whole = Stepper(FLOW).advance(initial_state(random_field(32)), 500)
    assert_same(states[-1], whole)


def test_blow_up_is_noticed_within_a_few_hundred_steps(random_field: RandomField) -> None:
    """Long before the next save, with the last good state."""
    config = replace(FLOW, dt=0.2, Re=1e5)
    with pytest.raises(BlowUpError) as caught:
        list(rollout(Stepper(config), initial_state(random_field(32)), num_steps=10**6, save_every=10**6))
    assert caught.value.step < 1000
    assert np.all(np.isfinite(caught.value.state.omega_hat))


def test_error_in_one_thread_reaches_the_caller() -> None:
    """The other threads are not left waiting."""
    from solvers.py2d_turbulence.team import Team

    team = Team(3)

    def fail(rank: int) -> None:
        if rank == 1:
            raise OSError("rank 1")
        team.wait()

    with pytest.raises(OSError, match="rank 1"):
        team.run(fail)
    ranks: list[int] = []

    def work(rank: int) -> None:
        team.wait()
        ranks.append(rank)

    team.run(work)
    assert sorted(ranks) == [0, 1, 2]
