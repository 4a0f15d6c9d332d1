"""Wall-axis transforms as small dense matrices: cosine, sine, and Chebyshev-to-uniform interpolation.

Uniform wall axes are cell-centered, ``y_j = L (j + 1/2) / n``. The matrices are scaled so that the squared
coefficients of a signal sum to its mean square (Parseval).
"""

import math

import torch
from torch import Tensor


def cosine_matrix(n: int) -> Tensor:
    """DCT-II: row m holds the mode cos(pi m (j + 1/2) / n), wavenumber pi m / L, m = 0 ... n-1.

    Returns:
        ``(n, n)`` float64 with ``sum_m (C x)_m**2 == mean(x**2)``.
    """
    points = torch.arange(n, dtype=torch.float64) + 0.5
    modes = torch.arange(n, dtype=torch.float64)
    matrix = math.sqrt(2.0) / n * torch.cos(torch.outer(modes, points) * (math.pi / n))
    matrix[0] = 1.0 / n
    return matrix


def sine_matrix(n: int) -> Tensor:
    """DST-II: row m-1 holds the mode sin(pi m (j + 1/2) / n), wavenumber pi m / L, m = 1 ... n.

    Returns:
        ``(n, n)`` float64 with ``sum_m (S x)_m**2 == mean(x**2)``.
    """
    points = torch.arange(n, dtype=torch.float64) + 0.5
    modes = torch.arange(1, n + 1, dtype=torch.float64)
    matrix = math.sqrt(2.0) / n * torch.sin(torch.outer(modes, points) * (math.pi / n))
    matrix[-1] /= math.sqrt(2.0)
    return matrix


def hartley_matrix(n: int) -> Tensor:
    """Build the orthonormal discrete Hartley transform, cos + sin of 2 pi m j / n: ``(n, n)`` float64.

    It is the real form of the Fourier transform and its own inverse; rows m and n - m hold the modes |k| = m.
    """
    phase = 2 * math.pi / n * torch.outer(torch.arange(n), torch.arange(n)).remainder(n).double()
    return (phase.cos() + phase.sin()) / math.sqrt(n)


def orthonormal_cosines(n: int) -> Tensor:
    """Build the orthonormal DCT-II, ``(n, n)`` float64; on Chebyshev nodes: Chebyshev coefficients."""
    return cosine_matrix(n) * math.sqrt(n)


def chebyshev_nodes(n: int) -> Tensor:
    """Chebyshev-Gauss nodes on (0, 1), ascending, as Dedalus's ``ChebyshevT`` grid; ``(n,)`` float64."""
    angles = (torch.arange(n, dtype=torch.float64) + 0.5) * (math.pi / n)
    return 0.5 * (1.0 - torch.cos(angles))


def chebyshev_edges(n: int) -> Tensor:
    """``(n + 1,)`` float64 edges between the Chebyshev-Gauss nodes, from wall (0) to wall (1)."""
    return 0.5 * (1.0 - torch.cos(torch.arange(n + 1, dtype=torch.float64) * (math.pi / n)))


def chebyshev_to_uniform(n: int) -> Tensor:
    """Values of the interpolating polynomial through n Chebyshev-Gauss nodes, at n cell centers.

    Barycentric formula with the exact weights of these nodes (Berrut & Trefethen 2004, eqs. 4.2 and 5.3).

    Returns:
        ``(n, n)`` float64, exact on polynomials of degree below n.
    """
    nodes = chebyshev_nodes(n)
    targets = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    angles = (torch.arange(n, dtype=torch.float64) + 0.5) * (math.pi / n)
    signs = 1.0 - 2.0 * (torch.arange(n) % 2).to(torch.float64)
    weights = signs * torch.sin(angles)

    difference = targets[:, None] - nodes[None, :]
    # A target on a node (the middle one of an odd n) takes that node's value; elsewhere the formula divides
    # by it.
    on_node = difference.abs() < 1e-14
    terms = weights / torch.where(on_node, 1.0, difference)
    matrix = terms / terms.sum(dim=1, keepdim=True)
    return torch.where(on_node.any(dim=1, keepdim=True), on_node.to(torch.float64), matrix)
