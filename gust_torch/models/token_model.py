"""What all tokenizing autoencoders share: the data they are for, statistics, and what they promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gust_torch.models.scales import Scale
from gust_torch.spec import FieldSpec


@dataclass(frozen=True)
class VQVAEOutput:
    """What a forward pass returns.

    Attributes:
        reconstruction: (b, c, h, w) in physical units.
        indices: One (b, h_k, w_k) int64 tensor per scale; empty while training still bypasses quantization.
        reconstruction_loss: Scalar mean squared error of the normalized fields.
        quantizer_loss: Scalar commitment and code loss.
    """

    reconstruction: Tensor
    indices: list[Tensor]
    reconstruction_loss: Tensor
    quantizer_loss: Tensor


class TokenModel(nn.Module):
    """Raw physical fields to tokens of several scales and back.

    `decode(tokenize(x))` equals `reconstruct(x)` bit for bit at the same batch shape. A forward pass gives a
    `VQVAEOutput`; in training mode it also moves the codes.

    Attributes:
        spec: Field names, grid and boundary types of the data.
        scales: Token grids (h_k, w_k), coarse to fine.
        vocab_sizes: Codes of each scale.
        mean: (c, 1, 1), of the training data.
        std: Likewise.
    """

    mean: Tensor
    std: Tensor
    scales: tuple[Scale, ...]
    vocab_sizes: tuple[int, ...]

    def __init__(self, spec: FieldSpec) -> None:
        super().__init__()
        self.spec = spec
        self._architecture: dict[str, object] = {}
        self.register_buffer("mean", torch.zeros(spec.num_channels, 1, 1))
        self.register_buffer("std", torch.ones(spec.num_channels, 1, 1))

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments besides `spec`, as plain Python values."""
        return dict(self._architecture)

    @property
    def is_ready(self) -> bool:
        """Whether codes are set, so that fields can be tokenized."""
        raise NotImplementedError

    @property
    def codebooks(self) -> list[Tensor]:
        """Codes (K_k, d) of each scale, as a token file holds them."""
        raise NotImplementedError

    def shorten_phases(self, num_steps: int) -> None:
        """Fit the phases of training that come first to a run of so many steps."""
        raise NotImplementedError

    @property
    def bits_per_pixel(self) -> float:
        """Σ_k h_k w_k log2 K_k / (c h w): bits of a frame's tokens per value of the frame."""
        bits = sum(h * w * math.log2(n) for (h, w), n in zip(self.scales, self.vocab_sizes, strict=True))
        return bits / (self.spec.num_channels * self.spec.grid[0] * self.spec.grid[1])

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the normalization (c, 1, 1) that the model applies to its inputs and undoes on its outputs.

        Raises:
            ValueError: If a standard deviation is not positive and finite.
        """
        if not bool((torch.isfinite(std) & (std > 0)).all()) or not bool(torch.isfinite(mean).all()):
            raise ValueError(
                f"statistics of fields {list(self.spec.names)} must be finite with std > 0, got mean "
                f"{mean.flatten().tolist()}, std {std.flatten().tolist()}; leave constant fields out "
                "with --data.fields"
            )
        self.mean.copy_(mean.reshape(self.mean.shape))
        self.std.copy_(std.reshape(self.std.shape))

    def normalize(self, x: Tensor) -> Tensor:
        """Physical fields (b, c, h, w) to zero mean and unit variance."""
        return (x - self.mean) / self.std

    def check(self, x: Tensor) -> None:
        """Check that fields are on the channels and grid that the model was built for.

        Raises:
            ValueError: If they are not.
        """
        expected = (self.spec.num_channels, *self.spec.grid)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"this model takes fields {list(self.spec.names)} as (b, {', '.join(map(str, expected))}), "
                f"got {tuple(x.shape)}; choose the same fields and grid as in training"
            )

    def tokenize(self, x: Tensor) -> list[Tensor]:
        """Physical fields (b, c, h, w) to one index tensor (b, h_k, w_k) int64 per scale."""
        raise NotImplementedError

    def decode(self, indices: Sequence[Tensor]) -> Tensor:
        """Decode indices (b, h_k, w_k) of all scales to physical fields (b, c, h, w)."""
        raise NotImplementedError

    def reconstruct(self, x: Tensor) -> Tensor:
        """decode(tokenize(x)) in one pass."""
        raise NotImplementedError
