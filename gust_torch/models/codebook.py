"""Codebooks of all scales, learnt by exponential moving averages of global sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from gust_torch.models.distributed import all_reduce_sum, broadcast, gather_batch
from gust_torch.models.kmeans import kmeans, squared_distances

DEAD_SHARE = 0.1
"""A code is dead when its moving count is below this share of a uniform code's."""
MAX_REPLACED_SHARE = 0.25
"""At most this share of a step's vectors become codes in one replacement."""
SMALLEST_COUNT = 1e-6


class EMACodebooks(nn.Module):
    """One codebook (K_k, d) per scale: e = sums / counts, both moving averages of what each code received.

    counts <- g_k counts + (1 - g_k) n,  sums <- g_k sums + (1 - g_k) Σ u  over the vectors u of the step on all
    processes. The decay 1 - g_k is scaled by the vectors per code that scale k sees in a step, relative
    to the best-served scale, so that every code averages over a similar number of vectors.
    All scales lie in the same buffers, one after the other, so that a step needs one all-reduce.

    Args:
        sizes: Codebook sizes K_k.
        dim: Code dimension d.
        tokens: Tokens per frame of each scale, h_k * w_k.
        decay: Decay g of the best-served scale.
    """

    vectors: torch.Tensor
    counts: torch.Tensor
    sums: torch.Tensor
    decays: torch.Tensor

    def __init__(self, sizes: Sequence[int], dim: int, tokens: Sequence[int], decay: float) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.tokens = tuple(tokens)
        self.register_buffer("vectors", torch.randn(sum(sizes), dim))
        self.register_buffer("counts", torch.ones(sum(sizes)))
        self.register_buffer("sums", self.vectors.clone())
        service = [count / size for count, size in zip(tokens, sizes, strict=True)]
        rates = torch.tensor([(1.0 - decay) * (s / max(service)) ** 0.5 for s in service])
        self.register_buffer("decays", (1.0 - rates).repeat_interleave(torch.tensor(sizes)), persistent=False)

    def codebooks(self) -> list[torch.Tensor]:
        """Views (K_k, d) of each scale's codes."""
        return list(self.vectors.split(self.sizes))

    def lookup(self, k: int, indices: torch.Tensor) -> torch.Tensor:
        """Code vectors (b, d, h, w) of `indices` (b, h, w) at scale k."""
        return F.embedding(indices, self.codebooks()[k]).permute(0, 3, 1, 2)

    @torch.no_grad()
    def nearest(self, k: int, u: torch.Tensor) -> torch.Tensor:
        """Indices (b, h, w) of the codes of scale k nearest to u (b, d, h, w): argmin ½|e|² − <u, e>."""
        codes = self.codebooks()[k]
        with _full_precision(u.device):
            scores = torch.addmm(0.5 * codes.square().sum(1), _rows(u), codes.T, alpha=-1.0)
        return scores.argmin(1).reshape(u.shape[0], *u.shape[-2:])

    @torch.no_grad()
    def initialise(self, k: int, u: torch.Tensor, *, batch_size: int, generator: torch.Generator) -> None:
        """Set scale k to the k-means centres of u (n, d, h, w).

        Counts start at what a step with `batch_size` frames on all processes would give. `u` must be the
        same on all processes.
        """
        centres, shares = kmeans(_rows(u), self.sizes[k], generator)
        counts = (shares * (batch_size * self.tokens[k])).clamp_(min=SMALLEST_COUNT)
        for buffer, value in (
            (self.vectors, centres),
            (self.counts, counts),
            (self.sums, centres * counts[:, None]),
        ):
            broadcast(value)
            buffer.split(self.sizes)[k].copy_(value)

    @torch.no_grad()
    def update(self, indices: Sequence[torch.Tensor], vectors: Sequence[torch.Tensor]) -> None:
        """One moving-average step from indices (b, h_k, w_k) and the vectors (b, d, h_k, w_k) they stand for."""
        offsets = _offsets(self.sizes)
        codes = torch.cat([index.flatten() + offset for index, offset in zip(indices, offsets, strict=True)])
        rows = torch.cat([_rows(u) for u in vectors])
        received = torch.zeros(self.counts.shape[0], rows.shape[1] + 1, device=rows.device)
        received.index_add_(0, codes, F.pad(rows, (0, 1), value=1.0))
        all_reduce_sum(received)
        self.counts.lerp_(received[:, -1], 1.0 - self.decays)
        self.sums.lerp_(received[:, :-1], (1.0 - self.decays)[:, None])
        torch.div(self.sums, self.counts.clamp(min=SMALLEST_COUNT)[:, None], out=self.vectors)

    @torch.no_grad()
    def replace_dead(self, vectors: Sequence[torch.Tensor], generator: torch.Generator) -> list[int]:
        """Move codes that hardly any vector picks to vectors of this step that lie far from all codes.

        Candidates (b, d, h_k, w_k) of all processes are drawn with probability proportional to their squared
        distance from the nearest code; count and sum restart together at a uniform code's share.

        Returns:
            The number of codes replaced at each scale.
        """
        replaced = []
        for k, u in enumerate(vectors):
            rows = _rows(gather_batch(u))
            codes, counts, sums = (
                buffer.split(self.sizes)[k] for buffer in (self.vectors, self.counts, self.sums)
            )
            fair = counts.sum() / self.sizes[k]
            dead = (counts < DEAD_SHARE * fair).nonzero().flatten()
            dead = dead[counts[dead].argsort(stable=True)][: max(1, int(MAX_REPLACED_SHARE * rows.shape[0]))]
            if dead.numel():
                weights = squared_distances(rows, codes).amin(1).clamp_(min=1e-12).cpu()
                chosen = torch.multinomial(weights, dead.numel(), generator=generator).to(rows.device)
                codes[dead], counts[dead] = rows[chosen], fair
                sums[dead] = rows[chosen] * fair
            replaced.append(dead.numel())
        if any(replaced):
            for buffer in (self.vectors, self.counts, self.sums):
                broadcast(buffer)
        return replaced


def _rows(u: torch.Tensor) -> torch.Tensor:
    """(b, d, h, w) -> (b h w, d), samples first."""
    return u.permute(0, 2, 3, 1).reshape(-1, u.shape[1])


def _offsets(sizes: Sequence[int]) -> list[int]:
    """First row of each scale in the joint buffers."""
    return [sum(sizes[:k]) for k in range(len(sizes))]


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Switch TF32 matrix products off, which could swap nearly equidistant codes."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
