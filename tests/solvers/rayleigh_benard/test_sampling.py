"""Frames and profiles of a state that is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("solvers.rayleigh_benard.generate_rbc", exc_type=ImportError)

from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.generate_rbc import RayleighBenard
from solvers.rayleigh_benard.grids import chebyshev_nodes, uniform_nodes
from solvers.rayleigh_benard.sampling import Sampler

FIELDS = ("buoyancy", "vorticity", "pressure", "velocity")


def exact(x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
    """psi = sin(kx) g(z), g = z^2 (1-z)^2: u = dpsi/dz, w = -dpsi/dx, omega = -lap psi; polynomials in z."""
    k = np.pi
    g, first, second = z**2 * (1 - z) ** 2, 2 * z - 6 * z**2 + 4 * z**3, 2 - 12 * z + 12 * z**2
    return {
        "buoyancy": np.cos(k * x) * z**3 + (1 - z),
        "vorticity": np.sin(k * x) * (k**2 * g - second),
        "pressure": np.cos(2 * k * x) * (1 - z**2),
        "velocity": np.stack([np.sin(k * x) * first, -k * np.cos(k * x) * g], axis=-1),
    }


@pytest.fixture
def prepare(
    points: Callable[[Any], tuple[np.ndarray, np.ndarray]],
) -> Callable[[str], tuple[RayleighBenard, Sampler]]:
    """Return the function grid -> simulation in the state above."""

    def build(grid: str) -> tuple[RayleighBenard, Sampler]:
        flow = RayleighBenard(RBCConfig(resolution=(16, 12), grid=grid, fields=FIELDS))
        state = exact(*points(flow))
        flow.set_buoyancy(state["buoyancy"])
        flow.u["g"] = np.moveaxis(state["velocity"], -1, 0)
        flow.p["g"] = state["pressure"]
        return flow, Sampler(flow)

    return build


Prepare = Callable[[str], tuple[RayleighBenard, Sampler]]


@pytest.mark.parametrize("grid", ["chebyshev", "uniform"])
def test_frames_hold_the_exact_fields(prepare: Prepare, grid: str) -> None:
    """Values, axes, component order and the sign of the vorticity, on both grids, to round-off."""
    _, sampler = prepare(grid)
    coordinates, frame = sampler.coordinates(), sampler.frame()
    nodes = chebyshev_nodes(12) if grid == "chebyshev" else uniform_nodes(12)
    np.testing.assert_allclose(coordinates["y"], nodes, atol=1e-15)
    np.testing.assert_allclose(coordinates["x"], np.arange(16) / 4, atol=1e-15)
    expected = exact(coordinates["x"][:, None], coordinates["y"][None, :])
    assert tuple(frame) == FIELDS
    for name, values in expected.items():
        np.testing.assert_allclose(frame[name], values, atol=1e-12, err_msg=name)


def test_profiles_and_probe(prepare: Prepare) -> None:
    """Horizontal means by hand, at the dealiased nodes."""
    flow, sampler = prepare("chebyshev")
    profiles, probe = sampler.profiles(), sampler.probe()
    z, k = chebyshev_nodes(18), np.pi
    g, first = z**2 * (1 - z) ** 2, 2 * z - 6 * z**2 + 4 * z**3
    second = 2 - 12 * z + 12 * z**2
    np.testing.assert_allclose(profiles.b, 1 - z, atol=1e-13)
    np.testing.assert_allclose(profiles.b_squared, (1 - z) ** 2 + z**6 / 2, atol=1e-13)
    np.testing.assert_allclose(profiles.b_gradient, -1, atol=1e-12)
    np.testing.assert_allclose(profiles.flux, -k * g * z**3 / 2, atol=1e-13)
    np.testing.assert_allclose(profiles.grad_b_squared, 1 + (k**2 * z**6 + 9 * z**4) / 2, atol=1e-11)
    gradient = (2 * (k * first) ** 2 + second**2 + (k**2 * g) ** 2) / 2
    np.testing.assert_allclose(profiles.grad_u_squared, gradient, atol=1e-11)
    np.testing.assert_allclose(profiles.speed_squared, (first**2 + (k * g) ** 2) / 2, atol=1e-13)
    assert probe.max_speed == pytest.approx(profiles.max_speed)
    assert probe.finite
    # |u|/dx alone is a lower bound of the CFL frequency; dx = 1/4.
    assert probe.rate > 4 * np.abs(flow.u["g"][0]).max()


def test_reading_leaves_the_state_alone(prepare: Prepare) -> None:
    """To the last bit: output times must not change a run."""
    flow, sampler = prepare("uniform")
    for field in flow.solver.state:
        field["c"]
    before = [field.data.copy() for field in flow.solver.state]
    sampler.probe(), sampler.frame(), sampler.profiles()
    for field, values in zip(flow.solver.state, before, strict=True):
        np.testing.assert_array_equal(field.data, values)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_probe_sees_a_single_bad_coefficient(prepare: Prepare, bad: float) -> None:
    """In the buoyancy too, which no CFL number looks at."""
    flow, sampler = prepare("chebyshev")
    flow.b["c"][3, 2] = bad
    assert not sampler.probe().finite
