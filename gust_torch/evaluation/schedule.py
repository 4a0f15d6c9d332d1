"""Which frames of which trajectories a rollout starts from and is compared with."""

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
class Schedule:
    """All rollouts of a run, the longest first: a start and leads 1, 2, ...

    Attributes:
        trajectories: (rollouts,) their numbers in the file.
        samples: (rollouts, leads + 1) int64 samples of the source; -1 behind the end of the shorter ones.
        times: (rollouts, leads + 1) float64; NaN there.
        too_short: Trajectories without a single lead.
    """

    trajectories: list[int]
    samples: NDArray[np.int64]
    times: NDArray[np.float64]
    too_short: list[int]

    @property
    def reaching(self) -> list[int]:
        """Rollouts that reach lead 1, 2, ...; they are the first ones."""
        counts: list[int] = (self.samples[:, 1:] >= 0).sum(axis=0).tolist()
        return counts

    def lead_times(self) -> NDArray[np.float64]:
        """(3, leads) median, smallest and largest time from start to lead, over rollouts that reach it."""
        since = (self.times - self.times[:, :1])[:, 1:]
        return np.array([function(since, axis=0) for function in (np.nanmedian, np.nanmin, np.nanmax)])

    def same_times(self) -> bool:
        """Whether a lead means the same time in all rollouts, to a thousandth of it."""
        median, low, high = self.lead_times()
        return bool((high - low <= 1e-3 * median).all())


def make_schedule(
    trajectories: NDArray[np.int64], times: NDArray[np.float64], settings: Settings, where: str
) -> Schedule:
    """Schedule over samples of these trajectories (n,) and times (n,); `where` names the data.

    Raises:
        ValueError: No trajectory is long enough for one step or the horizon, or times do not grow.
    """
    horizon, start, stride = settings.horizon, settings.start, settings.stride
    stop = None if horizon is None else start + horizon * stride + 1
    ids, counts = np.unique(trajectories, return_counts=True)
    parts = np.split(np.argsort(trajectories, kind="stable"), np.cumsum(counts)[:-1])
    rollouts = dict(
        zip(ids.tolist(), (part[start:stop:stride] for part in parts[: settings.limit]), strict=False)
    )
    for trajectory, chosen in rollouts.items():
        if not bool((np.diff(times[chosen]) > 0).all()):
            bad = "no times" if np.isnan(times[chosen]).any() else "times that do not increase"
            raise ValueError(f"{where}: trajectory {trajectory} has {bad}; write coordinates/time")
    longest = max(map(len, rollouts.values())) - 1
    if longest < (horizon or 1):
        what = "one step" if longest < 1 else f"--horizon {horizon}"
        raise ValueError(
            f"{where}: no trajectory is long enough for {what} with --start {start} and --stride {stride}; "
            f"the longest possible is {max(longest, 0)} steps, of {counts[: settings.limit].max()} frames"
        )
    usable = sorted((t for t, chosen in rollouts.items() if len(chosen) > 1), key=lambda t: -len(rollouts[t]))
    samples = np.full((len(usable), longest + 1), -1)
    for row, trajectory in zip(samples, usable, strict=True):
        row[: len(rollouts[trajectory])] = rollouts[trajectory]
    too_short = [trajectory for trajectory in rollouts if trajectory not in usable]
    return Schedule(usable, samples, np.where(samples < 0, np.nan, times[samples]), too_short)
