"""Pointwise errors of reconstructed fields; none depends on the units of the field."""

import torch
from torch import Tensor

# Variances below this share of the mean square are round-off: such a field is constant ...
ROUND_OFF = 1e-12
# ... and its errors are measured by this share instead.
CONSTANT_SHARE = 1e-7
# Only keeps a field that is zero everywhere from giving 0/0: an exact estimate of it scores 0.
SMALLEST = torch.finfo(torch.float32).tiny


def mse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared error over the grid points of ``(b, c, h, w)``: ``(b, c)``, in squared field units."""
    return (x_hat - x).square().mean(dim=(-2, -1))


def nrmse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the normalized RMS error, sqrt(<(x_hat - x)^2> / <x^2>) (PDEBench, Takamoto et al. 2022).

    0 is perfect and 1 is what a field of zeros scores.

    Args:
        x_hat: Estimate ``(b, c, h, w)``.
        x: Reference of the same shape.

    Returns:
        ``(b, c)``, dimensionless.
    """
    return normalized_rmse(mse(x_hat, x), x.square().mean(dim=(-2, -1)))


def vrmse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Variance-scaled RMS error, sqrt(<(x_hat - x)^2> / Var(x)) (VRMSE of The Well, Ohana et al. 2024).

    0 is perfect and 1 is what the sample's own spatial mean scores. Means are over grid points, so the wall
    layers of a Chebyshev axis count for more than their thickness. Of a constant sample the variance is taken
    as 1e-7 <x^2>.

    Args:
        x_hat: Estimate ``(b, c, h, w)``.
        x: Reference of the same shape.

    Returns:
        ``(b, c)``, dimensionless.
    """
    variance = (x - x.mean(dim=(-2, -1), keepdim=True)).square().mean(dim=(-2, -1))
    return normalized_rmse(mse(x_hat, x), variance_scale(variance, x.square().mean(dim=(-2, -1))))


def variance_scale(variance: Tensor, mean_square: Tensor) -> Tensor:
    """Return what `vrmse` divides by: the variance; of constant fields a share of the mean square."""
    return torch.where(variance > ROUND_OFF * mean_square, variance, CONSTANT_SHARE * mean_square)


def normalized_rmse(mean_squared_error: Tensor, scale: Tensor) -> Tensor:
    """sqrt(error / scale) of an error's mean square and a reference's mean square or `variance_scale`."""
    return (mean_squared_error / scale.clamp(min=SMALLEST)).sqrt()
