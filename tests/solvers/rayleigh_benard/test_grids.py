"""Interpolation and quadrature are exact on polynomials."""

import numpy as np
import pytest

from solvers.rayleigh_benard.grids import (
    chebyshev_nodes,
    grid_spacing,
    interpolation_matrix,
    quadrature_weights,
    uniform_nodes,
)


def test_nodes_ascend_between_the_walls() -> None:
    """Both grids leave out the walls; the uniform one has cell centers."""
    nodes = chebyshev_nodes(16)
    assert np.all(np.diff(nodes) > 0)
    assert 0 < nodes[0] < nodes[-1] < 1
    np.testing.assert_allclose(uniform_nodes(4), [0.125, 0.375, 0.625, 0.875])


@pytest.mark.parametrize("n", [8, 33, 128])
@pytest.mark.parametrize("degree", [0, 1, 5])
def test_interpolation_is_exact_on_polynomials(n: int, degree: int) -> None:
    """Any polynomial of degree < n; 1e-12 is round-off."""
    coefficients = np.random.default_rng(degree).standard_normal(degree + 1)
    values = interpolation_matrix(n, uniform_nodes(n)) @ np.polyval(coefficients, chebyshev_nodes(n))
    np.testing.assert_allclose(values, np.polyval(coefficients, uniform_nodes(n)), atol=1e-12)


def test_interpolation_is_exact_at_the_highest_degree() -> None:
    """T_{n-1} on n nodes, and not T_n, which vanishes on them."""
    n, points = 24, uniform_nodes(24)
    for degree in (n - 1, n):
        values = interpolation_matrix(n, points) @ np.cos(degree * np.arccos(2 * chebyshev_nodes(n) - 1))
        exact = np.cos(degree * np.arccos(2 * points - 1))
        assert (np.abs(values - exact).max() < 1e-11) == (degree < n)


def test_interpolation_to_a_node_and_to_the_walls() -> None:
    """No division by zero on a node; extrapolation to the walls is exact too."""
    points = np.array([0.0, chebyshev_nodes(9)[3], 1.0])
    values = interpolation_matrix(9, points) @ chebyshev_nodes(9) ** 7
    np.testing.assert_allclose(values, points**7, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 8, 9, 96])
def test_quadrature_is_exact_on_polynomials(n: int) -> None:
    """Integral of z^k over [0, 1] is 1 / (k + 1) for k < n."""
    for degree in range(min(n, 30)):
        assert quadrature_weights(n) @ chebyshev_nodes(n) ** degree == pytest.approx(
            1 / (degree + 1), abs=1e-13
        )


def test_grid_spacing_is_the_distance_of_neighbors() -> None:
    """At 64 nodes the formula and the actual distances agree to 1 % away from the walls."""
    nodes = chebyshev_nodes(64)
    middles = 0.5 * (nodes[1:] + nodes[:-1])
    np.testing.assert_allclose(grid_spacing(64, middles)[4:-4], np.diff(nodes)[4:-4], rtol=1e-2)
