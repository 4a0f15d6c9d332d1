"""Small flows and shorthands that the turbulence tests share."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.py2d_turbulence.config import SolverConfig
from solvers.py2d_turbulence.grid import coordinates
from solvers.py2d_turbulence.initial import random_vorticity
from solvers.py2d_turbulence.stepper import State, Stepper, initial_state

Grid = tuple[NDArray[np.float64], NDArray[np.float64]]


@pytest.fixture
def mesh() -> Callable[[int], Grid]:
    """x and y (n, n) of a grid, indexed [x, y]."""

    def build(num_points: int) -> Grid:
        axis = coordinates(num_points)
        x, y = np.meshgrid(axis, axis, indexing="ij")
        return x, y

    return build


@pytest.fixture
def quiet() -> SolverConfig:
    """Neither forcing nor drag nor beta."""
    return SolverConfig(Re=100.0, NX=32, fkx=0, fky=0, dt=1e-3, alpha=0.0, beta=0.0)


@pytest.fixture
def run() -> Callable[[SolverConfig, NDArray[np.float64], int], State]:
    """Run a field for some steps with a stepper of its own."""

    def advance(config: SolverConfig, omega: NDArray[np.float64], num_steps: int) -> State:
        return Stepper(config).advance(initial_state(omega), num_steps)

    return advance


@pytest.fixture
def random_field() -> Callable[[int], NDArray[np.float64]]:
    """Return a smooth random field of unit rms velocity."""
    return lambda num_points: random_vorticity(num_points, seed=7)
