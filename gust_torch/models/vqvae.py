"""Multi-scale VQ-VAE of 2D fields."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from gust_torch.models.autoencoder import Decoder2d, Encoder2d, Layers
from gust_torch.models.blocks import channels_last
from gust_torch.models.points import check_fields
from gust_torch.models.quantizer import MultiScaleQuantizer
from gust_torch.models.scales import Scale, check_scales, codebook_sizes, one_each
from gust_torch.models.token_model import TokenModel, VQVAEOutput
from gust_torch.spec import FieldSpec

LARGEST_AUTOENCODER_SHARE = 0.1


class VQVAE2d(TokenModel):
    """Encoder, multi-scale residual quantizer and decoder; raw physical fields in and out.

    Args:
        spec: Field names, grid and boundary types of the data.
        base_channels: Channels of the first stage, multiplied by `channel_mult` at each stage.
        channel_mult: Channel multipliers, one per stage; the grid is halved between stages.
        patch_size: Cells along each side of the patches that the first stage takes in, a power of two.
        num_res_blocks: Residual blocks per stage, or one number for each stage, finest grid first.
        codebook_dim: Latent channels, which is the code dimension d.
        vocab_size: Codebook size of the finest scale (halved at each coarser one, not below 64), or one size
            per scale.
        scales: Token grids (h_k, w_k), coarse to fine; the last must be the latent grid.
        use_attention: Self-attention at the bottleneck.
        attention_heads: Heads of that attention.
        use_norm: GroupNorm in the residual blocks.
        phi_ratio: Weight ρ of the convolution in φ_k = (1 − ρ) v + ρ conv(v).
        commitment_weight: β of the quantizer's loss.
        decay: Moving-average decay of the codebooks.
        autoencoder_steps: Training steps before quantization begins.
        replace_every: Training steps between replacements of dead codes.

    Raises:
        ValueError: If the grid is not divisible by the downsampling or the scales do not fit
            the latent grid.
    """

    quantizer: MultiScaleQuantizer

    def __init__(
        self,
        spec: FieldSpec,
        *,
        base_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 4, 4),
        patch_size: int = 2,
        num_res_blocks: int | Sequence[int] = 2,
        codebook_dim: int = 64,
        vocab_size: int | Sequence[int] = 512,
        scales: Sequence[Sequence[int]] = ((1, 1), (2, 2), (4, 4), (8, 8), (16, 16)),
        use_attention: bool = True,
        attention_heads: int = 8,
        use_norm: bool = True,
        phi_ratio: float = 0.5,
        commitment_weight: float = 0.25,
        decay: float = 0.99,
        autoencoder_steps: int = 100,
        replace_every: int = 50,
    ) -> None:
        latent = latent_grid(spec.grid, len(channel_mult), patch_size)
        scales = check_scales(scales, latent)
        vocab_size = codebook_sizes(vocab_size, len(scales))
        num_res_blocks = one_each(num_res_blocks, len(channel_mult), "num_res_blocks", least=0)
        super().__init__(spec, locals())
        self.latent_grid, self.scales, self.vocab_sizes = latent, scales, vocab_size
        layers = Layers(
            boundary=spec.boundary,
            flat=(spec.grid[0] == 1, spec.grid[1] == 1),
            patch_size=patch_size,
            widths=[base_channels * mult for mult in channel_mult],
            num_res_blocks=num_res_blocks,
            attention_heads=attention_heads if use_attention else 0,
            use_norm=use_norm,
        )
        self.encoder = Encoder2d(spec.num_channels, codebook_dim, layers)
        self.decoder = Decoder2d(spec.num_channels, codebook_dim, layers)
        self.quantizer = MultiScaleQuantizer(
            codebook_dim,
            scales,
            vocab_size,
            spec.boundary,
            rho=phi_ratio,
            commitment_weight=commitment_weight,
            decay=decay,
            autoencoder_steps=autoencoder_steps,
            replace_every=replace_every,
        )
        channels_last(self)

    @property
    def is_ready(self) -> bool:
        """Whether quantization has begun."""
        return self.quantizer.initialized

    def shorten_phases(self, num_steps: int) -> None:
        """Let quantization begin after at most a tenth of a run."""
        steps = int(LARGEST_AUTOENCODER_SHARE * num_steps)
        self.quantizer.autoencoder_steps = min(self.quantizer.autoencoder_steps, steps)

    @property
    def codebooks(self) -> list[Tensor]:
        """Codes (K_k, d) of each scale."""
        return self.quantizer.codebooks

    def encode(self, x: Tensor) -> Tensor:
        """Physical fields (b, c, h, w) to latents z (b, d, h_l, w_l).

        Raises:
            ValueError: If `x` is not on the channels and grid that the model was built for.
        """
        return self.encoder(self.normalize(check_fields(x, self.spec)))

    def decode_latent(self, quantized: Tensor) -> Tensor:
        """Latents (b, d, h_l, w_l) to physical fields (b, c, h, w)."""
        return self.decoder(quantized) * self.std + self.mean

    def forward(self, x: Tensor) -> VQVAEOutput:
        """Reconstruct x (b, c, h, w) and return the training losses; in training mode codebooks move."""
        codes = self.quantizer(self.encode(x))
        y = self.decoder(codes.quantized)
        error = F.mse_loss(y.float(), self.normalize(x))
        return VQVAEOutput(y * self.std + self.mean, codes.indices, error, codes.loss)


def latent_grid(grid: Scale, num_stages: int, patch_size: int) -> Scale:
    """Latent grid of a field grid (h, w): each axis over patch_size * 2**(num_stages - 1).

    An axis of one cell, of fields in one dimension, stays one.

    Raises:
        ValueError: If an axis is not divisible by that, or the patch size is not a power of two.
    """
    if patch_size not in (1, 2, 4, 8, 16) or not num_stages:
        raise ValueError(
            f"patch_size must be 1, 2, 4, 8 or 16 and channel_mult have entries, got {patch_size} and "
            f"{num_stages} entries"
        )
    factors = [patch_size * 2**stage for stage in range(num_stages)]
    fitting = sum(all(n == 1 or n % factor == 0 for n in grid) for factor in factors)
    if fitting < num_stages:
        remedy = f"give channel_mult {fitting} entries" if fitting else "choose a smaller patch_size"
        raise ValueError(
            f"grid {grid[0]}x{grid[1]} is not divisible by the downsampling "
            f"patch_size * 2**(len(channel_mult) - 1) = {factors[-1]}; {remedy}"
        )
    return max(1, grid[0] // factors[-1]), max(1, grid[1] // factors[-1])
