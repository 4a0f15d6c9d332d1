"""What a transform code and theory leave of the same frames: the yardstick beside the tokens."""

import numpy as np
import torch
from torch import Tensor

from gust_torch.metrics.transform_coding import FieldTransform, gaussian_vrmse, transform_code_point
from gust_torch.spec import FieldSpec

NUM_FRAMES = 64
RATIOS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Rates of the curves, as multiples of the tokens' rate."""


class FloorFrames:
    """Some of ``num_samples`` frames that will come, evenly spaced, as coefficients."""

    def __init__(self, spec: FieldSpec, num_samples: int, device: torch.device) -> None:
        self._transform = FieldTransform(spec, device)
        self._stride = max(1, num_samples // NUM_FRAMES)
        self._seen = 0
        self._kept: list[Tensor] = []

    def update(self, x: Tensor) -> None:
        """Take in a batch (b, c, h, w)."""
        # One frame at a time: float64 coefficients of a whole batch could fill the memory.
        self._kept += [self._transform(x[i]) for i in range(-self._seen % self._stride, len(x), self._stride)]
        self._seen += len(x)

    def floor(self, channel: int, bits_per_pixel: float) -> dict[str, float | list[float]] | None:
        """Code one half of a field's frames with the statistics of the other, and the other way round.

        Returns:
            VRMSE of the transform code and of the bound for any code of a Gaussian field, at this rate and on
            curves at `RATIOS` of it; None for fewer than two frames, a constant field, or no bits.
        """
        frames = torch.stack([coefficients[channel] for coefficients in self._kept])
        half = len(frames) // 2
        if half == 0 or bits_per_pixel <= 0 or not bool((frames[:, 1:].abs().amax(1) > 0).all()):
            return None
        rates = [ratio * bits_per_pixel for ratio in RATIOS]
        pairs = (frames[:half], frames[half:]), (frames[half:], frames[:half])
        weights = np.array([[len(test) / len(frames)] for _, test in pairs])
        code = []
        for rate in rates:
            points = [transform_code_point(*pair, rate, shells=self._transform.shells) for pair in pairs]
            code.append((weights * points).sum(0).tolist())
        bound = [point.vrmse for point in gaussian_vrmse(frames, rates)]
        now = RATIOS.index(1.0)
        return {
            "vrmse": code[now][1],
            "vrmse_of_gaussian_bound": bound[now],
            "bits_per_pixel": [bits for bits, _ in code],
            "vrmse_at_these": [vrmse for _, vrmse in code],
            "gaussian_bound_at_these": bound,
        }
