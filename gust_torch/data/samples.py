"""Which frames make up a sample, which samples validate (without a leak), and statistics of some."""

import logging
import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MAX_DEFAULT_GAP = 256
# Relative difference from which steps are told apart.
UNEVEN_STEPS = 1e-3
# Whose statistics are those of all.
MAX_SAMPLES = 256
# A standard deviation below this part of the mean is rounding noise of float32 values.
CONSTANT_TOLERANCE = 1e-6


def concatenate_trajectories(trajectories: Sequence[np.ndarray]) -> np.ndarray:
    """Trajectory ids of concatenated files, (n,) int64; a later file's are shifted past the earlier."""
    shifted = [trajectories[0]]
    for ids in trajectories[1:]:
        shifted.append(ids - ids.min() + shifted[-1].max() + 1)
    return np.concatenate(shifted)


def window_frames(
    trajectories: np.ndarray, n_steps: int, stride: int, start: int, stop: int | None, *, where: str
) -> np.ndarray:
    """Frames of every window that stays within one trajectory and a range of frames, sorted by first frame.

    The frames of a trajectory need not be adjacent in the file; a window goes by the trajectory's own order,
    in steps of `stride`. `trajectories` (n,) has each frame's; returns (num_windows, n_steps) int64.
    """
    total = len(trajectories)
    end = total if stop is None else min(stop, total)
    if not 0 <= start < end:
        raise ValueError(
            f"{where}: no frames from sample_start {start} to sample_stop {stop} of {total} frames"
        )
    if n_steps == 1:
        return np.arange(start, end)[:, None]
    # Frames by trajectory, each in its order.
    grouped = start + np.argsort(trajectories[start:end], kind="stable")
    span = (n_steps - 1) * stride
    first = np.arange(max(0, len(grouped) - span))
    first = first[trajectories[grouped[first]] == trajectories[grouped[first + span]]]
    if not len(first):
        longest = int(np.unique(trajectories[start:end], return_counts=True)[1].max())
        remedy = "lower n_steps or stride" if longest > 1 else "steady: no times to step through"
        text = f"{where}: windows of n_steps {n_steps} with stride {stride} span {span + 1} frames"
        raise ValueError(f"{text}, the longest trajectory in the range has {longest}; {remedy}")
    windows = grouped[first[:, None] + stride * np.arange(n_steps)]
    return windows[np.argsort(windows[:, 0], kind="stable")]


def check_times(times: np.ndarray, *, where: str) -> np.ndarray:
    """Which windows, times (n, n_steps), go forward throughout, (n,) bool; warns of others and of uneven."""
    steps = np.diff(times, axis=1)
    goes_back = np.any(steps <= 0, axis=1)
    if goes_back.any():
        first = times[np.argmax(goes_back)].tolist()
        told = f"coordinates/time steps back or stands still within a trajectory, first in {first}"
        if goes_back.all():
            raise ValueError(f"{where}: {told}; number the trajectories, or correct the times")
        logger.warning("%s: %s; %d windows are left out", where, told, int(goes_back.sum()))
    steps = steps[~goes_back]
    if steps.size and (shortest := float(steps.min())) < (longest := float(steps.max())) * (1 - UNEVEN_STEPS):
        logger.warning("%s: time steps are uneven, from %.6g to %.6g", where, shortest, longest)
    return np.logical_not(goes_back)


def split_samples(
    trajectories: np.ndarray, val_fraction: float, *, span: int, gap: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return increasing indices of training and validation samples.

    Several trajectories: ``ceil(val_fraction n)`` of the n trajectories, drawn with the seed, are held out
    whole. One: its last ``ceil(val_fraction n)`` samples are held out, and a gap of samples before them is
    used for neither, because neighboring frames are near copies. Samples are never drawn one by one.

    Args:
        trajectories: (n,) trajectory of each sample.
        val_fraction: Part to hold out, 0 <= val_fraction < 1; 0 holds out nothing.
        span: Frames from a sample's first to its last, none of which may reach into the gap in training.
        gap: Frames between the blocks. None: half as many as are held out, at least 1 and at most 256.
        seed: Of the draw of trajectories.
    """
    if not 0 <= val_fraction < 1 or (gap or 0) < 0:
        raise ValueError(f"expected 0 <= val_fraction < 1 and gap >= 0, got {val_fraction} and {gap}")
    n = len(trajectories)
    if val_fraction == 0:
        return np.arange(n), np.arange(0)
    ids = np.unique(trajectories)
    if len(ids) > 1:
        num_val = min(math.ceil(val_fraction * len(ids)), len(ids) - 1)
        held_out = np.random.default_rng(seed).choice(ids, num_val, replace=False)
        is_val = np.isin(trajectories, held_out)
        return np.flatnonzero(~is_val), np.flatnonzero(is_val)
    num_val = math.ceil(val_fraction * n)
    if gap is None:
        gap = max(1, min(num_val // 2, MAX_DEFAULT_GAP))
    num_train = n - num_val - gap - span
    if num_train < 1:
        raise ValueError(
            f"{n} samples of one trajectory leave none to train on beside {num_val} to validate, a gap of "
            f"{gap} and windows of {span + 1} frames; lower val_fraction or gap, or give more data"
        )
    return np.arange(num_train), np.arange(n - num_val, n)


def channel_statistics(blocks: Iterable[np.ndarray], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all points of all blocks, accumulated in float64.

    Blocks, (c, points) or (c, h, w), are merged by the pairwise update of Chan, Golub & LeVeque (1983), eq.
    2.1, which does not cancel when the mean is large. A constant channel gets the standard deviation 1, so
    that dividing by it is harmless, and a warning. Returns mean and std, (c,) float32.
    """
    count = 0
    mean = np.zeros(len(names))
    squares = np.zeros(len(names))  # sum of squared deviations from the mean
    for block in blocks:
        values = block.reshape(len(names), -1).astype(np.float64)
        n = values.shape[1]
        block_mean = values.mean(axis=1)
        delta = block_mean - mean
        squares += ((values - block_mean[:, None]) ** 2).sum(axis=1) + delta**2 * count * n / (count + n)
        mean += delta * n / (count + n)
        count += n
    std = np.sqrt(squares / count)
    for i in np.flatnonzero(std <= CONSTANT_TOLERANCE * np.abs(mean)).tolist():
        std[i] = 1.0
        text = "channel %s is constant (%g); errors relative to it mean nothing: leave it out (--data.fields)"
        logger.warning(text, names[i], mean[i])
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
