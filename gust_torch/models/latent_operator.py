"""Time stepping of latent tokens: a transformer conditioned on the time step and on physical parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gust_torch.models.attention import AttentionBlock, mlp
from gust_torch.models.base import Model
from gust_torch.models.blocks import zeroed
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.points import Spec

if TYPE_CHECKING:
    from gust_torch.models.points import Batch

POSITION_SCALE = 0.02
LOG_SPAN = 10.0
"""Positive parameters that span a larger factor than this enter by their logarithm."""

SMALLEST_VARIATION = 1e-4
"""Conditions that vary less, relative to their mean, are constant."""


class ConditionedBlock(nn.Module):
    """Self-attention and MLP whose norms are shifted and scaled, and whose outputs are gated, by a condition.

    Source: Peebles and Xie 2023 (DiT), adaLN-zero: the gates begin at zero, so the block at the identity.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.block = AttentionBlock(width, num_heads, cross=False)
        self.modulation = zeroed(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map tokens x (b, m, width) to the same shape, given conditions (b, width)."""
        chunks = self.modulation(condition)[:, None].chunk(6, dim=-1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = chunks
        y = self.block.norm(x) * (1 + scale) + shift
        x = x + gate * self.block.attention(y, y)
        y = self.block.norm_mlp(x) * (1 + scale_mlp) + shift_mlp
        return x + gate_mlp * self.block.mlp(y)


class LatentOperator(Model):
    """Steps the tokens of a frozen `LatentAutoencoder` in time: z(t + dt) from z(t), dt and parameters.

    z' = norm(z + f(z; dt, parameters)) with the encoder's own layer norm, f = 0 at first: a new operator
    stands still. Time steps enter by their logarithm and parameters that are positive and span more than a
    decade likewise, all standardized with the training set's statistics.

    Args:
        spec: What the data are.
        autoencoder: `LatentAutoencoder.architecture()`; its weights are part of this model, and never train.
        parameter_names: Physical parameters of a trajectory, in the order in which they are given.
        width: Features inside.
        num_layers: Transformer blocks.
        num_heads: Attention heads.

    Raises:
        ValueError: Sizes that do not fit one another.
    """

    condition_mean: Tensor
    condition_std: Tensor
    condition_log: Tensor
    time_step_range: Tensor
    parameter_range: Tensor

    def __init__(
        self,
        spec: Spec,
        *,
        autoencoder: Mapping[str, Any],
        parameter_names: Sequence[str] = (),
        width: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
    ) -> None:
        super().__init__(spec, locals())
        self.parameter_names = tuple(parameter_names)
        self.autoencoder = LatentAutoencoder(spec, **autoencoder).requires_grad_(False).eval()
        self.latent_shape = latent_len, latent_dim = self.autoencoder.latent_shape
        num_conditions = 1 + len(self.parameter_names)
        self.from_latent = nn.Linear(latent_dim, width)
        self.position = nn.Parameter(POSITION_SCALE * torch.randn(latent_len, width))
        self.embed = nn.Sequential(mlp(num_conditions, width, width), nn.SiLU())
        self.blocks = nn.ModuleList(ConditionedBlock(width, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.to_latent = zeroed(nn.Linear(width, latent_dim))
        self.register_buffer("condition_mean", torch.zeros(num_conditions))
        self.register_buffer("condition_std", torch.ones(num_conditions))
        self.register_buffer("condition_log", torch.arange(num_conditions) == 0)
        self.register_buffer("time_step_range", torch.tensor([0.0, torch.inf]))
        unbounded = torch.tensor([-torch.inf, torch.inf])
        self.register_buffer("parameter_range", unbounded[:, None].repeat(1, num_conditions - 1))

    def train(self, mode: bool = True) -> LatentOperator:
        """As of any module, but the autoencoder stays in evaluation mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    @torch.no_grad()
    def set_conditioning(self, parameters: Tensor, time_steps: Tensor) -> None:
        """Take the statistics of the training set's conditions.

        Args:
            parameters: (n, p) of trajectories, in physical units.
            time_steps: (m,), in the data's time unit.

        Raises:
            ValueError: Another number of parameters, or values that cannot be standardized.
        """
        names, shape = list(self.parameter_names), tuple(parameters.shape)
        num_bad = int((~torch.isfinite(parameters)).sum())
        if shape != (len(parameters), len(names)) or num_bad:
            raise ValueError(
                f"expected finite parameters (n, {len(names)}) for {names}, got {shape}, {num_bad} of them "
                "NaN or infinite; convert the data again or leave such trajectories out"
            )
        if not len(time_steps) or not bool((torch.isfinite(time_steps) & (time_steps > 0)).all()):
            raise ValueError(
                "time steps must be positive and finite; the data's times are missing or do not increase"
            )
        lower, upper = torch.aminmax(parameters, dim=0)
        self.condition_log[1:] = (lower > 0) & (upper > LOG_SPAN * lower)
        for columns, values in ((slice(0, 1), time_steps[:, None]), (slice(1, None), parameters)):
            is_log = self.condition_log[columns].to(values.device)
            values = _logarithms(values.double(), is_log)
            mean = values.mean(0)
            std = (values - mean).square().mean(0).sqrt()
            self.condition_mean[columns] = mean.float()
            # Float32 differences of equally spaced times differ in their last digits.
            smallest = SMALLEST_VARIATION * mean.abs().where(~is_log, 1.0)
            self.condition_std[columns] = torch.where(std > smallest, std, 1.0).float()
        self.time_step_range.copy_(torch.stack(torch.aminmax(time_steps)))
        self.parameter_range.copy_(torch.stack((lower, upper)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """As of any module; older checkpoints do not say between which values their parameters lay."""
        state_dict.setdefault(f"{prefix}parameter_range", self.parameter_range)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Tokens (b, latent_len, latent_dim) of physical fields; in float32 whatever autocast says."""
        device = self.condition_mean.device.type
        with torch.autocast(device, enabled=False):
            return self.autoencoder.encode(batch)

    def step(self, latent: Tensor, time_step: Tensor, parameters: Tensor) -> Tensor:
        """Tokens one time step later.

        Args:
            latent: (b, latent_len, latent_dim).
            time_step: (b,), in the data's time unit.
            parameters: (b, p), in physical units.

        Returns:
            (b, latent_len, latent_dim), of mean 0 and variance 1 over the features as the encoder's are.
        """
        conditions = _logarithms(torch.cat((time_step[:, None], parameters), dim=1), self.condition_log)
        condition = self.embed((conditions - self.condition_mean) / self.condition_std)
        x = self.from_latent(latent) + self.position
        for block in self.blocks:
            x = block(x, condition)
        return self.autoencoder.encoder.pool.norm(latent + self.to_latent(self.norm(x)))

    def rollout(self, latent: Tensor, time_steps: Tensor, parameters: Tensor) -> Iterator[Tensor]:
        """Yield the tokens after each of the time steps (b, t), otherwise as `step`; nothing is kept."""
        for time_step in time_steps.unbind(1):
            latent = self.step(latent, time_step, parameters)
            yield latent

    def forward(self, latent: Tensor, time_steps: Tensor, parameters: Tensor) -> Tensor:
        """Return the states of `rollout`, (b, t, latent_len, latent_dim)."""
        return torch.stack(list(self.rollout(latent, time_steps, parameters)), dim=1)


def _logarithms(values: Tensor, is_log: Tensor) -> Tensor:
    """Natural logarithms of the columns of values (n, k) that `is_log` (k,) names."""
    return torch.where(is_log, values.log(), values)
