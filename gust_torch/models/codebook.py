"""Codebooks of all scales, learnt by exponential moving averages of global sums."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gust_torch.models.blocks import full_precision
from gust_torch.models.distributed import broadcast, reduce_and_gather
from gust_torch.models.kmeans import as_rows, draw_far, kmeans

DEAD_SHARE = 0.1
"""A code is dead when its moving count is below this share of a uniform code's."""
MAX_REPLACED_SHARE = 0.25
"""At most this share of the recent vectors become codes in one replacement."""
MEAN_RATE = 0.25
"""Share of the way to a step's mean vector that the moving mean goes."""
RECENT_FRAMES = 1024
"""Frames of which one vector per scale is remembered as a candidate for replacement."""
PLACE_STRIDE = 5
"""Step of the place in the token grid where candidates are taken; coprime to grids of powers of two."""
SMALLEST_COUNT = 1e-6


class EMACodebooks(nn.Module):
    """One codebook (K_k, d) per scale: e = sums / counts, both moving averages of what each code received.

    counts <- g_k counts + (1 - g_k) n and sums <- g_k sums + (1 - g_k) Σ u, over the vectors u of a step on
    all processes. The rate 1 - g_k of a scale is that of the best-served one times the square root of its
    vectors per code relative to that one's: slower where few vectors come, so that codes average over enough
    of them. So that a slow codebook keeps up with an encoder that drifts, all codes of a scale also move with
    the scale's mean vector. The scales lie one after the other in the same buffers: one all-reduce a step.

    Args:
        sizes: Codebook sizes K_k.
        dim: Code dimension d.
        tokens: Tokens per frame of each scale, h_k * w_k.
        decay: Decay g of the best-served scale.
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor
    means: Tensor
    recent: Tensor
    _rates: Tensor
    _scale_of_row: Tensor

    def __init__(self, sizes: Sequence[int], dim: int, tokens: Sequence[int], decay: float) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.tokens = tuple(tokens)
        self._starts = [sum(sizes[:k]) for k in range(len(sizes))]
        self.register_buffer("vectors", torch.randn(sum(sizes), dim))
        self.register_buffer("counts", torch.ones(sum(sizes)))
        self.register_buffer("sums", self.vectors.clone())
        self.register_buffer("means", torch.zeros(len(sizes), dim))
        self.register_buffer("recent", torch.full((len(sizes), RECENT_FRAMES, dim), torch.nan))
        rows = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes), output_size=sum(sizes))
        served = torch.tensor([n / size for n, size in zip(tokens, sizes, strict=True)])
        rates = (1.0 - decay) * (served / served.max()).sqrt()
        self.register_buffer("_scale_of_row", rows, persistent=False)
        self.register_buffer("_rates", rates[rows], persistent=False)

    def codebooks(self) -> list[Tensor]:
        """Return views (K_k, d) of each scale's codes."""
        return list(self.vectors.split(self.sizes))

    def lookup(self, k: int, indices: Tensor) -> Tensor:
        """Code vectors (b, d, h, w) of `indices` (b, h, w) at scale k."""
        return F.embedding(indices, self.codebooks()[k]).permute(0, 3, 1, 2)

    @torch.no_grad()
    def nearest(self, k: int, u: Tensor) -> Tensor:
        """Return indices (b, h, w) of the codes of scale k nearest to u (b, d, h, w): argmin ½|e|²
        − <u, e>."""
        codes = self.codebooks()[k]
        with full_precision(u.device):
            scores = torch.addmm(0.5 * codes.square().sum(1), as_rows(u), codes.T, alpha=-1.0)
        return scores.argmin(1).reshape(u.shape[0], *u.shape[-2:])

    @torch.no_grad()
    def initialize(self, k: int, u: Tensor, *, batch_size: int, generator: torch.Generator) -> None:
        """Set scale k to the k-means centers of u (n, d, h, w), which must be the same on all processes.

        Counts start at what a step with `batch_size` frames on all processes together would give.
        """
        rows = as_rows(u)
        centers, shares = kmeans(rows, self.sizes[k], generator)
        self.means[k] = rows.mean(0)
        self.codebooks()[k].copy_(centers)
        self.counts.split(self.sizes)[k].copy_(
            (shares * batch_size * self.tokens[k]).clamp_(min=SMALLEST_COUNT)
        )
        torch.mul(self.vectors, self.counts[:, None], out=self.sums)
        for buffer in (self.vectors, self.counts, self.sums, self.means):
            broadcast(buffer)

    @torch.no_grad()
    def update(self, indices: Sequence[Tensor], vectors: Sequence[Tensor], *, step: int) -> None:
        """One moving-average step.

        Args:
            indices: Codes chosen at each scale, (b, h_k, w_k).
            vectors: The vectors that they stand for, (b, d, h_k, w_k).
            step: Number of the step, the same on all processes.
        """
        codes = torch.cat([i.flatten() + start for i, start in zip(indices, self._starts, strict=True)])
        rows = torch.cat([as_rows(u) for u in vectors])
        received = torch.zeros(self.counts.shape[0], rows.shape[1] + 1, device=rows.device)
        received.index_add_(0, codes, F.pad(rows, (0, 1), value=1.0))
        received, candidates = reduce_and_gather(received, _candidates(vectors, step))
        self._follow_mean(received)
        self.counts.lerp_(received[:, -1], self._rates)
        self.sums.lerp_(received[:, :-1], self._rates[:, None])
        torch.div(self.sums, self.counts.clamp(min=SMALLEST_COUNT)[:, None], out=self.vectors)
        self.recent.copy_(torch.cat([self.recent, candidates.transpose(0, 1)], dim=1)[:, -RECENT_FRAMES:])

    def _follow_mean(self, received: Tensor) -> None:
        """Shift all codes of a scale by what its moving mean vector moves; received: (Σ K_k, d + 1)."""
        totals = torch.stack([part.sum(0) for part in received.split(self.sizes)])
        shifts = MEAN_RATE * (totals[:, :-1] / totals[:, -1:] - self.means)
        self.means.add_(shifts)
        self.sums.addcmul_(self.counts[:, None], shifts[self._scale_of_row])

    @torch.no_grad()
    def replace_dead(self, generator: torch.Generator) -> list[int]:
        """Move codes that hardly any vector picks to recent vectors that lie far from all codes.

        Recent vectors are drawn one by one, with probability proportional to their squared distance from the
        nearest code; count and sum restart together at a uniform code's share.

        Returns:
            The number of codes replaced at each scale.
        """
        replaced = []
        for k, recent in enumerate(self.recent):
            rows = recent[recent.isfinite().all(1)]
            codes, counts, sums = (x.split(self.sizes)[k] for x in (self.vectors, self.counts, self.sums))
            fair = counts.mean()
            dead = (counts < DEAD_SHARE * fair).nonzero().flatten()
            dead = dead[counts[dead].argsort(stable=True)][: int(MAX_REPLACED_SHARE * rows.shape[0])]
            if dead.numel():
                codes[dead] = draw_far(rows, dead.numel(), generator, centers=codes)
                counts[dead] = fair
                sums[dead] = codes[dead] * fair
            replaced.append(dead.numel())
        if any(replaced):
            for buffer in (self.vectors, self.counts, self.sums):
                broadcast(buffer)
        return replaced


def _candidates(vectors: Sequence[Tensor], step: int) -> Tensor:
    """One vector of each frame and scale, its place changing from step to step: (b, S, d)."""
    flat = [u.flatten(2) for u in vectors]
    return torch.stack([u[..., (PLACE_STRIDE * step) % u.shape[-1]] for u in flat], dim=1)
