"""Time stepping of the forced vorticity equation, from state to state: scheme ab2cn.

d omega/dt + div(u omega) = nu lap(omega) - alpha omega + beta v - F
u = d psi/dy, v = -d psi/dx, omega = -lap(psi)

Advection by Adams-Bashforth 2, viscosity by Crank-Nicolson, drag implicit, beta explicit, as in py2d:

omega^{n+1} (1 + dt alpha + dt nu K^2/2) =
    omega^n (1 - dt nu K^2/2) - dt (3/2 N^n - 1/2 N^{n-1}) - dt F + dt beta v^n,    N^{-1} = N^0
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from solvers.py2d_turbulence.advection import Advection, Slab
from solvers.py2d_turbulence.config import SolverConfig
from solvers.py2d_turbulence.fft import backend_name
from solvers.py2d_turbulence.forcing import forcing_modes
from solvers.py2d_turbulence.grid import wavenumber_squared
from solvers.py2d_turbulence.kernels import best_kernels
from solvers.py2d_turbulence.state import State, to_rfft2, to_rows_of_kx
from solvers.py2d_turbulence.team import Team

Complex = NDArray[np.complex128]


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
        """Return a blow-up is for the caller to see in the state; the setting holds for one thread only."""
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
