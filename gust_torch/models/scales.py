"""Token grids of the multi-scale quantizer: checks, codebook sizes, and the Down and Up operators.

Up copies: cell i of an axis of n cells takes the value of coarse cell floor(i m / n) of m. Down averages
exactly the cells that Up copies to, so Up(Down(r)) is an orthogonal projection and subtracting it can
never enlarge r. Where m divides n, Down is area pooling and Up is nearest-neighbor interpolation; where
it does not, the coarse cells hold unequal numbers of fine ones and the projection property is kept
(fractional area weights would lose it).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

Scale = tuple[int, int]

SMALLEST_CODEBOOK = 64


def suggest_scales(latent: Scale) -> tuple[Scale, ...]:
    """Token grids that halve `latent` (h, w) down to one cell on the shorter axis, coarse to fine.

    Example:
        >>> suggest_scales((4, 2))
        ((1, 1), (2, 1), (4, 2))
    """
    scales = [latent]
    while scales[-1] != (1, 1):
        scales.append((max(1, scales[-1][0] // 2), max(1, scales[-1][1] // 2)))
    return tuple(reversed(scales))


def scale_names(scales: Sequence[Scale]) -> list[str]:
    """Name scales: "8x8", and "8x8_2" where that grid stands for the second time."""
    names = [f"{h}x{w}" for h, w in scales]
    times = [names[: k + 1].count(name) for k, name in enumerate(names)]
    return [name if n == 1 else f"{name}_{n}" for name, n in zip(names, times, strict=True)]


def check_scales(scales: Sequence[Sequence[int]], latent: Scale) -> tuple[Scale, ...]:
    """Return `scales` as tuples after checking that they grow up to the latent grid.

    Raises:
        ValueError: If a scale is not a pair of positive integers, shrinks, or the last is not `latent`.
    """
    pairs = tuple((int(scale[0]), int(scale[-1])) for scale in scales if len(scale) == 2 and min(scale) > 0)
    grows = all(a[0] <= b[0] and a[1] <= b[1] and a != b for a, b in pairwise(pairs))
    if not grows or len(pairs) < len(scales) or pairs[-1:] != (latent,):
        raise ValueError(
            f"scales {[list(s) for s in scales]} must be pairs of positive integers that grow and end at the "
            f"{latent[0]}x{latent[1]} latent grid; use scales "
            f"{[list(s) for s in suggest_scales(latent)]}"
        )
    return pairs


def check_block_scales(
    scales: Sequence[Sequence[int]], sketch: Scale, grid: Scale, patch: int
) -> tuple[Scale, ...]:
    """Return `scales` as tuples after checking that each divides the sketch, and the sketch fits the grid.

    Raises:
        ValueError: If they do not.
    """
    pairs = tuple((int(h), int(w)) for h, w in scales)
    if any(m < 1 or m > n or m % patch for m, n in zip(sketch, grid, strict=True)):
        raise ValueError(
            f"sketch {list(sketch)} must be a multiple of decoder_patch={patch} within the grid "
            f"{list(grid)}; set --model.sketch"
        )
    unfit = [list(scale) for scale in pairs if min(scale) < 1 or sketch[0] % scale[0] or sketch[1] % scale[1]]
    if not pairs or unfit:
        raise ValueError(
            f"scales must divide the sketch {list(sketch)}, got {unfit}; choose others, or another "
            "--model.sketch"
        )
    return pairs


def codebook_sizes(vocab_size: int | Sequence[int], num_scales: int) -> tuple[int, ...]:
    """Codebook size K_k of each scale, coarse to fine.

    An integer is the finest scale's size; it halves at each coarser scale, down to 64 (or to itself
    when smaller), since a coarse grid sees fewer tokens to fill a codebook with. A sequence is taken as is.

    Raises:
        ValueError: If a size is below 2 or the number of sizes is not that of the scales.
    """
    if isinstance(vocab_size, int):
        floor = min(SMALLEST_CODEBOOK, vocab_size)
        vocab_size = [max(floor, vocab_size >> k) for k in reversed(range(num_scales))]
    return one_each(vocab_size, num_scales, "vocab_size", least=2)


def one_each(value: int | Sequence[int], num: int, name: str, *, least: int = 1) -> tuple[int, ...]:
    """Return `num` integers: one for all, or a sequence of them.

    Raises:
        ValueError: If there are not as many, or one is less than `least`.
    """
    values = (value,) * num if isinstance(value, int) else tuple(int(item) for item in value)
    if len(values) != num or min(values) < least:
        raise ValueError(f"{name} must be an integer or {num} integers, each at least {least}; got {value}")
    return values


def up(v: Tensor, size: Scale) -> Tensor:
    """Copy (b, d, m_h, m_w) onto the finer grid `size`: (b, d, h, w), see the module's text."""
    if tuple(v.shape[-2:]) == size:
        return v
    for axis, n in zip((-2, -1), size, strict=True):
        m = v.shape[axis]
        if m == 1:
            v = v.expand(*v.shape[:2], *((n, v.shape[-1]) if axis == -2 else (v.shape[-2], n)))
        else:
            v = v.index_select(axis, torch.arange(n, device=v.device) * m // n)
    return v


def down(r: Tensor, size: Scale) -> Tensor:
    """Average (b, d, h, w) over the cells that `up` copies to: (b, d, m_h, m_w)."""
    h, w = r.shape[-2:]
    if (h, w) == size:
        return r
    if h % size[0] == 0 and w % size[1] == 0:
        return F.avg_pool2d(r, (h // size[0], w // size[1]))
    rows, columns = (_averaging_matrix(m, n, r) for m, n in zip(size, (h, w), strict=True))
    return rows @ r @ columns.T


def _averaging_matrix(m: int, n: int, like: Tensor) -> Tensor:
    """(m, n) matrix of bin averages, bin of cell i being floor(i m / n)."""
    bins = torch.arange(n, device=like.device) * m // n
    member = F.one_hot(bins, m).T.to(like.dtype)
    return member / member.sum(dim=1, keepdim=True)
