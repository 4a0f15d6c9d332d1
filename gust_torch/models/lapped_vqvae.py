"""VQ-VAE whose analysis is fixed: a lapped transform and conditional codes, and a small decoder behind them.

A field is cut to the modes that are worth a bit (the sketch), quantized scale by scale in orthonormal lapped
bases (`models.conditional`), and rebuilt as y = f_S + D(f_1, f_2 - f_1, ..., f_S - f_{S-1}), D a residual
network on the sketch's grid. Nothing in front of the quantizer is learned: distances of codes are errors of
the field, which an encoder trained through the quantizer does not keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gust_torch.models.blocks import (
    Boundary,
    BoundaryConv2d,
    ResBlock2d,
    channels_last,
    full_precision,
    zeroed,
)
from gust_torch.models.conditional import ConditionalQuantizer, LappedScale
from gust_torch.models.distributed import gather_batch, touch
from gust_torch.models.lapped import sketch_matrix
from gust_torch.models.points import check_fields
from gust_torch.models.scales import check_block_scales, codebook_sizes, one_each
from gust_torch.models.token_model import TokenModel, VQVAEOutput
from gust_torch.spec import FieldSpec

COLORS = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Rows and columns, modulo 2, of the tokens that are searched at once."""


class SketchDecoder(nn.Module):
    """y = f_S + D(f_1, f_2 - f_1, ...): residual blocks on cells of `patch` x `patch`; D is zero when new."""

    def __init__(
        self, channels: int, num_scales: int, boundary: Boundary, *, width: int, num_blocks: int, patch: int
    ) -> None:
        super().__init__()
        self.patch = patch
        self.first = BoundaryConv2d(channels * num_scales * patch**2, width, boundary)
        blocks = [ResBlock2d(width, boundary) for _ in range(num_blocks)]
        for block in blocks:
            zeroed(block.conv2)
        self.blocks = nn.Sequential(*blocks)
        self.last = zeroed(BoundaryConv2d(width, channels * patch**2, boundary))

    def forward(self, decoded: Sequence[Tensor]) -> Tensor:
        """Correct the sketch (b, c, h, w) of the sketches f_1, ..., f_S."""
        steps = [decoded[0], *(fine - coarse for coarse, fine in pairwise(decoded))]
        x = F.pixel_unshuffle(torch.cat(steps, 1), self.patch)
        x = self.blocks(self.first(x.contiguous(memory_format=torch.channels_last)))
        return decoded[-1] + F.pixel_shuffle(self.last(F.silu(x)), self.patch)


class LappedVQVAE2d(TokenModel):
    """Sketch, conditional quantizer and decoder; raw physical fields in and out.

    Training goes in phases that a counter of its calls steers: `initial_steps` calls collect sketches, from
    which the codes are started; until `code_steps` calls the codes and their networks learn; from there on
    they stay, and the decoder learns.

    Args:
        spec: Field names, grid and boundary types of the data.
        scales: Token grids (h_k, w_k), coarse to fine, each dividing the sketch; a grid may stand twice.
        vocab_size: Codebook size of the finest scale (halved at each coarser one), or one size per scale.
        sketch: Grid (h, w) on which the low modes are given; None takes half the field's.
        code_dims: Coefficients a token holds at each scale; one number for all.
        context_dims: Coefficients of what is decoded already that each scale's network sees.
        context_width: Width of these networks.
        decoder_width: Channels of the decoder's residual blocks.
        decoder_blocks: Number of these blocks.
        decoder_patch: Cells of the sketch along each side of a cell of the decoder.
        initial_steps: Training calls that collect sketches for the first codes.
        code_steps: Training calls after which codes are frozen and the decoder learns.

    Raises:
        ValueError: If sizes do not fit each other.
    """

    quantizer: ConditionalQuantizer
    to_sketch_h: Tensor
    to_sketch_w: Tensor

    def __init__(
        self,
        spec: FieldSpec,
        *,
        scales: Sequence[Sequence[int]] = ((2, 2), (4, 4), (8, 8)),
        vocab_size: int | Sequence[int] = 512,
        sketch: Sequence[int] | None = None,
        code_dims: int | Sequence[int] = 24,
        context_dims: int | Sequence[int] = 32,
        context_width: int = 96,
        decoder_width: int = 48,
        decoder_blocks: int = 3,
        decoder_patch: int = 2,
        initial_steps: int = 32,
        code_steps: int = 500,
    ) -> None:
        h, w = sketch or (spec.grid[0] // 2, spec.grid[1] // 2)
        sketch = (h, w)
        scales = check_block_scales(scales, sketch, spec.grid, decoder_patch)
        vocab_size = codebook_sizes(vocab_size, len(scales))
        code_dims = one_each(code_dims, len(scales), "code_dims")
        context_dims = one_each(context_dims, len(scales), "context_dims", least=0)
        super().__init__(spec, locals())
        self.scales, self.vocab_sizes = scales, vocab_size
        self.initial_steps, self.code_steps = initial_steps, code_steps
        self.step, self.initialized = 0, False
        self._reservoir: list[Tensor] = []
        for name, n, m, kind in zip("hw", spec.grid, sketch, spec.boundary, strict=True):
            matrix = (sketch_matrix(n, m, kind) * math.sqrt(m / n)).float()
            self.register_buffer(f"to_sketch_{name}", matrix, persistent=False)
        self.quantizer = ConditionalQuantizer(
            sketch,
            spec.num_channels,
            spec.boundary,
            scales,
            sizes=vocab_size,
            dims=code_dims,
            context_dims=context_dims,
            width=context_width,
        )
        self.decoder = SketchDecoder(
            spec.num_channels,
            len(scales),
            spec.boundary,
            width=decoder_width,
            num_blocks=decoder_blocks,
            patch=decoder_patch,
        )
        channels_last(self)

    @property
    def is_ready(self) -> bool:
        """Whether the first codes are set."""
        return self.initialized

    @property
    def codebooks(self) -> list[Tensor]:
        """Codes (K_k, d) of each scale, those of fewer coefficients than the longest filled up with zeros."""
        codes = [level.codes.detach() for level in self.quantizer.levels]
        longest = max(code.shape[1] for code in codes)
        return [F.pad(code, (0, longest - code.shape[1])) for code in codes]

    def shorten_phases(self, num_steps: int) -> None:
        """Give the codes at most a third of a run, and their start a twentieth."""
        self.initial_steps = max(1, min(self.initial_steps, num_steps // 20))
        self.code_steps = max(self.initial_steps, min(self.code_steps, num_steps // 3))

    def encode(self, x: Tensor) -> Tensor:
        """Physical fields (b, c, h, w) to normalized sketches (b, c, h_s, w_s), in float32."""
        check_fields(x, self.spec)
        with full_precision(x.device):
            return self.to_sketch_h @ self.normalize(x.float()) @ self.to_sketch_w.T

    def to_field(self, y: Tensor) -> Tensor:
        """Interpolate a sketch (b, c, h_s, w_s) to the grid (b, c, h, w) by its own modes."""
        scale = math.prod(self.spec.grid) / math.prod(y.shape[2:])
        with full_precision(y.device):
            return scale * (self.to_sketch_h.T @ y.float() @ self.to_sketch_w)

    def decode_latent(self, quantized: Sequence[Tensor]) -> Tensor:
        """Decode sketches f_1, ..., f_S to physical fields (b, c, h, w)."""
        return self.to_field(self.decoder(quantized)) * self.std + self.mean

    def forward(self, x: Tensor) -> VQVAEOutput:
        """Reconstruct x (b, c, h, w) and return the training losses; in training mode the phases go on."""
        s, zero = self.encode(x), touch(self.parameters())
        if self.training:
            self._advance(s.detach())
            if not self.initialized:
                return VQVAEOutput(self.to_field(s) * self.std + self.mean, [], zero, zero)
        codes_learn = self.training and self.step <= self.code_steps
        with nullcontext() if codes_learn else torch.no_grad():
            codes = self.quantizer.quantize(s)
        y = self.to_field(codes.quantized[-1].detach() if codes_learn else self.decoder(codes.quantized))
        error = F.mse_loss(y, self.normalize(x)) + zero
        return VQVAEOutput(y * self.std + self.mean, codes.indices, error, codes.loss)

    def _advance(self, s: Tensor) -> None:
        """Count a training call; collect sketches, and start the codes from them."""
        self.step += 1
        if self.initialized:
            return
        if self.step <= self.initial_steps:
            self._reservoir.append(gather_batch(s))
        if self.step >= self.initial_steps:
            self.quantizer.initialize(torch.cat(self._reservoir), torch.Generator().manual_seed(0))
            self._reservoir.clear()
            self.initialized = True

    @torch.no_grad()
    def search(self, x: Tensor, candidates: int) -> list[Tensor]:
        """Tokenize with the last scale's codes chosen by the decoded error instead of the nearest.

        Tokens are visited in four colors of their grid. Those of one color try each of their nearest codes at
        once, and each keeps the one with the least squared error of the decoded sketch in the window of twice
        its block: 4 `candidates` passes of the decoder.

        Args:
            x: Physical fields (b, c, h, w).
            candidates: Nearest codes to try.

        Returns:
            Codes (b, h_k, w_k) of all scales.
        """
        s, level = self.encode(x), self.quantizer.levels[-1]
        with full_precision(s.device):
            codes = self.quantizer.quantize(s)
            (*coarse, best), (*before, _) = codes.indices, codes.quantized
            f = before[-1] if before else torch.zeros_like(s)
            context = level.context(f)
            scores = level.scores(level.residual(s, f), context)
            nearest = (
                scores.topk(min(candidates, scores.shape[-1]), largest=False).indices[..., 1:].unbind(-1)
            )
            rows, columns = (torch.arange(n, device=s.device) % 2 for n in level.scale)

            def errors(index: Tensor) -> Tensor:
                decoded = f + level.synthesize(level.vectors(index, context))
                return self._window_errors(self.decoder([*before, decoded]) - s, level)

            for row, column in COLORS:
                mine = (rows == row)[:, None] & (columns == column)
                tried = torch.stack([best, *(torch.where(mine, option, best) for option in nearest)])
                choice = torch.stack([errors(index) for index in tried]).argmin(0, keepdim=True)
                best = torch.where(mine, tried.gather(0, choice)[0], best)
        return [*coarse, best]

    def _window_errors(self, difference: Tensor, level: LappedScale) -> Tensor:
        """Mean squares (b, h_k, w_k) of a sketch (b, c, h, w) in the window around each token."""
        squares = difference.square().sum(1, keepdim=True)
        _, h, w = level.cell
        modes = ["circular" if kind == "periodic" else "constant" for kind in self.spec.boundary]
        squares = F.pad(squares, (0, 0, h // 2, h // 2), mode=modes[0])
        squares = F.pad(squares, (w // 2, w // 2, 0, 0), mode=modes[1])
        return F.avg_pool2d(squares, (h + 2 * (h // 2), w + 2 * (w // 2)), (h, w))[:, 0]

    def get_extra_state(self) -> dict[str, Any]:
        """Training state besides the weights: calls so far, whether codes are set, collected sketches."""
        return {"step": self.step, "initialized": self.initialized, "reservoir": list(self._reservoir)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self.step, self.initialized = int(state["step"]), bool(state["initialized"])
        self._reservoir = [s.to(self.mean.device) for s in state["reservoir"]]
