"""Mean and standard deviation of each channel, from a subsample of frames."""

import logging
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MAX_FRAMES = 256
# A standard deviation below this part of the mean is rounding noise of float32 values.
CONSTANT_TOLERANCE = 1e-6


def evenly_spaced(num_samples: int, max_samples: int = MAX_FRAMES) -> np.ndarray:
    """At most `max_samples` distinct indices from 0 to num_samples - 1, evenly spaced, both ends included."""
    return np.unique(np.linspace(0, num_samples - 1, min(num_samples, max_samples)).round().astype(np.int64))


def channel_statistics(frames: Iterable[np.ndarray], names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all points of all frames, accumulated in float64.

    Frames are merged by the pairwise update of Chan, Golub & LeVeque (1983), eq. 2.1, which does not cancel
    when the mean is large. A constant channel gets the standard deviation 1, so that dividing by it is
    harmless.

    Args:
        frames: (c, h, w) each.
        names: Channel names, for the warning about constant channels.

    Returns:
        mean, std: (c, 1, 1) float32.
    """
    count = 0
    mean = np.zeros(len(names))
    squares = np.zeros(len(names))  # sum of squared deviations from the mean
    for frame in frames:
        values = frame.reshape(len(names), -1).astype(np.float64)
        n = values.shape[1]
        frame_mean = values.mean(axis=1)
        delta = frame_mean - mean
        squares += ((values - frame_mean[:, None]) ** 2).sum(axis=1) + delta**2 * count * n / (count + n)
        mean += delta * n / (count + n)
        count += n
    std = np.sqrt(squares / count)
    constant = std <= CONSTANT_TOLERANCE * np.abs(mean)
    for i in np.flatnonzero(constant):
        logger.warning(
            "channel %s is constant (%g); it is centered but not scaled, and errors relative to it mean "
            "nothing: leave "
            "it out with `fields` (--data.fields)", names[i], mean[i],
        )  # fmt: skip
    std[constant] = 1.0
    return tuple(torch.from_numpy(a.astype(np.float32)).reshape(-1, 1, 1) for a in (mean, std))  # type: ignore[return-value]
