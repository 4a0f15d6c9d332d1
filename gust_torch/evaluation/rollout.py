"""Rolls an operator out from true states and decodes what it predicts, beside two yardsticks.

Mean squares of its errors are kept of every rollout, and fields of one, for the picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gust_torch.evaluation.schedule import Rollout, stack_times
from gust_torch.evaluation.source import Reference
from gust_torch.graph_spec import GraphSpec
from gust_torch.metrics.points import sample_means
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.points import Points, Spec, grid_coordinates, num_dims

CURVES = ("operator", "persistence", "autoencoder")
"""The rollout; the frame at lead 0, kept; and each true frame, encoded and decoded: the operator's floor."""

# Bounds the memory of decoding a batch of large grids: 64 Ki queries of some thousand numbers each.
DECODED_POINTS = 1 << 16

# A picture of space and time shows no more rows; of the plane or of particles, a panel for each.
SPACE_TIME_LEADS, PANEL_LEADS = 256, 3


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
    frames = reference(rollouts)
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


@dataclass(frozen=True)
class Frame:
    """One lead.

    Attributes:
        lead: Its number; 0 is the start, where the prediction is what the autoencoder makes of the truth.
        time: Since the start.
        coordinates: (n, d).
        reference: (n, c).
        prediction: (n, c).
    """

    lead: int
    time: float
    coordinates: NDArray[np.float32]
    reference: NDArray[np.float32]
    prediction: NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """Some leads of one rollout, in their order.

    Attributes:
        trajectory: Its number in the file.
        parameters: Name -> value.
        frames: The leads.
    """

    trajectory: int
    parameters: dict[str, float]
    frames: tuple[Frame, ...]


@torch.inference_mode()
def make_example(
    operator: LatentOperator, reference: Reference, rollout: Rollout, parameters: Tensor
) -> Example:
    """Roll out one trajectory again and keep some of its leads.

    Args:
        operator: In evaluation mode.
        reference: True frames.
        rollout: The trajectory.
        parameters: (1, p).
    """
    wanted = set(example_leads(rollout.num_leads, space_time=num_dims(operator.spec) == 1))
    frames = []
    for step in roll_out(operator, reference, [rollout], parameters):
        if step.lead in wanted:
            frames.append(
                Frame(
                    lead=step.lead,
                    time=float(rollout.times[step.lead] - rollout.times[0]),
                    coordinates=_array(step.reference.coordinates),
                    reference=_array(step.reference.values),
                    prediction=_array(step.estimates["operator"]),
                )
            )
    values = dict(zip(operator.parameter_names, parameters[0].tolist(), strict=True))
    return Example(rollout.trajectory, values, tuple(frames))


def example_leads(num_leads: int, *, space_time: bool) -> list[int]:
    """Leads to keep: evenly spaced from the start on, or a first, a middle and the last one."""
    if space_time:
        leads = np.linspace(0, num_leads, min(num_leads + 1, SPACE_TIME_LEADS))
    else:
        leads = np.geomspace(1, num_leads, PANEL_LEADS)
    return sorted({round(lead) for lead in leads.tolist()})


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().cpu().numpy().copy()
    return array
