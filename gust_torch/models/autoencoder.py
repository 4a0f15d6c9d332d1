"""Convolutional encoder and decoder between fields and latents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from gust_torch.models.blocks import BoundaryConv2d, ResBlock2d, SelfAttention2d, Upsample2d, group_norm


class Encoder2d(nn.Module):
    """Fields (b, c, h, w) -> latents (b, d, h_l, w_l), each axis over patch * 2**(len(widths) - 1).

    A patch enters the first stage; every stage is residual blocks and, except for the last, a strided
    convolution into the next. A flat axis, of one cell, stays one.

    Args:
        channels: Of the fields, c.
        latent_channels: d.
        boundary: `(x, y)` boundary types, each "periodic" or "wall".
        flat: Per axis whether it is of one cell.
        patch_size: Cells along each side of a patch.
        widths: Channels of each stage, finest grid first.
        num_res_blocks: Residual blocks of each stage.
        attention_heads: Of self-attention on the coarsest grid; 0 for none.
        use_norm: GroupNorm in the residual blocks.
    """

    def __init__(
        self,
        channels: int,
        latent_channels: int,
        boundary: tuple[str, str],
        flat: tuple[bool, bool],
        *,
        patch_size: int,
        widths: Sequence[int],
        num_res_blocks: Sequence[int],
        attention_heads: int,
        use_norm: bool,
    ) -> None:
        super().__init__()
        self.patch = (1 if flat[0] else patch_size, 1 if flat[1] else patch_size)
        self.in_conv = BoundaryConv2d(channels * math.prod(self.patch), widths[0], boundary)
        self.stages = nn.ModuleList()
        self.downs = nn.ModuleList()
        for i, (width, num) in enumerate(zip(widths, num_res_blocks, strict=True)):
            self.stages.append(res_blocks(num, width, boundary, use_norm))
            if i + 1 < len(widths):
                self.downs.append(BoundaryConv2d(width, widths[i + 1], boundary, stride=2))
        self.attention = bottleneck(widths[-1], attention_heads, use_norm)
        self.norm_out = group_norm(widths[-1], use_norm=use_norm)
        self.proj = nn.Conv2d(widths[-1], latent_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode normalized fields (b, c, h, w) into latents (b, d, h_l, w_l)."""
        y = self.in_conv(unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        for i, stage in enumerate(self.stages):
            y = stage(y)
            if i < len(self.downs):
                y = self.downs[i](F.silu(y))
        return self.proj(F.silu(self.norm_out(self.attention(y))))


class Decoder2d(nn.Module):
    """Latents (b, d, h_l, w_l) -> fields (b, c, h, w): the mirror image of `Encoder2d`, and its arguments."""

    def __init__(
        self,
        channels: int,
        latent_channels: int,
        boundary: tuple[str, str],
        flat: tuple[bool, bool],
        *,
        patch_size: int,
        widths: Sequence[int],
        num_res_blocks: Sequence[int],
        attention_heads: int,
        use_norm: bool,
    ) -> None:
        super().__init__()
        self.patch = (1 if flat[0] else patch_size, 1 if flat[1] else patch_size)
        self.proj = nn.Conv2d(latent_channels, widths[-1], kernel_size=1)
        self.attention = bottleneck(widths[-1], attention_heads, use_norm)
        self.stages = nn.ModuleList()
        self.ups = nn.ModuleList()
        for i in reversed(range(len(widths))):
            self.stages.append(res_blocks(num_res_blocks[i], widths[i], boundary, use_norm))
            if i > 0:
                self.ups.append(Upsample2d(widths[i], widths[i - 1], boundary, flat))
        self.norm_out = group_norm(widths[0], use_norm=use_norm)
        self.out_conv = BoundaryConv2d(widths[0], channels * math.prod(self.patch), boundary)

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        """Decode latents (b, d, h_l, w_l) into normalized fields (b, c, h, w)."""
        y = self.attention(self.proj(f))
        for i, stage in enumerate(self.stages):
            y = stage(y)
            if i < len(self.ups):
                y = self.ups[i](F.silu(y))
        return shuffle(self.out_conv(F.silu(self.norm_out(y))), self.patch)


def res_blocks(num: int, width: int, boundary: tuple[str, str], use_norm: bool) -> nn.Sequential:
    """One stage."""
    return nn.Sequential(*(ResBlock2d(width, boundary, use_norm=use_norm) for _ in range(num)))


def bottleneck(width: int, num_heads: int, use_norm: bool) -> nn.Module:
    """Self-attention on the coarsest grid, or nothing."""
    return SelfAttention2d(width, num_heads=num_heads, use_norm=use_norm) if num_heads else nn.Identity()


def unshuffle(x: torch.Tensor, patch: tuple[int, int]) -> torch.Tensor:
    """Patches of (b, c, h p, w q) as channels: (b, c p q, h, w), as F.pixel_unshuffle does for p = q."""
    y = x.unflatten(3, (-1, patch[1])).unflatten(2, (-1, patch[0]))
    return y.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def shuffle(y: torch.Tensor, patch: tuple[int, int]) -> torch.Tensor:
    """Inverse of `unshuffle`."""
    if patch[0] == patch[1]:
        return F.pixel_shuffle(y, patch[0])  # which keeps the memory layout
    x = y.unflatten(1, (-1, *patch)).permute(0, 1, 4, 2, 5, 3)
    return x.flatten(4, 5).flatten(2, 3)
