"""Rolls an operator out from true states and decodes what it predicts, beside two yardsticks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gust_torch.evaluation.reference import Reference
from gust_torch.evaluation.schedule import Rollout, stack_times
from gust_torch.graph_spec import GraphSpec
from gust_torch.metrics.points import sample_means
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.points import Points, Spec, grid_coordinates

CURVES = ("operator", "persistence", "autoencoder")
"""The rollout; the frame at lead 0, kept; and each true frame, encoded and decoded: the operator's floor."""

# Bounds the memory of decoding a batch of large grids: 64 Ki queries of some thousand numbers each.
DECODED_POINTS = 1 << 16


@dataclass(frozen=True)
class Step:
    """One lead of the rollouts that reach it.

    Attributes:
        lead: 0 for the start, at which the operator gives what the autoencoder does.
        reference: The truth.
        estimates: Curve -> values (n, c) at the reference's points.
    """

    lead: int
    reference: Points
    estimates: Mapping[str, Tensor]


def roll_out(
    operator: LatentOperator, reference: Reference, rollouts: Sequence[Rollout], parameters: Tensor
) -> Iterator[Step]:
    """Yield lead 0, 1, ... of a batch of rollouts; nothing of earlier leads but the latent state is kept.

    Values are decoded at the reference's points: those of moving particles are where they truly are. For
    them, persistence is each particle's own value at the start.

    Args:
        operator: In evaluation mode.
        reference: Where true frames come from.
        rollouts: The longest first.
        parameters: (b, p) raw physical parameters of the rollouts, on the operator's device.
    """
    autoencoder = operator.autoencoder
    time_steps = torch.from_numpy(np.diff(stack_times(rollouts))).float().to(parameters.device)
    frames = reference.frames(rollouts)
    start, state = next(frames)
    floor = decode(autoencoder, state, start)
    yield _step(0, start, floor, start.values, floor)
    for lead, (points, latent) in enumerate(frames, start=1):
        active = points.num_samples  # rollouts that ended are the last ones
        state = operator.step(state[:active], time_steps[:active, lead - 1], parameters[:active])
        estimate, floor = decode(autoencoder, state, points), decode(autoencoder, latent, points)
        yield _step(lead, points, estimate, start.values[: len(points.values)], floor)


def _step(lead: int, reference: Points, *estimates: Tensor) -> Step:
    return Step(lead, reference, dict(zip(CURVES, estimates, strict=True)))


def decode(autoencoder: LatentAutoencoder, latent: Tensor, points: Points) -> Tensor:
    """Values (n, c) of latents (b, latent_len, latent_dim) at the points of b samples."""
    if isinstance(autoencoder.spec, GraphSpec):
        return autoencoder.decode_points(latent, points.coordinates, points.sample)
    coordinates = grid_coordinates(autoencoder.spec).to(latent.device)
    size = max(1, DECODED_POINTS // len(latent))
    parts = [autoencoder.decode(latent, part) for part in coordinates.split(size)]
    return torch.cat(parts, dim=1).flatten(0, 1)


@dataclass(frozen=True)
class MeanSquares:
    """What errors are made of: means over the points of each frame, (b, c) in squared units of the field.

    Attributes:
        errors: Curve -> of its error.
        power: Of the reference.
        variance: Of the reference about its mean over the points.
    """

    errors: Mapping[str, Tensor]
    power: Tensor
    variance: Tensor


def mean_squares(step: Step, spec: Spec) -> MeanSquares:
    """Means of squares at one lead."""
    points, values = step.reference, step.reference.values

    def mean(x: Tensor) -> Tensor:
        """(b, c) of values (n, c)."""
        if isinstance(spec, GraphSpec):
            return sample_means(x, points.sample, points.num_samples)
        return x.unflatten(0, (points.num_samples, -1)).mean(1)

    return MeanSquares(
        errors={curve: mean((estimate - values).square()) for curve, estimate in step.estimates.items()},
        power=mean(values.square()),
        variance=mean((values - mean(values)[points.sample]).square()),
    )
