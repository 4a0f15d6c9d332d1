"""Errors of every rollout at every lead, and their statistics over the rollouts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gust_torch.evaluation.rollout import CURVES, METRICS
from gust_torch.evaluation.schedule import Schedule

QUANTILES = (0.25, 0.5, 0.75)
# Above every float32, below every float64: stands for infinity where quantiles interpolate.
BEYOND = 1e100


@dataclass(frozen=True)
class Statistics:
    """An error's distribution over rollouts; rows are leads, or one row for the whole horizon.

    A rollout whose error is infinite or undefined counts as infinite: it makes the mean infinite and moves
    the quantiles up.

    Attributes:
        mean: (rows,).
        quantiles: (3, rows): lower quartile, median, upper quartile.
        num_not_finite: (rows,) rollouts whose error is not finite.
    """

    mean: NDArray[np.float64]
    quantiles: NDArray[np.float64]
    num_not_finite: NDArray[np.int64]

    @property
    def median(self) -> NDArray[np.float64]:
        """(rows,)."""
        median: NDArray[np.float64] = self.quantiles[1]
        return median


class Scores:
    """Errors of all rollouts: four bytes for each curve, metric, rollout, lead and field, and no frames.

    Args:
        schedule: The rollouts, in the order of the errors' rows.
        num_channels: c.
    """

    def __init__(self, schedule: Schedule, num_channels: int) -> None:
        self.schedule = schedule
        self.reaching = np.array([schedule.num_reaching(lead) for lead in range(1, schedule.horizon + 1)])
        shape = (len(schedule.rollouts), schedule.horizon, num_channels)
        self._errors = {(c, m): np.full(shape, np.nan, np.float32) for c in CURVES for m in METRICS}

    def add(self, first_rollout: int, lead: int, curve: str, errors: Mapping[str, Tensor]) -> None:
        """Note each metric's errors (b, c), of b rollouts from `first_rollout` on, at lead 1 or later."""
        for metric, values in errors.items():
            rows = values.float().cpu().numpy()
            rows = np.where(np.isfinite(rows), rows, np.inf)
            self._errors[curve, metric][first_rollout : first_rollout + len(rows), lead - 1] = rows

    def per_lead(self, curve: str, metric: str, channel: int) -> Statistics:
        """Statistics at each lead, over the rollouts that reach it."""
        errors = self._errors[curve, metric][:, :, channel]
        return _statistics([errors[:count, lead] for lead, count in enumerate(self.reaching)])

    def over_horizon(self, curve: str, metric: str, channel: int) -> Statistics:
        """Statistics of each rollout's mean over its own leads, one row."""
        return _statistics([self.rollout_means(curve, metric, channel)])

    def rollout_means(self, curve: str, metric: str, channel: int) -> NDArray[np.float64]:
        """(rollouts,) mean of each rollout over its own leads."""
        errors = self._errors[curve, metric][:, :, channel]
        means: NDArray[np.float64] = np.nanmean(errors, axis=1, dtype=np.float64)
        return means

    def median_rollout(self) -> int:
        """The rollout (its row) with the median error: operator's nRMSE, mean over leads and fields."""
        channels = range(self._errors["operator", "nrmse"].shape[2])
        means = np.mean([self.rollout_means("operator", "nrmse", channel) for channel in channels], axis=0)
        return int(np.argsort(means, kind="stable")[(len(means) - 1) // 2])

    def overtaken_at(self, channel: int) -> int | None:
        """First lead at which the operator's mean nRMSE is not below that of persistence, None if never."""
        operator, persistence = (
            self.per_lead(curve, "nrmse", channel).mean for curve in ("operator", "persistence")
        )
        worse = ~(operator < persistence)
        return int(np.argmax(worse)) + 1 if worse.any() else None


def _statistics(rows: list[NDArray[np.floating]]) -> Statistics:
    """Statistics of each row of errors, none of which is NaN."""
    finite = [np.minimum(row.astype(np.float64), BEYOND) for row in rows]
    quantiles = np.array([np.quantile(row, QUANTILES) for row in finite]).T
    quantiles[quantiles > np.finfo(np.float32).max] = np.inf
    return Statistics(
        mean=np.array([row.mean(dtype=np.float64) for row in rows]),
        quantiles=quantiles,
        num_not_finite=np.array([np.count_nonzero(np.isinf(row)) for row in rows]),
    )
