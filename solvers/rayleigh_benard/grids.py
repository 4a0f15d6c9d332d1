"""Chebyshev-Gauss nodes on [0, 1]: quadrature and interpolation to other points, in plain numpy."""

import numpy as np


def chebyshev_nodes(n: int) -> np.ndarray:
    """Roots of T_n moved to (0, 1), ascending; (n,). They leave out the walls."""
    return 0.5 * (1 - np.cos(_angles(n)))


def uniform_nodes(n: int) -> np.ndarray:
    """Centers of n equal cells of [0, 1]; (n,).

    Cell centers and not wall points: values on the walls are known beforehand, equal weights are the midpoint
    rule, and the cosine transform of the spectra lives on them.
    """
    return (np.arange(n) + 0.5) / n


def quadrature_weights(n: int) -> np.ndarray:
    """Weights (n,) of the integral over [0, 1] from values on n Chebyshev nodes, exact below degree n.

    Fejér's first rule: w_j = (1/n) (1 - 2 sum_{k=1}^{n/2} cos(2 k theta_j) / (4 k^2 - 1)).
    Source: Waldvogel, BIT 46 (2006) 195, eq. (2.3), halved for the unit interval.
    """
    k = np.arange(1, n // 2 + 1)
    return (1 - 2 * np.cos(2 * np.outer(_angles(n), k)) @ (1 / (4 * k**2 - 1))) / n


def interpolation_matrix(n: int, points: np.ndarray) -> np.ndarray:
    """Matrix (m, n): values on n Chebyshev nodes -> their polynomial's values at m points of [0, 1].

    Barycentric formula with the weights (-1)^j sin(theta_j) of Chebyshev points of the first kind.
    Source: Berrut & Trefethen, SIAM Review 46 (2004) 501, eqs. (4.2) and (5.3).
    """
    weights = (-1.0) ** np.arange(n) * np.sin(_angles(n))
    distance = np.asarray(points, float)[:, None] - chebyshev_nodes(n)[None, :]
    hit = distance == 0
    quotient = weights / np.where(hit, 1.0, distance)
    matrix = quotient / quotient.sum(axis=1, keepdims=True)
    on_node = hit.any(axis=1)
    matrix[on_node] = hit[on_node]
    return matrix


def grid_spacing(n: int, points: np.ndarray) -> np.ndarray:
    """Distance between neighbors of n Chebyshev nodes near the given points: pi/n sqrt(z (1 - z))."""
    return np.pi / n * np.sqrt(points * (1 - points))


def _angles(n: int) -> np.ndarray:
    """theta_j = (j + 1/2) pi / n."""
    return (np.arange(n) + 0.5) * np.pi / n
