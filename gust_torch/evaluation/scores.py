"""Errors of every rollout at every lead, pooled, and their statistics over the rollouts."""

from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Statistics:
    """An error over rollouts; rows are leads, or one row for the whole horizon.

    A rollout whose error is infinite or undefined counts as infinite: it makes mean and pooled value infinite
    and moves the quantiles up.

    Attributes:
        pooled: (rows,) root of the mean squared error of all rollouts over the mean square of the reference.
        mean: (rows,) of the rollouts' own errors.
        quantiles: (3, rows): lower quartile, median, upper quartile of the rollouts' own errors.
        num_not_finite: (rows,) rollouts whose error is not finite.
    """

    pooled: Array
    mean: Array
    quantiles: Array
    num_not_finite: NDArray[np.int64]

    @property
    def median(self) -> Array:
        """(rows,)."""
        median: Array = self.quantiles[1]
        return median


class Scores:
    """Mean squares of all rollouts: four bytes for each curve, rollout, lead and field, and no frames.

    Args:
        schedule: The rollouts, in the order of the errors' rows.
        num_channels: c.
    """

    def __init__(self, schedule: Schedule, num_channels: int) -> None:
        self.schedule, self.num_channels = schedule, num_channels
        shape = (len(schedule.rollouts), schedule.horizon, num_channels)
        self._squares = {name: np.full(shape, np.nan, np.float32) for name in (*CURVES, *METRICS)}

    def add(self, first_rollout: int, lead: int, squares: Mapping[str, Tensor]) -> None:
        """Note the `mean_squares` of b rollouts from `first_rollout` on, at lead 1 or later."""
        usable = squares["nrmse"].isfinite()
        rows = slice(first_rollout, first_rollout + len(usable))
        for name, values in squares.items():
            known = values.where(usable & values.isfinite(), torch.inf if name in CURVES else 0.0)
            self._squares[name][rows, lead - 1] = known.float().cpu().numpy()

    def per_lead(self, curve: str, metric: str, channel: int) -> Statistics:
        """Statistics at each lead, over the rollouts that reach it."""
        errors = self.errors(curve, metric, channel)
        rows = [errors[:count, lead] for lead, count in enumerate(self.schedule.reaching)]
        return _statistics(rows, self.errors(curve, metric, channel, pool=0))

    def over_horizon(self, curve: str, metric: str, channel: int) -> Statistics:
        """Statistics of the rollouts' errors pooled over their own leads, one row."""
        own, pooled = (self.errors(curve, metric, channel, pool=axis) for axis in (1, (0, 1)))
        return _statistics([own], pooled.reshape(1))

    def errors(self, curve: str, metric: str, channel: int, pool: Axis | None = None) -> Array:
        """(rollouts, leads) errors, NaN behind the end of a rollout; pooled along an axis as if one frame."""
        mean_square, reference = (
            np.asarray(square if pool is None else np.nanmean(square, axis=pool, dtype=np.float64))
            for square in (self._squares[name][:, :, channel] for name in (curve, metric))
        )
        error: Array = normalized_rmse(
            *(torch.from_numpy(square.astype(np.float64)) for square in (mean_square, reference))
        ).numpy()
        return error

    def median_rollout(self) -> int:
        """Return the rollout (its row) with the median error: operator's pooled nRMSE, mean over fields."""
        errors = [self.errors("operator", "nrmse", channel, pool=1) for channel in range(self.num_channels)]
        means = np.mean(errors, axis=0)
        return int(np.argsort(means, kind="stable")[(len(means) - 1) // 2])

    def beside(self, channel: int, yardstick: str, pool: Axis) -> tuple[Array, Array]:
        """Pooled errors of the operator and of a yardstick.

        Args:
            channel: The field.
            yardstick: "persistence" or "zeros" in nRMSE, "mean", each frame's own, in VRMSE.
            pool: 0 for each lead, (0, 1) for all of them.
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


def _statistics(rows: list[Array], pooled: Array) -> Statistics:
    """Statistics of each row of errors, none of which is NaN."""
    quantiles = np.array([np.quantile(np.minimum(row, BEYOND), QUANTILES) for row in rows]).T
    quantiles[quantiles > np.finfo(np.float32).max] = np.inf
    return Statistics(
        pooled=pooled,
        mean=np.array([row.mean() for row in rows]),
        quantiles=quantiles,
        num_not_finite=np.array([np.count_nonzero(np.isinf(row)) for row in rows]),
    )
