"""Which frames of which trajectories a rollout starts from and is compared with."""

from collections.abc import Iterator, Sequence
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
    """One trajectory's frames: the first one is the start, the others are leads 1, 2, ...

    Attributes:
        trajectory: Its number in the file.
        samples: (leads + 1,) int64 samples of the source.
        times: (leads + 1,) float64.
    """

    trajectory: int
    samples: NDArray[np.int64]
    times: NDArray[np.float64]

    @property
    def num_leads(self) -> int:
        """Steps that the data allow, at most the horizon."""
        return len(self.samples) - 1


@dataclass(frozen=True)
class Schedule:
    """All rollouts of a run, the longest first.

    Attributes:
        rollouts: One for each trajectory, sorted by falling number of leads.
        too_short: Trajectories without a single lead.
    """

    rollouts: tuple[Rollout, ...]
    too_short: tuple[int, ...]

    @property
    def horizon(self) -> int:
        """Leads of the longest rollout."""
        return self.rollouts[0].num_leads

    @property
    def num_frames(self) -> int:
        """Frames that are read, starts included."""
        return sum(len(rollout.samples) for rollout in self.rollouts)

    def num_reaching(self, lead: int) -> int:
        """Rollouts that reach a lead; they are the first ones."""
        return sum(rollout.num_leads >= lead for rollout in self.rollouts)

    def batches(self, size: int) -> Iterator[tuple[Rollout, ...]]:
        """Rollouts in groups of `size`."""
        for start in range(0, len(self.rollouts), size):
            yield self.rollouts[start : start + size]


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
        ValueError: No trajectory is long enough for one step, none reaches the horizon, or times do not grow.
    """
    ids, counts = np.unique(trajectories, return_counts=True)
    parts = np.split(np.argsort(trajectories, kind="stable"), np.cumsum(counts)[:-1])
    chosen = list(zip(ids.tolist(), parts, strict=True))[: settings.limit]
    rollouts = [_rollout(trajectory, samples, times, settings, where) for trajectory, samples in chosen]
    longest = max(rollout.num_leads for rollout in rollouts)
    span = f"--start {settings.start} and --stride {settings.stride}"
    if longest < 1:
        frames = max(len(samples) for _, samples in chosen)
        raise ValueError(
            f"{where}: no trajectory is long enough for one step with {span}, the longest has {frames} "
            "frames; lower them, or choose data that depend on time"
        )
    if settings.horizon is not None and longest < settings.horizon:
        raise ValueError(
            f"{where}: no trajectory is long enough for --horizon {settings.horizon} with {span}; "
            f"the longest possible is {longest}"
        )
    usable = [rollout for rollout in rollouts if rollout.num_leads > 0]
    usable.sort(key=lambda rollout: -rollout.num_leads)
    short = tuple(rollout.trajectory for rollout in rollouts if rollout.num_leads < 1)
    return Schedule(tuple(usable), short)


def _rollout(
    trajectory: int,
    samples: NDArray[np.int64],
    times: NDArray[np.float64],
    settings: Settings,
    where: str,
) -> Rollout:
    """Frames of one trajectory, of which there may be none."""
    stop = None if settings.horizon is None else settings.start + settings.horizon * settings.stride + 1
    chosen = samples[settings.start : stop : settings.stride]
    own = times[chosen]
    if len(chosen) > 1 and not bool((np.diff(own) > 0).all()):
        bad = "no times" if np.isnan(own).any() else "times that do not increase"
        raise ValueError(
            f"{where}: trajectory {trajectory} has {bad}, which steps in time need; write coordinates/time"
        )
    return Rollout(trajectory, chosen, own)


def stack_times(rollouts: Sequence[Rollout]) -> NDArray[np.float64]:
    """Return times (rollouts, leads + 1) of rollouts, the longest first; NaN behind the end of the shorter
    ones."""
    times = np.full((len(rollouts), rollouts[0].num_leads + 1), np.nan)
    for row, rollout in zip(times, rollouts, strict=True):
        row[: len(rollout.times)] = rollout.times
    return times
