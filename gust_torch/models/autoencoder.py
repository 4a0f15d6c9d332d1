"""Convolutional encoder and decoder between fields and latents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from gust_torch.models.blocks import BoundaryConv2d, ResBlock2d, SelfAttention2d, Upsample2d, group_norm


class Encoder2d(nn.Module):
    """Fields (b, c, h, w) -> latents (b, d, h / 2**s, w / 2**s) for s = len(channel_mult).

    A strided convolution enters the first stage; every stage is `num_res_blocks` residual blocks and,
    except for the last, a strided convolution into the next. A flat axis, of one cell, stays one.
    """

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        boundary: tuple[str, str],
        *,
        patch_size: int,
        base_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: Sequence[int],
        use_attention: bool,
        attention_heads: int,
        use_norm: bool,
        flat: tuple[bool, bool] = (False, False),
    ) -> None:
        super().__init__()
        self.patch = (1 if flat[0] else patch_size, 1 if flat[1] else patch_size)
        widths = [base_channels * mult for mult in channel_mult]
        self.in_conv = BoundaryConv2d(in_channels * math.prod(self.patch), widths[0], boundary)
        self.stages = nn.ModuleList()
        self.downs = nn.ModuleList()
        for i, width in enumerate(widths):
            blocks = [ResBlock2d(width, boundary, use_norm=use_norm) for _ in range(num_res_blocks[i])]
            self.stages.append(nn.Sequential(*blocks))
            if i + 1 < len(widths):
                self.downs.append(BoundaryConv2d(width, widths[i + 1], boundary, stride=2))
        self.attention = bottleneck(widths[-1], use_attention, attention_heads, use_norm)
        self.norm_out = group_norm(widths[-1], use_norm=use_norm)
        self.proj = nn.Conv2d(widths[-1], latent_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode normalized fields (b, c, h, w) into latents (b, d, h_l, w_l)."""
        y = self.in_conv(unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        for i, stage in enumerate(self.stages):
            y = stage(y)
            if i < len(self.downs):
                y = self.downs[i](F.silu(y))
        y = self.attention(y)
        return self.proj(F.silu(self.norm_out(y)))


class Decoder2d(nn.Module):
    """Latents (b, d, h_l, w_l) -> fields (b, c, h_l * 2**s, w_l * 2**s), the encoder's mirror image."""

    def __init__(
        self,
        out_channels: int,
        latent_channels: int,
        boundary: tuple[str, str],
        *,
        patch_size: int,
        base_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: Sequence[int],
        use_attention: bool,
        attention_heads: int,
        use_norm: bool,
        flat: tuple[bool, bool] = (False, False),
    ) -> None:
        super().__init__()
        self.patch = (1 if flat[0] else patch_size, 1 if flat[1] else patch_size)
        widths = [base_channels * mult for mult in reversed(channel_mult)]
        self.proj = nn.Conv2d(latent_channels, widths[0], kernel_size=1)
        self.attention = bottleneck(widths[0], use_attention, attention_heads, use_norm)
        self.stages = nn.ModuleList()
        self.ups = nn.ModuleList()
        for i, width in enumerate(widths):
            blocks = [ResBlock2d(width, boundary, use_norm=use_norm) for _ in range(num_res_blocks[-1 - i])]
            self.stages.append(nn.Sequential(*blocks))
            if i + 1 < len(widths):
                self.ups.append(Upsample2d(width, widths[i + 1], boundary, flat))
        self.norm_out = group_norm(widths[-1], use_norm=use_norm)
        self.out_conv = BoundaryConv2d(widths[-1], out_channels * math.prod(self.patch), boundary)

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        """Decode latents (b, d, h_l, w_l) into normalized fields (b, c, h, w)."""
        y = self.attention(self.proj(f))
        for i, stage in enumerate(self.stages):
            y = stage(y)
            if i < len(self.ups):
                y = self.ups[i](F.silu(y))
        return shuffle(self.out_conv(F.silu(self.norm_out(y))), self.patch)


def bottleneck(width: int, use_attention: bool, num_heads: int, use_norm: bool) -> nn.Module:
    """Self-attention on the coarsest grid, or nothing."""
    return SelfAttention2d(width, num_heads=num_heads, use_norm=use_norm) if use_attention else nn.Identity()


def unshuffle(x: torch.Tensor, patch: tuple[int, int]) -> torch.Tensor:
    """Patches of (b, c, h p, w q) as channels: (b, c p q, h, w), as F.pixel_unshuffle does for p = q."""
    if patch[0] == patch[1]:
        return F.pixel_unshuffle(x, patch[0])
    b, c, h, w = x.shape
    cut = x.reshape(b, c, h // patch[0], patch[0], w // patch[1], patch[1])
    return cut.permute(0, 1, 3, 5, 2, 4).reshape(b, -1, h // patch[0], w // patch[1])


def shuffle(y: torch.Tensor, patch: tuple[int, int]) -> torch.Tensor:
    """Inverse of `unshuffle`."""
    if patch[0] == patch[1]:
        return F.pixel_shuffle(y, patch[0])
    b, c, h, w = y.shape
    cut = y.reshape(b, c // math.prod(patch), *patch, h, w)
    return cut.permute(0, 1, 4, 2, 5, 3).reshape(b, -1, h * patch[0], w * patch[1])
