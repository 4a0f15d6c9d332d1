"""Which frames of which trajectories a rollout starts from and is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Settings:
    """What to roll out.

    Attributes:
        horizon: steps of a rollout; None for as many as the longest trajectory allows
        start: frame of each trajectory to start from
        stride: frames of the file in one step of the operator
        limit: the first so many trajectories of the file; None for all
        batch_size: trajectories at once

    Raises:
        ValueError: A number out of range.
    """

    horizon: int | None = None
    start: int = 0
    stride: int = 1
    limit: int | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Check every number."""
        for name, lowest in (("horizon", 1), ("start", 0), ("stride", 1), ("limit", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"--{name} is {value}, expected {lowest} or more")


@dataclass(frozen=True)
class Rollout:
    """Start and leads 1, 2, ... of one trajectory: (leads + 1,) samples of the source, and their times."""

    trajectory: int
    samples: NDArray[np.int64]
    times: NDArray[np.float64]

    @property
    def num_leads(self) -> int:
        """Steps that the data allow, at most the horizon."""
        return len(self.samples) - 1


@dataclass(frozen=True)
class Schedule:
    """All rollouts of a run, the longest first, and the trajectories without a single lead."""

    rollouts: tuple[Rollout, ...]
    too_short: tuple[int, ...]

    @property
    def horizon(self) -> int:
        """Leads of the longest rollout."""
        return self.rollouts[0].num_leads

    @property
    def reaching(self) -> list[int]:
        """Rollouts that reach lead 1, 2, ...; they are the first ones."""
        return [sum(r.num_leads >= lead for r in self.rollouts) for lead in range(1, self.horizon + 1)]

    def lead_times(self) -> NDArray[np.float64]:
        """(3, leads) median, smallest and largest time from start to lead, over rollouts that reach it."""
        times = stack_times(self.rollouts)
        since = (times - times[:, :1])[:, 1:]
        return np.array([function(since, axis=0) for function in (np.nanmedian, np.nanmin, np.nanmax)])

    def same_times(self) -> bool:
        """Whether a lead means the same time in all rollouts, to a thousandth of it."""
        median, low, high = self.lead_times()
        return bool((high - low <= 1e-3 * median).all())


def make_schedule(
    trajectories: NDArray[np.int64], times: NDArray[np.float64], settings: Settings, where: str
) -> Schedule:
    """Schedule over the samples of a source.

    Args:
        trajectories: (n,) trajectory of each sample.
        times: (n,) time of each sample.
        settings: What to roll out.
        where: The data, for messages.

    Raises:
        ValueError: No trajectory is long enough for one step or the horizon, or times do not grow.
    """
    horizon, start, stride = settings.horizon, settings.start, settings.stride
    ids, counts = np.unique(trajectories, return_counts=True)
    parts = np.split(np.argsort(trajectories, kind="stable"), np.cumsum(counts)[:-1])
    rollouts = []
    for trajectory, samples in list(zip(ids.tolist(), parts, strict=True))[: settings.limit]:
        chosen = samples[start : None if horizon is None else start + horizon * stride + 1 : stride]
        if not bool((np.diff(times[chosen]) > 0).all()):
            bad = "no times" if np.isnan(times[chosen]).any() else "times that do not increase"
            raise ValueError(f"{where}: trajectory {trajectory} has {bad}; write coordinates/time")
        rollouts.append(Rollout(trajectory, chosen, times[chosen]))
    longest = max(rollout.num_leads for rollout in rollouts)
    if longest < (horizon or 1):
        what = "one step" if longest < 1 else f"--horizon {horizon}"
        raise ValueError(
            f"{where}: no trajectory is long enough for {what} with --start {start} and --stride {stride}; "
            f"the longest possible is {max(longest, 0)} steps, of {counts[: settings.limit].max()} frames"
        )
    usable = sorted((r for r in rollouts if r.num_leads > 0), key=lambda rollout: -rollout.num_leads)
    return Schedule(tuple(usable), tuple(r.trajectory for r in rollouts if r.num_leads < 1))


def stack_times(rollouts: Sequence[Rollout]) -> NDArray[np.float64]:
    """Stack times (rollouts, leads + 1), the longest first; NaN behind the end of the shorter ones."""
    times = np.full((len(rollouts), rollouts[0].num_leads + 1), np.nan)
    for row, rollout in zip(times, rollouts, strict=True):
        row[: len(rollout.times)] = rollout.times
    return times
