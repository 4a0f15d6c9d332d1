"""Pointwise errors of reconstructed fields."""

from torch import Tensor

VARIANCE_FLOOR = 1e-7


def mse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared error over the grid points of ``(b, c, h, w)``: ``(b, c)``, in squared field units."""
    return (x_hat - x).square().mean(dim=(-2, -1))


def vrmse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Variance-scaled RMS error, sqrt(<(x_hat - x)^2> / (Var(x) + 1e-7)) (The Well, Ohana et al. 2024).

    0 is perfect and 1 is what the sample's own spatial mean scores. Means are over grid points, so the wall
    layers of a Chebyshev axis count for more than their thickness.

    Args:
        x_hat: Estimate ``(b, c, h, w)``.
        x: Reference of the same shape.

    Returns:
        ``(b, c)``, dimensionless.
    """
    variance = (x - x.mean(dim=(-2, -1), keepdim=True)).square().mean(dim=(-2, -1))
    return (mse(x_hat, x) / (variance + VARIANCE_FLOOR)).sqrt()
