"""Building blocks of the convolutional encoder and decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

MAX_GROUPS = 32
MIN_CHANNELS_PER_GROUP = 4


class BoundaryConv2d(nn.Conv2d):
    """Odd-kernel convolution that wraps around on periodic axes and sees zeros beyond walls.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        boundary: `(x, y)` boundary types, each "periodic" or "wall".
        kernel_size: Odd kernel size, the same on both axes.
        stride: Stride on both axes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        boundary: tuple[str, str],
        *,
        kernel_size: int = 3,
        stride: int = 1,
    ) -> None:
        half = kernel_size // 2
        wraps = [half if kind == "periodic" else 0 for kind in boundary]
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=(half - wraps[0], half - wraps[1]),
        )
        self.wrap = (wraps[1], wraps[1], wraps[0], wraps[0])  # F.pad counts axes from the last one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve `x` (b, c, h, w) -> (b, c', ceil(h / stride), ceil(w / stride))."""
        if any(self.wrap):
            x = F.pad(x, self.wrap, mode="circular")
        return super().forward(x)


def group_norm(channels: int, *, use_norm: bool = True) -> nn.Module:
    """GroupNorm whose group count divides `channels` (at least four channels a group where it can).

    It never mixes samples, so a batch split over processes is normalised as the whole batch is.
    """
    if not use_norm:
        return nn.Identity()
    limit = min(MAX_GROUPS, max(1, channels // MIN_CHANNELS_PER_GROUP))
    groups = next(n for n in range(limit, 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)


class ResBlock2d(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), the channel number unchanged."""

    def __init__(self, channels: int, boundary: tuple[str, str], *, use_norm: bool = True) -> None:
        super().__init__()
        self.norm1 = group_norm(channels, use_norm=use_norm)
        self.conv1 = BoundaryConv2d(channels, channels, boundary)
        self.norm2 = group_norm(channels, use_norm=use_norm)
        self.conv2 = BoundaryConv2d(channels, channels, boundary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, c, h, w) to the same shape."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return x + y


class SelfAttention2d(nn.Module):
    """Multi-head self-attention over the cells of a feature map, with a residual connection.

    Raises:
        ValueError: If `num_heads` does not divide `channels`.
    """

    def __init__(self, channels: int, *, num_heads: int = 8, use_norm: bool = True) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(
                f"attention_heads={num_heads} does not divide the {channels} channels of the bottleneck "
                f"(base_channels * channel_mult[-1]); choose a divisor of {channels} or use_attention=False"
            )
        self.num_heads = num_heads
        self.norm = group_norm(channels, use_norm=use_norm)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, kernel_size=1)
        self.to_out = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, c, h, w) to the same shape."""
        b, c, h, w = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(b, 3, self.num_heads, c // self.num_heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (b, heads, h*w, c/heads)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.to_out(y.transpose(-1, -2).reshape(b, c, h, w))


class Upsample2d(nn.Module):
    """Nearest-neighbour upsampling by two and a 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int, boundary: tuple[str, str]) -> None:
        super().__init__()
        self.conv = BoundaryConv2d(in_channels, out_channels, boundary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, c, h, w) to (b, c', 2h, 2w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
