"""Which frames make up a sample (windows along trajectories), and which samples validate (without a leak)."""

import logging
import math
from collections.abc import Sequence

import numpy as np

logger = logging.getLogger(__name__)

MAX_DEFAULT_GAP = 256
# Relative difference from which steps are told apart.
UNEVEN_STEPS = 1e-3


def concatenate_trajectories(trajectories: Sequence[np.ndarray]) -> np.ndarray:
    """Trajectory ids of concatenated files, (n,) int64; a later file's are shifted past the earlier."""
    shifted = [trajectories[0].astype(np.int64)]
    for ids in trajectories[1:]:
        shifted.append(ids.astype(np.int64) - int(ids.min()) + int(shifted[-1].max()) + 1)
    return np.concatenate(shifted)


def window_frames(
    trajectories: np.ndarray,
    n_steps: int,
    stride: int,
    sample_start: int,
    sample_stop: int | None,
    *,
    where: str,
) -> np.ndarray:
    """Frames of every window that stays within one trajectory and within a range of frames.

    The frames of a trajectory need not be adjacent in the file; a window goes by the trajectory's own order.

    Args:
        trajectories: (n,) trajectory of each frame.
        n_steps: Frames in a window.
        stride: Frames of the trajectory from one of a window's frames to the next.
        sample_start: First frame of the range.
        sample_stop: End of the range, exclusive; at most n counts, None is n.
        where: The data, for messages.

    Returns:
        (num_windows, n_steps) int64, sorted by first frame.

    Raises:
        ValueError: The range is empty or no trajectory is long enough.
    """
    total = len(trajectories)
    stop = total if sample_stop is None else min(sample_stop, total)
    if sample_start < 0 or stop <= sample_start:
        raise ValueError(
            f"{where}: no frames in the range from sample_start {sample_start} to sample_stop {sample_stop}; "
            f"there are {total} frames, and 0 <= sample_start < sample_stop must hold"
        )
    if n_steps == 1:
        return np.arange(sample_start, stop)[:, None]
    # Frames by trajectory, each in its order.
    grouped = sample_start + np.argsort(trajectories[sample_start:stop], kind="stable")
    span = (n_steps - 1) * stride
    first = np.arange(max(0, len(grouped) - span))
    first = first[trajectories[grouped[first]] == trajectories[grouped[first + span]]]
    if not len(first):
        longest = int(np.unique(trajectories[sample_start:stop], return_counts=True)[1].max())
        remedy = "lower n_steps or stride" if longest > 1 else "steady: no times to step through"
        raise ValueError(
            f"{where}: windows of n_steps {n_steps} with stride {stride} span {span + 1} frames, but the "
            f"longest trajectory in the range has {longest}; {remedy}"
        )
    windows = grouped[first[:, None] + stride * np.arange(n_steps)]
    return windows[np.argsort(windows[:, 0], kind="stable")]


def check_times(times: np.ndarray, *, where: str) -> np.ndarray:
    """Which windows go forward in time throughout; the others are left out, as at the end of a trajectory.

    Says so, and says where time steps are uneven.

    Args:
        times: (n, n_steps) of the windows' frames; NaN where there are none.
        where: The data, for messages.

    Returns:
        (n,) bool.

    Raises:
        ValueError: Time steps back in every window.
    """
    steps = np.diff(times, axis=1)
    goes_back = np.any(steps <= 0, axis=1)
    if goes_back.any():
        first = int(np.flatnonzero(goes_back)[0])
        told = (
            f"coordinates/time steps back or stands still within a trajectory, first in "
            f"{times[first].tolist()}"
        )
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
    """Return indices of training and validation samples.

    Several trajectories: ``ceil(val_fraction n)`` of the n trajectories, drawn with the seed, are held out
    whole. One: its last ``ceil(val_fraction n)`` samples are held out, and a gap of samples before them is
    used for neither, because neighboring frames are near copies. Samples are never drawn one by one.

    Args:
        trajectories: (n,) trajectory of each sample.
        val_fraction: Part to hold out, 0 <= val_fraction < 1; 0 holds out nothing.
        span: Frames from a sample's first to its last, ``(n_steps - 1) stride``; training samples must not
            reach into the gap with any of their frames.
        gap: Frames between the blocks. None: half as many as are held out, at least 1 and at most 256.
        seed: Of the draw of trajectories.

    Returns:
        train, val: Increasing indices.

    Raises:
        ValueError: A value out of range, or nothing left to train on.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"expected 0 <= val_fraction < 1, got {val_fraction}")
    if gap is not None and gap < 0:
        raise ValueError(f"expected gap >= 0, got {gap}")
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
