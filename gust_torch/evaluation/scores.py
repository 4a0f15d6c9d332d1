"""Errors of every rollout at every lead, pooled, and their statistics over the rollouts."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gust_torch.evaluation.rollout import CURVES
from gust_torch.evaluation.schedule import Schedule
from gust_torch.metrics.errors import normalized_rmse

QUANTILES = (0.25, 0.5, 0.75)
METRICS = ("nrmse", "vrmse")
"""Roots of an error's mean square over the reference's: its power, or its variance over a frame's points."""

# Above every float32, below every float64: stands for infinity where quantiles interpolate.
BEYOND = 1e100
Array = NDArray[np.float64]
Axis = int | tuple[int, ...]


class Statistics(NamedTuple):
    """An error over rollouts, at lead 1, 2, ... over those that reach it, and last over the whole horizon.

    A rollout whose error is infinite or undefined counts as infinite: it makes mean and pooled value infinite
    and moves the quantiles up.

    Attributes:
        pooled: (leads + 1,) root of the mean squared error of all rollouts over the reference's mean square.
        mean: (leads + 1,) of the rollouts' own errors.
        quantiles: (3, leads + 1): lower quartile, median, upper quartile of the rollouts' own errors.
        num_not_finite: (leads + 1,) rollouts whose error is not finite.
    """

    pooled: Array
    mean: Array
    quantiles: Array
    num_not_finite: NDArray[np.int64]


class Scores:
    """Mean squares of all rollouts: four bytes for each curve, rollout, lead and field, and no frames."""

    def __init__(self, schedule: Schedule, num_channels: int) -> None:
        self.schedule, self.num_channels = schedule, num_channels
        rollouts, steps = schedule.samples.shape
        shape = (rollouts, steps - 1, num_channels)
        self._squares = {name: np.full(shape, np.nan, np.float32) for name in (*CURVES, *METRICS)}

    def add(self, first_rollout: int, lead: int, squares: Mapping[str, Tensor]) -> None:
        """Note the `mean_squares` of b rollouts from `first_rollout` on, at lead 1 or later."""
        usable = squares["nrmse"].isfinite()
        rows = slice(first_rollout, first_rollout + len(usable))
        for name, values in squares.items():
            known = values.where(usable & values.isfinite(), torch.inf if name in CURVES else 0.0)
            self._squares[name][rows, lead - 1] = known.float().cpu().numpy()

    def errors(self, curve: str, metric: str, channel: int, pool: Axis | None = None) -> Array:
        """(rollouts, leads) errors, NaN behind the end of a rollout; pooled along an axis as if one frame."""
        squares = [self._squares[name][:, :, channel].astype(np.float64) for name in (curve, metric)]
        if pool is not None:
            squares = [np.nanmean(square, axis=pool) for square in squares]
        error: Array = normalized_rmse(*map(torch.as_tensor, squares)).numpy()
        return error

    def statistics(self, curve: str, metric: str, channel: int) -> Statistics:
        """Statistics of one curve, metric and field."""
        errors, own, leads, all_leads = (
            self.errors(curve, metric, channel, pool) for pool in (None, 1, 0, (0, 1))
        )
        rows = [*(lead[~np.isnan(lead)] for lead in errors.T), own]
        quantiles = np.array([np.quantile(np.minimum(row, BEYOND), QUANTILES) for row in rows]).T
        quantiles[quantiles > np.finfo(np.float32).max] = np.inf
        mean = np.array([row.mean() for row in rows])
        num_not_finite = np.array([np.count_nonzero(np.isinf(row)) for row in rows])
        return Statistics(np.append(leads, all_leads), mean, quantiles, num_not_finite)

    def median_rollout(self) -> int:
        """Return the rollout (its row) with the median error: operator's pooled nRMSE, mean over fields."""
        errors = [self.errors("operator", "nrmse", channel, pool=1) for channel in range(self.num_channels)]
        means = np.mean(errors, axis=0)
        return int(np.argsort(means, kind="stable")[(len(means) - 1) // 2])

    def beside(self, channel: int, yardstick: str, pool: Axis) -> tuple[Array, Array]:
        """Pooled errors of the operator and of a yardstick: nRMSE beside "persistence" or "zeros", VRMSE
        beside "mean", that of each frame; pooled along 0 for each lead, (0, 1) for all of them.
        """
        operator = self.errors("operator", "vrmse" if yardstick == "mean" else "nrmse", channel, pool)
        if yardstick == "persistence":
            return operator, self.errors("persistence", "nrmse", channel, pool)
        return operator, np.ones_like(operator)

    def overtaken_at(self, channel: int, yardstick: str = "persistence") -> int | None:
        """First lead at which the operator's error is not below that of a yardstick, None if never."""
        operator, other = self.beside(channel, yardstick, pool=0)
        worse = ~(operator < other)
        return int(np.argmax(worse)) + 1 if worse.any() else None
