"""Convolutional encoder and decoder between fields and latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gust_torch.models.blocks import (
    Boundary,
    BoundaryConv2d,
    ResBlock2d,
    SelfAttention2d,
    Upsample2d,
    group_norm,
)


@dataclass(frozen=True)
class Layers:
    """What encoder and decoder share.

    Attributes:
        boundary: Of both axes.
        flat: Which of the axes are of one cell; they stay so.
        patch_size: Cells along each side of a patch.
        widths: Channels of each stage, finest grid first.
        num_res_blocks: Residual blocks of each stage.
        attention_heads: Of self-attention on the coarsest grid; 0 for none.
        use_norm: GroupNorm in the residual blocks.
    """

    boundary: Boundary
    flat: tuple[bool, bool]
    patch_size: int
    widths: Sequence[int]
    num_res_blocks: Sequence[int]
    attention_heads: int
    use_norm: bool

    @property
    def patch(self) -> tuple[int, int]:
        """Cells of a patch along each axis."""
        return 1 if self.flat[0] else self.patch_size, 1 if self.flat[1] else self.patch_size

    def stage(self, i: int) -> nn.Sequential:
        """Build the residual blocks of stage i."""
        width, num = self.widths[i], self.num_res_blocks[i]
        return nn.Sequential(*(ResBlock2d(width, self.boundary, use_norm=self.use_norm) for _ in range(num)))

    def attention(self) -> nn.Module:
        """Build the self-attention on the coarsest grid, if any."""
        if not self.attention_heads:
            return nn.Identity()
        return SelfAttention2d(self.widths[-1], num_heads=self.attention_heads, use_norm=self.use_norm)


class Encoder2d(nn.Module):
    """Fields (b, c, h, w) -> latents (b, d, h_l, w_l), each axis over patch * 2**(number of stages - 1).

    A patch enters the first stage; every stage is residual blocks and, except for the last, a strided
    convolution into the next.
    """

    def __init__(self, channels: int, latent_channels: int, layers: Layers) -> None:
        super().__init__()
        self.patch, widths = layers.patch, layers.widths
        self.in_conv = BoundaryConv2d(channels * math.prod(self.patch), widths[0], layers.boundary)
        self.stages = nn.ModuleList()
        self.downs = nn.ModuleList()
        for i, width in enumerate(widths):
            self.stages.append(layers.stage(i))
            if i + 1 < len(widths):
                self.downs.append(BoundaryConv2d(width, widths[i + 1], layers.boundary, stride=2))
        self.attention = layers.attention()
        self.norm_out = group_norm(widths[-1], use_norm=layers.use_norm)
        self.proj = nn.Conv2d(widths[-1], latent_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Encode normalized fields (b, c, h, w) into latents (b, d, h_l, w_l)."""
        y = self.in_conv(unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        for i, stage in enumerate(self.stages):
            y = stage(y)
            if i < len(self.downs):
                y = self.downs[i](F.silu(y))
        return self.proj(F.silu(self.norm_out(self.attention(y))))


class Decoder2d(nn.Module):
    """Latents (b, d, h_l, w_l) -> fields (b, c, h, w), the encoder's mirror image."""

    def __init__(self, channels: int, latent_channels: int, layers: Layers) -> None:
        super().__init__()
        self.patch, widths = layers.patch, layers.widths
        self.proj = nn.Conv2d(latent_channels, widths[-1], kernel_size=1)
        self.attention = layers.attention()
        self.stages = nn.ModuleList()
        self.ups = nn.ModuleList()
        for i in reversed(range(len(widths))):
            self.stages.append(layers.stage(i))
            if i > 0:
                self.ups.append(Upsample2d(widths[i], widths[i - 1], layers.boundary, layers.flat))
        self.norm_out = group_norm(widths[0], use_norm=layers.use_norm)
        self.out_conv = BoundaryConv2d(widths[0], channels * math.prod(self.patch), layers.boundary)

    def forward(self, f: Tensor) -> Tensor:
        """Decode latents (b, d, h_l, w_l) into normalized fields (b, c, h, w)."""
        y = self.attention(self.proj(f))
        for i, stage in enumerate(self.stages):
            y = stage(y)
            if i < len(self.ups):
                y = self.ups[i](F.silu(y))
        return shuffle(self.out_conv(F.silu(self.norm_out(y))), self.patch)


def unshuffle(x: Tensor, patch: tuple[int, int]) -> Tensor:
    """Patches of (b, c, h p, w q) as channels: (b, c p q, h, w), as F.pixel_unshuffle does for p = q."""
    y = x.unflatten(3, (-1, patch[1])).unflatten(2, (-1, patch[0]))
    return y.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def shuffle(y: Tensor, patch: tuple[int, int]) -> Tensor:
    """Inverse of `unshuffle`."""
    if patch[0] == patch[1]:
        return F.pixel_shuffle(y, patch[0])  # which keeps the memory layout
    x = y.unflatten(1, (-1, *patch)).permute(0, 1, 4, 2, 5, 3)
    return x.flatten(4, 5).flatten(2, 3)
