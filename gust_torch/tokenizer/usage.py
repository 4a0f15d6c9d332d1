"""How well the codes of each scale are used, and what a sample costs in bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ScaleUsage:
    """Code statistics of one scale.

    Attributes:
        scale: (h, w) token grid.
        codebook_size: K, vectors in the codebook.
        codes_in_use: codes that occurred at least once.
        entropy_bits: H = -sum p log2 p of the code frequencies, in bits.
    """

    scale: tuple[int, int]
    codebook_size: int
    codes_in_use: int
    entropy_bits: float

    @property
    def perplexity(self) -> float:
        """2^H: the number of equally frequent codes that would have this entropy."""
        return float(2.0**self.entropy_bits)

    @property
    def name(self) -> str:
        """The grid as text, such as "4x2"."""
        return f"{self.scale[0]}x{self.scale[1]}"


@dataclass(frozen=True)
class BitRate:
    """Cost of a sample in bits per pixel and channel, sum_k h_k w_k b_k / (c h w).

    Attributes:
        nominal: with b_k = log2 K_k, every code costing the same.
        entropy_coded: with b_k = H_k, codes costing what their frequency allows.
    """

    nominal: float
    entropy_coded: float


def scale_usage(
    scales: Sequence[tuple[int, int]], counts: Sequence[NDArray[np.int64]]
) -> tuple[ScaleUsage, ...]:
    """Measure the usage of each scale (h_k, w_k) from the occurrences (K_k,) of its codes.

    Raises:
        ValueError: if a scale has no tokens.
    """
    usages = []
    for (h, w), count in zip(scales, counts, strict=True):
        occurring = count[count > 0]
        if occurring.size == 0:
            raise ValueError(f"no tokens at scale {h}x{w}; encode at least one sample")
        p = occurring / occurring.sum()
        # max(): rounding could leave -0.0 where one code takes all.
        entropy = max(0.0, float(-(p * np.log2(p)).sum()))
        usages.append(ScaleUsage((h, w), len(count), int(occurring.size), entropy))
    return tuple(usages)


def bit_rate(usages: Sequence[ScaleUsage], num_channels: int, grid: tuple[int, int]) -> BitRate:
    """Compute bits per pixel and channel of fields (c, h, w) from the usage of every scale."""
    values = num_channels * grid[0] * grid[1]
    nominal = sum(math.prod(u.scale) * math.log2(u.codebook_size) for u in usages) / values
    entropy_coded = sum(math.prod(u.scale) * u.entropy_bits for u in usages) / values
    return BitRate(nominal, entropy_coded)
