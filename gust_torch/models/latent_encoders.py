"""Encoders to a fixed number of latent tokens, and a decoder that answers at any coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gust_torch.graph_spec import GraphSpec
from gust_torch.models.attention import AttentionBlock, AttentionPool, FourierFeatures, mlp
from gust_torch.models.blocks import ResBlock2d
from gust_torch.models.points import Points, grid_coordinates, num_dims, pad
from gust_torch.spec import FieldSpec


@dataclass(frozen=True)
class Sizes:
    """The arguments of `LatentAutoencoder`."""

    latent_len: int
    latent_dim: int
    width: int
    num_local_layers: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    num_frequencies: int
    patch_size: int


class GridEncoder(nn.Module):
    """Patches, residual convolutions, then attention pooling. Normalized fields in.

    Raises:
        ValueError: If a patch does not divide the grid.
    """

    coordinates: Tensor

    def __init__(self, spec: FieldSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        patch = (sizes.patch_size if spec.grid[0] > 1 else 1, sizes.patch_size if spec.grid[1] > 1 else 1)
        if sizes.patch_size < 1 or any(n % p for n, p in zip(spec.grid, patch, strict=True)):
            raise ValueError(
                f"patch_size={sizes.patch_size} does not divide the grid {spec.grid[0]}x{spec.grid[1]}; "
                "choose a common divisor"
            )
        self.patches = nn.Conv2d(spec.num_channels, sizes.width, patch, stride=patch)
        self.blocks = nn.Sequential(
            *(ResBlock2d(sizes.width, spec.boundary) for _ in range(sizes.num_local_layers))
        )
        self.features = FourierFeatures(num_dims(spec), sizes.num_frequencies)
        self.embed = nn.Linear(self.features.num_features, sizes.width)
        self.pool = _pool(sizes)
        centers = grid_coordinates(spec).reshape(*spec.grid, -1)
        centers = centers.unfold(0, patch[0], patch[0]).unfold(1, patch[1], patch[1]).mean((-1, -2))
        self.register_buffer("coordinates", centers.flatten(0, 1), persistent=False)

    def forward(self, x: Tensor, unit: UnitBox) -> Tensor:
        """Encode normalized fields x (b, c, h, w) to tokens (b, latent_len, latent_dim)."""
        rows = self.blocks(self.patches(x)).flatten(2).transpose(1, 2)
        return self.pool(rows + self.embed(self.features(unit(self.coordinates))))


class GraphEncoder(nn.Module):
    """Message passing along the edges, then attention pooling over the nodes of each graph.

    The order of the nodes does not matter. Samples may differ in size.
    """

    def __init__(self, spec: GraphSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.features = FourierFeatures(spec.num_dims, sizes.num_frequencies)
        self.embed = mlp(spec.num_channels + self.features.num_features, sizes.width, sizes.width)
        self.convolutions = nn.ModuleList(
            EdgeConvolution(sizes.width, spec.num_dims) for _ in range(sizes.num_local_layers)
        )
        self.pool = _pool(sizes)

    def forward(self, points: Points, edges: Tensor, unit: UnitBox) -> Tensor:
        """Tokens (b, latent_len, latent_dim) of normalized values at points, joined by edges (2, e)."""
        x = unit(points.coordinates)
        rows = self.embed(torch.cat((points.values, self.features(x)), dim=-1))
        for convolution in self.convolutions:
            rows = convolution(rows, x, edges)
        return self.pool(*pad(rows, points.sample, points.num_samples))


class EdgeConvolution(nn.Module):
    """h_i + mean over neighbors j of mlp([norm(h_i), norm(h_j), x_j - x_i, |x_j - x_i|]).

    Source: Pfaff et al. 2021 (MeshGraphNets), section 3.2, without edge states.
    """

    def __init__(self, width: int, num_dims: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = mlp(2 * width + num_dims + 1, width, width)

    def forward(self, rows: Tensor, x: Tensor, edges: Tensor) -> Tensor:
        """Map node features (n, width) at coordinates x (n, d), with edges (2, e) from j to i, to the same
        shape."""
        (h_j, h_i), (x_j, x_i) = ([y.index_select(0, ends) for ends in edges] for y in (self.norm(rows), x))
        offset = x_j - x_i
        messages = self.mlp(torch.cat((h_i, h_j, offset, offset.norm(dim=-1, keepdim=True)), dim=-1))
        sums = messages.new_zeros(rows.shape).scatter_add_(0, edges[1, :, None].expand_as(messages), messages)
        return rows + sums / edges[1].bincount(minlength=len(rows)).clamp(min=1)[:, None]


class QueryDecoder(nn.Module):
    """Fields at any coordinates: the coordinates' features ask the latent tokens."""

    def __init__(self, num_channels: int, num_dims: int, sizes: Sizes) -> None:
        super().__init__()
        self.from_latent = nn.Linear(sizes.latent_dim, sizes.width)
        self.features = FourierFeatures(num_dims, sizes.num_frequencies)
        self.embed = mlp(self.features.num_features, sizes.width, sizes.width)
        self.blocks = nn.ModuleList(
            AttentionBlock(sizes.width, sizes.num_heads, cross=True) for _ in range(sizes.num_decoder_layers)
        )
        self.to_fields = nn.Sequential(nn.LayerNorm(sizes.width), nn.Linear(sizes.width, num_channels))

    def forward(self, latent: Tensor, x: Tensor) -> Tensor:
        """Decode normalized fields (b, n, c) at coordinates x (b, n, d) from tokens (b, m, latent_dim)."""
        context = self.from_latent(latent)
        y = self.embed(self.features(x))
        for block in self.blocks:
            y = block(y, context)
        return self.to_fields(y)


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


def _pool(sizes: Sizes) -> AttentionPool:
    return AttentionPool(
        sizes.width,
        sizes.latent_len,
        sizes.latent_dim,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
    )
