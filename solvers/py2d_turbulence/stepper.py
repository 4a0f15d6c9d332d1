"""Time stepping of the forced vorticity equation, from state to state: scheme ab2cn.

d omega/dt + div(u omega) = nu lap(omega) - alpha omega + beta v - F
u = d psi/dy, v = -d psi/dx, omega = -lap(psi)

Advection by Adams-Bashforth 2, viscosity by Crank-Nicolson, drag implicit, beta explicit, as in py2d:

omega^{n+1} (1 + dt alpha + dt nu K^2/2) =
    omega^n (1 - dt nu K^2/2) - dt (3/2 N^n - 1/2 N^{n-1}) - dt F + dt beta v^n,    N^{-1} = N^0
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from solvers.py2d_turbulence import kernels_numpy
from solvers.py2d_turbulence.advection import Advection, Slab
from solvers.py2d_turbulence.config import SolverConfig
from solvers.py2d_turbulence.fft import backend_name
from solvers.py2d_turbulence.grid import forcing_modes, wavenumber_squared
from solvers.py2d_turbulence.team import Team

Complex = NDArray[np.complex128]

MAX_CHUNK_STEPS = 200
CHUNK_SECONDS = 0.5


@dataclass(frozen=True)
class State:
    """What a run must remember between two steps; its arrays are made read-only.

    Attributes:
        omega_hat: (n, n/2 + 1) rfft2 of the vorticity, Nyquist row and column zero.
        advection_hat: (n, n/2 + 1) rfft2 of div(u omega) at the step before; zero, and not used, at step 0.
        step: number of steps taken. The time is step * dt, never a running sum.
    """

    omega_hat: Complex
    advection_hat: Complex
    step: int

    def __post_init__(self) -> None:
        for array in (self.omega_hat, self.advection_hat):
            array.setflags(write=False)

    @property
    def vorticity(self) -> NDArray[np.float64]:
        """The vorticity (n, n), indexed [x, y]."""
        size = self.omega_hat.shape[0]
        return np.fft.irfft2(self.omega_hat, s=(size, size))


def initial_state(omega: NDArray[np.floating]) -> State:
    """Return the state at step 0 of a vorticity field (n, n), without its mean and its Nyquist modes."""
    omega_hat = np.fft.rfft2(np.asarray(omega, dtype=np.float64))
    size = omega_hat.shape[0]
    omega_hat[size // 2, :] = 0.0
    omega_hat[:, size // 2] = 0.0
    omega_hat[0, 0] = 0.0  # the integral of a derivative: no mean vorticity on a periodic domain
    return State(omega_hat, np.zeros_like(omega_hat), 0)


def to_rows_of_kx(hat: Complex) -> Complex:
    """Return a contiguous copy [ky, kx] (n/2, n) of an rfft2 array (n, n/2 + 1), without ky = n/2."""
    return np.ascontiguousarray(hat[:, :-1].T)


def to_rfft2(modes: Complex) -> Complex:
    """Inverse of `to_rows_of_kx`; ky = n/2 is zero."""
    half, size = modes.shape
    hat = np.zeros((size, half + 1), dtype=np.complex128)
    hat[:, :-1] = modes.T
    return hat


def best_kernels() -> ModuleType:
    """Return `kernels_numba` when numba works here (extra "fast"), else `kernels_numpy`."""
    try:
        from solvers.py2d_turbulence import kernels_numba
    except ImportError:  # not installed, or numba refuses the installed numpy
        return kernels_numpy
    return kernels_numba


class Stepper:
    """Advances states by the scheme ab2cn. Pure from the outside; its buffers serve every call.

    Args:
        config: parameters.
        workers: number of threads. The result does not depend on it, bit for bit.
        kernels: module with the passes over the modes; the fastest installed one by default.
    """

    def __init__(self, config: SolverConfig, *, workers: int = 1, kernels: ModuleType | None = None) -> None:
        self.config = config
        self._kernels = best_kernels() if kernels is None else kernels
        self._team = Team(workers)
        dtype = np.dtype(np.complex128 if config.dtype == "float64" else np.complex64)
        self._advection = Advection(config.NX, dtype, self._team, self._kernels)
        self._omega = np.zeros((config.NX // 2, config.NX), dtype=np.complex128)
        self._terms = [np.zeros_like(self._omega) for _ in range(2)]  # N of even and of odd steps
        damping = config.alpha + 0.5 * config.nu * wavenumber_squared(config.NX)[:, :-1].T
        self._rate = np.ascontiguousarray(config.dt / (1.0 + config.dt * damping))
        self._parts = [[self._part(slab) for slab in slabs] for slabs in self._advection.slabs]
        self._held: State | None = None  # the state that the buffers hold

    @property
    def workers(self) -> int:
        """Number of threads."""
        return self._team.size

    @property
    def backend(self) -> str:
        """What computes: "pyfftw+numba", "scipy+numpy", ..."""
        return f"{backend_name()}+{self._kernels.__name__.rpartition('_')[2]}"

    def advance(self, state: State, num_steps: int) -> State:
        """Return the state `num_steps` steps later."""
        if num_steps < 1:
            return state
        if state is not self._held:
            self._load(state)
        self._held = None
        self._team.run(lambda rank: self._march_quietly(rank, state.step, num_steps))
        step = state.step + num_steps
        self._held = State(to_rfft2(self._omega), to_rfft2(self._terms[1 - step % 2]), step)
        return self._held

    def advection(self, omega_hat: Complex) -> Complex:
        """Return the transform of div(u omega), both in rfft2 layout (n, n/2 + 1)."""
        self._held = None
        return to_rfft2(self._advection(to_rows_of_kx(omega_hat)))

    def _part(self, slab: Slab) -> _Part:
        modes, pairs = slice(slab.start, slab.stop), self._kernels.pairs
        forcing = [
            (ky - slab.start, kx, -value * self._rate[ky, kx])
            for kx, ky, value in forcing_modes(self.config)
            if slab.start <= ky < slab.stop
        ]
        even, odd = (pairs(term[modes]) for term in self._terms)
        forced = np.array(forcing, dtype=np.float64).reshape(-1, 3)
        return _Part(slab, pairs(self._omega[modes]), (even, odd), self._rate[modes], forced)

    def _load(self, state: State) -> None:
        self._omega[...] = to_rows_of_kx(state.omega_hat)
        self._terms[1 - state.step % 2][...] = to_rows_of_kx(state.advection_hat)
        self._team.run(self._spread)

    def _spread(self, rank: int) -> None:
        for part in self._parts[rank]:
            self._advection.spread(part.slab, part.omega)

    def _march_quietly(self, rank: int, first_step: int, num_steps: int) -> None:
        """March without warnings, a setting of this thread: the caller sees a blow-up in the state."""
        with np.errstate(over="ignore", invalid="ignore"):
            self._march(rank, first_step, num_steps)

    def _march(self, rank: int, first_step: int, num_steps: int) -> None:
        config, advection = self.config, self._advection
        for step in range(first_step, first_step + num_steps):
            advection.multiply(rank)
            self._team.wait()
            now, before = (1.5, -0.5) if step else (1.0, 0.0)
            for part in self._parts[rank]:
                term, last_term = part.terms[step % 2], part.terms[1 - step % 2]
                slab = part.slab
                slab.columns.to_modes()
                self._kernels.step_ab2cn(
                    slab.plus, slab.minus, part.omega, term, last_term, part.rate, slab.inverse, part.forcing,
                    slab.start, config.alpha, config.nu, config.beta, now, before,
                    advection.from_square, advection.to_velocity,
                )  # fmt: skip
                slab.columns.to_columns()
            self._team.wait()


@dataclass(frozen=True)
class _Part:
    """One slab's views of the stepper's arrays, in the form that the kernels take.

    Attributes:
        slab: the slab.
        omega: omega_hat.
        terms: N_hat of even and of odd steps.
        rate: dt / (1 + dt alpha + dt nu K^2 / 2).
        forcing: (number, 3) row, column and increment a step of the forced modes in the slab.
    """

    slab: Slab
    omega: NDArray[np.inexact]
    terms: tuple[NDArray[np.inexact], NDArray[np.inexact]]
    rate: NDArray[np.float64]
    forcing: NDArray[np.float64]


class BlowUpError(ArithmeticError):
    """The flow is no longer finite.

    Attributes:
        state: the last state known to be good.
        step: number of steps at which it was found to be lost.
    """

    def __init__(self, state: State, step: int) -> None:
        super().__init__(f"the vorticity is not finite at step {step}")
        self.state = state
        self.step = step


def rollout(stepper: Stepper, state: State, *, num_steps: int, save_every: int) -> Iterator[State]:
    """Yield states up to step `num_steps`: each multiple of `save_every`, the last one, and some between.

    The states between come at least every 200 steps and about every half second, so that the caller can react
    to signals. They do not influence the result.

    Args:
        stepper: advances the state.
        state: where to start, not yielded itself.
        num_steps: number of the last step.
        save_every: steps between the states that must be among those yielded.

    Raises:
        BlowUpError: when NaN or Inf appears.
    """
    chunk = 1
    while state.step < num_steps:
        stop = min(state.step + chunk, num_steps, (state.step // save_every + 1) * save_every)
        start_time = time.perf_counter()
        following = stepper.advance(state, stop - state.step)
        seconds_per_step = (time.perf_counter() - start_time) / (stop - state.step)
        chunk = max(1, min(MAX_CHUNK_STEPS, 2 * chunk, int(CHUNK_SECONDS / seconds_per_step)))
        if not np.all(np.isfinite(following.omega_hat)):
            raise BlowUpError(state, following.step)
        state = following
        yield state
