"""Errors of values at scattered points."""

import torch
from torch import Tensor

from gust_torch.metrics.errors import normalized_rmse, variance_scale


def sample_means(x: Tensor, sample: Tensor, num_samples: int) -> Tensor:
    """Means (b, c) of values (n, c) over the points of each sample (n,); NaN for samples without points."""
    sums = x.new_zeros(num_samples, x.shape[1]).index_add_(0, sample, x)
    return sums / torch.bincount(sample, minlength=num_samples)[:, None]


def point_vrmse(x_hat: Tensor, x: Tensor, sample: Tensor, num_samples: int) -> Tensor:
    """Variance-scaled RMS error of each sample and channel, as `metrics.errors.vrmse` defines it on grids.

    Means are over points, so densely sampled regions count for more.

    Args:
        x_hat: Estimates (n, c).
        x: References (n, c).
        sample: The sample of each point, (n,) int64.
        num_samples: b.

    Returns:
        (b, c), dimensionless.
    """
    means = sample_means(x, sample, num_samples)
    variance = sample_means((x - means[sample]).square(), sample, num_samples)
    mse = sample_means((x_hat - x).square(), sample, num_samples)
    mean_square = sample_means(x.square(), sample, num_samples)
    return normalized_rmse(mse, variance_scale(variance, mean_square))
