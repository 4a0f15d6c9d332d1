"""Pointwise errors of reconstructed fields."""

from torch import Tensor

VARIANCE_FLOOR = 1e-7
# Only keeps a field that is zero everywhere from giving 0/0: an exact estimate of it scores 0.
MEAN_SQUARE_FLOOR = 1e-24


def mse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared error over the grid points of ``(b, c, h, w)``: ``(b, c)``, in squared field units."""
    return (x_hat - x).square().mean(dim=(-2, -1))


def nrmse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the normalized RMS error, sqrt(<(x_hat - x)^2> / <x^2>) (PDEBench, Takamoto et al. 2022).

    0 is perfect and 1 is what a field of zeros scores. <x^2> is at least 1e-24 field units squared.

    Args:
        x_hat: Estimate ``(b, c, h, w)``.
        x: Reference of the same shape.

    Returns:
        ``(b, c)``, dimensionless.
    """
    return normalized_rmse(mse(x_hat, x), x.square().mean(dim=(-2, -1)))


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
    return variance_scaled_rmse(mse(x_hat, x), variance)


def normalized_rmse(mean_squared_error: Tensor, mean_square: Tensor) -> Tensor:
    """`nrmse` from an error's and a reference's mean squares, over whatever points."""
    return (mean_squared_error / mean_square.clamp(min=MEAN_SQUARE_FLOOR)).sqrt()


def variance_scaled_rmse(mean_squared_error: Tensor, variance: Tensor) -> Tensor:
    """`vrmse` from an error's mean square and a reference's variance, over whatever points."""
    return (mean_squared_error / (variance + VARIANCE_FLOOR)).sqrt()
