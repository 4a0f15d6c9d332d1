"""K-means with k-means++ seeding, for the first codebooks."""

from __future__ import annotations

import torch

LLOYD_ITERATIONS = 10
VECTORS_PER_CENTRE = 32


def squared_distances(x: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances between rows: (n, d), (k, d) -> (n, k), clamped at 0."""
    cross = torch.addmm(centres.square().sum(1), x, centres.T, alpha=-2.0)
    return cross.add_(x.square().sum(1, keepdim=True)).clamp_(min=0.0)


def kmeans(
    x: torch.Tensor, num_centres: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cluster rows of `x`.

    Seeding draws each centre with probability proportional to the squared distance from those drawn
    before (Arthur & Vassilvitskii, SODA 2007); Lloyd's iterations follow. With fewer distinct rows than
    centres the remaining centres repeat rows and get no members.

    Args:
        x: Vectors (n, d), n >= 1; a random subset is used when there are very many.
        num_centres: Number of centres k.
        generator: CPU generator, the only source of randomness.

    Returns:
        centres (k, d) and the share of the vectors that each holds (k,).
    """
    limit = VECTORS_PER_CENTRE * num_centres
    if x.shape[0] > limit:
        x = x[torch.randperm(x.shape[0], generator=generator)[:limit].to(x.device)]
    centres = _seed(x, num_centres, generator)
    for _ in range(LLOYD_ITERATIONS):
        nearest = squared_distances(x, centres).argmin(1)
        counts = torch.bincount(nearest, minlength=num_centres).to(x.dtype)
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        filled = counts > 0
        centres[filled] = sums[filled] / counts[filled, None]
    nearest = squared_distances(x, centres).argmin(1)
    return centres, torch.bincount(nearest, minlength=num_centres).to(x.dtype) / x.shape[0]


def _seed(x: torch.Tensor, num_centres: int, generator: torch.Generator) -> torch.Tensor:
    """k-means++ seeding: (k, d) rows of `x`."""
    draws = torch.rand(num_centres, generator=generator, dtype=torch.float64)
    chosen = [int(draws[0] * x.shape[0])]
    squares = x.square().sum(1)
    distances = torch.full_like(squares, torch.inf)
    for draw in draws[1:].tolist():
        centre = x[chosen[-1]]
        distances = torch.minimum(distances, (squares - 2.0 * (x @ centre) + centre @ centre).clamp_(min=0.0))
        cumulative = distances.cumsum(0, dtype=torch.float64)
        index = int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True))
        chosen.append(min(index, x.shape[0] - 1))
    return x[torch.tensor(chosen, device=x.device)].clone()
