"""Mean and standard deviation of each channel, from a subsample of frames."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MAX_SAMPLES = 256
# A standard deviation below this part of the mean is rounding noise of float32 values.
CONSTANT_TOLERANCE = 1e-6


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
