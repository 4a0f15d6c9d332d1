"""K-means with k-means++ seeding, for the first codebooks."""

from __future__ import annotations

import torch
from torch import Tensor

LLOYD_ITERATIONS = 10
VECTORS_PER_CENTER = 32


def as_rows(u: Tensor) -> Tensor:
    """(b, d, h, w) -> (b h w, d), samples first."""
    return u.permute(0, 2, 3, 1).reshape(-1, u.shape[1])


def squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    """Squared Euclidean distances between rows: (n, d), (k, d) -> (n, k), clamped at 0."""
    cross = torch.addmm(centers.square().sum(1), x, centers.T, alpha=-2.0)
    return cross.add_(x.square().sum(1, keepdim=True)).clamp_(min=0.0)


def kmeans(x: Tensor, num_centers: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cluster rows of `x`.

    Seeding draws each center with probability proportional to the squared distance from those drawn
    before (Arthur & Vassilvitskii, SODA 2007); Lloyd's iterations follow. With fewer distinct rows than
    centers the remaining centers repeat rows and get no members.

    Args:
        x: Vectors (n, d), n >= 1; a random subset is used when there are very many.
        num_centers: Number of centers k.
        generator: CPU generator, the only source of randomness.

    Returns:
        centers (k, d) and the share of the vectors that each holds (k,).
    """
    limit = VECTORS_PER_CENTER * num_centers
    if x.shape[0] > limit:
        x = x[torch.randperm(x.shape[0], generator=generator)[:limit].to(x.device)]
    centers = draw_far(x, num_centers, generator)
    for _ in range(LLOYD_ITERATIONS):
        nearest = squared_distances(x, centers).argmin(1)
        counts = torch.bincount(nearest, minlength=num_centers).to(x.dtype)
        sums = torch.zeros_like(centers).index_add_(0, nearest, x)
        filled = counts > 0
        centers[filled] = sums[filled] / counts[filled, None]
    nearest = squared_distances(x, centers).argmin(1)
    return centers, torch.bincount(nearest, minlength=num_centers).to(x.dtype) / x.shape[0]


def draw_far(x: Tensor, num: int, generator: torch.Generator, *, centers: Tensor | None = None) -> Tensor:
    """Draw rows of x (n, d), each with probability proportional to its squared distance from what is there.

    Args:
        x: Vectors (n, d).
        num: Number of rows to draw.
        generator: CPU generator.
        centers: Vectors (k, d) that are there from the start; without any the first draw is uniform.
    """
    draws = torch.rand(num, generator=generator, dtype=torch.float64).tolist()
    chosen: list[int] = []
    squares = x.square().sum(1)
    if centers is None:
        chosen.append(int(draws[0] * x.shape[0]))
        distances = _distances_from(x, squares, chosen[0])
    else:
        distances = squared_distances(x, centers).amin(1)
    for draw in draws[len(chosen) :]:
        cumulative = distances.cumsum(0, dtype=torch.float64)
        index = int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True))
        chosen.append(min(index, x.shape[0] - 1))
        distances = torch.minimum(distances, _distances_from(x, squares, chosen[-1]))
    return x[torch.tensor(chosen, device=x.device)]


def _distances_from(x: Tensor, squares: Tensor, row: int) -> Tensor:
    """Squared distances (n,) of rows of x (n, d), whose squared norms are given, from one of them."""
    return (squares - 2.0 * (x @ x[row]) + squares[row]).clamp_(min=0.0)
