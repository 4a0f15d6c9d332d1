"""Errors of fields and of values at scattered points; none but `mse` depends on the units of the field."""

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


def point_vrmse(x_hat: Tensor, x: Tensor, sample: Tensor, num_samples: int) -> Tensor:
    """`vrmse` ``(b, c)`` of values ``(n, c)`` at the points of samples ``(n,)``; means are over points."""

    def mean(values: Tensor) -> Tensor:
        return sample_means(values, sample, num_samples)

    variance = mean((x - mean(x)[sample]).square())
    return normalized_rmse(mean((x_hat - x).square()), variance_scale(variance, mean(x.square())))


def sample_means(x: Tensor, sample: Tensor, num_samples: int) -> Tensor:
    """Means (b, c) of values (n, c) over the points of each sample (n,); NaN for samples without points."""
    sums = x.new_zeros(num_samples, x.shape[1]).index_add_(0, sample, x)
    return sums / torch.bincount(sample, minlength=num_samples)[:, None]


def variance_scale(variance: Tensor, mean_square: Tensor) -> Tensor:
    """Return what `vrmse` divides by: the variance; of constant fields a share of the mean square."""
    return torch.where(variance > ROUND_OFF * mean_square, variance, CONSTANT_SHARE * mean_square)


def normalized_rmse(mean_squared_error: Tensor, scale: Tensor) -> Tensor:
    """sqrt(error / scale): VRMSE for a `variance_scale`, nRMSE of PDEBench for a reference's mean square."""
    return (mean_squared_error / scale.clamp(min=SMALLEST)).sqrt()
