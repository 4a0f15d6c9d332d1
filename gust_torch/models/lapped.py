"""Orthonormal separable transforms of fields: the sketch (a field cut to its low modes) and lapped cosines.

Both are small dense matrices along each axis, so that every grid, periodic or between walls, goes the same
way, on any device.

A lapped transform cuts an axis into blocks like a cosine transform of blocks, but its functions reach over
the block edges into half of both neighbors, so that no edges show. It is a rotation of mirrored pairs of
values around each edge (the window), followed by a DCT-IV in each block (Princen and Bradley 1986; Malvar
1992). A wall has no neighbor to overlap with: there nothing is rotated, and the last block takes the DCT-II,
which is even at both ends.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gust_torch.metrics.transforms import hartley_matrix, orthonormal_cosines


def sketch_matrix(n: int, size: int, boundary: str) -> Tensor:
    """Build the matrix that cuts an axis of n values to its low modes, given on `size` points.

    On a periodic axis these are the wavenumbers |m| < size / 2, between walls the first `size` cosines. Its
    transpose is the way back: interpolation by the same modes.

    Returns:
        ``(size, n)`` float64. Rows are orthonormal but for the mode size / 2, which maps to zero.
    """
    if boundary == "wall":
        return orthonormal_cosines(size).T @ orthonormal_cosines(n)[:size]
    low = range(n) if size == n else [m for m in range(-size, size) if abs(m) < size / 2]
    fine, coarse = hartley_matrix(n), hartley_matrix(size)
    return coarse[:, [m % size for m in low]] @ fine[[m % n for m in low]]


def lapped_matrix(n: int, num_blocks: int, boundary: str) -> Tensor:
    """Build the lapped cosine transform of an axis of n values, a multiple of `num_blocks`.

    Returns:
        ``(num_blocks, M, n)`` float64 with M = n / num_blocks, orthonormal rows: coefficient m of block b is
        ``matrix[b, m] @ x``.
    """
    size = n // num_blocks
    half = size // 2
    window = torch.eye(n, dtype=torch.float64)
    for edge in range(0 if boundary == "periodic" and num_blocks > 1 else size, n, size):
        for t in range(half):
            angle = math.pi / 4 * (1 + (t + 0.5) / half)
            left, right = (edge - 1 - t) % n, edge + t
            # Even around the edge for the block to the right, odd for the one to the left.
            window[right, right], window[right, left] = math.sin(angle), math.cos(angle)
            window[left, left], window[left, right] = math.sin(angle), -math.cos(angle)
    points = torch.arange(size, dtype=torch.float64) + 0.5
    cosines = math.sqrt(2 / size) * torch.cos(math.pi / size * torch.outer(points, points))
    blocks = cosines.repeat(num_blocks, 1, 1)
    if boundary == "wall":
        blocks[-1] = orthonormal_cosines(size)
    elif num_blocks == 1:
        blocks[0] = hartley_matrix(size)
    return blocks @ window.unflatten(0, (num_blocks, size))
