"""What a transform code and theory leave of the same frames: the yardstick beside the tokens."""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor

from gust_torch.metrics.transform_coding import (
    FieldTransform,
    RatePoint,
    gaussian_vrmse,
    transform_code_point,
)
from gust_torch.spec import FieldSpec

NUM_FRAMES = 64
RATIOS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Rates of the curves, as multiples of the tokens' rate."""


@dataclass(frozen=True)
class Floor:
    """Rate-distortion curves of one field at `RATIOS` of the tokens' rate.

    Attributes:
        code: Of the transform code.
        bound: Of any code of a Gaussian field with the same spectrum.
    """

    code: tuple[RatePoint, ...]
    bound: tuple[RatePoint, ...]

    def at_token_rate(self) -> tuple[float, float]:
        """VRMSE of the code and of the bound at the tokens' rate."""
        middle = RATIOS.index(1.0)
        return self.code[middle].vrmse, self.bound[middle].vrmse


class FloorFrames:
    """Some frames of the data, evenly spaced, as coefficients.

    Args:
        spec: Of the data.
        num_samples: Frames that will come.
        device: Where they are.
    """

    def __init__(self, spec: FieldSpec, num_samples: int, device: torch.device) -> None:
        self._transform = FieldTransform(spec, device)
        self._stride = max(1, num_samples // NUM_FRAMES)
        self._seen = 0
        self._kept: list[Tensor] = []

    def update(self, x: Tensor) -> None:
        """Take in a batch (b, c, h, w)."""
        rows = [i for i in range(len(x)) if (self._seen + i) % self._stride == 0]
        self._seen += len(x)
        for frame in x[rows]:
            self._kept.append(self._transform.forward(frame))

    def floor(self, channel: int, bits_per_pixel: float) -> Floor | None:
        """Code one half of the frames with the statistics of the other, and the other way round.

        Returns:
            The curves; None for fewer than two frames, a constant field, or no bits.
        """
        frames = torch.stack([coefficients[channel] for coefficients in self._kept])
        half = len(frames) // 2
        if half == 0 or bits_per_pixel <= 0 or not bool((frames[:, 1:].abs().amax(1) > 0).all()):
            return None
        rates = [ratio * bits_per_pixel for ratio in RATIOS]
        pairs = ((frames[:half], frames[half:]), (frames[half:], frames[:half]))
        points = []
        for rate in rates:
            both = [transform_code_point(*pair, rate, shells=self._transform.shells) for pair in pairs]
            weights = [len(pair[1]) / len(frames) for pair in pairs]
            points.append(
                RatePoint(
                    sum(w * p.bits_per_pixel for w, p in zip(weights, both, strict=True)),
                    sum(w * p.vrmse for w, p in zip(weights, both, strict=True)),
                )
            )
        return Floor(tuple(points), tuple(gaussian_vrmse(frames, rates)))


def rate_distortion_figure(floors: dict[str, tuple[Floor, RatePoint]]) -> Figure:
    """Draw VRMSE over bits per pixel, a panel a field: curves of code and bound, the point of the tokens."""
    figure = Figure(figsize=(4.2 * len(floors), 3.4), layout="constrained")
    panels = figure.subplots(1, len(floors), squeeze=False)[0]
    for axes, (name, (floor, tokens)) in zip(panels, floors.items(), strict=True):
        for points, label, style in (
            (floor.code, "transform code", "-"),
            (floor.bound, "Gaussian bound", ":"),
        ):
            rates, errors = zip(*((p.bits_per_pixel, p.vrmse) for p in points), strict=True)
            axes.loglog(rates, errors, style, color="0.3", label=label)
        axes.loglog(tokens.bits_per_pixel, tokens.vrmse, "o", color="C1", label="tokens")
        axes.set(title=name, xlabel="bits per pixel, entropy coded", ylabel="VRMSE")
        axes.grid(which="both", alpha=0.2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.set_minor_formatter("{x:g}")
        axes.legend()
    return figure
