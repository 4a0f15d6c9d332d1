"""Errors of every rollout at every lead, pooled, and their statistics over the rollouts."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gust_torch.evaluation.rollout import CURVES, MeanSquares
from gust_torch.evaluation.schedule import Schedule
from gust_torch.metrics.errors import normalized_rmse, variance_scale

QUANTILES = (0.25, 0.5, 0.75)
METRICS = ("nrmse", "vrmse")
"""Roots of an error's mean square over the reference's: its power, or its variance over a frame's points."""

# Above every float32, below every float64: stands for infinity where quantiles interpolate.
BEYOND = 1e100
Array = NDArray[np.float64]


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
        self.reaching = np.array([schedule.num_reaching(lead) for lead in range(1, schedule.horizon + 1)])
        shape = (len(schedule.rollouts), schedule.horizon, num_channels)
        self._squares = {name: np.full(shape, np.nan, np.float32) for name in (*CURVES, *METRICS)}

    def add(self, first_rollout: int, lead: int, squares: MeanSquares) -> None:
        """Note the mean squares of b rollouts from `first_rollout` on, at lead 1 or later."""
        rows = slice(first_rollout, first_rollout + len(squares.power))
        references = {"nrmse": squares.power, "vrmse": variance_scale(squares.variance, squares.power)}
        usable = squares.power.isfinite()
        for curve, error in squares.errors.items():
            error = error.where(usable & error.isfinite(), torch.inf)
            self._squares[curve][rows, lead - 1] = error.float().cpu().numpy()
        for metric, reference in references.items():
            self._squares[metric][rows, lead - 1] = reference.where(usable, 0.0).float().cpu().numpy()

    def per_lead(self, curve: str, metric: str, channel: int) -> Statistics:
        """Statistics at each lead, over the rollouts that reach it."""
        errors = self.frame_errors(curve, metric, channel)
        return _statistics(
            [errors[:count, lead] for lead, count in enumerate(self.reaching)],
            self._pool(curve, metric, channel, axis=0),
        )

    def over_horizon(self, curve: str, metric: str, channel: int) -> Statistics:
        """Statistics of the rollouts' errors pooled over their own leads, one row."""
        errors = self.rollout_errors(curve, metric, channel)
        return _statistics([errors], self._pool(curve, metric, channel, axis=(0, 1)).reshape(1))

    def frame_errors(self, curve: str, metric: str, channel: int) -> Array:
        """(rollouts, leads) of each frame by itself; NaN behind the end of a rollout."""
        mean_square, reference = (self._squares[name][:, :, channel] for name in (curve, metric))
        return _error(mean_square.astype(np.float64), reference.astype(np.float64))

    def rollout_errors(self, curve: str, metric: str, channel: int) -> Array:
        """(rollouts,) of each rollout, pooled over its own leads."""
        return self._pool(curve, metric, channel, axis=1)

    def _pool(self, curve: str, metric: str, channel: int, axis: int | tuple[int, ...]) -> Array:
        """Error of all frames along an axis as if they were one; every frame counts alike."""
        mean_square, reference = (
            np.nanmean(self._squares[name][:, :, channel], axis=axis, dtype=np.float64)
            for name in (curve, metric)
        )
        return _error(np.asarray(mean_square), np.asarray(reference))

    def median_rollout(self) -> int:
        """Return the rollout (its row) with the median error: operator's pooled nRMSE, mean over fields."""
        errors = [self.rollout_errors("operator", "nrmse", channel) for channel in range(self.num_channels)]
        means = np.mean(errors, axis=0)
        return int(np.argsort(means, kind="stable")[(len(means) - 1) // 2])

    def overtaken_at(self, channel: int, yardstick: str = "persistence") -> int | None:
        """First lead at which the operator's pooled error is not below that of a yardstick, None if never.

        Args:
            channel: The field.
            yardstick: "persistence" or "zeros" in nRMSE, "mean", each frame's own, in VRMSE.
        """
        operator, other = self._beside(channel, yardstick, axis=0)
        worse = ~(operator < other)
        return int(np.argmax(worse)) + 1 if worse.any() else None

    def beside(self, channel: int, yardstick: str) -> tuple[float, float]:
        """Pooled errors of the operator and of a yardstick over all leads; see `overtaken_at`."""
        operator, other = self._beside(channel, yardstick, axis=(0, 1))
        return float(operator), float(other)

    def _beside(self, channel: int, yardstick: str, axis: int | tuple[int, ...]) -> tuple[Array, Array]:
        metric = "vrmse" if yardstick == "mean" else "nrmse"
        operator = self._pool("operator", metric, channel, axis=axis)
        if yardstick != "persistence":
            return operator, np.ones_like(operator)
        return operator, self._pool("persistence", metric, channel, axis=axis)


def _error(mean_square: Array, reference: Array) -> Array:
    """Return a metric, of any shape, in float64."""
    error: Array = normalized_rmse(torch.from_numpy(mean_square), torch.from_numpy(reference)).numpy()
    return error


def _statistics(rows: list[Array], pooled: Array) -> Statistics:
    """Statistics of each row of errors, none of which is NaN."""
    finite = [np.minimum(row, BEYOND) for row in rows]
    quantiles = np.array([np.quantile(row, QUANTILES) for row in finite]).T
    quantiles[quantiles > np.finfo(np.float32).max] = np.inf
    return Statistics(
        pooled=pooled,
        mean=np.array([row.mean() for row in rows]),
        quantiles=quantiles,
        num_not_finite=np.array([np.count_nonzero(np.isinf(row)) for row in rows]),
    )
