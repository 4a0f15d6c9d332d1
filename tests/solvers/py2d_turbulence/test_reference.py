"""Trajectories of py2d itself, in float64: reference/README.md says where they come from."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from solvers.py2d_turbulence import kernels_numpy
from solvers.py2d_turbulence.config import SolverConfig
from solvers.py2d_turbulence.stepper import Stepper, best_kernels, initial_state

REFERENCE = Path(__file__).parent / "reference"


def largest_error(path: Path, dtype: str, kernels: ModuleType) -> float:
    """Largest relative L2 error over the frames of a reference file."""
    with np.load(path) as data:
        config = SolverConfig(
            Re=float(data["Re"]),
            NX=data["omega0"].shape[0],
            fkx=int(data["fkx"]),
            fky=int(data["fky"]),
            dt=float(data["dt"]),
            alpha=float(data["alpha"]),
            beta=float(data["beta"]),
            dtype=dtype,
        )
        stepper, state, errors = Stepper(config, kernels=kernels), initial_state(data["omega0"]), []
        for step, omega in zip(data["steps"], data["omega"], strict=True):
            state = stepper.advance(state, int(step) - state.step)
            errors.append(np.linalg.norm(state.vorticity - omega) / np.linalg.norm(omega))
    return float(max(errors))


@pytest.mark.parametrize("name", ["py2d_nx64_ic1", "py2d_nx128_ic3"])
@pytest.mark.parametrize("kernels", [kernels_numpy, best_kernels()], ids=["numpy", "best"])
def test_py2d_trajectory(name: str, kernels: ModuleType) -> None:
    """Same scheme in another form: equal to round-off, 2e-14 after 200 steps."""
    assert largest_error(REFERENCE / f"{name}.npz", "float64", kernels) < 1e-12


def test_single_precision_transforms() -> None:
    """Rounding of float32 (6e-8) enters through the advection only: 5e-7 after 200 steps."""
    path = REFERENCE / "py2d_nx64_ic1.npz"
    assert largest_error(path, "float32", best_kernels()) < 5e-6
