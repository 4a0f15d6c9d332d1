"""Rayleigh-Bénard convection as a Dedalus problem.

    div u = 0
    db/dt - kappa lap b           = -div(u b)
    du/dt - nu lap u + grad p - b ez = -div(u u)
    b = dT, u = 0 at z = 0;  b = 0, u = 0 at z = 1;  mean of p = 0

Fourier modes in x and Chebyshev polynomials in z, 3/2 dealiasing. Diffusion, pressure and buoyancy are
implicit, the divergences explicit: written as fluxes they need 9 transforms a stage and not the 11 of u.grad,
and keep the mean buoyancy and momentum to round-off. The second z derivatives are split in two first ones
with tau terms, so that every matrix stays banded but for its boundary rows.
"""

import importlib
import logging
from typing import Any

import numpy as np
from mpi4py import MPI

from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.initial import initial_buoyancy
from solvers.rayleigh_benard.pencils import stack_pencils


def _import_dedalus() -> Any:
    """Return the module `dedalus.public`.

    Dedalus puts a handler on the root logger when it is imported, which doubles every line of a program that
    has its own; it is taken off again. FFTW plans are made by estimate: measured plans differ from process to
    process, and with them the last digits, so that a continued run would not repeat an uninterrupted one.
    They are no faster here.
    """
    handlers, level = list(logging.root.handlers), logging.root.level
    config = importlib.import_module("dedalus.tools.config").config
    config["transforms-fftw"]["PLANNING_RIGOR"] = "estimate"
    config["parallelism-fftw"]["PLANNING_RIGOR"] = "estimate"
    public = importlib.import_module("dedalus.public")
    logging.root.handlers[:] = handlers
    logging.getLogger("subsystems").setLevel(logging.WARNING)  # a dozen lines on building matrices
    logging.root.setLevel(level)
    return public


d3 = _import_dedalus()
_matsolvers = importlib.import_module("dedalus.libraries.matsolvers")


class SmallSupernodeLU(_matsolvers.SuperluColamdFactorizedTranspose):  # type: ignore[name-defined]
    """SuperLU with the supernode relaxation off.

    The matrices are narrow bands with a few full rows; merging their columns into supernodes only stores
    zeros. At 256x64: 0.93 instead of 1.28 million factor entries, and solves in 0.55 of the time.
    """

    relax = 1
    panel_size = 1


DEALIAS = 3 / 2


class RayleighBenard:
    """Problem, state and time stepper of one run, spread over the ranks of a communicator.

    Attributes:
        config: the run.
        comm: its ranks.
        dist: Dedalus's distributor.
        bases: (x basis, z basis).
        b: buoyancy.
        u: velocity (u, w).
        p: pressure.
        solver: Dedalus's initial value solver.
        vorticity: operator dw/dx - du/dz = -lap(psi), with u = dpsi/dz, w = -dpsi/dx.
    """

    def __init__(self, config: RBCConfig, comm: Any = MPI.COMM_WORLD) -> None:
        """Build the matrices; the state is zero.

        Raises:
            ValueError: If there are more ranks than pencils to share.
        """
        nx, nz = config.resolution
        if comm.size > min(nx // 2, nz):
            raise ValueError(
                f"resolution {nx}x{nz}: expected at most {min(nx // 2, nz)} MPI ranks, got {comm.size}"
            )
        self.config, self.comm = config, comm
        self._coords = d3.CartesianCoordinates("x", "z")
        self.dist = d3.Distributor(self._coords, comm=comm, dtype=np.float64)
        self.bases = (
            d3.RealFourier(self._coords["x"], size=nx, bounds=(0, config.length_x), dealias=DEALIAS),
            d3.ChebyshevT(self._coords["z"], size=nz, bounds=(0, 1), dealias=DEALIAS),
        )
        self.b = self.scalar("b")
        self.u = self.vector("u")
        self.p = self.scalar("p")
        self.vorticity = -d3.div(d3.skew(self.u))
        self.solver = self._build_solver()

    def scalar(self, name: str) -> Any:
        """Return a new scalar field on the whole domain."""
        return self.dist.Field(name=name, bases=self.bases)

    def vector(self, name: str) -> Any:
        """Return a new vector field on the whole domain."""
        return self.dist.VectorField(self._coords, name=name, bases=self.bases)

    def set_initial(self) -> None:
        """Put the fluid at rest with the initial buoyancy of the configuration."""
        x, z = (basis.global_grid(self.dist, scale=1).ravel() for basis in self.bases)
        self.set_buoyancy(initial_buoyancy(self.config, x, z))

    def set_buoyancy(self, values: np.ndarray) -> None:
        """Set the buoyancy from its values (nx, nz) on the whole grid, on every rank."""
        self.b.change_scales(1)
        self.b["g"] = values[self.dist.grid_layout.slices(self.b.domain, 1)]

    def step(self, dt: float) -> None:
        """Advance by one step of Dedalus."""
        self.solver.step(dt)

    def _build_solver(self) -> Any:
        """Equations, boundary conditions and matrices."""
        config, (xbasis, zbasis) = self.config, self.bases
        b, u, p = self.b, self.u, self.p
        tau_p = self.dist.Field(name="tau_p")
        tau_b1, tau_b2 = (self.dist.Field(name=f"tau_b{i}", bases=xbasis) for i in (1, 2))
        tau_u1, tau_u2 = (self.dist.VectorField(self._coords, name=f"tau_u{i}", bases=xbasis) for i in (1, 2))
        _, ez = self._coords.unit_vector_fields(self.dist)
        first_derivative = zbasis.derivative_basis(1)

        def lift(tau: Any) -> Any:
            return d3.Lift(tau, first_derivative, -1)

        grad_b = d3.grad(b) + ez * lift(tau_b1)
        grad_u = d3.grad(u) + ez * lift(tau_u1)
        problem = d3.IVP([p, b, u, tau_p, tau_b1, tau_b2, tau_u1, tau_u2])
        problem.add_equation((d3.trace(grad_u) + tau_p, 0))
        problem.add_equation((d3.dt(b) - config.kappa * d3.div(grad_b) + lift(tau_b2), -d3.div(u * b)))
        momentum = d3.dt(u) - config.nu * d3.div(grad_u) + d3.grad(p) - b * ez + lift(tau_u2)
        problem.add_equation((momentum, -d3.div(u * u)))
        problem.add_equation((b(z=0), config.dT))
        problem.add_equation((b(z=1), 0))
        problem.add_equation((u(z=0), 0))
        problem.add_equation((u(z=1), 0))
        problem.add_equation((d3.integ(p), 0))
        # The cadence is for complex data: real Fourier coefficients have no symmetry to lose.
        options = {"matsolver": SmallSupernodeLU, "enforce_real_cadence": 0}
        if self.comm.size == 1:
            return problem.build_solver(config.timestepper, matrix_coupling=(True, True), **options)
        solver = problem.build_solver(config.timestepper, **options)
        stack_pencils(solver)
        return solver
