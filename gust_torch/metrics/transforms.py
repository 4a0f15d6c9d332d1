"""Wall-axis transforms as small dense float64 matrices, and interpolation from Chebyshev nodes.

Uniform wall axes are cell-centered, ``y_j = L (j + 1/2) / n``.
"""

import math

import torch
from torch import Tensor


def _centers(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64) + 0.5


def cosine_matrix(n: int) -> Tensor:
    """DCT-II ``(n, n)``: row m holds cos(pi m (j + 1/2) / n), wavenumber pi m / L, m = 0 ... n-1.

    Scaled so that ``sum_m (C x)_m**2 == mean(x**2)`` (Parseval).
    """
    modes = torch.arange(n, dtype=torch.float64)
    matrix = math.sqrt(2.0) / n * torch.cos(torch.outer(modes, _centers(n)) * (math.pi / n))
    matrix[0] = 1.0 / n
    return matrix


def sine_matrix(n: int) -> Tensor:
    """DST-II ``(n, n)``: row m-1 holds sin(pi m (j + 1/2) / n), m = 1 ... n, scaled as `cosine_matrix`."""
    modes = torch.arange(1, n + 1, dtype=torch.float64)
    matrix = math.sqrt(2.0) / n * torch.sin(torch.outer(modes, _centers(n)) * (math.pi / n))
    matrix[-1] /= math.sqrt(2.0)
    return matrix


def hartley_matrix(n: int) -> Tensor:
    """Build the orthonormal discrete Hartley transform ``(n, n)``, cos + sin of 2 pi m j / n.

    It is the real form of the Fourier transform and its own inverse; rows m and n - m hold the modes |k| = m.
    """
    phase = 2 * math.pi / n * torch.outer(torch.arange(n), torch.arange(n)).remainder(n).double()
    return (phase.cos() + phase.sin()) / math.sqrt(n)


def orthonormal_cosines(n: int) -> Tensor:
    """Build the orthonormal DCT-II ``(n, n)``; on Chebyshev nodes: Chebyshev coefficients."""
    return cosine_matrix(n) * math.sqrt(n)


def chebyshev_nodes(n: int) -> Tensor:
    """Chebyshev-Gauss nodes ``(n,)`` on (0, 1), ascending, as Dedalus's ``ChebyshevT`` grid."""
    return 0.5 * (1.0 - torch.cos(_centers(n) * (math.pi / n)))


def chebyshev_edges(n: int) -> Tensor:
    """Edges ``(n + 1,)`` between the Chebyshev-Gauss nodes, from wall (0) to wall (1)."""
    return 0.5 * (1.0 - torch.cos(torch.arange(n + 1, dtype=torch.float64) * (math.pi / n)))


def chebyshev_to_uniform(n: int) -> Tensor:
    """Values of the polynomial through n Chebyshev-Gauss nodes at n cell centers: ``(n, n)``.

    Barycentric formula with the exact weights of these nodes (Berrut & Trefethen 2004, eqs. 4.2 and 5.3).
    """
    weights = (1.0 - 2.0 * (torch.arange(n) % 2).double()) * torch.sin(_centers(n) * (math.pi / n))
    difference = (_centers(n) / n)[:, None] - chebyshev_nodes(n)[None, :]
    # A target on a node (the middle one of an odd n) takes its value; elsewhere the formula divides by it.
    on_node = difference.abs() < 1e-14
    terms = weights / torch.where(on_node, 1.0, difference)
    matrix = terms / terms.sum(dim=1, keepdim=True)
    return torch.where(on_node.any(dim=1, keepdim=True), on_node.double(), matrix)
