"""Training and validation samples without a leak: whole trajectories, or time blocks with a gap."""

import math

import numpy as np

MAX_DEFAULT_GAP = 256


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
