"""VQ-VAE whose analysis is fixed: a lapped transform and conditional codes, and a small decoder behind them.

A field is cut to the modes that are worth a bit (the sketch), quantized scale by scale in orthonormal lapped
bases (`models.conditional`), and rebuilt as y = f_S + D(f_1, f_2 - f_1, ..., f_S - f_{S-1}), D a residual
network on the sketch's grid. Nothing in front of the quantizer is learned: distances of codes are errors of
the field, which an encoder trained through the quantizer does not keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gust_torch.models.blocks import BoundaryConv2d, ResBlock2d
from gust_torch.models.conditional import ConditionalQuantizer
from gust_torch.models.distributed import gather_batch
from gust_torch.models.lapped import sketch_matrix
from gust_torch.models.scales import check_block_scales, codebook_sizes
from gust_torch.models.token_model import TokenModel, VQVAEOutput
from gust_torch.spec import FieldSpec


class SketchDecoder(nn.Module):
    """D: what the codes say besides their own vectors; zero when new.

    Args:
        channels: Fields.
        num_scales: Decoded sketches it sees.
        boundary: Of both axes.
        width: Channels of the residual blocks, which work on cells of `patch` x `patch`.
        num_blocks: Residual blocks.
        patch: Side of these cells.
    """

    def __init__(
        self,
        channels: int,
        num_scales: int,
        boundary: tuple[str, str],
        *,
        width: int,
        num_blocks: int,
        patch: int,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.first = BoundaryConv2d(channels * num_scales * patch**2, width, boundary)
        self.blocks = nn.Sequential(*(ResBlock2d(width, boundary) for _ in range(num_blocks)))
        self.last = BoundaryConv2d(width, channels * patch**2, boundary)
        for block in self.blocks:
            nn.init.zeros_(block.conv2.weight)  # type: ignore[union-attr, arg-type]
            nn.init.zeros_(block.conv2.bias)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

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
        super().__init__(spec)
        size = (spec.grid[0] // 2, spec.grid[1] // 2) if sketch is None else (int(sketch[0]), int(sketch[1]))
        self.sketch = size
        self.scales = check_block_scales(scales, size, spec.grid, decoder_patch)
        self.vocab_sizes = codebook_sizes(vocab_size, len(self.scales))
        dims, seen = (
            (values,) * len(self.scales) if isinstance(values, int) else tuple(values)
            for values in (code_dims, context_dims)
        )
        self._architecture = {
            "scales": [list(scale) for scale in self.scales],
            "vocab_size": list(self.vocab_sizes),
            "sketch": list(size),
            "code_dims": list(dims),
            "context_dims": list(seen),
            "context_width": context_width,
            "decoder_width": decoder_width,
            "decoder_blocks": decoder_blocks,
            "decoder_patch": decoder_patch,
            "initial_steps": initial_steps,
            "code_steps": code_steps,
        }
        self.initial_steps, self.code_steps = initial_steps, code_steps
        self.step = 0
        self.initialized = False
        self._reservoir: list[Tensor] = []
        for name, n, m, kind in zip("hw", spec.grid, size, spec.boundary, strict=True):
            matrix = (sketch_matrix(n, m, kind) * math.sqrt(m / n)).float()
            self.register_buffer(f"to_sketch_{name}", matrix, persistent=False)
        self.quantizer = ConditionalQuantizer(
            size,
            spec.num_channels,
            self.scales,
            self.vocab_sizes,
            dims,
            seen,
            spec.boundary,
            width=context_width,
        )
        self.decoder = SketchDecoder(
            spec.num_channels,
            len(self.scales),
            spec.boundary,
            width=decoder_width,
            num_blocks=decoder_blocks,
            patch=decoder_patch,
        )
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @property
    def is_ready(self) -> bool:
        """Whether the first codes are set."""
        return self.initialized

    @property
    def codebooks(self) -> list[Tensor]:
        """Codes (K_k, d) of each scale, those of fewer coefficients than the longest filled up with zeros."""
        codes: list[Tensor] = [level.codes for level in self.quantizer.levels]  # type: ignore[misc]
        longest = max(code.shape[1] for code in codes)
        return [F.pad(code.detach(), (0, longest - code.shape[1])) for code in codes]

    def shorten_phases(self, num_steps: int) -> None:
        """Give the codes at most a third of a run, and their start a twentieth."""
        self.initial_steps = max(1, min(self.initial_steps, num_steps // 20))
        self.code_steps = max(self.initial_steps, min(self.code_steps, num_steps // 3))

    def encode(self, x: Tensor) -> Tensor:
        """Physical fields (b, c, h, w) to normalized sketches (b, c, h_s, w_s), in float32."""
        self.check(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.to_sketch_h @ self.normalize(x.float()) @ self.to_sketch_w.T

    @torch.no_grad()
    def tokenize(self, x: Tensor) -> list[Tensor]:
        """Physical fields (b, c, h, w) to one index tensor (b, h_k, w_k) int64 per scale."""
        return self.quantize(self.encode(x))[0]

    def quantize(self, s: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Quantize sketches, see `ConditionalQuantizer.quantize`; never in half precision."""
        with torch.autocast(s.device.type, enabled=False):
            codes: tuple[list[Tensor], list[Tensor], Tensor] = self.quantizer.quantize(s)
        return codes

    def decode_sketches(self, decoded: Sequence[Tensor]) -> Tensor:
        """Decode sketches f_1, ..., f_S to physical fields (b, c, h, w)."""
        return self.to_field(self.decoder(decoded)) * self.std + self.mean

    def to_field(self, y: Tensor) -> Tensor:
        """Interpolate a sketch (b, c, h_s, w_s) to the grid (b, c, h, w) by its own modes."""
        scale = math.prod(self.spec.grid) / math.prod(self.sketch)
        with torch.autocast(y.device.type, enabled=False):
            return scale * (self.to_sketch_h.T @ y.float() @ self.to_sketch_w)

    def decode(self, indices: Sequence[Tensor]) -> Tensor:
        """Decode indices (b, h_k, w_k) of all scales to physical fields (b, c, h, w)."""
        with torch.autocast(self.mean.device.type, enabled=False):
            decoded = self.quantizer.accumulate(indices)
        return self.decode_sketches(decoded)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """decode(tokenize(x)) in one pass, bit for bit the same at the same batch shape."""
        return self.decode_sketches(self.quantize(self.encode(x))[1])

    def forward(self, x: Tensor) -> VQVAEOutput:
        """Reconstruct x (b, c, h, w) and return the training losses; in training mode the phases go on."""
        s = self.encode(x)
        target = self.normalize(x)
        if self.training:
            self._advance(s)
            if not self.initialized:
                return VQVAEOutput(self.to_field(s), [], self._unused(), self._unused())
        if self.training and self.step <= self.code_steps:
            indices, decoded, loss = self.quantize(s)
            y = self.to_field(decoded[-1].detach())
            error = F.mse_loss(y, target) + self._unused()
            return VQVAEOutput(y * self.std + self.mean, indices, error, loss)
        with torch.no_grad():
            indices, decoded, loss = self.quantize(s)
        y = self.to_field(self.decoder(decoded))
        error = F.mse_loss(y, target) + self._unused()
        return VQVAEOutput(y * self.std + self.mean, indices, error, loss)

    def _advance(self, s: Tensor) -> None:
        """Count a training call; collect sketches, and start the codes from them."""
        self.step += 1
        if self.initialized:
            return
        if self.step <= self.initial_steps:
            self._reservoir.append(gather_batch(s.detach()))
        if self.step >= self.initial_steps:
            self.quantizer.initialize(torch.cat(self._reservoir), torch.Generator().manual_seed(0))
            self._reservoir.clear()
            self.initialized = True

    def _unused(self) -> Tensor:
        """0 with a gradient path to every parameter, so that DDP finds all of them in use in each phase."""
        return 0.0 * sum((p.sum() for p in self.parameters()), start=torch.zeros((), device=self.mean.device))

    @torch.no_grad()
    def search(self, x: Tensor, candidates: int, sweeps: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Tokenize with the last scale's codes chosen by the decoded error instead of the nearest.

        Tokens are visited in four colors of their grid. Those of one color try each of their nearest codes at
        once, and each keeps the one with the least squared error of the decoded sketch in the window of twice
        its block.

        Args:
            x: Physical fields (b, c, h, w).
            candidates: Nearest codes to try.
            sweeps: Rounds over the colors.

        Returns:
            Codes (b, h_k, w_k) and decoded sketches of all scales.
        """
        s = self.encode(x)
        with torch.autocast(s.device.type, enabled=False):
            indices, decoded, _ = self.quantizer.quantize(s)
            level: Any = self.quantizer.levels[-1]
            before = decoded[-2] if len(decoded) > 1 else None
            u = level.residual(s, before)
            scores = level.scores(u, *level.context(before))
            nearest = scores.topk(min(candidates, scores.shape[1]), largest=False).indices
            options = nearest.unflatten(0, (len(s), *level.scale)).movedim(-1, 0)
            best = indices[-1]
            error = self._window_errors(decoded, s, level)
            rows, columns = (torch.arange(n, device=s.device) % 2 for n in level.scale)
            for _ in range(sweeps):
                for color in ((0, 0), (1, 1), (0, 1), (1, 0)):
                    mine = (rows == color[0])[:, None] & (columns == color[1])[None, :]
                    tried = [best]
                    errors = [error]
                    for option in options:
                        index = torch.where(mine, option, best)
                        trial = [*decoded[:-1], self.quantizer.step(level, index, before)]
                        tried.append(index)
                        errors.append(self._window_errors(trial, s, level))
                    choice = torch.stack(errors).argmin(0, keepdim=True)
                    best = torch.where(mine, torch.stack(tried).gather(0, choice)[0], best)
                    decoded = [*decoded[:-1], self.quantizer.step(level, best, before)]
                    error = self._window_errors(decoded, s, level)
            return [*indices[:-1], best], decoded

    def _window_errors(self, decoded: Sequence[Tensor], s: Tensor, level: Any) -> Tensor:
        """Squared errors (b, h_k, w_k) of the decoded sketch in the window around each token."""
        squares = (self.decoder(decoded).float() - s).square().sum(1, keepdim=True)
        (m, n), (kind_h, kind_w) = (block // 2 for block in level.block), self.spec.boundary
        modes = {"periodic": "circular", "wall": "constant"}
        squares = F.pad(squares, (0, 0, m, m), mode=modes[kind_h])
        squares = F.pad(squares, (n, n, 0, 0), mode=modes[kind_w])
        window = (level.block[0] + 2 * m, level.block[1] + 2 * n)
        return F.avg_pool2d(squares, window, level.block)[:, 0]

    def get_extra_state(self) -> dict[str, Any]:
        """Training state besides the weights: calls so far, whether codes are set, collected sketches."""
        return {"step": self.step, "initialized": self.initialized, "reservoir": list(self._reservoir)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self.step, self.initialized = int(state["step"]), bool(state["initialized"])
        self._reservoir = [s.to(self.mean.device) for s in state["reservoir"]]
