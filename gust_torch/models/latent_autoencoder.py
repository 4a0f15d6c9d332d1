"""Autoencoder of fields on grids, meshes or particles through a fixed number of latent tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gust_torch.graph_spec import GraphSpec
from gust_torch.models.base import FieldModel
from gust_torch.models.latent_encoders import GraphEncoder, GridEncoder, QueryDecoder, Sizes, UnitBox
from gust_torch.models.points import Points, Spec, check_fields, graph_points, grid_points, num_dims, pad

if TYPE_CHECKING:
    from gust_torch.models.points import Batch


class LatentAutoencoder(FieldModel):
    """The same four calls for every kind of data: `points`, `encode`, `decode`, `reconstruct`.

    A batch is a tensor (b, c, h, w) where the spec is a `FieldSpec`, else a torch_geometric item or batch.
    All values and coordinates are physical; statistics of the training data are buffers.

    Args:
        spec: What the data are; it chooses `GridEncoder` or `GraphEncoder`.
        latent_len: Tokens of a sample.
        latent_dim: Features of a token.
        width: Features inside encoder and decoder.
        num_local_layers: Convolution blocks, or rounds of message passing, before the pooling.
        num_layers: Self-attention blocks on the tokens.
        num_decoder_layers: Rounds in which a query asks the tokens.
        num_heads: Attention heads.
        num_frequencies: Octaves of the coordinates' Fourier features.
        patch_size: Cells along each side of a grid's patch, but for axes of one cell; graphs have none.

    Raises:
        ValueError: Sizes that do not fit one another or the grid.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        latent_len: int = 128,
        latent_dim: int = 512,
        width: int = 256,
        num_local_layers: int = 2,
        num_layers: int = 4,
        num_decoder_layers: int = 2,
        num_heads: int = 8,
        num_frequencies: int = 6,
        patch_size: int = 4,
    ) -> None:
        super().__init__(spec, locals())
        sizes = Sizes(**self.architecture())
        self.unit = UnitBox(num_dims(spec))
        self.encoder: GraphEncoder | GridEncoder
        if isinstance(spec, GraphSpec):
            self.encoder = GraphEncoder(spec, sizes)
        else:
            self.encoder = GridEncoder(spec, sizes)
            self.unit.set(torch.zeros(num_dims(spec)), torch.tensor(spec.lengths[: num_dims(spec)]))
        self.decoder = QueryDecoder(spec.num_channels, num_dims(spec), sizes)
        self.latent_shape = (latent_len, latent_dim)

    def points(self, batch: Batch) -> Points:
        """Return the batch as physical values at points: what `decode_points` should give back."""
        if isinstance(self.spec, GraphSpec):
            return graph_points(batch, self.spec)[0]
        return grid_points(batch, self.spec)

    def encode(self, batch: Batch) -> Tensor:
        """Tokens (b, latent_len, latent_dim); of moving graphs b counts graph 0's times first.

        Raises:
            ValueError: If the batch has other fields than the model.
        """
        if isinstance(self.encoder, GridEncoder):
            x = check_fields(batch, self.encoder.spec)
            return self.encoder((x - self.mean[:, None, None]) / self.std[:, None, None], self.unit)
        points, edges = graph_points(batch, self.encoder.spec)
        normalized = replace(points, values=(points.values - self.mean) / self.std)
        return self.encoder(normalized, edges, self.unit)

    def decode(self, latent: Tensor, coordinates: Tensor) -> Tensor:
        """Physical fields (b, n, c) at coordinates (b, n, d), or (n, d) for all samples alike.

        Raises:
            ValueError: If latents or coordinates have other sizes than the model's.
        """
        if tuple(latent.shape[1:]) != self.latent_shape or coordinates.shape[-1] != num_dims(self.spec):
            raise ValueError(
                f"expected latents (b, {self.latent_shape[0]}, {self.latent_shape[1]}) and coordinates "
                f"(b, n, {num_dims(self.spec)}), got {tuple(latent.shape)} and {tuple(coordinates.shape)}"
            )
        x = self.unit(coordinates).expand(latent.shape[0], -1, -1)
        return self.decoder(latent, x) * self.std + self.mean

    def decode_points(self, latent: Tensor, coordinates: Tensor, sample: Tensor) -> Tensor:
        """Physical fields (n, c) at ragged queries: coordinates (n, d) of samples (n,), never decreasing."""
        padded, mask = pad(coordinates, sample, latent.shape[0])
        return self.decode(latent, padded)[mask]

    def reconstruct(self, batch: Batch) -> Tensor:
        """Physical values (n, c) at the batch's own points."""
        return self(batch, self.points(batch))

    def forward(self, batch: Batch, queries: Points) -> Tensor:
        """Physical values (n, c) at `queries`, of which the values are not looked at."""
        return self.decode_points(self.encode(batch), queries.coordinates, queries.sample)
