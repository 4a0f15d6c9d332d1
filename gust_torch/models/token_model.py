"""What all tokenizing autoencoders share: fields to tokens and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gust_torch.models.base import FieldModel
from gust_torch.models.scales import Scale
from gust_torch.spec import FieldSpec


@dataclass(frozen=True)
class QuantizerOutput:
    """What a quantization returns.

    Attributes:
        quantized: What the codes decode to, as the model's `decode_latent` takes it.
        indices: One (b, h_k, w_k) int64 tensor per scale; empty while training still bypasses quantization.
        loss: Scalar.
    """

    quantized: Any
    indices: list[Tensor]
    loss: Tensor


@dataclass(frozen=True)
class VQVAEOutput:
    """What a forward pass returns.

    Attributes:
        reconstruction: (b, c, h, w) in physical units.
        indices: As in `QuantizerOutput`.
        reconstruction_loss: Scalar mean squared error of the normalized fields.
        quantizer_loss: Scalar commitment and code loss.
    """

    reconstruction: Tensor
    indices: list[Tensor]
    reconstruction_loss: Tensor
    quantizer_loss: Tensor


class TokenModel(FieldModel):
    """Raw physical fields to tokens of several scales and back.

    A kind of model is an `encode`, a `quantizer` with `quantize` and `accumulate`, and a `decode_latent`.
    `decode(tokenize(x))` equals `reconstruct(x)` bit for bit at the same batch shape. A forward pass gives a
    `VQVAEOutput`; in training mode it also moves the codes.

    Args:
        spec: Field names, grid and boundary types of the data.
        arguments: See `Model`.

    Attributes:
        scales: Token grids (h_k, w_k), coarse to fine.
        vocab_sizes: Codes of each scale.
        candidates: Codes that `tokenize` tries for each token of the finest scale, see `search`; 0 takes the
            nearest.
    """

    candidates = 0
    spec: FieldSpec
    scales: tuple[Scale, ...]
    vocab_sizes: tuple[int, ...]
    quantizer: Any

    def __init__(self, spec: FieldSpec, arguments: Mapping[str, Any]) -> None:
        super().__init__(spec, arguments, 1, 1)

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

    def encode(self, x: Tensor) -> Tensor:
        """Physical fields (b, c, h, w) to what is quantized."""
        raise NotImplementedError

    def decode_latent(self, quantized: Any) -> Tensor:
        """Physical fields (b, c, h, w) of what codes decode to."""
        raise NotImplementedError

    @property
    def bits_per_pixel(self) -> float:
        """Σ_k h_k w_k log2 K_k / (c h w): bits of a frame's tokens per value of the frame."""
        bits = sum(h * w * math.log2(n) for (h, w), n in zip(self.scales, self.vocab_sizes, strict=True))
        return bits / (self.spec.num_channels * self.spec.grid[0] * self.spec.grid[1])

    def normalize(self, x: Tensor) -> Tensor:
        """Physical fields (b, c, h, w) to zero mean and unit variance."""
        return (x - self.mean) / self.std

    @torch.no_grad()
    def tokenize(self, x: Tensor) -> list[Tensor]:
        """Physical fields (b, c, h, w) to one index tensor (b, h_k, w_k) int64 per scale."""
        if self.candidates:
            return self.search(x, self.candidates)
        return self.quantizer.quantize(self.encode(x)).indices

    def search(self, x: Tensor, candidates: int) -> list[Tensor]:
        """Tokenize with codes of the finest scale chosen by the decoded error, of so many of the nearest.

        Raises:
            ValueError: A model of this class cannot.
        """
        raise ValueError(f"the codes of a {type(self).__name__} are not searched; leave --search at 0")

    def decode(self, indices: Sequence[Tensor]) -> Tensor:
        """Decode indices (b, h_k, w_k) of all scales to physical fields (b, c, h, w)."""
        return self.decode_latent(self.quantizer.accumulate(indices))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """decode(tokenize(x)) in one pass."""
        if self.candidates:
            return self.decode(self.tokenize(x))
        return self.decode_latent(self.quantizer.quantize(self.encode(x)).quantized)
