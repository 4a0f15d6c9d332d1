"""Multi-scale residual quantizer with moving-average codebooks.

With z the encoder's output, f_0 = 0 and scales k = 1..S (Tian et al. 2024, arXiv:2404.02905, algorithm 1):

    u_k = Down_k(sg(z) − f_{k−1})
    i_k = argmin_j ½|e^k_j|² − <u_k, e^k_j>
    f_k = f_{k−1} + φ_k(Up(e^k_{i_k}))

f_S + (z − sg(z)) is handed on: its value is exactly f_S (the bracket is exactly 0), so decoding the tokens
gives the same field bit for bit, and its gradient reaches z unchanged and the φ_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gust_torch.models.blocks import Boundary, BoundaryConv2d
from gust_torch.models.codebook import EMACodebooks
from gust_torch.models.distributed import gather_batch, touch
from gust_torch.models.scales import Scale, down, up
from gust_torch.models.token_model import QuantizerOutput

FRAMES_PER_COARSE_CODE = 8
"""Frames gathered for k-means, as a multiple of codes per token at the worst-served scale."""
MIN_INIT_FRAMES, MAX_INIT_FRAMES = 64, 1024


class Phi(nn.Module):
    """φ(v) = (1 − ρ) v + ρ conv3x3(v), the identity when new."""

    def __init__(self, dim: int, boundary: Boundary, rho: float) -> None:
        super().__init__()
        self.rho = rho
        self.conv = BoundaryConv2d(dim, dim, boundary)
        nn.init.dirac_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, v: Tensor) -> Tensor:
        """Map (b, d, h, w) to the same shape."""
        return (1.0 - self.rho) * v + self.rho * self.conv(v)


class MultiScaleQuantizer(nn.Module):
    """See the module's text. In training mode each call also moves the codebooks.

    Training starts with `autoencoder_steps` calls that pass z through. The codebooks are then set by
    k-means on the latents of the last of those calls, all processes together, and quantization begins.
    Arguments are those of `VQVAE2d`, with dim = codebook_dim, sizes = K_k and rho = phi_ratio.
    """

    def __init__(
        self,
        dim: int,
        scales: Sequence[Scale],
        sizes: Sequence[int],
        boundary: Boundary,
        *,
        rho: float,
        commitment_weight: float,
        decay: float,
        autoencoder_steps: int,
        replace_every: int,
    ) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.commitment_weight = commitment_weight
        self.autoencoder_steps = autoencoder_steps
        self.replace_every = replace_every
        self.ema = EMACodebooks(sizes, dim, [h * w for h, w in scales], decay)
        self.phi = nn.ModuleList(Phi(dim, boundary, rho) for _ in scales)
        self.step = 0
        self.initialized = False
        self._reservoir: list[Tensor] = []

    @property
    def codebooks(self) -> list[Tensor]:
        """Codes (K_k, d) of each scale."""
        return self.ema.codebooks()

    def lookup(self, indices: Sequence[Tensor]) -> list[Tensor]:
        """Code vectors (b, d, h_k, w_k) of indices (b, h_k, w_k), scale by scale."""
        return [self.ema.lookup(k, index) for k, index in enumerate(indices)]

    def add_scale(self, f: Tensor | None, k: int, vectors: Tensor) -> Tensor:
        """f_k = f_{k−1} + φ_k(Up(vectors)); `f` is None before the first scale."""
        step = self.phi[k](up(vectors, self.scales[-1]))
        return step if f is None else f + step

    def accumulate(self, indices: Sequence[Tensor]) -> Tensor:
        """Latent f_S (b, d, h, w) of indices (b, h_k, w_k)."""
        f = None
        with torch.autocast(indices[0].device.type, enabled=False):
            for k, vectors in enumerate(self.lookup(indices)):
                f = self.add_scale(f, k, vectors)
        assert f is not None
        return f

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """Quantize z (b, d, h, w) with the codebooks as they are; see the module's text.

        Returns:
            f_S (b, d, h, w) with the straight-through gradient, the codes, and the loss
            (1/S) Σ_k [β mean|z − sg f_k|² + mean|sg z − f_k|²].
        """
        with torch.autocast(z.device.type, enabled=False):
            return self._quantize(z.float())[0]

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Quantize z (b, d, h, w); in training mode also update the codebooks or pass z through."""
        if not self.training:
            return self.quantize(z)
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            self.step += 1
            if not self.initialized and self.step <= self.autoencoder_steps:
                self._fill_reservoir(z.detach())
                return QuantizerOutput(z, [], touch(self.phi.parameters()))
            if not self.initialized:
                self._initialize(z.detach())
            output, residuals = self._quantize(z)
            self.ema.update(output.indices, residuals, step=self.step)
            if self.step % self.replace_every == 0:
                self.ema.replace_dead(torch.Generator().manual_seed(self.step))
            return output

    def _quantize(self, z: Tensor) -> tuple[QuantizerOutput, list[Tensor]]:
        """Quantize; also return the u_k (b, d, h_k, w_k) that the codes stand for."""
        target = z.detach()
        f = None
        indices, residuals = [], []
        loss = z.new_zeros(())
        for k, scale in enumerate(self.scales):
            u = down(target if f is None else target - f.detach(), scale)
            index = self.ema.nearest(k, u)
            f = self.add_scale(f, k, self.ema.lookup(k, index))
            loss = loss + self.commitment_weight * F.mse_loss(z, f.detach()) + F.mse_loss(f, target)
            indices.append(index)
            residuals.append(u)
        assert f is not None
        return QuantizerOutput(f + (z - target), indices, loss / len(self.scales)), residuals

    def _frames_wanted(self) -> int:
        most = max(size / (h * w) for size, (h, w) in zip(self.ema.sizes, self.scales, strict=True))
        return min(MAX_INIT_FRAMES, max(MIN_INIT_FRAMES, int(FRAMES_PER_COARSE_CODE * most)))

    def _fill_reservoir(self, z: Tensor) -> None:
        """Keep the newest latents of all processes, as many batches as the codebooks will want."""
        batches_wanted = -(-self._frames_wanted() // max(1, z.shape[0]))
        if self.step > self.autoencoder_steps - batches_wanted:
            self._reservoir.append(gather_batch(z))

    @torch.no_grad()
    def _initialize(self, z: Tensor) -> None:
        """Set each scale's codebook by k-means on what the scales before leave over."""
        batch = gather_batch(z)
        frames = torch.cat([*self._reservoir, batch])[-self._frames_wanted() :]
        generator = torch.Generator().manual_seed(self.step)
        f = None
        for k, scale in enumerate(self.scales):
            u = down(frames if f is None else frames - f, scale)
            self.ema.initialize(k, u, batch_size=batch.shape[0], generator=generator)
            f = self.add_scale(f, k, self.ema.lookup(k, self.ema.nearest(k, u)))
        self._reservoir.clear()
        self.initialized = True

    def get_extra_state(self) -> dict[str, Any]:
        """Training state besides the buffers: step, whether quantization has begun, latents for k-means."""
        return {"step": self.step, "initialized": self.initialized, "reservoir": list(self._reservoir)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self.step = int(state["step"])
        # Checkpoints of before November 2026 spell it the British way.
        self.initialized = bool(state["initialized"] if "initialized" in state else state["initialised"])
        self._reservoir = [z.to(self.ema.vectors.device) for z in state["reservoir"]]
