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

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gust_torch.models.blocks import BoundaryConv2d
from gust_torch.models.kmeans import kmeans
from gust_torch.models.lapped import lapped_matrix
from gust_torch.models.scales import Scale

ENERGY_FLOOR = 1e-3


class LappedScale(nn.Module):
    """One scale: its basis, its codes, and the network that shifts and scales them.

    Args:
        sketch: Grid of the sketch (h, w).
        scale: Token grid (h_k, w_k), which divides it.
        channels: Fields.
        dim: Coefficients kept of each token, d_k.
        context_dim: Coefficients of f_{k-1} around a token that the network sees; 0 for the first scale.
        size: Codes K_k.
        boundary: Of both axes.
        width: Of the network.
    """

    rows: Tensor
    columns: Tensor
    kept: Tensor
    seen: Tensor

    def __init__(
        self,
        sketch: Scale,
        scale: Scale,
        channels: int,
        *,
        dim: int,
        context_dim: int,
        size: int,
        boundary: tuple[str, str],
        width: int,
    ) -> None:
        super().__init__()
        self.scale, self.channels = scale, channels
        rows, columns = (
            lapped_matrix(n, blocks, kind).flatten(0, 1).float()
            for n, blocks, kind in zip(sketch, scale, boundary, strict=True)
        )
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.block = (sketch[0] // scale[0], sketch[1] // scale[1])
        total = channels * self.block[0] * self.block[1]
        self.dim, self.context_dim = min(dim, total), min(context_dim, total)
        self.register_buffer("kept", torch.arange(self.dim))
        self.register_buffer("seen", torch.arange(self.context_dim))
        self.codes = nn.Parameter(torch.zeros(size, self.dim))
        self.network: nn.Sequential | None = None
        if context_dim:
            last = nn.Conv2d(width, 2 * self.dim, 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
            self.network = nn.Sequential(
                BoundaryConv2d(self.context_dim + 1, width, boundary),
                nn.SiLU(),
                nn.Conv2d(width, width, 1),
                nn.SiLU(),
                last,
            )

    def analyze(self, s: Tensor) -> Tensor:
        """All coefficients (b, C, h_k, w_k) of each token, C = c M_h M_w, of a sketch (b, c, h, w)."""
        y = (self.rows @ s @ self.columns.T).unflatten(-1, (self.scale[1], self.block[1]))
        y = y.unflatten(2, (self.scale[0], self.block[0]))
        return y.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)

    def synthesize(self, u: Tensor) -> Tensor:
        """Sketch (b, c, h, w) of the kept coefficients (b, d, h_k, w_k)."""
        full = u.new_zeros(u.shape[0], self.channels * self.block[0] * self.block[1], *self.scale)
        y = full.index_copy(1, self.kept, u).unflatten(1, (self.channels, *self.block))
        y = y.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
        return self.rows.T @ y @ self.columns

    def context(self, f: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Shift b and scale sigma, (b, d, h_k, w_k) each, given f_{k-1}; None for the first scale."""
        if self.network is None or f is None:
            return None, None
        coefficients = self.analyze(f)
        energy = (coefficients.square().mean(1, keepdim=True) + ENERGY_FLOOR).log()
        shift, scale = self.network(torch.cat([coefficients[:, self.seen], energy], 1)).chunk(2, 1)
        return shift, (2 * torch.tanh(scale / 2)).exp()

    def residual(self, s: Tensor, f: Tensor | None) -> Tensor:
        """Return the kept coefficients (b, d, h_k, w_k) of what is left of the sketch."""
        return self.analyze(s if f is None else s - f)[:, self.kept]

    def vectors(self, indices: Tensor, f: Tensor | None) -> Tensor:
        """Kept coefficients b + sigma e (b, d, h_k, w_k) of codes (b, h_k, w_k), given f_{k-1}."""
        codes = F.embedding(indices, self.codes).permute(0, 3, 1, 2)
        shift, scale = self.context(f)
        return codes if shift is None or scale is None else shift + scale * codes

    @torch.no_grad()
    def scores(self, u: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
        """Half squared distance to each code but for a constant, ``(b h_k w_k, K_k)``, of residuals u."""
        if shift is None or scale is None:
            half = 0.5 * self.codes.square().sum(1)
            return torch.addmm(half, _rows(u), self.codes.T, alpha=-1.0)
        half = 0.5 * _rows(scale.square()) @ self.codes.square().T
        return torch.addmm(half, _rows((u - shift) * scale), self.codes.T, alpha=-1.0)


class ConditionalQuantizer(nn.Module):
    """All scales, see the module's text.

    Args:
        sketch: Grid of the sketch.
        channels: Fields.
        scales: Token grids, coarse to fine; each divides the sketch.
        sizes: Codes of each scale.
        dims: Coefficients kept at each scale.
        context_dims: Coefficients of f_{k-1} that each scale's network sees; the first one's is not used.
        boundary: Of both axes.
        width: Of the networks.
    """

    def __init__(
        self,
        sketch: Scale,
        channels: int,
        scales: Sequence[Scale],
        sizes: Sequence[int],
        dims: Sequence[int],
        context_dims: Sequence[int],
        boundary: tuple[str, str],
        *,
        width: int = 96,
    ) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.levels = nn.ModuleList(
            LappedScale(
                sketch,
                scale,
                channels,
                dim=dim,
                context_dim=0 if k == 0 else context,
                size=size,
                boundary=boundary,
                width=width,
            )
            for k, (scale, size, dim, context) in enumerate(
                zip(scales, sizes, dims, context_dims, strict=True)
            )
        )

    @torch.no_grad()
    def initialize(self, s: Tensor, generator: torch.Generator) -> None:
        """Choose each scale's coefficients by variance and its codes by k-means on sketches (n, c, h, w)."""
        f: Tensor | None = None
        for level in self.levels:
            assert isinstance(level, LappedScale)
            left = level.analyze(s if f is None else s - f)
            strongest = left.square().mean((0, 2, 3)).argsort(descending=True, stable=True)
            level.kept.copy_(strongest[: level.dim].sort().values)
            if f is not None:
                known = level.analyze(f).square().mean((0, 2, 3)).argsort(descending=True, stable=True)
                level.seen.copy_(known[: level.context_dim].sort().values)
            u = left[:, level.kept]
            level.codes.copy_(kmeans(_rows(u), len(level.codes), generator)[0])
            index = level.scores(u, *level.context(f)).argmin(1).reshape(len(s), *level.scale)
            f = self.step(level, index, f)

    def step(self, level: LappedScale, indices: Tensor, f: Tensor | None) -> Tensor:
        """f_k of f_{k-1} and the codes of scale k: the one place where codes become a field."""
        added = level.synthesize(level.vectors(indices, f))
        return added if f is None else f + added

    def accumulate(self, indices: Sequence[Tensor]) -> list[Tensor]:
        """Decode codes (b, h_k, w_k) to the sketches f_1, ..., f_S, (b, c, h, w) each."""
        decoded: list[Tensor] = []
        for level, index in zip(self.levels, indices, strict=True):
            assert isinstance(level, LappedScale)
            decoded.append(self.step(level, index, decoded[-1] if decoded else None))
        return decoded

    def quantize(self, s: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Quantize sketches (b, c, h, w).

        Returns:
            Codes (b, h_k, w_k) and decoded sketches f_k (b, c, h, w) of each scale, and the loss: the mean
            over cells of sum_k |r_k - b - sigma e|^2.
        """
        indices: list[Tensor] = []
        decoded: list[Tensor] = []
        loss = s.new_zeros(())
        for level in self.levels:
            assert isinstance(level, LappedScale)
            f = decoded[-1].detach() if decoded else None
            u = level.residual(s, f)
            index = level.scores(u, *level.context(f)).argmin(1).reshape(len(s), *level.scale)
            vectors = level.vectors(index, f)
            loss = loss + (u - vectors).square().sum() / s.numel()
            added = level.synthesize(vectors)
            indices.append(index)
            decoded.append(added if f is None else f + added)
        return indices, decoded, loss


def _rows(u: Tensor) -> Tensor:
    """(b, d, h, w) -> (b h w, d)."""
    return u.permute(0, 2, 3, 1).reshape(-1, u.shape[1])
