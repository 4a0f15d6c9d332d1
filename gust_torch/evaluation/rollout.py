"""Rolls an operator out from true states and decodes what it predicts, beside two yardsticks.

Mean squares of its errors are kept of every rollout, and fields of one, for the picture.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gust_torch.evaluation.schedule import Schedule
from gust_torch.evaluation.source import read_leads
from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.frames import FrameSource
from gust_torch.metrics.errors import sample_means, variance_scale
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.points import Points, Spec, grid_coordinates, num_dims

CURVES = ("operator", "persistence", "autoencoder")
"""The rollout; the frame at lead 0, kept; and each true frame, encoded and decoded: the operator's floor."""

# Bounds the memory of decoding a batch of large grids: 64 Ki queries of some thousand numbers each.
DECODED_POINTS = 1 << 16
# A picture of space and time shows no more rows; of the plane or of particles, a panel for each.
SPACE_TIME_LEADS, PANEL_LEADS = 256, 3


def roll_out(
    operator: LatentOperator, source: FrameSource, schedule: Schedule, rollouts: slice, parameters: Tensor
) -> Iterator[tuple[Points, dict[str, Tensor]]]:
    """Yield the truth and curve -> estimate (n, c) of it at lead 0, 1, ... of those rollouts that reach it.

    Nothing of earlier leads but the latent state is kept. At lead 0, the start, the operator gives what the
    autoencoder does. Moving particles are decoded where they truly are; for them, persistence is each one's
    own value at the start. Parameters of all rollouts (n, p) are raw; the operator is in evaluation mode.
    """
    autoencoder = operator.autoencoder
    parameters = parameters[rollouts]
    time_steps = torch.from_numpy(np.diff(schedule.times[rollouts])).float().to(parameters.device)
    for lead, (points, latent) in enumerate(read_leads(source, autoencoder, schedule.samples[rollouts])):
        floor = decode(autoencoder, latent, points)
        if lead == 0:
            start, state, estimate = points.values, latent, floor
        else:
            active = points.num_samples  # rollouts that ended are the last ones
            state = operator.step(state[:active], time_steps[:active, lead - 1], parameters[:active])
            estimate = decode(autoencoder, state, points)
        values = (estimate, start[: len(points.values)], floor)
        yield points, dict(zip(CURVES, values, strict=True))


def decode(autoencoder: LatentAutoencoder, latent: Tensor, points: Points) -> Tensor:
    """Values (n, c) of latents (b, latent_len, latent_dim) at the points of b samples."""
    if isinstance(autoencoder.spec, GraphSpec):
        return autoencoder.decode_points(latent, points.coordinates, points.sample)
    coordinates = grid_coordinates(autoencoder.spec).to(latent.device)
    size = max(1, DECODED_POINTS // len(latent))
    parts = [autoencoder.decode(latent, part) for part in coordinates.split(size)]
    return torch.cat(parts, dim=1).flatten(0, 1)


def mean_squares(points: Points, estimates: Mapping[str, Tensor], spec: Spec) -> dict[str, Tensor]:
    """Return what errors are made of: means (b, c) over the points of each frame, in squared field units.

    Of the error of each curve, and under the name of each metric what it divides by: the power of the
    reference for nRMSE, its `variance_scale` for VRMSE.
    """
    values = points.values

    def mean(x: Tensor) -> Tensor:
        if isinstance(spec, GraphSpec):
            return sample_means(x, points.sample, points.num_samples)
        return x.unflatten(0, (points.num_samples, -1)).mean(1)

    power = mean(values.square())
    variance = mean((values - mean(values)[points.sample]).square())
    errors = {curve: mean((estimate - values).square()) for curve, estimate in estimates.items()}
    return {**errors, "nrmse": power, "vrmse": variance_scale(variance, power)}


class Frame(NamedTuple):
    """A lead of the example, its time since the start, and (n, d), (n, c) and (n, c) values on the CPU."""

    lead: int
    time: float
    coordinates: NDArray[np.float32]
    reference: NDArray[np.float32]
    prediction: NDArray[np.float32]


class Example(NamedTuple):
    """Some leads of one rollout, in their order, with the number and the parameters of its trajectory."""

    trajectory: int
    parameters: dict[str, float]
    frames: tuple[Frame, ...]


def make_example(
    operator: LatentOperator, source: FrameSource, schedule: Schedule, row: int, parameters: Tensor
) -> Example:
    """Do one of the rollouts again and keep some of its leads; see `roll_out`."""
    times = schedule.times[row]
    num_leads = int((schedule.samples[row] >= 0).sum()) - 1
    wanted = example_leads(num_leads, space_time=num_dims(operator.spec) == 1)
    frames = []
    steps = roll_out(operator, source, schedule, slice(row, row + 1), parameters)
    for lead, (points, estimates) in enumerate(steps):
        if lead in wanted:
            values = (points.coordinates, points.values, estimates["operator"])
            arrays = (value.float().cpu().numpy().copy() for value in values)
            frames.append(Frame(lead, float(times[lead] - times[0]), *arrays))
    named = dict(zip(operator.parameter_names, parameters[row].tolist(), strict=True))
    return Example(schedule.trajectories[row], named, tuple(frames))


def example_leads(num_leads: int, *, space_time: bool) -> list[int]:
    """Leads to keep: evenly spaced from the start on, or a first, a middle and the last one."""
    if space_time:
        leads = np.linspace(0, num_leads, min(num_leads + 1, SPACE_TIME_LEADS))
    else:
        leads = np.geomspace(1, num_leads, PANEL_LEADS)
    return sorted({round(lead) for lead in leads.tolist()})
