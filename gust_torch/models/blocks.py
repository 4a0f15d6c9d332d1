"""Building blocks of the convolutional encoder and decoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Boundary = tuple[str, str]
"""Along x and y, each "periodic" or "wall"."""
Layer = TypeVar("Layer", bound=nn.Module)

MAX_GROUPS = 32
MIN_CHANNELS_PER_GROUP = 4


class _PadOne(torch.autograd.Function):
    """See `pad_one`. F.pad(mode="circular") is five times slower: its backward visits every slice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, wraps: tuple[bool, bool]) -> Tensor:
        """Copy the inside, then the rows, then the columns with their corners."""
        ctx.wraps = wraps
        b, c, h, w = x.shape
        y = torch.empty((b, c, h + 2, w + 2), dtype=x.dtype, device=x.device, memory_format=layout(x))
        y[:, :, 1:-1, 1:-1] = x
        for axis, wrap in zip((-2, -1), wraps, strict=True):
            n = y.shape[axis]
            for border, source in ((0, n - 2), (n - 1, 1)):
                edge = y.narrow(axis, border, 1)
                edge.copy_(y.narrow(axis, source, 1)) if wrap else edge.zero_()
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Add what each copy received to where it came from."""
        wrap_x, wrap_y = ctx.wraps
        rows = grad[:, :, 1:-1].clone(memory_format=layout(grad)) if wrap_x else grad[:, :, 1:-1]
        if wrap_x:
            rows[:, :, -1] += grad[:, :, 0]
            rows[:, :, 0] += grad[:, :, -1]
        inner = rows[..., 1:-1].contiguous(memory_format=layout(grad))
        if wrap_y:
            inner[..., -1] += rows[..., 0]
            inner[..., 0] += rows[..., -1]
        return inner, None


def layout(x: Tensor) -> torch.memory_format:
    """Memory format that the strides of `x` (b, c, h, w) suggest, views included."""
    return torch.channels_last if x.stride(1) == 1 and x.shape[1] > 1 else torch.contiguous_format


def pad_one(x: Tensor, wraps: tuple[bool, bool]) -> Tensor:
    """Pad (b, c, h, w) to (b, c, h + 2, w + 2): with the opposite edge on axes that wrap, else with zeros."""
    padded: Tensor = _PadOne.apply(x, wraps)
    return padded


class BoundaryConv2d(nn.Conv2d):
    """3x3 convolution that wraps around on periodic axes and sees zeros beyond walls."""

    def __init__(self, in_channels: int, out_channels: int, boundary: Boundary, *, stride: int = 1) -> None:
        self.wraps = (boundary[0] == "periodic", boundary[1] == "periodic")
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=0 if any(self.wraps) else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` (b, c, h, w) -> (b, c', ceil(h / stride), ceil(w / stride))."""
        return super().forward(pad_one(x, self.wraps) if any(self.wraps) else x)


def group_norm(channels: int, *, use_norm: bool = True) -> nn.Module:
    """GroupNorm whose group count divides `channels` (at least four channels a group where it can).

    It never mixes samples, so a batch split over processes is normalized as the whole batch is.
    """
    if not use_norm:
        return nn.Identity()
    limit = min(MAX_GROUPS, max(1, channels // MIN_CHANNELS_PER_GROUP))
    groups = next(n for n in range(limit, 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)


class ResBlock2d(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), the channel number unchanged."""

    def __init__(self, channels: int, boundary: Boundary, *, use_norm: bool = True) -> None:
        super().__init__()
        self.norm1 = group_norm(channels, use_norm=use_norm)
        self.conv1 = BoundaryConv2d(channels, channels, boundary)
        self.norm2 = group_norm(channels, use_norm=use_norm)
        self.conv2 = BoundaryConv2d(channels, channels, boundary)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return x + y


def zeroed(layer: Layer) -> Layer:
    """Set all weights of a layer to zero, so that a new network begins without it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def channels_last(model: nn.Module) -> None:
    """Lay out the convolutions' weights for half the time on CPU, and tensor cores on CUDA."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


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

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        b, c, h, w = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(b, 3, self.num_heads, c // self.num_heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (b, heads, h*w, c/heads)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.to_out(y.transpose(-1, -2).reshape(b, c, h, w))


class Upsample2d(nn.Module):
    """Nearest-neighbor upsampling by two and a 3x3 convolution with the given boundaries.

    Evaluated as one transposed convolution: each fine cell's three taps per axis fall on two coarse cells,
    so four products replace nine and no fine copy of the input is made. Tap t of the 4-wide kernel joins
    fine cell o to coarse cell i when t = o + 1 - 2i.

    A flat axis keeps its length, 1.
    """

    fold_x: Tensor
    fold_y: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        boundary: Boundary,
        flat: tuple[bool, bool] = (False, False),
    ) -> None:
        super().__init__()
        self.conv = BoundaryConv2d(in_channels, out_channels, boundary)
        self.stride = tuple(1 if is_flat else 2 for is_flat in flat)
        self.padding = tuple(2 if is_flat else 3 for is_flat in flat)
        halves = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
        for name, is_flat in zip(("fold_x", "fold_y"), flat, strict=True):
            self.register_buffer(name, torch.eye(3).flip(0) if is_flat else halves, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c', 2h, 2w); flat axes stay."""
        kernel = torch.einsum("oiab,ta,sb->iots", self.conv.weight, self.fold_x, self.fold_y)
        padded = pad_one(x, self.conv.wraps)
        return F.conv_transpose2d(padded, kernel, self.conv.bias, self.stride, self.padding)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 matrix products, which could swap nearly equidistant codes."""
    before = torch.get_float32_matmul_precision()
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
