"""Flows for the tests; Dedalus is imported by the tests themselves."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Points = Callable[[Any], tuple[np.ndarray, np.ndarray]]
Perturb = Callable[[Any, float, float], None]


@pytest.fixture(scope="session")
def points() -> Points:
    """Return the function flow -> x (nx, 1) and z (1, nz) of the undealiased grid."""

    def get(flow: Any) -> tuple[np.ndarray, np.ndarray]:
        x, z = (basis.global_grid(flow.dist, scale=1).ravel() for basis in flow.bases)
        return x[:, None], z[None, :]

    return get


@pytest.fixture(scope="session")
def perturb(points: Points) -> Perturb:
    """Return the function (flow, wavenumber, amplitude): sets the conductive profile plus one roll
    pattern."""

    def put(flow: Any, wavenumber: float, amplitude: float) -> None:
        x, z = points(flow)
        flow.set_buoyancy((1 - z) + amplitude * np.cos(wavenumber * x) * np.sin(np.pi * z))

    return put
