"""Attention blocks and coordinate features of the latent autoencoder."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MLP_RATIO = 2
QUERY_GAIN = 3.0
"""Times torch's initial weights, for logits of variance 1. With its 1/9 every token begins as nearly the mean
of the rows, and of fields with zero mean an autoencoder learns nothing for thousands of steps."""


class FourierFeatures(nn.Module):
    """x -> [x, sin(2^k pi x), cos(2^k pi x)], k = 0 .. num_frequencies - 1, of coordinates in [-1, 1]^d.

    Source: Mildenhall et al. 2020 (NeRF), equation 4.

    Args:
        num_dims: d.
        num_frequencies: Octaves; the finest resolves 2^(1 - num_frequencies) of the domain.
    """

    frequencies: Tensor

    def __init__(self, num_dims: int, num_frequencies: int) -> None:
        super().__init__()
        self.num_features = num_dims * (1 + 2 * num_frequencies)
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(num_frequencies), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d) to (..., num_features)."""
        phases = (x[..., None] * self.frequencies).flatten(-2)
        return torch.cat((x, phases.sin(), phases.cos()), dim=-1)


def mlp(in_features: int, width: int, out_features: int) -> nn.Sequential:
    """Two layers with GELU between."""
    return nn.Sequential(nn.Linear(in_features, width), nn.GELU(), nn.Linear(width, out_features))


class AttentionBlock(nn.Module):
    """x + attention(norm(x), norm(context)), then x + mlp(norm(x)); without `cross` x is its own context.

    Raises:
        ValueError: If `num_heads` does not divide `width`.
    """

    def __init__(self, width: int, num_heads: int, *, cross: bool) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide width={width}; choose a divisor")
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width) if cross else None
        self.to_query = nn.Linear(width, width)
        with torch.no_grad():
            self.to_query.weight.mul_(QUERY_GAIN)
        self.to_key_value = nn.Linear(width, 2 * width)
        self.to_out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = mlp(width, MLP_RATIO * width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Map x (b, m, width) to the same shape.

        Args:
            x: What asks.
            context: What is asked, (b, n, width); with `cross` only.
            mask: (b, n) bool, which rows of the context exist; all by default.
        """
        x_norm = self.norm(x)
        context_norm = x_norm if self.norm_context is None else self.norm_context(context)
        x = x + self.attention(x_norm, context_norm, mask)
        return x + self.mlp(self.norm_mlp(x))

    def attention(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Ask a normalized context (b, n, width) for what normalized x (b, m, width) learns from it."""
        keys, values = self._heads(self.to_key_value(context)).chunk(2, dim=-1)
        mask = None if mask is None else mask[:, None, None, :]
        y = F.scaled_dot_product_attention(self._heads(self.to_query(x)), keys, values, attn_mask=mask)
        return self.to_out(y.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """(b, n, heads * e) -> (b, heads, n, e)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class AttentionPool(nn.Module):
    """Any number of rows -> `latent_len` tokens: learned tokens ask the rows, then one another.

    Source: Lee et al. 2019 (Set Transformer), section 3.2, and Jaegle et al. 2021 (Perceiver).
    The tokens leave through a layer norm without weights: mean 0 and variance 1 over `latent_dim`.
    """

    def __init__(
        self, width: int, latent_len: int, latent_dim: int, *, num_layers: int, num_heads: int
    ) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(latent_len, width))
        self.pool = AttentionBlock(width, num_heads, cross=True)
        self.blocks = nn.ModuleList(AttentionBlock(width, num_heads, cross=False) for _ in range(num_layers))
        self.to_latent = nn.Linear(width, latent_dim)
        self.norm = nn.LayerNorm(latent_dim, elementwise_affine=False)

    def forward(self, rows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map rows (b, n, width), of which `mask` (b, n) exist, to tokens (b, latent_len, latent_dim)."""
        x = self.pool(self.tokens.expand(rows.shape[0], -1, -1), rows, mask)
        for block in self.blocks:
            x = block(x)
        return self.norm(self.to_latent(x))
