"""Multi-scale quantizer in lapped bases, each scale's codes shifted and scaled by what is decoded already.

With s the sketch of a field, f_0 = 0, T_k the d_k strongest coefficients of a lapped transform with the
blocks of scale k (orthonormal rows), and (b, l) a small network's view of the neighborhood in f_{k-1}:

    r_k = T_k (s - f_{k-1}),    sigma = exp(2 tanh(l / 2))
    i_k = argmin_j  1/2 sigma^2 . e_j^2 - ((r_k - b) sigma) . e_j
    f_k = f_{k-1} + T_k^T (b + sigma e_{i_k})

Rows of T_k are orthonormal, so distances of codes are errors of the field. At the first scale b = 0 and
sigma = 1. Codes and networks learn by gradient from the mean of |r_k - b - sigma e|^2 (conditional codebooks:
Huijben et al. 2024, arXiv:2401.14732; lapped transforms: `models.lapped`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gust_torch.models.blocks import Boundary, BoundaryConv2d, full_precision, zeroed
from gust_torch.models.kmeans import as_rows, kmeans
from gust_torch.models.lapped import lapped_matrix
from gust_torch.models.scales import Scale
from gust_torch.models.token_model import QuantizerOutput

ENERGY_FLOOR = 1e-3

Context = tuple[Tensor, Tensor]
"""Shift b and scale sigma of the codes, (b, d, h_k, w_k) each."""


class LappedScale(nn.Module):
    """One scale: its basis T_k, its codes e, and the network that shifts and scales them.

    Args:
        sketch: Grid of the sketch (h, w).
        channels: Fields c.
        boundary: Of both axes.
        scale: Token grid (h_k, w_k), which divides the sketch.
        size: Codes K_k.
        dim: Coefficients kept of each token, d_k.
        context_dim: Coefficients of f_{k-1} around a token that the network sees; 0 for no network.
        width: Of the network.
    """

    rows: Tensor
    columns: Tensor
    kept: Tensor
    seen: Tensor

    def __init__(
        self,
        sketch: Scale,
        channels: int,
        boundary: Boundary,
        scale: Scale,
        *,
        size: int,
        dim: int,
        context_dim: int,
        width: int,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.cell = (channels, sketch[0] // scale[0], sketch[1] // scale[1])
        total = channels * self.cell[1] * self.cell[2]
        self.dim, self.context_dim = min(dim, total), min(context_dim, total)
        for name, n, blocks, kind in zip(("rows", "columns"), sketch, scale, boundary, strict=True):
            matrix = lapped_matrix(n, blocks, kind).flatten(0, 1).float()
            self.register_buffer(name, matrix, persistent=False)
        self.register_buffer("kept", torch.arange(self.dim))
        self.register_buffer("seen", torch.arange(self.context_dim))
        self.codes = nn.Parameter(torch.zeros(size, self.dim))
        self.network: nn.Sequential | None = None
        if context_dim:
            last = zeroed(nn.Conv2d(width, 2 * self.dim, 1))
            first = BoundaryConv2d(self.context_dim + 1, width, boundary)
            self.network = nn.Sequential(first, nn.SiLU(), nn.Conv2d(width, width, 1), nn.SiLU(), last)

    def analyze(self, s: Tensor) -> Tensor:
        """All coefficients (b, C, h_k, w_k) of each token, C = c M_h M_w, of a sketch (b, c, h, w)."""
        y = (self.rows @ s @ self.columns.T).unflatten(3, (self.scale[1], -1))
        return y.unflatten(2, (self.scale[0], -1)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)

    def synthesize(self, u: Tensor) -> Tensor:
        """Sketch (b, c, h, w) of the kept coefficients (b, d, h_k, w_k)."""
        zeros = u.new_zeros(len(u), math.prod(self.cell), *self.scale)
        y = zeros.index_copy(1, self.kept, u).unflatten(1, self.cell)
        y = y.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
        return self.rows.T @ y @ self.columns

    def context(self, f: Tensor) -> Context | None:
        """Shift and scale of the codes, given f_{k-1} (b, c, h, w)."""
        if self.network is None:
            return None
        coefficients = self.analyze(f)
        energy = (coefficients.square().mean(1, keepdim=True) + ENERGY_FLOOR).log()
        shift, scale = self.network(torch.cat([coefficients[:, self.seen], energy], 1)).chunk(2, 1)
        return shift, (2 * torch.tanh(scale / 2)).exp()

    def residual(self, s: Tensor, f: Tensor) -> Tensor:
        """Return the kept coefficients r_k (b, d, h_k, w_k) of what is left of the sketch."""
        return self.analyze(s - f)[:, self.kept]

    @torch.no_grad()
    def scores(self, r: Tensor, context: Context | None) -> Tensor:
        """Half squared distances (b, h_k, w_k, K_k) of residuals to all codes, but for a constant."""
        if context is None:
            half = 0.5 * self.codes.square().sum(1)
        else:
            shift, scale = context
            half = 0.5 * as_rows(scale.square()) @ self.codes.square().T
            r = (r - shift) * scale
        scores = torch.addmm(half, as_rows(r), self.codes.T, alpha=-1.0)
        return scores.unflatten(0, (len(r), *self.scale))

    def vectors(self, indices: Tensor, context: Context | None) -> Tensor:
        """Kept coefficients b + sigma e (b, d, h_k, w_k) of codes (b, h_k, w_k)."""
        codes = F.embedding(indices, self.codes).permute(0, 3, 1, 2)
        return codes if context is None else context[0] + context[1] * codes


class ConditionalQuantizer(nn.Module):
    """All scales, see the module's text; never in half precision.

    Sizes and dimensions are those of `LappedScale`, one per scale; the first scale has no context.
    """

    levels: Sequence[LappedScale]

    def __init__(
        self,
        sketch: Scale,
        channels: int,
        boundary: Boundary,
        scales: Sequence[Scale],
        *,
        sizes: Sequence[int],
        dims: Sequence[int],
        context_dims: Sequence[int],
        width: int,
    ) -> None:
        super().__init__()
        self.sketch = (channels, *sketch)
        self.levels = nn.ModuleList(  # type: ignore[assignment]
            LappedScale(sketch, channels, boundary, scale, size=size, dim=dim, context_dim=seen, width=width)
            for scale, size, dim, seen in zip(scales, sizes, dims, (0, *context_dims[1:]), strict=True)
        )

    @torch.no_grad()
    def initialize(self, s: Tensor, generator: torch.Generator) -> None:
        """Choose each scale's coefficients by variance and its codes by k-means on sketches (n, c, h, w)."""
        f = torch.zeros_like(s)
        with full_precision(s.device):
            for level in self.levels:
                level.kept.copy_(_strongest(level.analyze(s - f), level.dim))
                level.seen.copy_(_strongest(level.analyze(f), level.context_dim))
                r, context = level.residual(s, f), level.context(f)
                level.codes.copy_(kmeans(as_rows(r), len(level.codes), generator)[0])
                indices = level.scores(r, context).argmin(-1)
                f = f + level.synthesize(level.vectors(indices, context))

    def accumulate(self, indices: Sequence[Tensor]) -> list[Tensor]:
        """Decode codes (b, h_k, w_k) to the sketches f_1, ..., f_S, (b, c, h, w) each."""
        f = self.levels[0].codes.new_zeros(len(indices[0]), *self.sketch)
        decoded = []
        with full_precision(f.device):
            for level, index in zip(self.levels, indices, strict=True):
                f = f + level.synthesize(level.vectors(index, level.context(f)))
                decoded.append(f)
        return decoded

    def quantize(self, s: Tensor) -> QuantizerOutput:
        """Quantize sketches (b, c, h, w).

        Returns:
            The sketches f_1, ..., f_S, their codes, and the mean over cells of sum_k |r_k - b - sigma e|^2.
        """
        f, loss = torch.zeros_like(s), s.new_zeros(())
        indices, decoded = [], []
        with full_precision(s.device):
            for level in self.levels:
                f = f.detach()
                r, context = level.residual(s, f), level.context(f)
                index = level.scores(r, context).argmin(-1)
                vectors = level.vectors(index, context)
                f = f + level.synthesize(vectors)
                loss = loss + (r - vectors).square().sum() / s.numel()
                indices.append(index)
                decoded.append(f)
        return QuantizerOutput(decoded, indices, loss)


def _strongest(coefficients: Tensor, num: int) -> Tensor:
    """Which `num` of the coefficients (n, C, h_k, w_k) have the largest mean square, in their order."""
    power = coefficients.square().mean((0, 2, 3))
    return power.argsort(descending=True, stable=True)[:num].sort().values
