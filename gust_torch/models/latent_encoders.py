"""Encoders to a fixed number of latent tokens, and a decoder that answers at any coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gust_torch.graph_spec import GraphSpec
from gust_torch.models.attention import AttentionBlock, AttentionPool, FourierFeatures, mlp
from gust_torch.models.blocks import ResBlock2d
from gust_torch.models.points import Points, grid_coordinates, num_dims, pad
from gust_torch.spec import FieldSpec

if TYPE_CHECKING:
    from gust_torch.models.message_passing import EdgeConvolution


class GridEncoder(nn.Module):
    """Patches, residual convolutions, then attention pooling. Normalized fields in.

    Args:
        spec: Channels, grid and boundaries.
        latent_len: Tokens of a sample.
        latent_dim: Features of a token.
        width: Features inside.
        num_local_layers: Residual convolution blocks on the patches.
        num_layers: Self-attention blocks on the tokens.
        num_heads: Attention heads.
        num_frequencies: Octaves of the coordinates' Fourier features.
        patch_size: Cells along each side of a patch; axes of one point are not cut.

    Raises:
        ValueError: If a patch does not divide the grid.
    """

    coordinates: Tensor

    def __init__(
        self,
        spec: FieldSpec,
        *,
        latent_len: int,
        latent_dim: int,
        width: int,
        num_local_layers: int,
        num_layers: int,
        num_heads: int,
        num_frequencies: int,
        patch_size: int,
    ) -> None:
        super().__init__()
        self.spec = spec
        patch = (1 if spec.grid[0] == 1 else patch_size, 1 if spec.grid[1] == 1 else patch_size)
        if patch_size < 1 or any(n % p for n, p in zip(spec.grid, patch, strict=True)):
            raise ValueError(
                f"patch_size={patch_size} does not divide the grid {spec.grid[0]}x{spec.grid[1]}; "
                "choose a common divisor"
            )
        self.patches = nn.Conv2d(spec.num_channels, width, patch, stride=patch)
        self.blocks = nn.ModuleList(ResBlock2d(width, spec.boundary) for _ in range(num_local_layers))
        self.features = FourierFeatures(num_dims(spec), num_frequencies)
        self.embed = nn.Linear(self.features.num_features, width)
        self.pool = AttentionPool(width, latent_len, latent_dim, num_layers=num_layers, num_heads=num_heads)
        centers = grid_coordinates(spec).reshape(*spec.grid, -1)
        centers = centers.unfold(0, patch[0], patch[0]).unfold(1, patch[1], patch[1]).mean((-1, -2))
        self.register_buffer("coordinates", centers.flatten(0, 1), persistent=False)

    def forward(self, x: Tensor, unit: UnitBox) -> Tensor:
        """Encode normalized fields x (b, c, h, w) to tokens (b, latent_len, latent_dim)."""
        y = self.patches(x)
        for block in self.blocks:
            y = block(y)
        rows = y.flatten(2).transpose(1, 2) + self.embed(self.features(unit(self.coordinates)))
        tokens: Tensor = self.pool(rows)
        return tokens


class GraphEncoder(nn.Module):
    """Message passing along the edges, then attention pooling over the nodes of each graph.

    The order of the nodes does not matter. Samples may differ in size.

    Args:
        spec: Fields and dimensions.
        latent_len: Tokens of a sample.
        latent_dim: Features of a token.
        width: Features inside.
        num_local_layers: Rounds of message passing.
        num_layers: Self-attention blocks on the tokens.
        num_heads: Attention heads.
        num_frequencies: Octaves of the coordinates' Fourier features.

    Raises:
        ValueError: If torch_geometric is not installed.
    """

    def __init__(
        self,
        spec: GraphSpec,
        *,
        latent_len: int,
        latent_dim: int,
        width: int,
        num_local_layers: int,
        num_layers: int,
        num_heads: int,
        num_frequencies: int,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.features = FourierFeatures(spec.num_dims, num_frequencies)
        self.embed = mlp(spec.num_channels + self.features.num_features, width, width)
        self.convolutions = nn.ModuleList(
            _edge_convolution(width, spec.num_dims) for _ in range(num_local_layers)
        )
        self.pool = AttentionPool(width, latent_len, latent_dim, num_layers=num_layers, num_heads=num_heads)

    def forward(self, points: Points, edges: Tensor, unit: UnitBox) -> Tensor:
        """Tokens (b, latent_len, latent_dim) of normalized values at points, joined by edges (2, e)."""
        x = unit(points.coordinates)
        rows = self.embed(torch.cat((points.values, self.features(x)), dim=-1))
        for convolution in self.convolutions:
            rows = convolution(rows, x, edges)
        tokens: Tensor = self.pool(*pad(rows, points.sample, points.num_samples))
        return tokens


class QueryDecoder(nn.Module):
    """Fields at any coordinates: the coordinates' features ask the latent tokens.

    Args:
        num_channels: c.
        num_dims: d.
        latent_dim: Features of a token.
        width: Features inside.
        num_layers: Rounds of asking.
        num_heads: Attention heads.
        num_frequencies: Octaves of the coordinates' Fourier features.
    """

    def __init__(
        self,
        num_channels: int,
        num_dims: int,
        *,
        latent_dim: int,
        width: int,
        num_layers: int,
        num_heads: int,
        num_frequencies: int,
    ) -> None:
        super().__init__()
        self.from_latent = nn.Linear(latent_dim, width)
        self.features = FourierFeatures(num_dims, num_frequencies)
        self.embed = mlp(self.features.num_features, width, width)
        self.blocks = nn.ModuleList(AttentionBlock(width, num_heads, cross=True) for _ in range(num_layers))
        self.to_fields = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_channels))

    def forward(self, latent: Tensor, x: Tensor) -> Tensor:
        """Decode normalized fields (b, n, c) at coordinates x (b, n, d) from tokens (b, m, latent_dim)."""
        context = self.from_latent(latent)
        y = self.embed(self.features(x))
        for block in self.blocks:
            y = block(y, context)
        fields: Tensor = self.to_fields(y)
        return fields


class UnitBox(nn.Module):
    """Physical coordinates to [-1, 1]^d: the box of the training data, kept in the checkpoint."""

    lower: Tensor
    upper: Tensor

    def __init__(self, num_dims: int) -> None:
        super().__init__()
        self.register_buffer("lower", torch.zeros(num_dims))
        self.register_buffer("upper", torch.ones(num_dims))

    @torch.no_grad()
    def set(self, lower: Tensor, upper: Tensor) -> None:
        """Set the corners (d,).

        Raises:
            ValueError: If a side is not positive and finite.
        """
        # A meta device, where checkpoints are looked at before they get memory, has no values.
        if not lower.is_meta and not bool((torch.isfinite(upper - lower) & (upper > lower)).all()):
            raise ValueError(
                f"coordinates must span a box of positive sides, got {lower.tolist()} to {upper.tolist()}; "
                "drop the constant coordinate from the data"
            )
        self.lower.copy_(lower)
        self.upper.copy_(upper)

    def forward(self, coordinates: Tensor) -> Tensor:
        """Map (..., d); points beyond the box land beyond [-1, 1]."""
        return 2 * (coordinates - self.lower) / (self.upper - self.lower) - 1


def _edge_convolution(width: int, num_dims: int) -> EdgeConvolution:
    """Return the one layer that needs torch_geometric, imported only where graphs are used."""
    try:
        from gust_torch.models.message_passing import EdgeConvolution
    except ImportError as error:
        raise ValueError(
            f"a graph encoder needs torch_geometric ({error}): pip install 'gust_torch[graphs]'"
        ) from error
    return EdgeConvolution(width, num_dims)
