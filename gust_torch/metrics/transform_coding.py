"""The yardstick of a tokenizer: what a transform code keeps of a field at the same bits.

A field is expanded in an orthonormal basis, each coefficient is quantized with one step for all and a dead
zone around zero, and the integers are charged what an ideal arithmetic coder needs (`TransformCode`); this is
scalar quantization with centroids, entropy coded (Gersho and Gray 1992, chapters 8 and 9). Below lies the
bound of Shannon's rate-distortion theory for a Gaussian field of the same spectrum (`gaussian_vrmse`), by
reverse water-filling (Cover and Thomas 2006, theorem 10.3.3): no code of such a field can do better at that
rate; a code of a flow can, as far as the flow is not Gaussian.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gust_torch.metrics.transforms import hartley_matrix, orthonormal_cosines
from gust_torch.spec import FieldSpec

# A value is rounded towards zero up to this share of the step: fewer and cheaper symbols for little error.
DEAD_ZONE = 0.62
# Coefficients whose variances lie within this factor share their statistics.
CLASS_WIDTH = 2.0**0.5
STEP_BISECTIONS, WATER_BISECTIONS = 16, 60


class RatePoint(NamedTuple):
    """A point of a rate-distortion curve, means over frames; a pixel is one value of one field."""

    bits_per_pixel: float
    vrmse: float


class FieldTransform:
    """Fields ``(n, h, w)`` to coefficients ``(n, h w)``; squared errors are the same on both sides.

    Orthonormal: Hartley functions, the real form of Fourier modes, on periodic axes; cosines on wall axes.

    Attributes:
        shells: (h w,) shell of each coefficient, |k| in units of the largest length's first wave.
    """

    def __init__(self, spec: FieldSpec, device: torch.device | str = "cpu") -> None:
        axes, waves = [], []
        for n, kind, length in zip(spec.grid, spec.boundary, spec.lengths, strict=True):
            axes.append((hartley_matrix(n) if kind == "periodic" else orthonormal_cosines(n)).to(device))
            m = torch.arange(n, device=device)
            waves.append((torch.minimum(m, n - m) if kind == "periodic" else m / 2) / length)
        self.h, self.w = axes
        k = (waves[0].square()[:, None] + waves[1].square()[None, :]).sqrt() * max(spec.lengths)
        self.shells = k.round().long().flatten()

    def __call__(self, x: Tensor) -> Tensor:
        """Transform in float64."""
        return (self.h @ x.double() @ self.w.T).flatten(1)


class TransformCode:
    """An entropy-coded quantizer of coefficients, with statistics of its own training frames.

    Args:
        coefficients: Of the training frames, ``(n, m)``, see `FieldTransform`.
        step: Quantization step, in the field's units.
        shells: (m,) groups of coefficients that have one variance; None for one each, which takes more
            frames to know.
    """

    def __init__(self, coefficients: Tensor, step: float, shells: Tensor | None = None) -> None:
        self.step = step
        variance = coefficients.square().mean(0)
        if shells is not None:
            sums = variance.new_zeros(int(shells.max()) + 1).index_add_(0, shells, variance)
            variance = (sums / torch.bincount(shells).clamp(min=1))[shells]
        floor = variance.max().clamp(min=1e-300) * 1e-12
        level = torch.log(variance.clamp(min=floor) / floor) / math.log(CLASS_WIDTH)
        self._class = level.round().long()
        symbols = self.quantize(coefficients)
        self._largest = int(symbols.abs().max()) + 1  # what is larger is coded as that, and rare
        shape = int(self._class.max()) + 1, 2 * self._largest + 1
        index = self._index(symbols).flatten()
        counts = torch.bincount(index, minlength=math.prod(shape)).double()
        sums = torch.bincount(index, coefficients.flatten().double(), minlength=math.prod(shape))
        # Half a count for every symbol up to one beyond those seen in its class: each can be coded.
        value = torch.arange(-self._largest, self._largest + 1, device=symbols.device)
        table = counts.view(shape)
        seen = torch.where(table > 0, value.abs(), 0).amax(1, keepdim=True)
        smooth = table + torch.where(value.abs() <= seen + 1, 0.5, 1e-6)
        self._bits = -torch.log2(smooth / smooth.sum(1, keepdim=True)).flatten()
        middle = (value * step).expand(shape).flatten().double()
        self._values = torch.where(counts > 0, sums / counts.clamp(min=1), middle)

    def quantize(self, coefficients: Tensor) -> Tensor:
        """Integers ``(n, m)``: multiples of the step, rounded towards zero in the dead zone."""
        magnitude = (coefficients.abs() / self.step + (1 - DEAD_ZONE)).floor()
        return (magnitude * coefficients.sign()).long()

    def dequantize(self, symbols: Tensor) -> Tensor:
        """Coefficients ``(n, m)``: the mean of the training coefficients with that symbol."""
        return self._values[self._index(symbols)]

    def bits(self, symbols: Tensor) -> Tensor:
        """Length of the code of each frame, ``(n,)``, as an ideal arithmetic coder writes it."""
        return self._bits[self._index(symbols)].sum(1)

    def _index(self, symbols: Tensor) -> Tensor:
        symbols = symbols.clamp(-self._largest, self._largest)
        return self._class * (2 * self._largest + 1) + symbols + self._largest


def transform_code_point(
    train: Tensor, test: Tensor, bits_per_pixel: float, *, shells: Tensor | None = None
) -> RatePoint:
    """Code test frames at a mean rate, with the statistics of training frames.

    Args:
        train: Coefficients ``(n, m)`` of the training frames.
        test: Coefficients of the frames to code; the step is chosen so that the rate is met.
        bits_per_pixel: The rate.
        shells: See `TransformCode`; where given, the better of both ways counts.
    """
    groups = [None] if shells is None else [shells, None]
    points = [_code_point(train, test, bits_per_pixel, group) for group in groups]
    return min(points, key=lambda point: point.vrmse)


def _code_point(train: Tensor, test: Tensor, bits_per_pixel: float, shells: Tensor | None) -> RatePoint:
    scale = float(test.square().mean().sqrt())
    low, high = 1e-3 * scale, 1e3 * scale
    for _ in range(STEP_BISECTIONS):
        step = math.sqrt(low * high)
        code = TransformCode(train, step, shells)
        symbols = code.quantize(test)
        rate = float(code.bits(symbols).mean()) / test.shape[1]
        low, high = (step, high) if rate > bits_per_pixel else (low, step)
    error = (code.dequantize(symbols) - test).square().mean(1)
    return RatePoint(rate, float((error / _variance(test)).sqrt().mean()))


def gaussian_vrmse(test: Tensor, bits_per_pixel: Sequence[float]) -> list[RatePoint]:
    """Bound, at some rates, the error of any code of a Gaussian field with the variances of these frames.

    Args:
        test: Coefficients ``(n, m)``; variances are means over frames.
        bits_per_pixel: Rates.
    """
    variance = test.square().mean(0)
    points = []
    for rate in bits_per_pixel:
        low, high = float(variance.max()) * 1e-12, float(variance.max())
        for _ in range(WATER_BISECTIONS):
            water = math.sqrt(low * high)
            found = float(0.5 * torch.log2((variance / water).clamp(min=1)).sum()) / variance.numel()
            low, high = (water, high) if found > rate else (low, water)
        error = float(variance.clamp(max=water).mean())
        points.append(RatePoint(rate, math.sqrt(error / float(_variance(test).mean()))))
    return points


def _variance(coefficients: Tensor) -> Tensor:
    """Variance of each field, ``(n,)``: all its energy but that of the mean, coefficient 0."""
    return coefficients[:, 1:].square().sum(1) / coefficients.shape[1]
